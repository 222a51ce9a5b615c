from __future__ import annotations

import fcntl
import multiprocessing
import os
import threading
import time

import pytest

from catalunya.errors import LakeBusy
from catalunya.lake.local import LocalStorage
from catalunya.lake.lock import LockLost, lake_lock, lock_owner
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from tests.lake.faulty import FaultyFront
from tests.lake.processes import contenders


def test_the_second_run_is_told_who_holds_the_lake_and_nothing_changes(lake: Storage) -> None:
    with lake_lock(lake, "run-a") as lock:
        before = [(entry, lake.read(entry.key)) for entry in lake.list()]
        with (
            pytest.raises(LakeBusy, match=rf"run run-a \(host .+, process {os.getpid()}, since \d{{4}}-"),
            lake_lock(lake, "run-b"),
        ):
            pytest.fail("both hold it")
        assert [(entry, lake.read(entry.key)) for entry in lake.list()] == before
        assert lock_owner(lake) == lock.holder
        lock.check()


def test_a_lock_is_free_once_its_holder_has_ended_well_or_badly(lake: Storage) -> None:
    assert lock_owner(lake) is None
    with pytest.raises(ZeroDivisionError), lake_lock(lake, "run-a"):
        _ = 1 / 0
    assert lock_owner(lake) is None
    with lake_lock(lake, "run-b"):
        holder = lock_owner(lake)
        assert holder is not None
        assert holder.holder == "run-b"


def test_locks_of_different_names_do_not_touch(lake: Storage) -> None:
    with lake_lock(lake, "run-a", "run"), lake_lock(lake, "site-a", "site"):
        run, site = lock_owner(lake, "run"), lock_owner(lake, "site")
        assert run is not None
        assert site is not None
        assert (run.holder, site.holder) == ("run-a", "site-a")


def test_two_threads_of_one_process_exclude_each_other(lake: Storage) -> None:
    outcome: list[str] = []

    def want() -> None:
        try:
            with lake_lock(lake, "thread"):
                outcome.append("won")
        except LakeBusy:
            outcome.append("lost")

    with lake_lock(lake, "main"):
        thread = threading.Thread(target=want)
        thread.start()
        thread.join()
    assert outcome == ["lost"]


def test_of_20_processes_that_want_the_lock_at_once_exactly_one_wins(lake: Storage) -> None:
    with contenders("lock", lake.url, 20) as racers:
        results = racers.go()
        winners = [line.split()[1] for line in results if line.startswith("won")]
        holder = lock_owner(lake)
    assert len(winners) == 1
    assert sum(line.startswith("lost LakeBusy") for line in results) == 19
    assert holder is not None
    assert holder.holder == winners[0]


def test_a_killed_holder_frees_a_local_lock_at_once(local_lake: Storage) -> None:
    with contenders("lock", local_lake.url) as holder:
        assert holder.go() == ["won run-0"]
        with pytest.raises(LakeBusy, match="run-0"), lake_lock(local_lake, "next"):
            pytest.fail("both hold it")
        holder.kill()
        assert lock_owner(local_lake) is None
        with lake_lock(local_lake, "next"):
            pass


def test_a_killed_holder_frees_an_s3_lock_when_its_lease_is_over_and_not_before(s3_lake: Storage) -> None:
    with contenders("lock", s3_lake.url, lease_s=2) as holder:
        assert holder.go() == ["won run-0"]
        time.sleep(3.5)
        with pytest.raises(LakeBusy, match="run-0"), lake_lock(s3_lake, "early"):
            pytest.fail("a living holder was robbed")
        holder.kill()
        killed = time.monotonic()
        with pytest.raises(LakeBusy, match="run-0"), lake_lock(s3_lake, "early"):
            pytest.fail("the lease was not over")
        while lock_owner(s3_lake) is not None:
            time.sleep(0.1)
        waited_s = time.monotonic() - killed
        with lake_lock(s3_lake, "next"):
            pass
    assert 1 < waited_s < 5


