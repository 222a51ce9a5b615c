"""Servers that run beside the tests on loopback, and leave no process behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_STOP_S = 15.0


class NotStarted(Exception):
    """A server did not come up; the message holds the end of its log."""


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def server(
    command: list[str], env: dict[str, str], folder: Path, ready: Callable[[], bool], *, patience_s: float
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in `folder` that is up when `ready` says so and gone, with its children, on leaving."""
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    try:
        _wait(process, ready, log, patience_s)
        yield process
    finally:
        _stop(process)


def answers(url: str) -> bool:
    """True when a GET of `url` is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _wait(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path, patience_s: float) -> None:
    give_up = time.monotonic() + patience_s
    while process.poll() is None and time.monotonic() < give_up:
        if ready():
            return
        time.sleep(0.1)
    words = log.read_text("utf-8", "replace")[-3000:]
    state = (
        f"ended with {process.returncode}"
        if process.poll() is not None
        else f"is not up after {patience_s:g} s"
    )
    raise NotStarted(f"{log.parent.name} {state}: {words}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the whole process group to end, then insist."""
    for word in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, word)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            continue
        break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _end_with_parent() -> None:
    """Ask Linux to end the server too when its parent is killed (`prctl(2)`, PR_SET_PDEATHSIG = 1)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
