"""The command `catalunya` on a lake in the emulator of Athena, and clients of AWS that talk to it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from catalunya.settings import PORTAL_VARIABLES
from tests.project import ROOT

if TYPE_CHECKING:
    from tools.athena_emulator.environment import Environment

DAYS = [date(2026, 1, 5), date(2026, 2, 2), date(2026, 3, 2), date(2026, 4, 6), date(2026, 5, 4)]
DIRTY = {DAYS[1], DAYS[3]}
"""Days on which the register has rows for the quarantine, and then it has not."""
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("CATALUNYA_", "AWS_", "ENVIRONMENT", "SOCRATA_"))
}


def client(emulator: Environment, service: str) -> Any:
    """Return a client of AWS that talks to the emulator."""
    import boto3

    endpoint = emulator.athena if service in {"athena", "glue"} else emulator.aws
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=emulator.region,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def new_bucket(emulator: Environment) -> str:
    """Create a bucket of its own and return its name."""
    name = f"lake-{uuid.uuid4().hex[:12]}"
    client(emulator, "s3").create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": emulator.region}
    )
    return name


@dataclass
class Answer:
    """Exit code, JSON and standard error of a command."""

    code: int
    json: dict[str, Any]
    stderr: str


@dataclass
class Command:
    """`catalunya` on a lake in the emulator."""

    emulator: Environment
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
        return {**CLEAN, **self.emulator.variables(), **own, **self.env}

    def read_from(self, url: str) -> None:
        """Read the portals at this address from now on."""
        self.env |= dict.fromkeys(PORTAL_VARIABLES, url)

    def __call__(self, *arguments: str, **env: str) -> Answer:
        done = subprocess.run(
            [sys.executable, "-m", "catalunya", *arguments, "--json"],
            env={**self.variables(), **env}, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return Answer(done.returncode, json.loads(done.stdout or "{}"), done.stderr)


def add_bad_rows(command: Command) -> None:
    """Put bad rows into the newest landed register: for the quarantine, with invalid values, with invisible characters."""
    s3 = client(command.emulator, "s3")
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=command.bucket, Prefix="lake/landing/social_services/"
    )
    newest = max(entry["Key"] for page in pages for entry in page["Contents"]).rpartition("/")[0]

    def read(name: str) -> Any:
        return json.loads(s3.get_object(Bucket=command.bucket, Key=f"{newest}/{name}")["Body"].read())

    manifest = read("manifest.json")
    for file in manifest["files"]:
        rows = [_with_bad_values(place, row) for place, row in enumerate(read(file["name"]))]
        data = json.dumps(rows, ensure_ascii=False).encode()
        file |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        s3.put_object(Bucket=command.bucket, Key=f"{newest}/{file['name']}", Body=data)
    s3.put_object(Bucket=command.bucket, Key=f"{newest}/manifest.json", Body=json.dumps(manifest).encode())


def _with_bad_values(place: int, row: dict[str, Any]) -> dict[str, Any]:
    if place % 900 == 7:
        return {**row, "tipologia": None}
    if place % 900 == 8:
        return {**row, "capacitat": "n/d", "inscripcio": "sense data"}
    if place % 900 == 9:
        return {**row, "nom": f"\u200b{row['nom']}\u00a0\u00a0", "municipi": f"{row['municipi']}\u00ad\ufeff"}
    return row