def test_of_10_processes_that_take_over_a_dead_holders_lease_exactly_one_wins(s3_lake: Storage) -> None:
    with contenders("lock", s3_lake.url, lease_s=1) as dead:
        assert dead.go() == ["won run-0"]
        dead.kill()
    with contenders("lock", s3_lake.url, 10) as racers:
        while lock_owner(s3_lake) is not None:
            time.sleep(0.1)
        results = racers.go()
    assert sum(line.startswith("won") for line in results) == 1
    assert sum(line.startswith("lost LakeBusy") for line in results) == 9


def test_a_holder_that_cannot_renew_learns_it_before_the_lease_is_over(front: FaultyFront) -> None:
    storage = open_lake(front.lake_url)
    with lake_lock(storage, "cut-off", lease_s=1) as lock:
        time.sleep(1.5)
        lock.check()
        front.fault = lambda method, path: (403, b"")
        time.sleep(1.1)
        with pytest.raises(LockLost, match=r"cut-off lost its lock .*run again"):
            lock.check()


def test_a_holder_whose_lease_was_taken_over_learns_it_and_leaves_the_new_one_alone(s3_lake: Storage) -> None:
    with lake_lock(s3_lake, "robbed", lease_s=2) as lock:
        theirs = (
            b'{"holder": {"holder": "x", "host": "h", "pid": 1, "since": "2026-01-01T00:00Z"}, "lease_s": 60}'
        )
        s3_lake.put("locks/run.json", theirs)
        time.sleep(1)
        with pytest.raises(LockLost):
            lock.check()
    assert s3_lake.read("locks/run.json") == theirs


@pytest.mark.parametrize("ahead_s", [-7200, 7200])
def test_a_clock_that_differs_from_the_storages_neither_robs_a_holder_nor_locks_for_ever(
    front: FaultyFront, ahead_s: int
) -> None:
    front.clock_ahead_s = ahead_s
    storage = open_lake(front.lake_url)
    with contenders("lock", storage.url, lease_s=1) as holder:
        assert holder.go() == ["won run-0"]
        for _ in range(4):
            time.sleep(0.6)
            assert lock_owner(storage) is not None
        holder.kill()
    time.sleep(3.2)
    with lake_lock(storage, "next"):
        pass


def test_a_damaged_lease_blocks_no_longer_than_a_lease(s3_lake: Storage) -> None:
    s3_lake.put("locks/run.json", b"{")
    with pytest.raises(LakeBusy, match="unknown"), lake_lock(s3_lake, "run-a"):
        pytest.fail("a lease that may be alive was taken")


def test_a_forked_child_does_not_keep_its_parents_lock(local_lake: Storage) -> None:
    release = multiprocessing.get_context("fork").Event()
    with lake_lock(local_lake, "parent"):
        child = multiprocessing.get_context("fork").Process(target=release.wait, args=(20,))
        child.start()
    try:
        with lake_lock(local_lake, "next"):
            pass
    finally:
        release.set()
        child.join()


def test_looking_at_who_holds_a_lock_never_costs_a_newcomer_the_lock(local_lake: Storage) -> None:
    """The look takes a shared lock for an instant; here the instant is long."""
    assert isinstance(local_lake, LocalStorage)
    with local_lake.lock_path("run").open("ab") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        end_of_look = threading.Timer(0.1, look.close)
        end_of_look.start()
        with lake_lock(local_lake, "newcomer") as lock:
            lock.check()
        end_of_look.join()
    for _ in range(100):
        assert lock_owner(local_lake) is None
        with lake_lock(local_lake, "next"):
            pass


def test_a_lock_file_that_was_removed_is_noticed(local_lake: Storage) -> None:
    assert isinstance(local_lake, LocalStorage)
    with lake_lock(local_lake, "run-a") as lock:
        local_lake.lock_path("run").unlink()
        with pytest.raises(LockLost, match="was removed"):
            lock.check()
