"""Synthesise the templates of the stacks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.project import ROOT, missing

WORKER = "arn:aws:iam::111122223333:role/airflow"
"""Airflow's own role, outside of the stack."""
SYNTHESISE = """
import json, sys
from pathlib import Path
from infrastructure import app
made = app.build(Path(sys.argv[1]), json.loads(sys.argv[2]))
{more}
made.synth()
"""


def synthesise(out: Path, zip_file: Path, *, more: str = "", **context: str) -> None:
    """Write the templates to `out`, by the app in a process of its own; fails with the findings of cdk-nag.

    `more` is code that adds to the app, called `made`.
    """
    given = {
        "package": str(zip_file), "alert_email": "nobody@example.org", "workers": WORKER, **context,
    }  # fmt: skip
    command = [sys.executable, "-c", SYNTHESISE.format(more=more), str(out), json.dumps(given)]
    env = {**os.environ, "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1"}
    if shutil.which("node") is None:
        missing("node is missing: the templates are synthesised by it")
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    report = out / "validation-report.json"
    assert done.returncode == 0, report.read_text() if report.exists() else done.stderr
