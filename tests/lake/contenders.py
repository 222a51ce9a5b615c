"""Processes that want the same thing of a lake at one moment, for tests of locks and of the pointer.

Each says "ready" and begins when all are told to; each says how it ended and keeps what it won until it is killed. They
are forked from one process, because 20 starts of Python take longer than the tests.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from catalunya.errors import CatalunyaError
from catalunya.lake import pointer
from catalunya.lake.lock import lake_lock
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage


class Contenders:
    def __init__(self, role: str, url: str, number: int) -> None:
        self.number = number
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), role, url, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._lines() == ["ready"] * number

    def start(self) -> list[str]:
        """Let all begin at once; returns what each says: "won NAME" or "lost ERROR MESSAGE"."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._lines()

    def kill(self) -> None:
        """Send SIGKILL to all: nothing of their own can run any more."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def _lines(self) -> list[str]:
        assert self._process.stdout is not None
        return [self._process.stdout.readline().strip() for _ in range(self.number)]


@contextlib.contextmanager
def contenders(role: str, url: str, number: int = 1) -> Iterator[Contenders]:
    """As many processes, all ready and none begun; `role` is "lock" or "pointer"."""
    started = Contenders(role, url, number)
    try:
        yield started
    finally:
        started.kill()


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def take_lock(storage: Storage, name: str, wait_for_start: Callable[[], None]) -> None:
    say("ready")
    wait_for_start()
    with lake_lock(storage, name):
        say("won", name)
        sys.stdin.read()


def swap_pointer(storage: Storage, name: str, wait_for_start: Callable[[], None]) -> None:
    found = pointer.read(storage)
    new = pointer.Pointer(
        release_id=name,
        previous=found[0].release_id if found else None,
        swapped_at=datetime.now(UTC),
        run_id=name,
    )
    say("ready")
    wait_for_start()
    pointer.swap(storage, new, found[1] if found else None)
    say("won", name)


def main() -> None:
    role, url, number = sys.argv[1:]
    begin = {"lock": take_lock, "pointer": swap_pointer}[role]
    gate, opener = os.pipe()
    for i in range(int(number)):
        if os.fork() == 0:
            os.close(opener)
            try:
                begin(open_lake(url), f"run-{i}", lambda: os.read(gate, 1))
            except CatalunyaError as error:
                say("lost", type(error).__name__, error)
            os._exit(0)
    sys.stdin.readline()
    os.close(opener)
    for _ in range(int(number)):
        os.wait()


if __name__ == "__main__":
    main()
