"""The demo portal, the templates of the stacks and the package of the functions."""

from __future__ import annotations

import json
import platform
import sys
import zipfile
from collections.abc import Iterator

import pytest

from catalunya.demo import server
from catalunya.demo.server import RunningPortal
from infrastructure import package
from infrastructure.package import Package
from tests.aws.invocation import DAY
from tests.aws.policy import Account
from tests.aws.synthesis import synthesise


@pytest.fixture
def demo() -> Iterator[RunningPortal]:
    with server.running(day=DAY) as running:
        yield running


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Account]:
    """Environment to the account that its template makes, synthesised with an almost empty zip of the functions."""
    folder = tmp_path_factory.mktemp("cdk")
    with zipfile.ZipFile(folder / "functions.zip", "w") as archive:
        archive.writestr("catalunya/runs/aws_lambda.py", "")
    synthesise(folder / "out", folder / "functions.zip")
    return {
        name: Account(json.loads((folder / "out" / f"catalunya-{name}.template.json").read_text()))
        for name in ("development", "production")
    }


@pytest.fixture(params=["development", "production"])
def environment(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def account(templates: dict[str, Account], environment: str) -> Account:
    return templates[environment]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The functions' package for the Python and the processor of this machine."""
    architecture = {"aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), "x86_64")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return package.build(architecture, tmp_path_factory.mktemp("bundle"), version)
