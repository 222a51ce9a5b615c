"""Locks of a lake. No test waits for a lease: time passes on the storage's clock or on the holder's."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import threading
from types import SimpleNamespace

import pytest

from catalunya.errors import LakeBusy
from catalunya.lake import lock as lock_module
from catalunya.lake.local import LocalStorage
from catalunya.lake.lock import LEASE_S, LockLost, lake_lock, lock_owner
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from tests.lake.contenders import contenders
from tests.lake.faulty_proxy import FaultyProxy

OVER_S = int(LEASE_S) + 2
"""A lease is over one second after its time, and ages are whole seconds."""
LEASE_OF_ANOTHER = (
    b'{"holder": {"holder": "x", "host": "h", "pid": 1, "since": "2026-01-01T00:00Z"}, "lease_s": 60}'
)


def owner(lake: Storage, name: str = "run") -> str | None:
    found = lock_owner(lake, name)
    return found.holder if found else None


class Clock:
    """The holder's monotonic clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(lock_module, "_elapsed_s", lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_error_of_a_second_run_names_the_holder(lake: Storage) -> None:
    with (
        lake_lock(lake, "run-a"),
        pytest.raises(LakeBusy, match=rf"run run-a \(host .+, process {os.getpid()}, since \d{{4}}-"),
        lake_lock(lake, "run-b"),
    ):
        pytest.fail("both hold it")


def test_a_second_run_changes_nothing(lake: Storage) -> None:
    with lake_lock(lake, "run-a") as lock:
        before = [(entry, lake.read(entry.key)) for entry in lake.list()]
        with pytest.raises(LakeBusy), lake_lock(lake, "run-b"):
            pytest.fail("both hold it")
        assert [(entry, lake.read(entry.key)) for entry in lake.list()] == before
        lock.check()


def test_the_owner_of_a_lock_is_known_while_it_is_held(lake: Storage) -> None:
    assert lock_owner(lake) is None
    with lake_lock(lake, "run-a") as lock:
        assert lock_owner(lake) == lock.holder
    assert lock_owner(lake) is None


def test_a_lock_is_free_after_its_holder_failed(lake: Storage) -> None:
    with pytest.raises(ZeroDivisionError), lake_lock(lake, "run-a"):
        _ = 1 / 0
    with lake_lock(lake, "run-b"):
        assert owner(lake) == "run-b"


def test_locks_of_different_names_are_independent(lake: Storage) -> None:
    with lake_lock(lake, "run-a", "run"), lake_lock(lake, "site-a", "site"):
        assert (owner(lake, "run"), owner(lake, "site")) == ("run-a", "site-a")


@pytest.mark.parametrize("name", ["run", "write", "site"])
def test_the_holder_of_a_lock_of_any_name_can_write(lake: Storage, name: str) -> None:
    with lake_lock(lake, "run-a", name):
        lake.put("a", b"1")
    assert lake.read("a") == b"1"


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
        results = racers.start()
        winners = [line.split()[1] for line in results if line.startswith("won")]
        assert [owner(lake)] == winners
    assert sum(line.startswith("lost LakeBusy") for line in results) == 19


def test_a_killed_holder_frees_a_local_lock_at_once(local_lake: Storage) -> None:
    with contenders("lock", local_lake.url) as holder:
        assert holder.start() == ["won run-0"]
        with pytest.raises(LakeBusy, match="run-0"), lake_lock(local_lake, "next"):
            pytest.fail("both hold it")
        holder.kill()
        assert lock_owner(local_lake) is None
        with lake_lock(local_lake, "next"):
            pass


def test_the_lease_of_a_killed_holder_keeps_the_lock_until_it_is_over(proxy: FaultyProxy) -> None:
    storage = open_lake(proxy.lake_url)
    with contenders("lock", storage.url) as holder:
        assert holder.start() == ["won run-0"]
        holder.kill()
        with pytest.raises(LakeBusy, match="run-0"), lake_lock(storage, "early"):
            pytest.fail("the lease was not over")
        proxy.passed_s = OVER_S
        assert lock_owner(storage) is None
        with lake_lock(storage, "next"):
            pass


def test_a_holder_renews_its_lease_again_and_again(proxy: FaultyProxy) -> None:
    renewals: list[bytes] = []
    renewed = threading.Event()

    def watch(method: str, path: str, body: bytes) -> None:
        if method == "PUT" and path.endswith("locks/run.json"):
            renewals.append(body)
            if len(set(renewals)) > 3:
                renewed.set()

    proxy.listener = watch
    with lake_lock(open_lake(proxy.lake_url), "holder", lease_s=1):
        assert renewed.wait(600)


