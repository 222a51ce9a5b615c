"""Starts contenders and lets them go at one moment."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CONTENDER = Path(__file__).with_name("contender.py")


class Contender:
    def __init__(self, role: str, url: str, name: str, lease_s: float = 60.0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CONTENDER), role, url, name, str(lease_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL: nothing of its own can run any more."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def contenders(role: str, url: str, number: int, lease_s: float = 60.0) -> Iterator[list[Contender]]:
    """As many processes, all ready and none begun."""
    started = [Contender(role, url, f"run-{i}", lease_s) for i in range(number)]
    try:
        for one in started:
            assert one.line() == "ready"
        yield started
    finally:
        for one in started:
            one.kill()
            one.process.stdin.close() if one.process.stdin else None
            one.process.stdout.close() if one.process.stdout else None
