"""One stand-in for all tests that need it, and lakes in it."""

from __future__ import annotations

import hashlib
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

from catalunya.datasets import loader
from catalunya.datasets.model import Dataset
from catalunya.demo import server
from catalunya.demo.server import RunningPortal
from catalunya.settings import PORTAL_VARIABLES
from standin.install import NotInstalled
from standin.stand import REGION, Stand, running
from tests.conftest import ROOT, missing

DAYS = [date(2026, 1, 5), date(2026, 2, 2), date(2026, 3, 2), date(2026, 4, 6), date(2026, 5, 4)]
DIRTY = {DAYS[1], DAYS[3]}
"""Days on which the register has rows for the quarantine, and then it has not."""
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
        names = PORTAL_VARIABLES
        self.env |= dict.fromkeys(names, url)

    def __call__(self, *words: str, **env: str) -> Answer:
        done = subprocess.run(
            [sys.executable, "-m", "catalunya", *words, "--json"],
            env={**self.variables(), **env}, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return Answer(done.returncode, json.loads(done.stdout or "{}"), done.stderr)


@pytest.fixture(scope="session")
def five_snapshots(stand: Stand) -> Command:
    """A lake with five snapshots of the demo portal at full size, two of them dirty, staged; nothing is built."""
    command = Command(stand, new_bucket(stand))
    for day in DAYS:
        with server.running(day=day) as at:
            command.at(at.url)
            for stage in ("ingest", "stage"):
                answer = command(stage, CATALUNYA_NOW=f"{day}T06:00:00Z")
                assert answer.code == 0, answer.words
                if stage == "ingest" and day in DIRTY:
                    _spoil(command)
            register = answer.json["datasets"]["social_services"]
            assert (register["rows_quarantined"] > 5) is (day in DIRTY), register
    return command


def _spoil(command: Command) -> None:
    """Put into the newest landed register what portals send at times: rows for the quarantine, values that are none,
    invisible characters."""
    s3 = client(command.stand, "s3")
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=command.bucket, Prefix="lake/landing/social_services/"
    )
    newest = max(entry["Key"] for page in pages for entry in page["Contents"]).rpartition("/")[0]

    def read(name: str) -> Any:
        return json.loads(s3.get_object(Bucket=command.bucket, Key=f"{newest}/{name}")["Body"].read())

    manifest = read("manifest.json")
    for file in manifest["files"]:
        rows = [_dirty(place, row) for place, row in enumerate(read(file["name"]))]
        data = json.dumps(rows, ensure_ascii=False).encode()
        file |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        s3.put_object(Bucket=command.bucket, Key=f"{newest}/{file['name']}", Body=data)
    s3.put_object(Bucket=command.bucket, Key=f"{newest}/manifest.json", Body=json.dumps(manifest).encode())


def _dirty(place: int, row: dict[str, Any]) -> dict[str, Any]:
    if place % 900 == 7:
        return {**row, "tipologia": None}
    if place % 900 == 8:
        return {**row, "capacitat": "n/d", "inscripcio": "sense data"}
    if place % 900 == 9:
        return {**row, "nom": f"\u200b{row['nom']}\u00a0\u00a0", "municipi": f"{row['municipi']}\u00ad\ufeff"}
    return row


@pytest.fixture
def demo() -> Iterator[RunningPortal]:
    with server.running(day=DAYS[0]) as at:
        yield at


@pytest.fixture(scope="session")
def datasets() -> dict[str, Dataset]:
    return loader.load(Path(ROOT, "datasets"))
