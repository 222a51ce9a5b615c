"""One stand-in for all tests that need it, and lakes in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from catalunya import datasets as cards
from catalunya.demo import portal
from catalunya.demo.portal import RunningPortal
from standin.install import NotInstalled
from standin.stand import REGION, Stand, running
from tests.conftest import ROOT, missing

DAYS = [date(2026, 1, 5), date(2026, 2, 2), date(2026, 3, 2), date(2026, 4, 6), date(2026, 5, 4)]
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("CATALUNYA_", "AWS_", "ENVIRONMENT", "SOCRATA_"))
}


@pytest.fixture(scope="session")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """The stand-in, one for the session."""
    for package in ("boto3", "pyathena", "dbt.adapters.athena", "dbt.adapters.trino"):
        pytest.importorskip(package, reason=f"{package} is missing: run `make test-aws`")
    try:
        with running(tmp_path_factory.mktemp("standin")) as up:
            yield up
    except NotInstalled as fault:
        missing(str(fault))


@pytest.fixture
def aws(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> Stand:
    """The stand-in, with this process's environment leading there."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "CATALUNYA_", "ENVIRONMENT"))]:
        monkeypatch.delenv(name)
    for name, value in stand.env().items():
        monkeypatch.setenv(name, value)
    return stand


def client(stand: Stand, service: str) -> Any:
    """A client of AWS that talks to the stand-in."""
    import boto3

    endpoint = stand.athena if service in {"athena", "glue"} else stand.aws
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def new_bucket(stand: Stand) -> str:
    """A bucket of its own."""
    name = f"lake-{uuid.uuid4().hex[:12]}"
    client(stand, "s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return name


@dataclass
class Answer:
    """What a command answered."""

    code: int
    json: dict[str, Any]
    words: str


@dataclass
class Command:
    """`catalunya` on a lake in the stand-in."""

    stand: Stand
    bucket: str
    env: dict[str, str] = field(default_factory=dict)

    @property
    def lake(self) -> str:
        return f"s3://{self.bucket}/lake"

    def variables(self) -> dict[str, str]:
        own = {
            "CATALUNYA_LAKE": self.lake,
            "CATALUNYA_SCHEMA": f"marts_{self.bucket[-6:]}",
            "CATALUNYA_ATHENA_RESULTS": f"s3://{self.bucket}/results/",
            "CATALUNYA_ATHENA_POLL": "0.1",
            "CATALUNYA_HTTP_ATTEMPTS": "2",
        }
        return {**CLEAN, **self.stand.env(), **own, **self.env}

    def at(self, url: str) -> None:
        """Read the portals at this address from now on."""
        names = ("CATALUNYA_SOCRATA_URL", "CATALUNYA_IDESCAT_URL", "CATALUNYA_ICGC_URL")
        self.env |= dict.fromkeys(names, url)

    def __call__(self, *words: str, **env: str) -> Answer:
        done = subprocess.run(
            [sys.executable, "-m", "catalunya.cli", *words, "--json"],
            env={**self.variables(), **env}, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return Answer(done.returncode, json.loads(done.stdout or "{}"), done.stderr)


@pytest.fixture(scope="session")
def five_snapshots(stand: Stand) -> Command:
    """A lake with five snapshots of the demo portal at full size, staged; nothing is built."""
    command = Command(stand, new_bucket(stand))
    for day in DAYS:
        with portal.running(day=day) as at:
            command.at(at.url)
            for stage in ("ingest", "stage"):
                answer = command(stage, CATALUNYA_NOW=f"{day}T06:00:00Z")
                assert answer.code == 0, answer.words
    return command


@pytest.fixture
def demo() -> Iterator[RunningPortal]:
    with portal.running(day=DAYS[0]) as at:
        yield at


@pytest.fixture(scope="session")
def datasets() -> dict[str, cards.Dataset]:
    return cards.load(Path(ROOT, "datasets"))
