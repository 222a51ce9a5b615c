"""dbt's statements, kept after the first build of a state of the project and run again by DuckDB."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pytest

from catalunya.build import build_models
from catalunya.datasets.loader import load
from catalunya.errors import BuildFailed
from catalunya.settings import Settings
from catalunya.warehouse import dbt, dbt_models
from catalunya.warehouse.code import code_digest
from catalunya.warehouse.dbt_tests import compiled_tests
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
    found: list[str] = []
    invoke = dbt.invoke

    def build(query: str = "select 1", at: Path = home) -> tuple[dbt.Outcome, list[list[str]], list[str]]:
        commands.clear()
        found.clear()
        lines: list[str] = []
        with engine.build(RUN, datasets, dict.fromkeys(datasets, ())) as (workspace, _):
            outcome = build_models(workspace, at, code_digest(at), lines.append)
            found.extend(workspace.sample(query, 10))
        return outcome, list(commands), lines

    monkeypatch.setattr(
        dbt, "invoke", lambda command, **more: commands.append(command) or invoke(command, **more)
    )
    build.found = found
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


@pytest.mark.parametrize("name", ["columns.md", "more.yaml", "logs/marts.SQL"])
def test_every_file_that_dbt_reads_is_part_of_the_state_of_the_project(home, name):
    before = code_digest(home)
    file = home / "dbt" / "mart" / "models" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("-- new\n")
    assert code_digest(home) != before
    changed = code_digest(home)
    target = home / "dbt" / "mart" / "target"
    target.mkdir()
    (target / "made.sql").write_text("-- made by dbt\n")
    assert code_digest(home) == changed


@pytest.mark.parametrize(
    "content",
    [lambda kept: kept[:100], lambda _: b'{"schemas":[],"nodes":[],"marts":[]}'],
    ids=["cut", "empty"],
)
def test_damaged_statements_are_made_again(content, built, tmp_path):
    built()
    [file] = kept(tmp_path)
    file.write_bytes(content(file.read_bytes()))
    assert built()[1] == [dbt.BUILD]
    assert built()[1] == []


OTHER_MODEL = "dbt/mart/models/staging/other.sql"
OTHER = {
    "a hook of every build": (
        "dbt/mart/dbt_project.yml",
        'on-run-start: ["create schema if not exists more"]\n',
    ),
    "a hook of a model": (OTHER_MODEL, "{{ config(post_hook='select 1') }} select 1 as n"),
    "an ephemeral model": (OTHER_MODEL, "{{ config(materialized='ephemeral') }} select 1 as n"),
    "an incremental model": (OTHER_MODEL, "{{ config(materialized='incremental') }} select 1 as n"),
    "a seed that is inserted": (
        "dbt/mart/dbt_project.yml",
        "seeds: {mart: {+schema: reference, +fast: false}}\n",
    ),
    "a setting of DuckDB": (
        "orchestration/dbt/profiles.yml",
        "catalunya: {target: duckdb, outputs: {duckdb: {type: duckdb, path: \"{{ env_var('CATALUNYA_CANDIDATE') }}\", "
        "schema: main, disable_transactions: true, settings: {TimeZone: UTC, integer_division: true}}}}\n",
    ),
    "an option of DuckDB": (
        "orchestration/dbt/profiles.yml",
        "catalunya: {target: duckdb, outputs: {duckdb: {type: duckdb, path: \"{{ env_var('CATALUNYA_CANDIDATE') }}\", "
        "schema: main, disable_transactions: true, settings: {TimeZone: UTC}, config_options: {threads: 1}}}}\n",
    ),
    "the clock": (OTHER_MODEL, "select '{{ run_started_at }}' as n"),
    "the environment": (OTHER_MODEL, "select '{{ env_var('HOME', '') }}' as n"),
    "a table": (OTHER_MODEL, "select '{{ run_query('select 1') }}' as n"),
    "a macro that reads a table": (
        OTHER_MODEL,
        "{% macro found() %}{% do adapter.get_relation('a', 'b', 'c') %}{% endmacro %}select '{{ found() }}' as n",
    ),
}


@pytest.mark.parametrize("kind", OTHER)
def test_what_dbt_would_make_otherwise_the_next_time_is_built_by_dbt_every_time(kind, built, home, tmp_path):
    name, text = OTHER[kind]
    before = (home / name).read_text() if name.endswith("dbt_project.yml") else ""
    if "seeds:" in text:
        before = before.partition("seeds:")[0]
    macro, end, model = text.partition("{% endmacro %}")
    if end:
        (home / "dbt" / "mart" / "macros" / "found.sql").write_text(macro + end)
    (home / name).write_text(before + (model if end else text))
    outcome, commands, _ = built()
    assert commands == [dbt.BUILD]
    assert {result.status for result in outcome.results} == {"success"}
    # So dbt builds it the next time, too.
    assert kept(tmp_path) == []


def test_a_project_that_is_edited_while_it_is_built_is_refused_and_nothing_is_kept(
    built, home, tmp_path, monkeypatch
):
    model = next((home / "dbt" / "mart" / "models" / "marts").glob("*.sql"))
    build_by_dbt = dbt_models.build_by_dbt

    def edited(*given: object) -> dbt.Outcome:
        model.write_text(f"{model.read_text()}\n-- edited\n")
        return build_by_dbt(*given)

    monkeypatch.setattr(dbt_models, "build_by_dbt", edited)
    with pytest.raises(BuildFailed, match="changed while it was built; run again"):
        built()
    assert [*(tmp_path / "cache" / "catalunya").glob("parse-*[!k]")] == []


def corrections_of(home: Path, dataset_id: str) -> None:
    """Write one correction into the seed."""
    seed = home / "dbt" / "mart" / "seeds" / "source_corrections.csv"
    [head] = seed.read_text().splitlines()
    seed.write_text(f"{head}\n{dataset_id}{',x' * head.count(',')}\n")


def test_options_of_dbt_in_the_environment_of_the_command_change_nothing(built, home, monkeypatch):
    corrections_of(home, "population")
    (home / OTHER_MODEL).write_text("select * from {{ ref('source_corrections') }}")
    for name in ("DBT_EMPTY", "DBT_WARN_ERROR"):
        monkeypatch.setenv(name, "1")
    for commands in ([dbt.BUILD], []):
        assert built("select count(*) > 0 as filled from staging.other")[1] == commands
        assert built.found == ["filled=True"]


def test_a_home_behind_a_link_that_moves_is_built_from_its_own_files(built, home, tmp_path):
    """As where a release of code is switched by a link."""
    other, link = copy_small_home(tmp_path / "other"), tmp_path / "current"
    corrections_of(home, "population")
    corrections_of(other, "elsewhere")
    query = "select distinct dataset_id from reference.source_corrections order by all"
    for where in (home, other):
        link.unlink(missing_ok=True)
        link.symlink_to(where)
        for at, of in ((link, where), (home, home)):
            built(query, at)
            assert built.found == [f"dataset_id={'population' if of is home else 'elsewhere'}"]
    link.unlink()
    assert built(query, home)[1] == []
    assert built.found == ["dataset_id=population"]


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


def test_a_run_in_one_process_keeps_models_and_tests(built, home, tmp_path):
    """dbt adds to its manifest what it runs."""
    built()
    assert compiled_tests(home / "dbt" / "mart", code_digest(home))
    assert len(kept(tmp_path)) == len([*(tmp_path / "cache" / "catalunya").glob("*.tests")]) == 1
