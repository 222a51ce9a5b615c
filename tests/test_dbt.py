"""How the project is parsed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

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
        assert forking.wait(600) == 0
    finally:
        if forking.poll() is None:
            os.killpg(forking.pid, signal.SIGKILL)
            forking.wait()
