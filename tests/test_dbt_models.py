"""dbt's statements, kept after the first build of a state of the project and run again by DuckDB."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pytest

from catalunya.build import build_models, code_digest
from catalunya.datasets.loader import load
from catalunya.errors import BuildFailed
from catalunya.settings import Settings
from catalunya.warehouse import dbt, dbt_models
from catalunya.warehouse.engines.duckdb import DuckDBEngine
from tests.factories import local_lake
from tests.project import copy_small_home

RUN = "20260105T060000Z-1a2b3c4d"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return copy_small_home(tmp_path / "home")


@pytest.fixture
def built(home, tmp_path, monkeypatch):
    """Builds the small marts from empty staged tables, as `run` does."""
    datasets = load(home / "datasets")
    engine = DuckDBEngine(local_lake(tmp_path / "lake"), Settings())
    commands: list[list[str]] = []
    invoke = dbt.invoke

    def build() -> tuple[dbt.Outcome, list[list[str]], list[str]]:
        commands.clear()
        lines: list[str] = []
        with engine.build(RUN, datasets, dict.fromkeys(datasets, ())) as (workspace, _):
            outcome = build_models(workspace, home, code_digest(home), lines.append)
        return outcome, list(commands), lines

    monkeypatch.setattr(
        dbt, "invoke", lambda command, **more: commands.append(command) or invoke(command, **more)
    )
    return build


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "catalunya").glob("*.models"))


def summary(outcome: dbt.Outcome) -> dict[str, tuple[str, ...]]:
    return {
        r.node_id: (r.kind, r.status, r.message, r.relation, *r.parents, *r.sources) for r in outcome.results
    }


def test_the_second_build_of_a_state_of_the_project_does_without_dbt_and_tells_the_same(built):
    first, commands, first_lines = built()
    assert commands == [dbt.BUILD]
    second, commands, lines = built()
    assert commands == []
    assert summary(second) == summary(first)
    assert second.marts == first.marts
    assert len(lines) == len(first_lines) == len(first.results)
    assert all(result.began_at and result.ended_at for result in second.results)


def test_a_changed_model_is_built_by_dbt_again(built, home):
    built()
    model = next((home / "dbt" / "mart" / "models" / "marts").glob("*.sql"))
    model.write_text(f"{model.read_text()}\n-- changed\n")
    assert built()[1] == [dbt.BUILD]
    assert built()[1] == []


def test_damaged_statements_are_made_again(built, tmp_path):
    built()
    [file] = kept(tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    assert built()[1] == [dbt.BUILD]
    assert built()[1] == []


def test_a_build_that_failed_keeps_nothing(built, home, tmp_path):
    model = next((home / "dbt" / "mart" / "models" / "marts").glob("*.sql"))
    model.write_text(f"{model.read_text()}\nlimit 'many'\n")
    with pytest.raises(BuildFailed, match=rf"model {model.stem}"):
        built()
    assert kept(tmp_path) == []


def test_a_node_that_cannot_be_built_is_named_and_what_reads_it_is_skipped(built, home, tmp_path):
    built()
    models = dbt_models.kept_models(home / "dbt" / "mart", code_digest(home))
    assert models is not None
    with duckdb.connect(tmp_path / dbt.CANDIDATE) as con:
        con.execute("create schema staging")
        outcome = dbt_models.run_models(con, models, threads=2)
    found = {result.name: result for result in outcome.results}
    assert len(found) == len(models.nodes)
    view = found["stg_population"]
    assert (view.status, view.kind) == ("error", "model")
    assert view.message.startswith(
        "Runtime Error in model stg_population (models/staging/stg_population.sql)\n  "
    )
    assert "staging.population" in view.message or "population" in view.message.partition("\n")[2]
    assert (found["population"].status, found["population"].message) == ("skipped", "")


def test_a_stop_interrupts_the_statements_that_run(built, home, tmp_path, monkeypatch):
    built()
    models = dbt_models.kept_models(home / "dbt" / "mart", code_digest(home))
    assert models is not None
    endless = "create table endless as select count(*) as n from range(10000000000) as a (n), range(10000000000) as b (m)"
    first = models.nodes[0]
    node = dbt_models.Node(first.result, endless, first.file, ())
    started = threading.Event()
    run = dbt_models._run
    monkeypatch.setattr(dbt_models, "_run", lambda *given: started.set() or run(*given))

    def stop(*_: object, **__: object) -> None:
        assert started.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(dbt_models, "wait", stop)
    with duckdb.connect(tmp_path / dbt.CANDIDATE) as con, pytest.raises(KeyboardInterrupt):
        dbt_models.run_models(con, dbt_models.Models((), (node,), ()), threads=1)


COMMAND = """
import sys
from catalunya.__main__ import main
try:
    main()
finally:
    print(sorted({"dbt.cli.main", "pandas", "polars", "pyarrow"} & set(sys.modules)))
"""


def test_a_project_that_was_built_before_needs_neither_dbt_nor_a_library_of_readers(small):
    """DuckDB imports pandas for every query with parameters, where it is installed."""
    for stage in ("build", "audit"):
        assert small(stage).code == 0
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, stage],
            env=small.variables(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == "[]", stage
