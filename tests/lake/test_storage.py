from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalunya.errors import CatalunyaError, UsageError
from catalunya.lake.local import LocalStorage
from catalunya.lake.lock import lake_lock
from catalunya.lake.opening import open_lake
from catalunya.lake.s3 import S3Storage
from catalunya.lake.storage import Conflict, Entry, KeyExists, MissingKey, Storage, check_key
from tests.lake.faulty import DENIED, NO_SUCH_UPLOAD, FaultyFront


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


def test_the_tail_of_a_stored_file_is_read_by_one_request(s3_lake: Storage, monkeypatch) -> None:
    s3_lake.put("a/b", b"0123456789")
    monkeypatch.setattr("obstore.head", lambda *_: pytest.fail("a second request"))
    assert s3_lake.read_tail("a/b", 4) == (10, b"6789")


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
    assert lake.folders_after("r", "") == ["1", "2", "20", "3"]
    assert lake.folders_after("r", "2") == ["20", "3"]
    assert lake.folders_after("r", "3") == []
    assert lake.folders_after("nothing", "1") == []


def test_folders_after_a_name_cost_one_request_however_many_come_before(front: FaultyFront) -> None:
    lake = open_lake(front.lake_url)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: lake.put(f"r/{number:05d}/a", b""), range(1050)))
    front.requests.clear()
    assert lake.folders_after("r", "01048") == ["01049"]
    assert len(front.requests) == 1


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


def test_put_file_on_a_local_lake_is_a_rename(local_lake: Storage) -> None:
    source = file(local_lake.scratch(), b"content")
    inode = source.stat().st_ino
    local_lake.put_file("a/b", source)
    assert Path(local_lake.uri("a/b")).stat().st_ino == inode


def test_put_file_from_another_file_system_arrives_whole(local_lake: Storage) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == Path(local_lake.url).stat().st_dev:
        pytest.skip("no second file system at /dev/shm")
    source = file(elsewhere, os.urandom(1000), f"catalunya-{os.getpid()}")
    content = source.read_bytes()
    local_lake.put_file("a/b", source)
    assert not source.exists()
    assert local_lake.read("a/b") == content
    assert list(local_lake.scratch().iterdir()) == []


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


