"""How the project is parsed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import duckdb
import pytest

from catalunya.errors import BuildFailed
from catalunya.settings import Settings
from catalunya.warehouse import dbt, dbt_parse, dbt_tests
from catalunya.warehouse.code import code_digest
from catalunya.warehouse.dbt_tests import compiled_tests, run_tests
from catalunya.warehouse.engines.duckdb import DuckDBWorkspace
from tests.factories import local_lake
from tests.project import ROOT, copy_small_home

PARSE_FORK_PARSE = """
import os, shutil, sys
from pathlib import Path
from catalunya.warehouse.code import code_digest
from catalunya.warehouse import dbt

def parse(home):
    nodes = dbt.parse(home / "dbt" / "mart", code_digest(home)).described["nodes"].values()
    assert {node["root_path"] for node in nodes if node["resource_type"] == "seed"} == {str(home / "dbt" / "mart")}

gone, here = map(Path, sys.argv[1:])
parse(gone)
shutil.rmtree(gone)
if os.fork() == 0:
    parse(here)
else:
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_what_is_forked_after_a_parse_can_parse_another_checkout_and_is_not_misled_by_the_first(tmp_path):
    """As Airflow's tasks are; the first checkout is gone by then, what dbt remembers of it is not."""
    homes = [str(copy_small_home(tmp_path / name)) for name in ("gone", "here")]
    forking = subprocess.Popen(
        [sys.executable, "-c", PARSE_FORK_PARSE, *homes],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        start_new_session=True,
    )
    try:
        assert forking.wait(600) == 0
    finally:
        if forking.poll() is None:
            os.killpg(forking.pid, signal.SIGKILL)
            forking.wait()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return copy_small_home(tmp_path / "home")


def parsed_anew(home):
    """The parse of a process that begins."""
    dbt_parse._parsed.cache_clear()
    return dbt.parse(home / "dbt" / "mart", code_digest(home))


def test_another_process_reads_the_kept_parse_and_does_not_parse(home, monkeypatch):
    first = parsed_anew(home)
    monkeypatch.setattr(dbt_parse, "call", lambda *_, **__: pytest.fail("parsed again"))
    again = parsed_anew(home)
    assert again.described == first.described
    for name in vars(first.manifest):
        if not name.startswith("_"):
            assert repr(getattr(again.manifest, name)) == repr(getattr(first.manifest, name)), name
    assert again.manifest.ref_lookup.find("population", "mart", None, again.manifest).name == "population"


def test_a_changed_model_is_parsed_again(home):
    parsed_anew(home)
    model = home / "dbt" / "mart" / "models" / "marts" / "population.sql"
    model.write_text(model.read_text() + "\n-- changed\n")
    assert "-- changed" in parsed_anew(home).described["nodes"]["model.mart.population"]["raw_code"]


