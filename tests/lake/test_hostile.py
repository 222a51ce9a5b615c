"""Lost locks, strange files, broken disks and stores that do not keep what they promise."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pytest
import structlog.testing

from catalunya.errors import CatalunyaError, UsageError
from catalunya.lake import disk, layout
from catalunya.lake.lock import LockLost, lake_lock
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Conflict, Entry, KeyExists, Storage
from catalunya.runs.record import RunRecord, newest
from tests.lake.faulty import FaultyFront

THEIRS = b'{"holder": {"holder": "x", "host": "h", "pid": 1, "since": "2026-01-01T00:00Z"}, "lease_s": 60}'
CLASH = b"<Error><Code>ConditionalRequestConflict</Code><Message>Try again</Message></Error>"


def names(storage: Storage, prefix: str) -> list[str]:
    return [entry.key for entry in storage.list(prefix)]


def test_a_lease_lost_while_paused_inside_a_clean_up_ends_it_with_nothing_more_deleted(
    front: FaultyFront,
) -> None:
    storage = open_lake(front.lake_url)
    for name in "abcd":
        storage.put(f"releases/{name}/release.json", b"{}")
    other = open_lake(front.lake_url)
    deletions = 0

    def pause(method: str, path: str, body: bytes) -> None:
        nonlocal deletions
        deletions += method == "POST" and b"<Delete" in body
        if deletions == 2 and method == "POST":
            # The second deletion is on its way; the holder is suspended, and another run takes the lake over.
            other.put("locks/run.json", THEIRS)

    with lake_lock(storage, "paused", lease_s=60) as lock:
        held = storage.guarded(lock)
        front.listener = pause
        with pytest.raises(LockLost, match="paused lost its lock"):
            for name in "abcd":
                held.delete_folder(f"releases/{name}")
        assert names(storage, "releases") == ["releases/c/release.json", "releases/d/release.json"]
        for change in (
            lambda: held.delete("releases/c/release.json"),
            lambda: held.put("releases/c/release.json", b"new"),
            lambda: held.replace(
                "releases/c/release.json", b"new", storage.read_versioned("releases/c/release.json")[1]
            ),  # type: ignore[index]
            lambda: held.copy("releases/c/release.json", "releases/d/release.json"),
        ):
            with pytest.raises(LockLost):
                change()
        assert storage.read("releases/c/release.json") == storage.read("releases/d/release.json") == b"{}"


def test_a_large_deletion_checks_the_lock_before_each_thousand_objects(front: FaultyFront) -> None:
    storage = open_lake(front.lake_url)
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

            front.listener = take
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


@pytest.mark.parametrize(
    "name", ["a[1]", "x]", "what?", "all*", "line\nbreak", "nul\0", "back\\slash", "\udce0"]
)
def test_a_path_that_the_engine_would_read_as_a_pattern_is_refused_with_the_variable(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="CATALUNYA_LAKE"):
        open_lake(f"{tmp_path}/{name}/lake")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["year=2026", "n=1", "l'Hospitalet {a,b} #%20;$~", "Àrea"])
def test_other_paths_are_allowed(tmp_path: Path, name: str) -> None:
    storage = open_lake(f"{tmp_path}/{name}")
    storage.put("a/b", b"1")
    assert storage.list() == [Entry("a/b", 1)]


def test_what_follows_a_name_is_listed_with_one_request(lake: Storage) -> None:
    for name in ("a", "a-1", "a.json", "ab", "b"):
        lake.put(f"landing/p/{name}/manifest.json", b"1")
    lake.put("landing/p/z", b"1")
    assert lake.folders("landing/p", after="a") == ["a-1", "a.json", "ab", "b"]
    assert (
        lake.folders("landing/p", after="") == lake.folders("landing/p") == ["a", "a-1", "a.json", "ab", "b"]
    )
    assert lake.folders("landing/p", after="b") == lake.folders("landing/q", after="b") == []
    assert [entry.key for entry in lake.list("landing/p", after="ab")] == [
        "landing/p/b/manifest.json",
        "landing/p/z",
    ]
    assert lake.list("landing/p", after="") == lake.list("landing/p")


def test_a_listing_after_a_name_asks_s3_for_no_more_than_that(front: FaultyFront) -> None:
    storage = open_lake(front.lake_url)
    for number in range(5):
        storage.put(f"ledger/{number}", b"")
    front.requests.clear()
    assert [entry.key for entry in storage.list("ledger", after="3")] == ["ledger/4"]
    [(method, path)] = front.requests
    assert (method, "start-after=" in path) == ("GET", True)


def test_links_that_lead_nowhere_or_round_and_strange_names_are_passed_over_with_one_warning(
    local_lake: Storage,
) -> None:
    folder = Path(local_lake.url, "landing", "p")
    local_lake.put("landing/p/20260105T000000Z-1a2b3c4d/manifest.json", b"1")
    (folder / "round").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    (folder / "nowhere").symlink_to(folder / "gone")
    (folder / "latest").symlink_to(folder / "20260105T000000Z-1a2b3c4d")
    (folder / "a name").mkdir()
    with structlog.testing.capture_logs() as logged:
        for _ in range(2):
            assert local_lake.folders("landing/p") == ["20260105T000000Z-1a2b3c4d"]
            assert names(local_lake, "landing") == ["landing/p/20260105T000000Z-1a2b3c4d/manifest.json"]
    assert set(local_lake.ignored) == {
        f"landing/p/{name}" for name in ("round", "self", "nowhere", "latest", "a name")
    }
    said = [name for entry in logged for name in entry["keys"].split(", ")]
    assert said.count("landing/p/self") == said.count("landing/p/round") == 1


@pytest.mark.parametrize("name", ["20260105T000000Z-1a2b3c4d", "00010101T000000Z-00000000"])
def test_ids_are_known(name: str) -> None:
    assert layout.is_id(name)


@pytest.mark.parametrize(
    "name", ["20260105T000000Z-1a2b3c4d.bad", "backup", "20261305T000000Z-1a2b3c4d", "20260105T000000Z-1a2b3c4d\n", "",
             "٢0260105T000000Z-1a2b3c4d"],
)  # fmt: skip
def test_other_names_are_no_ids_and_an_explained_error(name: str) -> None:
    assert not layout.is_id(name)
    with pytest.raises(UsageError, match="is no id"):
        layout.moment_of(name)


def record_of(run_id: str) -> bytes:
    moment = layout.moment_of(run_id)
    return (
        RunRecord(run_id=run_id, environment="demo", engine="duckdb", lake="x", started_at=moment)
        .model_dump_json()
        .encode()
    )


def test_the_newest_record_is_the_newest_whole_one_that_is_not_from_the_future(lake: Storage) -> None:
    now = datetime(2026, 1, 10, tzinfo=UTC)
    lake.put("ledger/20251001T000000Z-00000000.json", record_of("20251001T000000Z-00000000"))
    assert newest(lake, now).run_id == "20251001T000000Z-00000000"  # type: ignore[union-attr]
    lake.put("ledger/20260105T000000Z-00000000.json", record_of("20260105T000000Z-00000000"))
    lake.put("ledger/20260106T000000Z-00000000.json", b"")
    lake.put("ledger/20260107T000000Z-00000000.json", record_of("20260107T000000Z-00000000")[:40])
    lake.put("ledger/zz.json", b"{}")
    lake.put("ledger/notes", b"x")
    lake.put("ledger/20360101T000000Z-00000000.json", record_of("20360101T000000Z-00000000"))
    assert newest(lake, now).run_id == "20260105T000000Z-00000000"  # type: ignore[union-attr]
    assert len(lake.ignored) == 5
    assert newest(lake).run_id == "20360101T000000Z-00000000"  # type: ignore[union-attr]


def test_the_newest_record_of_a_long_ledger_costs_one_short_listing_and_one_reading(
    front: FaultyFront,
) -> None:
    storage = open_lake(front.lake_url)
    for day in range(1, 29):
        storage.put(
            f"ledger/202512{day:02}T000000Z-00000000.json", record_of(f"202512{day:02}T000000Z-00000000")
        )
    front.requests.clear()
    assert newest(storage, datetime(2025, 12, 28, 12, tzinfo=UTC)).run_id == "20251228T000000Z-00000000"  # type: ignore[union-attr]
    assert [method for method, _ in front.requests] == ["GET", "GET"]


class Shorter(io.RawIOBase):
    """An unbuffered file that takes three bytes at a time, or none."""

    def __init__(self, taken: int) -> None:
        self.taken = taken
        self.name = "/lake/x"
        self.kept = b""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.kept += bytes(data[: self.taken])
        return self.taken


def test_a_short_write_is_gone_on_with_and_one_of_nothing_is_an_error() -> None:
    file = Shorter(3)
    disk.write_all(file, b"12345678")  # type: ignore[arg-type]
    assert file.kept == b"12345678"
    with pytest.raises(OSError, match="only a part"):
        disk.write_all(Shorter(0), b"1")  # type: ignore[arg-type]


TOO_LARGE = """
import resource, sys
from pathlib import Path
from catalunya.errors import CatalunyaError
from catalunya.lake.lock import lake_lock
from catalunya.lake.opening import open_lake
storage = open_lake(sys.argv[1])
storage.put("kept", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (50, resource.RLIM_INFINITY))
def lock():
    with lake_lock(storage, "run-" + "x" * 100): pass
