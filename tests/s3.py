"""A real S3 server on loopback for tests: ministack, in an environment of its own outside the project's.

Tests use it through the fixtures `s3_emulator` and `s3_bucket` of `tests/conftest.py`.
"""

from __future__ import annotations

import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from standin.emulator import emulator
from standin.install import NotInstalled, ministack
from tests.conftest import missing


@dataclass(frozen=True)
class S3Emulator:
    endpoint: str
    env: dict[str, str]
    """The standard AWS variables that lead to this server."""

    def new_bucket(self) -> str:
        name = f"lake-{uuid.uuid4().hex[:12]}"
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        with urllib.request.urlopen(request, timeout=10):
            return name


@contextmanager
def running(folder: Path, *services: str, **more: str) -> Iterator[S3Emulator]:
    """A server of these services of AWS, of all without any, with `more` in its environment; see `standin.emulator`."""
    installed()
    with emulator(folder, services, **more) as endpoint:
        yield S3Emulator(
            endpoint,
            {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
            },
        )


def installed() -> Path:
    """The emulator's command; installs it once for every checkout of this machine."""
    try:
        return ministack()
    except NotInstalled as fault:
        missing(f"no S3 emulator: {fault}")
