"""Servers that run on loopback beside the tests and leave no process behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

_STOP_S = 15.0


class NotStarted(Exception):
    """A server did not start; the message holds the end of its log."""


def free_port() -> int:
    """Return a port of loopback that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def server(
    command: list[str],
    folder: Path,
    health: str,
    is_ready: Callable[[httpx.Response], bool],
    *,
    timeout_s: float,
    env: dict[str, str] | None = None,
) -> Iterator[None]:
    """Run a process in `folder`; on leaving it is gone with its children.

    It is up when a GET of `health` is answered with 2xx and `is_ready` accepts the answer. Raises `NotStarted`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), **(env or {})},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    try:
        _wait(process, health, is_ready, log, timeout_s)
        yield
    finally:
        _stop(process)


def _wait(
    process: subprocess.Popen[bytes],
    health: str,
    is_ready: Callable[[httpx.Response], bool],
    log: Path,
    timeout_s: float,
) -> None:
    deadline = time.monotonic() + timeout_s
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError, ValueError):
            answer = httpx.get(health, timeout=2, trust_env=False)
            if answer.is_success and is_ready(answer):
                return
        time.sleep(0.1)
    code = process.poll()
    state = f"is not up after {timeout_s:g} s" if code is None else f"ended with {code}"
    raise NotStarted(f"{log.parent.name} {state}: {log.read_text('utf-8', 'replace')[-3000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the whole process group to end, then kill it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)


def _end_with_parent() -> None:
    """Ask Linux to end the server too when its parent is killed (`prctl(2)`, PR_SET_PDEATHSIG = 1)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
