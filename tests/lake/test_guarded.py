"""Work that holds a lock ends when the lock is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import Mock, patch

import pytest

from catalunya.lake.lock import Lock, LockLost, lake_lock
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from tests.lake.faulty_proxy import FaultyProxy


def names(storage: Storage, prefix: str) -> list[str]:
    return [entry.key for entry in storage.list(prefix)]


THEIRS = b'{"holder": {"holder": "x", "host": "h", "pid": 1, "since": "2026-01-01T00:00Z"}, "lease_s": 60}'


def test_a_lease_lost_while_paused_inside_a_clean_up_ends_it_with_nothing_more_deleted(
    proxy: FaultyProxy,
) -> None:
    storage = open_lake(proxy.lake_url)
    for name in "abcd":
        storage.put(f"releases/{name}/release.json", b"{}")
    other = open_lake(proxy.lake_url)
    deletions = 0

    def pause(method: str, path: str, body: bytes) -> None:
        nonlocal deletions
        deletions += method == "POST" and b"<Delete" in body
        if deletions == 2 and method == "POST":
            # The second deletion is on its way; the holder is suspended, and another run takes the lake over.
            other.put("locks/run.json", THEIRS)

    with lake_lock(storage, "paused", lease_s=60) as lock:
        held = storage.guarded(lock)
        proxy.listener = pause
        with pytest.raises(LockLost, match="paused lost its lock"):
            for name in "abcd":
                held.delete_folder(f"releases/{name}")
        assert names(storage, "releases") == ["releases/c/release.json", "releases/d/release.json"]


def put_file(lake: Storage) -> None:
    path = lake.scratch() / "new"
    path.write_bytes(b"new")
    lake.put_file("a", path)


CHANGES: dict[str, Callable[[Storage], object]] = {
    "put": lambda lake: lake.put("a", b"new"),
    "create": lambda lake: lake.put("new", b"new", create=True),
    "put_file": put_file,
    "replace": lambda lake: lake.replace("a", b"new", lake.read_versioned("a")[1]),  # type: ignore[index]
    "copy": lambda lake: lake.copy("b", "a"),
    "delete": lambda lake: lake.delete("a"),
    "delete_folder": lambda lake: lake.delete_folder("folder"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_no_change_is_sent_after_the_lock_was_lost(
    lake: Storage, change: Callable[[Storage], object]
) -> None:
    for key in ("a", "b", "folder/c"):
        lake.put(key, key.encode())
    lock = SimpleNamespace(check=Mock(side_effect=LockLost("lost")))
    with pytest.raises(LockLost):
        change(lake.guarded(cast(Lock, lock)))
    kept = [entry.key for entry in lake.list() if not entry.key.startswith("locks/")]
    assert {key: lake.read(key) for key in kept} == {"a": b"a", "b": b"b", "folder/c": b"folder/c"}


def test_a_large_deletion_checks_the_lock_before_each_thousand_objects(proxy: FaultyProxy) -> None:
    storage = open_lake(proxy.lake_url)
    with patch("catalunya.lake.s3._DELETED_AT_ONCE", 3):
        for number in range(9):
            storage.put(f"releases/a/{number}", b"")
        with lake_lock(storage, "paused", lease_s=60) as lock:
            taken = False

            def take(method: str, path: str, body: bytes) -> None:
                nonlocal taken
                if method == "POST" and b"<Delete" in body and not taken:
                    taken = True
                    storage.put("locks/run.json", THEIRS)

            proxy.listener = take
            with pytest.raises(LockLost):
                storage.guarded(lock).delete_folder("releases/a")
    assert len(storage.list("releases/a")) == 6


def test_a_lock_file_removed_inside_a_clean_up_ends_it(local_lake: Storage) -> None:
    for name in "ab":
        local_lake.put(f"releases/{name}/release.json", b"{}")
    with lake_lock(local_lake, "run") as lock:
        held = local_lake.guarded(lock)
        held.delete_folder("releases/a")
        Path(local_lake.url, ".lake", "locks", "run.lock").unlink()
        with pytest.raises(LockLost):
            held.delete_folder("releases/b")
    assert names(local_lake, "releases") == ["releases/b/release.json"]
