"""What holds of every lake, in a folder and in a bucket."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalunya.errors import CatalunyaError, UsageError
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Conflict, Entry, KeyExists, MissingKey, Storage, check_key


def file(folder: Path, content: bytes, name: str = "upload.bin") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_what_was_put_is_read_back_and_a_later_put_replaces_it(lake: Storage) -> None:
    lake.put("landing/population/a/manifest.json", b"one")
    lake.put("landing/population/a/manifest.json", b"two")
    assert lake.read("landing/population/a/manifest.json") == b"two"


def test_a_missing_key_is_named_and_does_not_exist(lake: Storage, tmp_path: Path) -> None:
    lake.put("a/b", b"")
    for missing in ("a/c", "a", "a/b/c"):
        assert not lake.exists(missing)
        assert lake.read_versioned(missing) is None
        with pytest.raises(MissingKey, match=f"/{missing} is not in the lake"):
            lake.read(missing)
        with pytest.raises(LookupError, match=f"/{missing} is not in the lake"):
            lake.fetch(missing, tmp_path)
    assert lake.exists("a/b")
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_a_listing_is_sorted_complete_and_keeps_to_its_folder(lake: Storage) -> None:
    for key in ("r/20/b", "r/2/c/d", "r/2/a", "r/2.json", "s/x"):
        lake.put(key, key.encode())
    assert lake.list("r/2") == [Entry("r/2/a", 5), Entry("r/2/c/d", 7)]
    assert lake.list("r/2/") == lake.list("r/2")
    assert [entry.key for entry in lake.list()] == ["r/2.json", "r/2/a", "r/2/c/d", "r/20/b", "s/x"]
    assert lake.list("nothing/here") == []
    assert lake.list("r/2/a") == []


def test_the_tail_comes_with_the_size_of_the_whole(lake: Storage) -> None:
    lake.put("a/b", b"0123456789")
    assert lake.read_tail("a/b", 4) == (10, b"6789")
    assert lake.read_tail("a/b", 100) == (10, b"0123456789")
    lake.put("a/empty", b"")
    assert lake.read_tail("a/empty", 4) == (0, b"")
    with pytest.raises(MissingKey, match="/a/c is not in the lake"):
        lake.read_tail("a/c", 4)


def test_a_copy_holds_the_same_and_the_source_stays(lake: Storage) -> None:
    lake.put("a/b", b"one")
    lake.copy("a/b", "c/d/e")
    lake.put("a/b", b"two")
    assert (lake.read("a/b"), lake.read("c/d/e")) == (b"two", b"one")
    with pytest.raises(MissingKey):
        lake.copy("a/nothing", "c/f")
    assert not lake.exists("c/f")


def test_folders_are_the_direct_sub_folders(lake: Storage) -> None:
    for key in ("r/20/b", "r/2/c/d", "r/2.json", "s/snapshot_date=2026-01-02/x.parquet"):
        lake.put(key, b"")
    lake.scratch()
    assert lake.folders() == ["r", "s"]
    assert lake.folders("r") == ["2", "20"]
    assert lake.folders("s/") == ["snapshot_date=2026-01-02"]
    assert lake.folders("nothing") == []
    assert lake.folders("r/2.json") == []


def test_folders_after_a_name_are_those_that_sort_after_it(lake: Storage) -> None:
    for key in ("r/1/a", "r/2/b", "r/2/c", "r/2.json", "r/20/d/e", "r/3/f", "r/4.json", "s/9/g"):
        lake.put(key, b"")
    assert lake.folders("r", after="") == ["1", "2", "20", "3"]
    assert lake.folders("r", after="2") == ["20", "3"]
    assert lake.folders("r", after="3") == []
    assert lake.folders("nothing", after="1") == []


def test_a_create_only_put_loses_against_what_is_there(lake: Storage) -> None:
    lake.put("a/manifest.json", b"first", create=True)
    with pytest.raises(KeyExists, match=r"a/manifest\.json is there already; it was left as it was"):
        lake.put("a/manifest.json", b"second", create=True)
    assert lake.read("a/manifest.json") == b"first"


def test_a_stale_compare_and_set_loses_and_leaves_the_content(lake: Storage) -> None:
    first = lake.replace("current.json", b"1", None)
    second = lake.replace("current.json", b"2", first)
    for stale in (first, None):
        with pytest.raises(Conflict, match=r"current\.json was changed by somebody else"):
            lake.replace("current.json", b"3", stale)
    assert lake.read_versioned("current.json") == (b"2", second)
    lake.delete("current.json")
    with pytest.raises(Conflict):
        lake.replace("current.json", b"4", second)
    assert not lake.exists("current.json")


def test_of_many_threads_that_replace_one_version_exactly_one_wins_each_round(lake: Storage) -> None:
    lake.put("counter", b"0")
    wins: list[int] = []

    def count() -> None:
        for _ in range(10):
            while True:
                found = lake.read_versioned("counter")
                assert found is not None
                try:
                    lake.replace("counter", b"%d" % (int(found[0]) + 1), found[1])
                except Conflict:
                    continue
                wins.append(1)
                break

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lake.read("counter") == b"40"
    assert len(wins) == 40


def test_a_reader_never_sees_half_a_put(lake: Storage) -> None:
    contents = [bytes([65 + i]) * (200_000 + 50_000 * i) for i in range(4)]
    lake.put("a/data", contents[0])
    done = threading.Event()

    def write() -> None:
        for i in range(40):
            lake.put("a/data", contents[i % 4])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert lake.read("a/data") in contents
    writer.join()


def test_put_file_moves_a_file_into_the_lake_and_fetch_gives_a_path_to_it(
    lake: Storage, tmp_path: Path
) -> None:
    content = os.urandom(40 * 1024 * 1024 + 7)
    source = file(lake.scratch(), content)
    lake.put_file("releases/1/data.parquet", source)
    assert not source.exists()
    fetched = lake.fetch("releases/1/data.parquet", tmp_path / "new" / "folder")
    assert fetched.name == "data.parquet"
    assert fetched.read_bytes() == content


def test_an_empty_file_survives_the_way_there_and_back(lake: Storage, tmp_path: Path) -> None:
    lake.put_file("a/empty", file(tmp_path, b""))
    assert lake.fetch("a/empty", tmp_path / "out").read_bytes() == b""
    assert lake.list("a") == [Entry("a/empty", 0)]


def test_a_missing_source_of_put_file_changes_nothing(lake: Storage, tmp_path: Path) -> None:
    lake.put("a/b", b"old")
    with pytest.raises(CatalunyaError, match="missing: No such file"):
        lake.put_file("a/b", tmp_path / "missing")
    assert lake.read("a/b") == b"old"


MEASURE = """
import sys
from pathlib import Path
from catalunya.lake.opening import open_lake

