"""Starts contenders and lets them go at one moment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CONTENDER = Path(__file__).with_name("contender.py")


class Contenders:
    def __init__(self, role: str, url: str, number: int, lease_s: float) -> None:
        self.number = number
        self._process = subprocess.Popen(
            [sys.executable, str(CONTENDER), role, url, str(number), str(lease_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._lines() == ["ready"] * number

    def go(self) -> list[str]:
        """Let all begin at once; what each says: "won NAME" or "lost ERROR MESSAGE"."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._lines()

    def kill(self) -> None:
        """SIGKILL to all: nothing of their own can run any more."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def _lines(self) -> list[str]:
        assert self._process.stdout is not None
        return [self._process.stdout.readline().strip() for _ in range(self.number)]


@contextlib.contextmanager
def contenders(role: str, url: str, number: int = 1, lease_s: float = 60.0) -> Iterator[Contenders]:
    """As many processes, all ready and none begun."""
    started = Contenders(role, url, number, lease_s)
    try:
        yield started
    finally:
        started.kill()
