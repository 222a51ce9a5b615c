from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from catalunya.errors import LakeCorrupt
from catalunya.lake import pointer
from catalunya.lake.pointer import Pointer, PointerMoved
from catalunya.lake.storage import Storage
from tests.lake.contenders import contenders


def to(release_id: str, previous: str | None = None) -> Pointer:
    return Pointer(
        release_id=release_id, previous=previous, swapped_at=datetime(2026, 1, 2, tzinfo=UTC), run_id="r"
    )


def test_there_is_no_pointer_before_the_first_release(lake: Storage) -> None:
    assert pointer.read(lake) is None


def test_what_was_swapped_in_is_read_back_with_the_version_for_the_next_swap(lake: Storage) -> None:
    first = pointer.swap(lake, to("a"), None)
    second = pointer.swap(lake, to("b", "a"), first)
    assert pointer.read(lake) == (to("b", "a"), second)


def test_a_swap_from_an_old_version_is_refused_and_leaves_the_pointer(lake: Storage) -> None:
    first = pointer.swap(lake, to("a"), None)
    pointer.swap(lake, to("b", "a"), first)
    for stale in (first, None):
        with pytest.raises(PointerMoved, match=r"current\.json .*release c.*run again"):
            pointer.swap(lake, to("c", "a"), stale)
    found = pointer.read(lake)
    assert found is not None
    assert found[0] == to("b", "a")


@pytest.mark.parametrize("there_is_one", [False, True], ids=["the first release", "a later release"])
def test_of_20_processes_that_swap_the_pointer_at_once_exactly_one_wins(
    lake: Storage, there_is_one: bool
) -> None:
    if there_is_one:
        pointer.swap(lake, to("before"), None)
    with contenders("pointer", lake.url, 20) as racers:
        results = racers.start()
    winners = [line.split()[1] for line in results if line.startswith("won")]
    assert len(winners) == 1
    assert sum(line.startswith("lost PointerMoved") for line in results) == 19
    found = pointer.read(lake)
    assert found is not None
    assert found[0].release_id == winners[0]


def test_a_reader_sees_the_old_pointer_or_the_new_one_and_never_half(lake: Storage) -> None:
    version = pointer.swap(lake, to("0" * 2000), None)
    done = threading.Event()

    def move() -> None:
        at = version
        for i in range(1, 60):
            at = pointer.swap(lake, to(str(i % 10) * (1000 + 40 * i)), at)
        done.set()

    mover = threading.Thread(target=move)
    mover.start()
    while not done.is_set():
        found = pointer.read(lake)
        assert found is not None
        assert len(set(found[0].release_id)) == 1
    mover.join()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"release_id": "a"}', b"\xff\xfe"])
def test_a_damaged_pointer_is_named_with_what_to_do(lake: Storage, content: bytes) -> None:
    lake.put(pointer.KEY, content)
    with pytest.raises(
        LakeCorrupt, match=r"current\.json is not a pointer.*no release was touched.*`catalunya repair`"
    ):
        pointer.read(lake)