def test_of_10_processes_that_take_over_a_dead_holders_lease_exactly_one_wins(s3_lake: Storage) -> None:
    s3_lake.put("locks/run.json", LEASE_OF_ANOTHER.replace(b'"lease_s": 60', b'"lease_s": -2'))
    assert lock_owner(s3_lake) is None
    with contenders("lock", s3_lake.url, 10) as racers:
        results = racers.start()
    assert sum(line.startswith("won") for line in results) == 1
    assert sum(line.startswith("lost LakeBusy") for line in results) == 9


def test_a_holder_that_cannot_renew_knows_when_its_lease_is_over(s3_lake: Storage, clock: Clock) -> None:
    with lake_lock(s3_lake, "cut-off") as lock:
        clock.now_s += LEASE_S - 1
        lock.check()
        clock.now_s += 1
        with pytest.raises(LockLost, match=r"cut-off lost its lock .*run again"):
            lock.check()


def test_a_failed_renewal_is_tried_again(proxy: FaultyProxy) -> None:
    failed, renewed = threading.Event(), threading.Event()

    def refuse_once(method: str, path: str) -> tuple[int, bytes] | None:
        if method != "PUT":
            return None
        if failed.is_set():
            renewed.set()
            return None
        failed.set()
        return 403, b""

    with lake_lock(open_lake(proxy.lake_url), "holder", lease_s=1) as lock:
        proxy.fault = refuse_once
        assert failed.wait(600)
        assert renewed.wait(600)
        assert lock.holder.holder == "holder"


def test_a_holder_whose_lease_was_taken_over_learns_it(s3_lake: Storage) -> None:
    with lake_lock(s3_lake, "robbed") as lock:
        s3_lake.put("locks/run.json", LEASE_OF_ANOTHER)
        with pytest.raises(LockLost):
            lock.check()


def test_a_holder_whose_lease_was_taken_over_leaves_the_new_one_alone(s3_lake: Storage) -> None:
    with lake_lock(s3_lake, "robbed", lease_s=1):
        s3_lake.put("locks/run.json", LEASE_OF_ANOTHER)
        [renewing] = [thread for thread in threading.enumerate() if thread.name == "lease locks/run.json"]
        renewing.join(60)
        assert not renewing.is_alive()
    assert s3_lake.read("locks/run.json") == LEASE_OF_ANOTHER


@pytest.mark.parametrize("ahead_s", [-7200, 7200])
def test_a_clock_that_differs_from_the_storages_neither_shortens_nor_prolongs_a_lease(
    proxy: FaultyProxy, ahead_s: int
) -> None:
    proxy.clock_ahead_s = ahead_s
    storage = open_lake(proxy.lake_url)
    with contenders("lock", storage.url) as holder:
        assert holder.start() == ["won run-0"]
        assert owner(storage) == "run-0"
        holder.kill()
    assert owner(storage) == "run-0"
    proxy.passed_s = OVER_S
    assert lock_owner(storage) is None


def test_a_damaged_lease_is_taken_for_a_living_one(s3_lake: Storage) -> None:
    s3_lake.put("locks/run.json", b"{")
    with pytest.raises(LakeBusy, match="unknown"), lake_lock(s3_lake, "run-a"):
        pytest.fail("a lease that may be alive was taken")


def test_a_damaged_lease_blocks_no_longer_than_a_lease(proxy: FaultyProxy) -> None:
    storage = open_lake(proxy.lake_url)
    storage.put("locks/run.json", b"{")
    proxy.passed_s = OVER_S
    with lake_lock(storage, "run-a"):
        pass


def test_a_forked_child_does_not_keep_its_parents_lock(local_lake: Storage) -> None:
    fork = multiprocessing.get_context("fork")
    release = fork.Event()
    with lake_lock(local_lake, "parent"):
        child = fork.Process(target=release.wait, args=(60,))
        child.start()
    try:
        with lake_lock(local_lake, "next"):
            pass
    finally:
        release.set()
        child.join()


def test_a_newcomer_waits_for_a_process_that_looks_at_the_owner(
    local_lake: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To see whether a lock is free, a process holds a shared one for an instant."""
    assert isinstance(local_lake, LocalStorage)
    with local_lake.lock_path("run").open("ab") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        time = SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda seconds: look.close())
        monkeypatch.setattr(lock_module, "time", time)
        with lake_lock(local_lake, "newcomer") as lock:
            lock.check()


def test_looking_at_the_owner_leaves_the_lock_free(local_lake: Storage) -> None:
    with lake_lock(local_lake, "first"):
        pass
    assert lock_owner(local_lake) is None
    with lake_lock(local_lake, "next") as lock:
        lock.check()


def test_a_lock_file_that_was_removed_is_noticed(local_lake: Storage) -> None:
    assert isinstance(local_lake, LocalStorage)
    with lake_lock(local_lake, "run-a") as lock:
        local_lake.lock_path("run").unlink()
        with pytest.raises(LockLost, match="was removed"):
            lock.check()
