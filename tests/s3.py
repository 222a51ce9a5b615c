"""A pytest plugin: an S3 server on loopback (ministack, in an environment of its own outside the project's).

`s3_emulator` is the server, one a session and worker; `s3_bucket` is a new bucket to which the environment leads.
"""

from __future__ import annotations

import os
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.project import missing
from tools.athena_emulator import ministack
from tools.athena_emulator.install import NotInstalled
from tools.athena_emulator.install import ministack as install_ministack


@dataclass(frozen=True)
class S3Emulator:
    endpoint: str
    env: dict[str, str]
    """The standard AWS variables that lead to this server."""

    def new_bucket(self, name: str = "") -> str:
        name = name or f"lake-{uuid.uuid4().hex[:12]}"
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        with urllib.request.urlopen(request, timeout=600):
            return name


@pytest.fixture(scope="session")
def s3_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Emulator]:
    with running(tmp_path_factory.mktemp("ministack"), "s3") as emulator:
        yield emulator


@pytest.fixture
def s3_bucket(s3_emulator: S3Emulator, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_emulator.env.items():
        monkeypatch.setenv(name, value)
    return s3_emulator.new_bucket()


@contextmanager
def running(
    folder: Path, *services: str, script: Path | None = None, region: str = "us-east-1", **more: str
) -> Iterator[S3Emulator]:
    """Run a server of these services of AWS (of all when none is named), with `more` in its environment.

    `script` starts the server instead of its own command.
    """
    installed()
    with ministack.running(folder, services, script, **more) as endpoint:
        yield S3Emulator(
            endpoint,
            {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_REGION": region,
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
            },
        )


def installed() -> Path:
    """The emulator's command; installs it once for every checkout of this machine."""
    try:
        return install_ministack()
    except NotInstalled as fault:
        missing(f"no S3 emulator: {fault}")
