"""The pointer's neighbourhood: retention, releases never shown, rollback, and a swap that somebody else won."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from catalunya import release
from catalunya.errors import LakeCorrupt, UsageError
from catalunya.lake import layout, pointer, snapshot
from catalunya.lake.lock import Holder, Lock, LockLost, lake_lock
from catalunya.lake.pointer import Pointer, PointerMoved
from catalunya.lake.storage import Storage
from catalunya.release import (
    _is_deletable,
    apply_retention,
    current_release,
    discard_unpublished_releases,
    newest_whole_release,
    repair_pointer,
    roll_back,
    unknown_entries,
)
from tests.factories import DEFINITIONS, NOW, land, local_lake


@pytest.fixture
def lake(tmp_path: Path) -> Storage:
    return local_lake(tmp_path / "lake")


def put_release(
    lake: Storage,
    number: int,
    *,
    whole: bool = True,
    inputs: str = "",
    snapshots: dict[str, list[str]] | None = None,
) -> str:
    release_id = layout.make_id(NOW + timedelta(minutes=number), f"{number:08x}")
    lake.put(layout.release(release_id, "csv/population.csv"), b"year\n")
    record = {
        "release_id": release_id, "run_id": release_id, "released_at": NOW.isoformat(), "demo": False,
        "engine": "duckdb", "inputs_sha256": inputs or release_id, "snapshots": snapshots or {}, "datasets": {}, "stale": [],
        "rows": {}, "warnings": [], "tests": 0, "versions": {}, "code_revision": None,
    }  # fmt: skip
    if whole:
        lake.put(layout.release(release_id, "release.json"), json.dumps(record).encode())
    return release_id


def point_to(lake: Storage, release_id: str, previous: str | None = None) -> None:
    found = pointer.read(lake)
    new = Pointer(release_id=release_id, previous=previous, swapped_at=NOW, run_id=release_id)
    pointer.swap(lake, new, found[1] if found else None)


@pytest.fixture
def lock(lake: Storage) -> Iterator[Lock]:
    with lake_lock(lake, "r") as held:
        yield held


def test_retention_keeps_the_newest_the_current_and_the_one_before_it(lake, lock):
    ids = [put_release(lake, number) for number in range(6)]
    point_to(lake, ids[1], previous=ids[0])
    assert apply_retention(lake, 2, lock) == [ids[2], ids[3]]
    assert lake.folders(layout.RELEASES) == [ids[0], ids[1], ids[4], ids[5]]


def test_retention_deletes_nothing_while_there_are_few(lake, lock):
    ids = [put_release(lake, number) for number in range(2)]
    point_to(lake, ids[1], previous=ids[0])
    assert apply_retention(lake, 2, lock) == []


def test_retention_without_a_pointer_deletes_nothing(lake, lock):
    ids = [put_release(lake, number) for number in range(4)]
    assert apply_retention(lake, 2, lock) == []
    lake.put("current.json", b"{}")
    with pytest.raises(LakeCorrupt, match="catalunya repair"):
        apply_retention(lake, 2, lock)
    assert lake.folders(layout.RELEASES) == ids


class Losing:
    """A lock that is lost after so many looks at it."""

    def __init__(self, holder: Holder, looks: int) -> None:
        self.holder = holder
        self.looks = looks

    def check(self) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise LockLost("lost")


def test_retention_stops_at_the_release_before_which_the_lock_was_lost(lake, lock):
    ids = [put_release(lake, number) for number in range(6)]
    point_to(lake, ids[5], previous=ids[4])
    with pytest.raises(LockLost):
        apply_retention(lake, 2, Losing(lock.holder, 0))
    assert lake.folders(layout.RELEASES) == ids
    for looks in range(1, 30):
        with contextlib.suppress(LockLost):
            apply_retention(lake, 2, Losing(lock.holder, looks))
        assert set(ids[4:]) <= set(lake.folders(layout.RELEASES))
    # A release whose deletion was cut off is no longer whole, and goes with the unfinished ones.
    discard_unpublished_releases(lake, lock)
    assert lake.folders(layout.RELEASES) == ids[4:]


def test_retention_reads_the_pointer_again_before_each_release_it_deletes(lake, lock, monkeypatch):
    ids = [put_release(lake, number) for number in range(6)]
    point_to(lake, ids[5], previous=ids[4])
    is_deletable = _is_deletable

    def moved_meanwhile(*args: object) -> bool:
        if ids[0] not in lake.folders(layout.RELEASES) and pointer.read(lake)[0].release_id == ids[5]:
            point_to(lake, ids[2], previous=ids[1])
        return is_deletable(*args)

    monkeypatch.setattr(release, "_is_deletable", moved_meanwhile)
    assert apply_retention(lake, 2, lock) == [ids[0], ids[3]]
    assert lake.folders(layout.RELEASES) == [ids[1], ids[2], ids[4], ids[5]]


def test_only_unfinished_releases_are_discarded(lake, lock):
    shown, later, finished, broken = (
        put_release(lake, 0), put_release(lake, 1), put_release(lake, 2), put_release(lake, 3, whole=False),
    )  # fmt: skip
    point_to(lake, later, previous=shown)
    roll_back(lake, lock, run_id="r", now=NOW)
    assert discard_unpublished_releases(lake, lock) == [broken]
    assert lake.folders(layout.RELEASES) == [shown, later, finished]


def test_without_a_pointer_whole_releases_stay_and_what_is_no_release_is_left_alone(lake, lock, tmp_path):
    whole, broken = put_release(lake, 0), put_release(lake, 1, whole=False)
    lake.put("releases/backup/note.txt", b"mine")
    (tmp_path / "lake" / "releases" / "latest").symlink_to(whole)
    assert discard_unpublished_releases(lake, lock) == [broken]
    assert lake.folders(layout.RELEASES) == [whole, "backup"]
    assert unknown_entries(lake) == ["backup"]
    assert "releases/latest" in lake.ignored
    assert (tmp_path / "lake" / "releases" / "latest").is_symlink()
    assert newest_whole_release(lake).release_id == whole


def test_repair_points_to_the_newest_whole_release_and_only_when_the_pointer_is_wrong(lake, lock):
    older, newest = put_release(lake, 0), put_release(lake, 1)
    put_release(lake, 2, whole=False)
    lake.put("current.json", b'{"release_id": ')
    with pytest.raises(LakeCorrupt, match="catalunya repair"):
        current_release(lake)
    assert repair_pointer(lake, lock, run_id="r", now=NOW).release_id == newest
    with pytest.raises(UsageError, match="is right"):
        repair_pointer(lake, lock, run_id="r", now=NOW)
    lake.delete("current.json")
    assert repair_pointer(lake, lock, run_id="r", now=NOW, to=older).release_id == older
    lake.delete("current.json")
    with pytest.raises(UsageError, match=f"whole are: {older}, {newest}"):
        repair_pointer(lake, lock, run_id="r", now=NOW, to="20200101T000000Z-00000000")


def test_rollback_goes_to_the_one_before_or_to_the_one_named_and_nowhere_else(lake):
    ids = [put_release(lake, number) for number in range(3)]
    point_to(lake, ids[2], previous=ids[1])
    with lake_lock(lake, "r") as lock:
        assert roll_back(lake, lock, run_id="r", now=NOW)[0].release_id == ids[1]
        assert roll_back(lake, lock, run_id="r", now=NOW, to=ids[0])[0].release_id == ids[0]
        with pytest.raises(UsageError, match="nothing to roll back to"):
            roll_back(lake, lock, run_id="r", now=NOW)
        with pytest.raises(UsageError, match="is not kept; kept are"):
            roll_back(lake, lock, run_id="r", now=NOW, to="20200101T000000Z-00000000")
        with pytest.raises(UsageError, match="the current release already"):
            roll_back(lake, lock, run_id="r", now=NOW, to=ids[0])


def test_a_swap_that_somebody_else_won_leaves_their_release_shown(lake):
    ours, theirs = put_release(lake, 0), put_release(lake, 1)
    found = pointer.read(lake)
    point_to(lake, theirs)
    with pytest.raises(PointerMoved):
        pointer.swap(
            lake,
            Pointer(release_id=ours, previous=None, swapped_at=NOW, run_id=ours),
            found[1] if found else None,
        )
    assert current_release(lake).release_id == theirs


def test_a_pointer_to_a_release_that_is_gone_is_reported_with_a_hint_that_works(lake):
    good, gone = put_release(lake, 0), put_release(lake, 1, whole=False)
    point_to(lake, gone, previous=good)
    with pytest.raises(LakeCorrupt, match="catalunya repair"):
        current_release(lake)
    with lake_lock(lake, "r") as lock:
        assert repair_pointer(lake, lock, run_id="r", now=NOW).release_id == good
    assert current_release(lake).release_id == good


def test_a_rollback_that_was_killed_after_its_swap_is_ended_by_the_same_command(lake, lock, monkeypatch):
    definition = DEFINITIONS["social_services"]
    landed = land(lake, definition, [[]]).snapshot_id
    first, second = put_release(lake, 0), put_release(lake, 1, snapshots={definition.id: [landed]})
    point_to(lake, second, previous=first)
    roll_back(lake, lock, run_id="r", now=NOW)
    assert list(snapshot.refused(lake, definition.id)) == [landed]

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "lift", killed)
        with pytest.raises(KeyboardInterrupt):
            roll_back(lake, lock, run_id="r", now=NOW, to=second)
    assert roll_back(lake, lock, run_id="r", now=NOW, to=second)[0].release_id == second
    assert snapshot.refused(lake, definition.id) == {}
    with pytest.raises(UsageError, match="is the current release already"):
        roll_back(lake, lock, run_id="r", now=NOW, to=second)