def test_a_damaged_kept_parse_is_parsed_again_and_replaced(home, tmp_path):
    first = parsed_anew(home)
    [kept] = [file for file in (tmp_path / "cache" / "catalunya").iterdir() if not file.suffix]
    whole = kept.stat().st_size
    kept.write_bytes(kept.read_bytes()[: whole // 2])
    assert parsed_anew(home).described["nodes"] == first.described["nodes"]
    assert kept.stat().st_size > whole // 2


def test_a_test_warns_or_fails_as_it_is_configured_and_one_that_cannot_run_is_an_error(home, tmp_path):
    tests = home / "dbt" / "mart" / "tests"
    configured = {
        "two_are_tolerated": ("config(error_if='>2', warn_if='>1')", 2, "warn", 2),
        "three_are_not": ("config(error_if='>2', warn_if='>1')", 3, "fail", 3),
        "one_is_nothing": ("config(error_if='>2', warn_if='>1')", 1, "pass", 0),
        "only_a_warning": ("config(severity='warn')", 5, "warn", 5),
        "counted_otherwise": ("config(fail_calc='sum(n)')", 3, "fail", 6),
        "counted_to_a_limit": ("config(limit=2)", 5, "fail", 2),
    }
    for name, (config, rows, *_) in configured.items():
        text = f"{{{{ {config} }}}}\nselect n from range(1, {rows + 1}) as r (n) -- a comment\n"
        (tests / f"{name}.sql").write_text(text)
    (tests / "of_a_table_that_is_gone.sql").write_text("select * from marts.gone\n")
    lines: list[str] = []
    with duckdb.connect(tmp_path / "candidate.duckdb") as con:
        tests = compiled_tests(home / "dbt" / "mart", code_digest(home))
        results = run_tests(con, tests, lambda *_: (), lines.append)
    found = {result.name: result for result in results}
    for name, (_, _, status, failures) in configured.items():
        assert (found[name].status, found[name].failures) == (status, failures), name
    assert found["of_a_table_that_is_gone"].status == "error"
    assert "gone" in found["of_a_table_that_is_gone"].message
    assert len(lines) == len(found)


def test_compiled_tests_are_kept_and_compiled_again_when_the_project_changes(home, tmp_path, monkeypatch):
    project = home / "dbt" / "mart"
    test = project / "tests" / "something.sql"
    test.write_text("select 1 as n where false\n")
    [first] = [t for t in compiled_tests(project, code_digest(home)) if t.test.name == "something"]
    compiled_tests.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(dbt_tests, "call", lambda *_, **__: pytest.fail("compiled again"))
        assert first in compiled_tests(project, code_digest(home))
    test.write_text("select 2 as n where false\n")
    [second] = [t for t in compiled_tests(project, code_digest(home)) if t.test.name == "something"]
    assert "select 2" in second.query
    [kept] = [f for f in (tmp_path / "cache" / "catalunya").glob("*.tests") if "select 2" in f.read_text()]
    kept.write_bytes(kept.read_bytes()[:100])
    compiled_tests.cache_clear()
    assert second in compiled_tests(project, code_digest(home))


def test_a_test_that_dbt_cannot_compile_is_named(home):
    (home / "dbt" / "mart" / "tests" / "unknown.sql").write_text(
        "select 1 where {{ exceptions.raise_compiler_error('no such thing') if execute }}\n"
    )
    with pytest.raises(BuildFailed, match=r"(?s)test unknown .*no such thing"):
        compiled_tests(home / "dbt" / "mart", code_digest(home))


def test_a_kept_parse_of_another_user_is_not_read(home, tmp_path, monkeypatch):
    first = parsed_anew(home)
    monkeypatch.setattr(dbt_parse.Project, "loads", lambda _: pytest.fail("read"))
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert parsed_anew(home).described["nodes"] == first.described["nodes"]


@pytest.mark.parametrize("memory", [None, "500MB"])
def test_rows_that_break_a_test_are_named_with_and_without_a_limit_of_memory(home, tmp_path, memory):
    test = home / "dbt" / "mart" / "tests" / "broken.sql"
    test.write_text("{{ config(severity='warn') }}\nselect n from range(1, 6) as r (n)\n")
    database = tmp_path / dbt.CANDIDATE
    duckdb.connect(database).close()
    settings = Settings(CATALUNYA_DUCKDB_MEMORY=memory)
    workspace = DuckDBWorkspace(local_lake(tmp_path / "lake"), "candidate", database, settings)
    results = {one.name: one for one in workspace.test(home / "dbt" / "mart", code_digest(home))}
    assert results["broken"].examples == ("n=1", "n=2", "n=3")


def test_a_test_that_reads_the_environment_is_run_by_dbt_every_time(home, tmp_path, monkeypatch):
    test = home / "dbt" / "mart" / "tests" / "limited.sql"
    test.write_text("select n from range(1, 6) as r (n) where n > {{ env_var('LIMIT') }}\n")
    database = tmp_path / dbt.CANDIDATE
    duckdb.connect(database).close()
    workspace = DuckDBWorkspace(local_lake(tmp_path / "lake"), "candidate", database, Settings())
    for limit, failures in ((3, 2), (5, 0)):
        monkeypatch.setenv("LIMIT", str(limit))
        # As in a process of its own.
        dbt_parse._parsed.cache_clear()
        compiled_tests.cache_clear()
        results = {one.name: one for one in workspace.test(home / "dbt" / "mart", code_digest(home))}
        assert results["limited"].failures == failures
    assert not [*(tmp_path / "cache" / "catalunya").glob("*.tests")]


def test_a_user_without_a_home_has_a_cache_of_their_own(home, monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(dbt_parse.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))

    def no_home() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(dbt_parse.Path, "home", no_home)
    file = dbt_parse.cache_file(home / "dbt" / "mart", code_digest(home), "duckdb", ())
    assert file.parent == tmp_path / "tmp" / f"catalunya-cache-{os.getuid()}"
    dbt_parse.keep(file, b"kept")
    assert dbt_parse.read_kept(file) == b"kept"
