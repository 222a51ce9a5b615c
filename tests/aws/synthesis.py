"""Synthesise the templates of the stacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from infrastructure.cdk import CdkError, node_environment
from infrastructure.parameters import ENVIRONMENTS
from tests.project import ROOT, missing

WORKER = "arn:aws:iam::111122223333:role/airflow"
"""Airflow's own role, outside of the stack."""
SYNTHESISE = """
import json, sys
from pathlib import Path
from infrastructure import app, parameters
given = json.loads(sys.argv[2])
made = app.build(Path(sys.argv[1]), *(parameters.parameters(name, given) for name in sys.argv[3:]))
{more}
made.synth()
"""


def synthesise(out: Path, zip_file: Path, *environments: str, more: str = "", **settings: Any) -> None:
    """Write the templates of `environments`, by default of both, to `out`; fails with the findings of cdk-nag.

    The app runs in a process of its own. `more` is code that adds to the app, called `made`.
    """
    given = {
        "package": str(zip_file), "alert_email": "nobody@example.org", "workers": [WORKER], **settings,
    }  # fmt: skip
    command = [sys.executable, "-c", SYNTHESISE.format(more=more), str(out), json.dumps(given)]
    command += environments or ENVIRONMENTS
    try:
        env = {**os.environ, **node_environment()}
    except CdkError as error:
        missing(str(error))
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    report = out / "validation-report.json"
    assert done.returncode == 0, report.read_text() if report.exists() else done.stderr
