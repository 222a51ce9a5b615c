"""The pointer's neighbourhood: retention, releases never shown, rollback, and a swap that somebody else won."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from catalunya import publish
from catalunya.errors import LakeCorrupt, UsageError
from catalunya.lake import layout, pointer
from catalunya.lake.lock import lake_lock
from catalunya.lake.pointer import Pointer, PointerMoved
from catalunya.lake.storage import Storage
from tests.landing import NOW, open_lake


@pytest.fixture
def lake(tmp_path: Path) -> Storage:
    return open_lake(tmp_path / "lake")


def put_release(lake: Storage, number: int, *, whole: bool = True, inputs: str = "") -> str:
    release_id = layout.make_id(NOW + timedelta(days=number), f"{number:08x}")
    lake.put(layout.release(release_id, "csv/population.csv"), b"year\n")
    record = {
        "release_id": release_id, "run_id": release_id, "released_at": NOW.isoformat(), "demo": False,
        "engine": "duckdb", "inputs_sha256": inputs or release_id, "snapshots": {}, "datasets": {}, "stale": [],
        "rows": {}, "warnings": [], "tests": 0, "versions": {}, "code_revision": None,
    }  # fmt: skip
    if whole:
        lake.put(layout.release(release_id, "release.json"), json.dumps(record).encode())
    return release_id


def show(lake: Storage, release_id: str, previous: str | None = None) -> None:
    found = pointer.read(lake)
    new = Pointer(release_id=release_id, previous=previous, swapped_at=NOW, run_id=release_id)
    pointer.swap(lake, new, found[1] if found else None)


def test_retention_keeps_the_newest_the_current_and_the_one_before_it(lake):
    ids = [put_release(lake, number) for number in range(6)]
    show(lake, ids[1], previous=ids[0])
    assert publish.retain(lake, keep=2) == [ids[2], ids[3]]
    assert lake.folders(layout.RELEASES) == [ids[0], ids[1], ids[4], ids[5]]


def test_retention_deletes_nothing_while_there_are_few(lake):
    ids = [put_release(lake, number) for number in range(2)]
    show(lake, ids[1], previous=ids[0])
    assert publish.retain(lake, keep=2) == []


def test_releases_that_were_never_shown_are_discarded_and_withdrawn_ones_kept(lake):
    shown, withdrawn, finished, broken = (
        put_release(lake, 0), put_release(lake, 1, inputs="bad"), put_release(lake, 2), put_release(lake, 3, whole=False),
    )  # fmt: skip
    show(lake, withdrawn, previous=shown)
    with lake_lock(lake, "r") as lock:
        publish.rollback(lake, lock, run_id="r", now=NOW)
    assert publish.discard_unpublished(lake) == [finished, broken]
    assert lake.folders(layout.RELEASES) == [shown, withdrawn]


def test_without_a_pointer_every_release_folder_is_a_leftover(lake):
    leftover = put_release(lake, 0)
    assert publish.discard_unpublished(lake) == [leftover]


def test_rollback_goes_to_the_one_before_or_to_the_one_named_and_nowhere_else(lake):
    ids = [put_release(lake, number) for number in range(3)]
    show(lake, ids[2], previous=ids[1])
    with lake_lock(lake, "r") as lock:
        assert publish.rollback(lake, lock, run_id="r", now=NOW).release_id == ids[1]
        assert publish.rollback(lake, lock, run_id="r", now=NOW, to=ids[0]).release_id == ids[0]
        with pytest.raises(UsageError, match="nothing to roll back to"):
            publish.rollback(lake, lock, run_id="r", now=NOW)
        with pytest.raises(UsageError, match="is not kept; kept are"):
            publish.rollback(lake, lock, run_id="r", now=NOW, to="20200101T000000Z-00000000")
        with pytest.raises(UsageError, match="the current release already"):
            publish.rollback(lake, lock, run_id="r", now=NOW, to=ids[0])


def test_a_swap_that_somebody_else_won_leaves_their_release_shown(lake):
    ours, theirs = put_release(lake, 0), put_release(lake, 1)
    found = pointer.read(lake)
    show(lake, theirs)
    with pytest.raises(PointerMoved):
        pointer.swap(
            lake,
            Pointer(release_id=ours, previous=None, swapped_at=NOW, run_id=ours),
            found[1] if found else None,
        )
    assert publish.current(lake).release_id == theirs


def test_a_pointer_to_a_release_that_is_gone_is_said_with_the_remedy_and_the_remedy_works(lake):
    good, gone = put_release(lake, 0), put_release(lake, 1, whole=False)
    show(lake, gone, previous=good)
    with pytest.raises(LakeCorrupt, match="rollback"):
        publish.current(lake)
    with lake_lock(lake, "r") as lock:
        publish.rollback(lake, lock, run_id="r", now=NOW)
    assert publish.current(lake).release_id == good
