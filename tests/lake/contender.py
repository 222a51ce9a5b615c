"""Processes that want something of the lake at one moment: `python contender.py ROLE URL NUMBER LEASE_S`.

Each says "ready"; after a line on standard input all begin, each says how it went and keeps what it won until
it is killed. They are forked from one process, since 20 starts of Python would take longer than the tests.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from catalunya.errors import CatalunyaError
from catalunya.lake import pointer
from catalunya.lake.lock import lake_lock
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def take_lock(storage: Storage, name: str, lease_s: float, wait_for_start: Callable[[], None]) -> None:
    say("ready")
    wait_for_start()
    with lake_lock(storage, name, lease_s=lease_s):
        say("won", name)
        sys.stdin.read()


def swap_pointer(storage: Storage, name: str, _: float, wait_for_start: Callable[[], None]) -> None:
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
    role, url, number, lease_s = sys.argv[1:]
    begin = {"lock": take_lock, "pointer": swap_pointer}[role]
    gate, opener = os.pipe()
    for i in range(int(number)):
        if os.fork() == 0:
            os.close(opener)
            try:
                begin(open_lake(url), f"run-{i}", float(lease_s), lambda: os.read(gate, 1))
            except CatalunyaError as error:
                say("lost", type(error).__name__, error)
            os._exit(0)
    sys.stdin.readline()
    os.close(opener)
    for _ in range(int(number)):
        os.wait()


if __name__ == "__main__":
    main()
