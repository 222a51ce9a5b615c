"""How the project is parsed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from catalunya.build import code_digest
from catalunya.warehouse import dbt
from tests.project import ROOT, copy_untested

PARSE_FORK_PARSE = """
import os, shutil, sys
from pathlib import Path
from catalunya.build import code_digest
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
    homes = [str(copy_untested(tmp_path / name)) for name in ("gone", "here")]
    forking = subprocess.Popen(
        [sys.executable, "-c", PARSE_FORK_PARSE, *homes],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        start_new_session=True,
    )
    try:
        assert forking.wait(120) == 0
    finally:
        if forking.poll() is None:
            os.killpg(forking.pid, signal.SIGKILL)
            forking.wait()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return copy_untested(tmp_path / "home")


def parsed_anew(home):
    """The parse of a process that begins."""
    dbt._parsed.cache_clear()
    return dbt.parse(home / "dbt" / "mart", code_digest(home))


def test_another_process_reads_the_kept_parse_and_does_not_parse(home, monkeypatch):
    first = parsed_anew(home)
    monkeypatch.setattr(dbt, "_call", lambda *_, **__: pytest.fail("parsed again"))
    again = parsed_anew(home)
    assert again.described == first.described
    for name in vars(first.manifest):
        if not name.startswith("_"):
            assert repr(getattr(again.manifest, name)) == repr(getattr(first.manifest, name)), name
    assert again.manifest.ref_lookup.find("dim_comarca", "mart", None, again.manifest).name == "dim_comarca"


def test_a_changed_model_is_parsed_again(home):
    parsed_anew(home)
    model = home / "dbt" / "mart" / "models" / "marts" / "dim_comarca.sql"
    model.write_text(model.read_text() + "\n-- changed\n")
    assert "-- changed" in parsed_anew(home).described["nodes"]["model.mart.dim_comarca"]["raw_code"]


def test_a_damaged_kept_parse_is_parsed_again_and_replaced(home, tmp_path):
    first = parsed_anew(home)
    [kept] = [file for file in (tmp_path / "cache" / "catalunya").iterdir() if file.suffix != ".msgpack"]
    whole = kept.stat().st_size
    kept.write_bytes(kept.read_bytes()[: whole // 2])
    assert parsed_anew(home).described["nodes"] == first.described["nodes"]
    assert kept.stat().st_size > whole // 2
