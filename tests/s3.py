"""A real S3 server on loopback for tests: ministack, in an environment of its own outside the project's.

Use it from a `conftest.py`: `from tests.s3 import S3Emulator, s3_bucket, s3_emulator  # noqa: F401`. `s3_emulator`
is the server (one a session and worker), `s3_bucket` a fresh bucket whose settings are in the environment.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import missing

MINISTACK = "1.5.33"
REPOSITORY = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "catalunya-test"


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


@pytest.fixture(scope="session")
def s3_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Emulator]:
    with running(tmp_path_factory.mktemp("ministack"), "s3") as emulator:
        yield emulator


@contextmanager
def running(folder: Path, services: str, **more: str) -> Iterator[S3Emulator]:
    """A server of these services of AWS, with `more` in its environment; its log is `folder / "log"`."""
    command = installed()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server_env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": services,
        "LOG_LEVEL": "WARNING",
        **more,
    }
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [command],
            env=server_env,
            cwd=folder,
            stdout=log,
            stderr=log,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _wait_until_up(endpoint, server, folder / "log")
        yield S3Emulator(
            endpoint,
            {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
            },
        )
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture
def s3_bucket(s3_emulator: S3Emulator, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_emulator.env.items():
        monkeypatch.setenv(name, value)
    return s3_emulator.new_bucket()


def installed() -> Path:
    """The emulator's command; installs it once for every checkout of this machine."""
    folder = CACHE / f"ministack-{MINISTACK}"
    command = folder / "bin" / "ministack"
    own_uv = REPOSITORY / ".uv" / "bin" / "uv"
    uv = str(own_uv) if own_uv.exists() else shutil.which("uv")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "complete").exists():
            return command
        if uv is None:
            missing("no S3 emulator: `uv` is needed to install ministack")
        shutil.rmtree(folder, ignore_errors=True)
        for step in (
            [uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(folder), f"ministack=={MINISTACK}"],
        ):
            done = subprocess.run(step, capture_output=True, text=True, cwd=CACHE, check=False)
            if done.returncode:
                missing(f"no S3 emulator: ministack {MINISTACK} could not be installed: {done.stderr}")
        (folder / "complete").touch()
    return command


def _end_with_parent() -> None:
    """Ask Linux to end the server too when the tests are killed (`prctl(2)`, PR_SET_PDEATHSIG = 1)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _wait_until_up(endpoint: str, server: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < give_up:
        try:
            with urllib.request.urlopen(f"{endpoint}/_ministack/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"ministack did not start: {log.read_text()}")
