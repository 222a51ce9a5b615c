"""One emulator of Athena for all tests that need it, and lakes in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from catalunya.datasets import loader
from catalunya.datasets.model import Dataset
from catalunya.demo import server
from catalunya.demo.server import RunningPortal
from tests.engines.command import DAYS, DIRTY, Command, add_bad_rows, new_bucket
from tests.project import ROOT, missing
from tools.athena_emulator.install import NotInstalled

if TYPE_CHECKING:
    from tools.athena_emulator.environment import Environment


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """The emulator, one for the session."""
    for package in ("boto3", "pyathena", "dbt.adapters.athena", "dbt.adapters.trino", "sqlglot"):
        pytest.importorskip(package, reason=f"{package} is missing: run `make test-aws`")
    from tools.athena_emulator.environment import running

    try:
        with running(tmp_path_factory.mktemp("emulator")) as environment:
            yield environment
    except NotInstalled as error:
        missing(str(error))


@pytest.fixture
def aws(emulator: Environment, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """The emulator, with the variables of this process leading to it."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "CATALUNYA_", "ENVIRONMENT"))]:
        monkeypatch.delenv(name)
    for name, value in emulator.variables().items():
        monkeypatch.setenv(name, value)
    return emulator


@pytest.fixture(scope="session")
def five_snapshots(emulator: Environment) -> Command:
    """A lake with five snapshots of the demo portal at full size, two of them with bad rows, staged; nothing is built."""
    command = Command(emulator, new_bucket(emulator))
    for day in DAYS:
        with server.running(day=day) as portal:
            command.read_from(portal.url)
            for stage in ("ingest", "stage"):
                answer = command(stage, CATALUNYA_NOW=f"{day}T06:00:00Z")
                assert answer.code == 0, answer.stderr
                if stage == "ingest" and day in DIRTY:
                    add_bad_rows(command)
            register = answer.json["datasets"]["social_services"]
            assert (register["rows_quarantined"] > 5) is (day in DIRTY), register
    return command


@pytest.fixture
def demo() -> Iterator[RunningPortal]:
    with server.running(day=DAYS[0]) as portal:
        yield portal


@pytest.fixture(scope="session")
def datasets() -> dict[str, Dataset]:
    return loader.load(Path(ROOT, "datasets"))
