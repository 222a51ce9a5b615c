"""Functions and infrastructure, against emulators on loopback."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from catalunya.demo import server
from catalunya.demo.server import RunningPortal
from catalunya.settings import PORTAL_VARIABLES
from infrastructure import package
from infrastructure.package import Package
from tests.aws.policy import Account
from tests.conftest import ROOT, missing

SYNTHESISE = """
import json, sys
from pathlib import Path
from infrastructure import app
made = app.build(Path(sys.argv[1]), json.loads(sys.argv[2]))
{more}
made.synth()
"""
DAY = date(2026, 1, 5)


@dataclass
class Invocation:
    """What AWS would say of an invocation."""

    aws_request_id: str = "request-1"
    memory_limit_in_mb: str = "1024"

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


@pytest.fixture
def demo() -> Iterator[RunningPortal]:
    with server.running(day=DAY) as running:
        yield running


def variables(bucket: str, url: str) -> dict[str, str]:
    """The environment of a function whose lake is `bucket` and whose portals are at `url`."""
    portals = dict.fromkeys(PORTAL_VARIABLES, url)
    own = {
        "ENVIRONMENT": "production",
        "CATALUNYA_LAKE": f"s3://{bucket}/lake",
        "CATALUNYA_HTTP_ATTEMPTS": "1",
    }
    return {**own, **portals}


def order(dataset: str, **more: Any) -> dict[str, Any]:
    return {"run_id": "20260105T060000Z-1a2b3c4d", "dataset": dataset, **more}


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Account]:
    """Environment to what its stack makes of an account, synthesised with a stand-in for the functions' zip."""
    folder = tmp_path_factory.mktemp("cdk")
    with zipfile.ZipFile(folder / "functions.zip", "w") as archive:
        archive.writestr("catalunya/runs/aws_lambda.py", "")
    synthesise(folder / "out", folder / "functions.zip")
    return {
        name: Account(json.loads((folder / "out" / f"catalunya-{name}.template.json").read_text()))
        for name in ("development", "production")
    }


def synthesise(out: Path, zip_file: Path, *, more: str = "", **context: str) -> None:
    """The templates, by the app in a process of its own; fails with what cdk-nag found.

    `more` is code that adds to the app, called `made`.
    """
    given = {"package": str(zip_file), "alert_email": "nobody@example.org", **context}
    words = [sys.executable, "-c", SYNTHESISE.format(more=more), str(out), json.dumps(given)]
    env = {**os.environ, "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1"}
    if shutil.which("node") is None:
        missing("node is missing: the templates are synthesised by it")
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    report = out / "validation-report.json"
    assert done.returncode == 0, report.read_text() if report.exists() else done.stderr


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The functions' package for the Python and the processor of this machine."""
    architecture = {"aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), "x86_64")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return package.build(architecture, tmp_path_factory.mktemp("bundle"), version)
