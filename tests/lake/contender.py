"""A process of its own that wants something of the lake: `python contender.py ROLE URL NAME [LEASE_S]`.

Says "ready", waits for a line on standard input, says how it went, and holds what it won until the input ends.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from catalunya.errors import CatalunyaError
from catalunya.lake import pointer
from catalunya.lake.lock import lake_lock
from catalunya.lake.storage import Storage


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def take_lock(storage: Storage, name: str, lease_s: float) -> None:
    with lake_lock(storage, name, lease_s=lease_s):
        say("won", name)
        sys.stdin.read()


def swap_pointer(storage: Storage, name: str, lease_s: float) -> None:
    found = pointer.read(storage)
    new = pointer.Pointer(
        release_id=name,
        previous=found[0].release_id if found else None,
        swapped_at=datetime.now(UTC),
        run_id=name,
    )
    say("ready")
    sys.stdin.readline()
    pointer.swap(storage, new, found[1] if found else None)
    say("won", name)


def main() -> None:
    role, url, name, *rest = sys.argv[1:]
    storage = Storage.open(url)
    lease_s = float(rest[0]) if rest else 60.0
    try:
        if role == "pointer":
            swap_pointer(storage, name, lease_s)
        else:
            say("ready")
            sys.stdin.readline()
            take_lock(storage, name, lease_s)
    except CatalunyaError as error:
        say("lost", type(error).__name__, error)


if __name__ == "__main__":
    main()