def test_delete_folder_removes_more_objects_than_one_request_can(s3_lake: Storage) -> None:
    threads = [
        threading.Thread(target=lambda i=i: [s3_lake.put(f"a/{i}-{j}", b"") for j in range(105)])
        for i in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(s3_lake.list("a")) == 1050
    s3_lake.delete_folder("a")
    assert s3_lake.list() == []


@pytest.mark.parametrize(
    "prefix", ["", "/", "..", "../lake", "a/..", "a/../..", "/etc", ".", "a//b", ".lake"]
)
def test_delete_folder_refuses_the_root_and_whatever_leaves_it(lake: Storage, prefix: str) -> None:
    lake.put("a/b", b"")
    with pytest.raises(UsageError):
        lake.delete_folder(prefix)
    assert lake.list() == [Entry("a/b", 0)]


def test_delete_folder_does_not_follow_a_link_out_of_the_lake(local_lake: Storage, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "x").mkdir(parents=True)
    precious = file(outside / "x", b"precious")
    (Path(local_lake.url) / "link").symlink_to(outside)
    local_lake.put("a/b", b"")
    (Path(local_lake.url) / "a" / "link").symlink_to(outside)
    for prefix in ("link", "link/x"):
        with pytest.raises(UsageError, match="out of the lake"):
            local_lake.delete_folder(prefix)
    local_lake.delete_folder("a")
    assert precious.read_bytes() == b"precious"


def test_local_deletes_leave_no_empty_folders_and_keep_the_root(local_lake: Storage) -> None:
    local_lake.put("a/b/c", b"")
    local_lake.put("d/e/f", b"")
    local_lake.delete("a/b/c")
    local_lake.delete_folder("d/e")
    assert [path.name for path in Path(local_lake.url).iterdir()] == [".lake"]


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


def test_a_local_address_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("./data", "data", str(tmp_path / "data"), (tmp_path / "data").as_uri()):
        storage = open_lake(url)
        assert storage.is_local
        assert storage.url == str(tmp_path / "data")
        assert storage.uri("a/b.parquet") == str(tmp_path / "data" / "a" / "b.parquet")


def test_a_folder_that_cannot_be_made_is_named_with_its_variable(tmp_path: Path) -> None:
    blocker = file(tmp_path, b"")
    with pytest.raises(UsageError, match=r"CATALUNYA_LAKE: the folder .*lake cannot be written"):
        open_lake(str(blocker / "lake"))


MOUNTED = """
import sys
from catalunya.errors import CatalunyaError
from catalunya.lake.opening import open_lake

storage = open_lake(sys.argv[1])
storage.put("a/small", b"x")
try:
    storage.put("a/small", b"x" * 3_000_000)
except CatalunyaError as error:
    print(error, storage.read("a/small"), list(storage.scratch().iterdir()))
try:
    open_lake(sys.argv[2])
except CatalunyaError as error:
    print(error)
"""


def test_a_full_disk_and_a_read_only_one_are_explained_and_nothing_is_half_written(tmp_path: Path) -> None:
    small, fixed = tmp_path / "small", tmp_path / "fixed"
    small.mkdir()
    fixed.mkdir()
    mount = f"mount -t tmpfs -o size=1m x '{small}' && mount -t tmpfs -o ro x '{fixed}' && exec \"$0\" \"$@\""
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("no private mounts for this user here")
    done = subprocess.run(
        [*alone, sys.executable, "-c", MOUNTED, str(small), str(fixed)],
        capture_output=True,
        text=True,
        check=True,
    )
    full, read_only = done.stdout.splitlines()
    assert "No space left on device; free space or move CATALUNYA_LAKE" in full
    assert full.endswith("b'x' []")
    assert read_only.startswith(
        f"CATALUNYA_LAKE: the folder {fixed} cannot be written (Read-only file system)"
    )


def test_documents_are_on_the_disk_before_they_are_visible(
    local_lake: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Path(local_lake.url) / "a" / "b" / "manifest.json"
    synced: list[tuple[int, bool]] = []
    real = os.fsync

    def record(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, target.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    for write in (
        lambda: local_lake.put("a/b/manifest.json", b"1"),
        lambda: local_lake.replace("a/b/manifest.json", b"2", None),
        lambda: local_lake.put_file("a/b/manifest.json", file(local_lake.scratch(), b"3")),
    ):
        synced.clear()
        write()
        assert synced[0] == (target.stat().st_ino, False)
        folders = {inode for inode, visible in synced[1:] if visible}
        assert {
            path.stat().st_ino for path in (target.parent, target.parents[1], target.parents[2])
        } <= folders
        local_lake.delete("a/b/manifest.json")


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


def test_a_bucket_that_is_not_there_is_named_with_what_to_check(s3_bucket: str) -> None:
    with pytest.raises(
        UsageError, match=r"CATALUNYA_LAKE: the bucket of s3://no-such-bucket/x .*NoSuchBucket"
    ):
        open_lake("s3://no-such-bucket/x")


def test_a_server_that_is_not_there_is_named_soon(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UsageError, match=r"CATALUNYA_LAKE: .*cannot be reached at http://127\.0\.0\.1:9"):
        open_lake(f"s3://{s3_bucket}")


def test_the_whole_bucket_can_be_the_lake(s3_bucket: str) -> None:
    storage = open_lake(f"s3://{s3_bucket}")
    storage.put("a/b", b"x")
    assert storage.uri("a/b") == f"s3://{s3_bucket}/a/b"
    assert open_lake(f"s3://{s3_bucket}/a/").list() == [Entry("b", 1)]


def test_lakes_in_one_bucket_do_not_see_each_other(s3_bucket: str) -> None:
    one, sibling = open_lake(f"s3://{s3_bucket}/lake"), open_lake(f"s3://{s3_bucket}/lake2")
    one.put("a", b"1")
    sibling.put("a", b"22")
    assert one.list() == [Entry("a", 1)]
    one.delete_folder("a")
    assert sibling.list() == [Entry("a", 2)]


def test_the_endpoint_for_s3_alone_comes_before_the_general_one(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    storage = open_lake(f"s3://{s3_bucket}")
    assert storage.list() == []
    assert f"endpoint '{os.environ['AWS_ENDPOINT_URL_S3'].removeprefix('http://')}'" in str(
        storage.duckdb_secret_sql()
    )


def test_throttled_requests_are_tried_again(front: FaultyFront, tmp_path: Path) -> None:
    storage = open_lake(front.lake_url)
    assert isinstance(storage, S3Storage)
    for work in (
        lambda: storage.put("a/b", b"1"),
        lambda: storage.read("a/b"),
        lambda: storage.read_tail("a/b", 1),
        lambda: storage.copy("a/b", "a/c"),
        lambda: storage.age_s("a/b"),
        storage.list,
        lambda: storage.replace("c", b"1", None),
        lambda: storage.put_file("d", file(tmp_path, b"x" * 40_000_000)),
        lambda: storage.fetch("d", tmp_path / "out"),
        lambda: storage.delete_folder("a"),
    ):
        front.throttle(3)
        before = len(front.requests)
        work()
        assert len(front.requests) >= before + 4
    assert [e for e in storage.list() if not e.key.startswith("locks/")] == [
        Entry("c", 1),
        Entry("d", 40_000_000),
    ]


def test_a_conditional_write_whose_answer_was_lost_is_known_as_our_own(front: FaultyFront) -> None:
    storage = open_lake(front.lake_url)

    def lose_one_put() -> None:
        lost = iter([True])
        front.lose_answer = lambda method, path: method == "PUT" and next(lost, False)

    lose_one_put()
    first = storage.replace("current.json", b"same", None)
    lose_one_put()
    second = storage.replace("current.json", b"same again", first)
    assert storage.read_versioned("current.json") == (b"same again", second)
    lose_one_put()
    storage.put("created", b"x", create=True)
    with pytest.raises(Conflict):
        storage.replace("current.json", b"same again", first)


def test_an_upload_that_breaks_off_leaves_no_object_and_keeps_the_source(
    front: FaultyFront, tmp_path: Path
) -> None:
    storage = open_lake(front.lake_url)
    source = file(tmp_path, os.urandom(40_000_000))
    front.fault = lambda method, path: (403, DENIED) if "partNumber=2" in path else None
    with pytest.raises(CatalunyaError, match=r"lake/big: .*(AccessDenied|403)"):
        storage.put_file("big", source)
    front.fault = lambda method, path: None
    assert source.stat().st_size == 40_000_000
    assert storage.list() == []
    assert any(method == "DELETE" and "uploadId=" in path for method, path in front.requests)


def test_an_upload_whose_last_answer_was_lost_has_arrived(front: FaultyFront, tmp_path: Path) -> None:
    storage = open_lake(front.lake_url)
    source = file(tmp_path, b"x" * 40_000_000)
    completions: list[str] = []

    def ends_an_upload(method: str, path: str) -> bool:
        return method == "POST" and "uploadId=" in path

    def know_it_no_more(method: str, path: str) -> tuple[int, bytes] | None:
        if ends_an_upload(method, path):
            completions.append(path)
        return (404, NO_SUCH_UPLOAD) if ends_an_upload(method, path) and len(completions) > 1 else None

    front.lose_answer = ends_an_upload
    front.fault = know_it_no_more
    storage.put_file("big", source)
    assert len(completions) == 2
    assert storage.list() == [Entry("big", 40_000_000)]
    assert not source.exists()


def test_a_download_that_breaks_off_leaves_nothing_behind(front: FaultyFront, tmp_path: Path) -> None:
    storage = open_lake(front.lake_url)
    storage.put_file("big", file(tmp_path, os.urandom(40_000_000)))
    answered = iter([None, None])
    front.fault = lambda method, path: next(answered, (403, DENIED))
    with pytest.raises(CatalunyaError, match="access denied"):
        storage.fetch("big", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_message_about_a_failure_holds_no_credential(
    front: FaultyFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "verysecret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "tokentoken")
    storage = open_lake(front.lake_url)
    assert isinstance(storage, S3Storage)
    storage.put("a", b"")
    front.fault = lambda method, path: (403, DENIED)
    for work in (lambda: storage.read("a"), lambda: storage.put("a", b""), lambda: storage.age_s("a")):
        with pytest.raises(CatalunyaError) as caught:
            work()
        for secret in ("verysecret", "tokentoken", "Signature"):
            assert secret not in str(caught.value)


def test_duckdb_reads_the_lake_with_the_statement_that_the_lake_gives(lake: Storage, tmp_path: Path) -> None:
    local = tmp_path / "numbers.parquet"
    database = duckdb.connect(":memory:")
    database.execute(f"copy (select range as n from range(10)) to '{local}' (format parquet)")
    lake.put_file("marts/part=1/numbers.parquet", local)
    secret = lake.duckdb_secret_sql()
    assert (secret is None) == lake.is_local
    if secret:
        from duckdb_extensions import import_extension

        import_extension("httpfs")
        database.execute("load httpfs")
        database.execute(secret)
    found = database.execute(f"select sum(n) from read_parquet('{lake.uri('marts/*/numbers.parquet')}')")
    assert found.fetchone() == (45,)


def test_the_statement_for_duckdb_carries_the_session_and_quotes_what_it_is_given(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "it's")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    statement = open_lake(f"s3://{s3_bucket}/lake").duckdb_secret_sql()
    assert statement is not None
    assert "secret 'it''s', session_token 'token'" in statement
    assert f"scope 's3://{s3_bucket}/lake'" in statement


def test_duckdb_without_keys_is_refused_with_what_to_set(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_lake(f"s3://{s3_bucket}/lake")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(UsageError, match=r"AWS_ACCESS_KEY_ID: .*set the keys or fetch the files first"):
        storage.duckdb_secret_sql()


def test_a_profile_that_cannot_be_read_is_refused_with_what_to_do(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(UsageError, match=r"AWS_PROFILE: .*'work' needs boto3"):
        open_lake(f"s3://{s3_bucket}/lake")


def test_a_run_that_holds_a_lock_of_any_name_can_write(lake: Storage) -> None:
    for name in ("run", "write", "site"):
        with lake_lock(lake, "run-a", name):
            lake.put("a", name.encode())
            lake.delete("a")


def test_a_process_forked_after_s3_was_used_is_refused_rather_than_left_hanging(s3_lake: Storage) -> None:
    s3_lake.put("a", b"x")

    def work(results: multiprocessing.SimpleQueue[str]) -> None:
        for use in (lambda: s3_lake.read("a"), lambda: open_lake(s3_lake.url)):
            try:
                use()
            except CatalunyaError as error:
                results.put(str(error))

    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    child = fork.Process(target=work, args=(results,))
    child.start()
    child.join(10)
    child.kill()
    assert child.exitcode == 0
    for _ in range(2):
        assert "which already used S3; start it afresh" in results.get()


def test_a_local_lake_can_be_moved(tmp_path: Path) -> None:
    open_lake(str(tmp_path / "old")).put("a/b", b"x")
    (tmp_path / "old").rename(tmp_path / "new")
    moved = open_lake(str(tmp_path / "new"))
    assert isinstance(moved, LocalStorage)
    assert moved.read("a/b") == b"x"