for work in (lambda: storage.put("kept", b"n" * 100), lambda: storage.replace("new", b"n" * 100, None), lock):
    try: work()
    except CatalunyaError as error: print(error)
"""


def test_a_file_that_the_disk_does_not_take_whole_is_explained_and_never_visible(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOO_LARGE, str(tmp_path / "lake")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.count("File too large; raise the limit") == 3, done.stdout
    storage = open_lake(str(tmp_path / "lake"))
    assert (storage.list(), storage.read("kept")) == ([Entry("kept", 3)], b"old")
    with lake_lock(storage, "next"):
        pass
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_store_that_ignores_conditions_is_refused_before_anything_relies_on_them(
    front: FaultyFront,
) -> None:
    front.ignore_conditions = True
    storage = open_lake(front.lake_url)
    for _ in range(2):
        with (
            pytest.raises(
                UsageError, match=rf"CATALUNYA_LAKE: the store of {front.lake_url} .* does not honour If-"
            ),
            lake_lock(storage, "run-a"),
        ):
            pytest.fail("a lock that locks nothing")
    assert names(storage, "") == ["locks/probe.json"]
    front.ignore_conditions = False
    with lake_lock(open_lake(front.lake_url), "run-b"):
        pass


def test_a_good_store_is_asked_once_for_all_processes_and_each_endpoint(front: FaultyFront) -> None:
    def writes() -> int:
        return sum(method == "PUT" and "probe" in path for method, path in front.requests)

    open_lake(front.lake_url).replace("a", b"1", None)
    asked = writes()
    assert asked > 0
    second = open_lake(front.lake_url)
    second.replace("b", b"1", None)
    second.replace("c", b"1", None)
    assert writes() == asked
    second.put(
        "locks/probe.json", json.dumps({"endpoint": "http://elsewhere", "conditional_writes": True}).encode()
    )
    open_lake(front.lake_url).replace("d", b"1", None)
    assert writes() > asked + 1


def clashes(times: int) -> Iterator[tuple[int, bytes]]:
    for _ in range(times):
        yield 409, CLASH


def test_a_clash_that_passes_is_tried_again_and_not_taken_for_a_loss(
    front: FaultyFront, tmp_path: Path
) -> None:
    storage = open_lake(front.lake_url)
    storage.put("x", b"1")
    storage.put("releases/old/a", b"1")
    storage.put("releases/old/b", b"1")
    (tmp_path / "f").write_bytes(b"f")
    found = storage.read_versioned("x")
    assert found is not None
    for work in (
        lambda: storage.put("n", b"1", create=True),
        lambda: storage.replace("x", b"2", found[1]),
        lambda: storage.put("y", b"1"),
        lambda: storage.put_file("z", tmp_path / "f"),
        lambda: storage.delete("y"),
        lambda: storage.delete_folder("releases/old"),
    ):
        left = clashes(2)
        front.fault = lambda method, path, left=left: (
            next(left, None) if method in {"PUT", "POST", "DELETE"} and "probe" not in path else None
        )  # type: ignore[misc]
        work()
        assert next(left, None) is None
    assert storage.list("releases") == []
    with lake_lock(storage, "run-a"):
        pass
    with pytest.raises(KeyExists):
        storage.put("n", b"2", create=True)
    with pytest.raises(Conflict):
        storage.replace("x", b"3", found[1])


@pytest.mark.parametrize("code", ["InternalError", "SlowDown", "OperationAborted"])
def test_objects_that_one_request_for_many_could_not_delete_are_tried_again(
    front: FaultyFront, code: str
) -> None:
    storage = open_lake(front.lake_url)
    names = ["releases/old/a", "releases/old/b"]
    for name in names:
        storage.put(name, b"1")
    errors = "".join(
        f"<Error><Key>lake/{name}</Key><Code>{code}</Code><Message>later</Message></Error>" for name in names
    )
    body = f'<?xml version="1.0" encoding="UTF-8"?><DeleteResult>{errors}</DeleteResult>'.encode()
    left = iter([(200, body)] * 2)
    front.fault = lambda method, path: next(left, None) if method == "POST" else None
    storage.delete_folder("releases/old")
    assert next(left, None) is None
    assert storage.list("releases") == []


def test_a_clash_that_stays_is_explained(front: FaultyFront) -> None:
    storage = open_lake(front.lake_url)
    storage.replace("a", b"1", None)
    front.fault = lambda method, path: (409, CLASH) if method == "PUT" else None
    with (
        patch("catalunya.lake.s3.CONTENTION_TIMEOUT_S", 0.5),
        pytest.raises(CatalunyaError, match="another request is in the way"),
    ):
        storage.put("n", b"1", create=True)


def test_no_proxy_is_asked_for_a_store_on_this_machine(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    storage = open_lake(f"s3://{s3_bucket}/lake")
    with lake_lock(storage, "run"):
        assert storage.age_s("locks/run.json") is not None  # type: ignore[attr-defined]