def peak_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))

storage = open_lake(sys.argv[1])
storage.put("warm", b"x" * 1000)
before = peak_mib()
storage.put_file("big", Path(sys.argv[2]))
after_upload = peak_mib()
storage.fetch("big", Path(sys.argv[2]).parent / "fetched")
print(after_upload - before, peak_mib() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to measure memory with")
def test_200_mb_go_up_and_down_in_bounded_memory(lake: Storage, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as out:
        for _ in range(200):
            out.write(os.urandom(1024 * 1024))
    size = big.stat().st_size
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, lake.url, str(big)], capture_output=True, text=True, check=True
    )
    upload_mib, both_mib = map(int, done.stdout.split())
    assert [entry for entry in lake.list() if entry.key == "big"] == [Entry("big", size)]
    assert upload_mib < 120
    assert both_mib < 140


def test_delete_removes_one_object_and_is_content_when_it_is_gone(lake: Storage) -> None:
    lake.put("a/b", b"")
    lake.put("a/bc", b"")
    lake.delete("a/b")
    lake.delete("a/b")
    assert lake.list() == [Entry("a/bc", 0)]


def test_delete_folder_takes_that_folder_and_not_its_sibling(lake: Storage) -> None:
    for key in ("releases/2/a", "releases/2/b/c", "releases/20/a", "releases/2.json"):
        lake.put(key, b"")
    lake.delete_folder("releases/2")
    lake.delete_folder("releases/2/")
    assert [entry.key for entry in lake.list()] == ["releases/2.json", "releases/20/a"]
    assert lake.folders("releases") == ["20"]


