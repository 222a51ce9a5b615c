"""Processes that run beside this one on loopback, and end with it."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

LOOPBACK = "127.0.0.1"
TERMINATE_S = 20.0
KILL_S = 5.0


def free_port() -> int:
    """Return a port of loopback on which no process listens."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Tell whether a process could listen on the port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


@contextmanager
def process_group(
    command: Sequence[str | Path], *, env: Mapping[str, str], folder: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process group of its own, which is ended on leaving, and when this process is killed."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
    try:
        yield process
    finally:
        for number, timeout_s in ((signal.SIGTERM, TERMINATE_S), (signal.SIGKILL, KILL_S)):
            _end(process, number, timeout_s)


def _end(process: subprocess.Popen[bytes], number: signal.Signals, timeout_s: float) -> None:
    """Send the signal to the group until no process of it runs, or the time is over."""
    deadline = time.monotonic() + timeout_s
    try:
        os.killpg(process.pid, number)
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            if sys.platform == "linux" and not _running(process.pid):
                return
            time.sleep(0.05)
    except ProcessLookupError:
        return


def _running(group: int) -> bool:
    """Tell whether a process of the group has not ended; one that has may wait long for the init process to notice."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp, *_ = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(pgrp) == group and state not in "ZX":
            return True
    return False


def _end_with_parent() -> None:
    """Ask Linux to end the process when its parent is killed: prctl(2), PR_SET_PDEATHSIG = 1."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
