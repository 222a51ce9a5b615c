"""Synthesise the templates of the stacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from infrastructure.cdk import CdkError, node_environment
from tests.project import ROOT, missing

SYNTHESISE = """
import json, sys
from pathlib import Path
from infrastructure import app, parameters
given = json.loads(sys.argv[2])
made = app.build(Path(sys.argv[1]), *(parameters.parameters(name, given) for name in parameters.ENVIRONMENTS))
{more}
made.synth()
"""


def synthesise(out: Path, zip_file: Path, *, more: str = "", **settings: Any) -> None:
    """Write the templates to `out`, by the app in a process of its own; fails with the findings of cdk-nag.

    `more` is code that adds to the app, called `made`.
    """
    given = {"package": str(zip_file), "alert_email": "nobody@example.org", **settings}
    command = [sys.executable, "-c", SYNTHESISE.format(more=more), str(out), json.dumps(given)]
    try:
        env = {**os.environ, **node_environment()}
    except CdkError as error:
        missing(str(error))
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    report = out / "validation-report.json"
    assert done.returncode == 0, report.read_text() if report.exists() else done.stderr