@pytest.mark.parametrize(
    "prefix", ["", "/", "..", "../lake", "a/..", "a/../..", "/etc", ".", "a//b", ".lake"]
)
def test_delete_folder_refuses_the_root_and_whatever_leaves_it(lake: Storage, prefix: str) -> None:
    lake.put("a/b", b"")
    with pytest.raises(UsageError):
        lake.delete_folder(prefix)
    assert lake.list() == [Entry("a/b", 0)]


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", "..", "a/../b", "./a", ".lake/locks/write.lock", "a b", "a\\b", "à", "a\n"],
)
def test_a_key_that_is_no_plain_relative_path_is_refused(lake: Storage, tmp_path: Path, key: str) -> None:
    source = file(tmp_path, b"x")
    for call in (
        lambda: lake.read(key),
        lambda: lake.exists(key),
        lambda: lake.put(key, b""),
        lambda: lake.put(key, b"", create=True),
        lambda: lake.put_file(key, source),
        lambda: lake.fetch(key, tmp_path),
        lambda: lake.read_versioned(key),
        lambda: lake.replace(key, b"", None),
        lambda: lake.delete(key),
        lambda: lake.uri(key),
    ):
        with pytest.raises(UsageError, match="is not a key of the lake"):
            call()
    assert source.exists()


@given(st.one_of(st.text(), st.text(alphabet="a./\\~%0_-= \n", max_size=12)))
def test_no_accepted_key_leaves_the_root_or_touches_hidden_files(key: str) -> None:
    try:
        check_key(key)
    except UsageError:
        return
    path = Path(os.path.normpath(f"/lake/{key}"))
    assert str(path) == f"/lake/{key}"
    assert not any(part.startswith(".") for part in path.parts)


@pytest.mark.parametrize(
    "url", ["", "s3://", "s3:///x", "s3://bucket/../x", "gs://bucket/x", "http://host/x", "file://host/x"]
)
def test_an_address_that_is_neither_a_folder_nor_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="CATALUNYA_LAKE"):
        open_lake(url)


LEAVE_SCRATCH = """
import os, signal, sys
from catalunya.lake.opening import open_lake
scratch = open_lake(sys.argv[1]).scratch()
(scratch / "half").write_bytes(b"x")
print(scratch, flush=True)
if sys.argv[2] == "wait":
    sys.stdin.read()
else:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_scratch_of_killed_processes_is_removed_and_that_of_living_ones_kept(lake: Storage) -> None:
    own = file(lake.scratch(), b"mine")
    command = [sys.executable, "-c", LEAVE_SCRATCH, lake.url]
    with subprocess.Popen(
        [*command, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as living:
        assert living.stdout is not None
        others = Path(living.stdout.readline().strip())
        killed = subprocess.run([*command, "die"], capture_output=True, text=True, check=False)
        left = Path(killed.stdout.strip())
        assert (left / "half").exists()
        assert lake.clean_scratch() >= 1
        assert not left.exists()
        assert (others / "half").exists()
        assert own.exists()
        living.communicate()
    assert not others.exists()


def test_scratch_never_shows_in_the_lake(lake: Storage) -> None:
    file(lake.scratch(), b"x")
    assert lake.list() == []
    assert lake.folders() == []


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
