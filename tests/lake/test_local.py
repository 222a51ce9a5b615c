"""A lake in a folder: its disk, its links, its names."""

from __future__ import annotations

import io
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import structlog.testing

from catalunya.errors import UsageError
from catalunya.lake import disk
from catalunya.lake.local import LocalStorage
from catalunya.lake.lock import lake_lock, lock_owner
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Entry, Storage


def file(folder: Path, content: bytes, name: str = "upload.bin") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def names(storage: Storage, prefix: str) -> list[str]:
    return [entry.key for entry in storage.list(prefix)]


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


FULL_DISK = """
import sys
from catalunya.errors import CatalunyaError
from catalunya.lake.opening import open_lake

storage = open_lake(sys.argv[1])
storage.put("a/small", b"x")
try:
    storage.put("a/small", b"x" * 3_000_000)
except CatalunyaError as error:
    print(error, storage.read("a/small"), list(storage.scratch().iterdir()))
"""
READ_ONLY_DISK = """
import sys
from catalunya.errors import CatalunyaError
from catalunya.lake.opening import open_lake

try:
    lake = open_lake(sys.argv[1])
    assert lake.folders() == []
    lake.put("a/b", b"x")
except CatalunyaError as error:
    print(error)
"""


def printed_on_mount(folder: Path, options: str, program: str) -> str:
    """What a program prints that has a file system of its own, mounted with these options, at `folder`."""
    mount = f'mount -t tmpfs -o {options} x \'{folder}\' && exec "$0" "$@"'
    private = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    if not shutil.which("unshare") or subprocess.run([*private, "true"], check=False).returncode:
        pytest.skip("no private mounts for this user here")
    command = [*private, sys.executable, "-c", program, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_full_disk_is_explained_and_nothing_is_half_written(tmp_path: Path) -> None:
    printed = printed_on_mount(tmp_path, "size=1m", FULL_DISK)
    assert "No space left on device; free space or move CATALUNYA_LAKE" in printed
    assert printed.endswith("b'x' []")


def test_a_read_only_disk_is_explained(tmp_path: Path) -> None:
    printed = printed_on_mount(tmp_path, "ro", READ_ONLY_DISK)
    assert printed.startswith(
        f"CATALUNYA_LAKE: the folder {tmp_path} cannot be written (Read-only file system)"
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


def test_a_local_lake_can_be_moved(tmp_path: Path) -> None:
    open_lake(str(tmp_path / "old")).put("a/b", b"x")
    (tmp_path / "old").rename(tmp_path / "new")
    moved = open_lake(str(tmp_path / "new"))
    assert isinstance(moved, LocalStorage)
    assert moved.read("a/b") == b"x"


@pytest.mark.parametrize(
    "name", ["a[1]", "x]", "what?", "all*", "line\nbreak", "nul\0", "back\\slash", "\udce0"]
)
def test_a_path_that_the_engine_would_read_as_a_pattern_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="CATALUNYA_LAKE"):
        open_lake(f"{tmp_path}/{name}/lake")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["year=2026", "n=1", "l'Hospitalet {a,b} #%20;$~", "Àrea"])
def test_other_paths_are_allowed(tmp_path: Path, name: str) -> None:
    storage = open_lake(f"{tmp_path}/{name}")
    storage.put("a/b", b"1")
    assert storage.list() == [Entry("a/b", 1)]


ONLY = "20260105T000000Z-1a2b3c4d"


@pytest.fixture
def lake_with_links(local_lake: Storage) -> Storage:
    """A lake of one snapshot, beside links that lead nowhere or round and a folder with an invalid name."""
    folder = Path(local_lake.url, "landing", "p")
    local_lake.put(f"landing/p/{ONLY}/manifest.json", b"1")
    (folder / "round").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    (folder / "nowhere").symlink_to(folder / "gone")
    (folder / "latest").symlink_to(folder / ONLY)
    (folder / "a name").mkdir()
    return local_lake


def test_links_and_invalid_names_are_not_listed(lake_with_links: Storage) -> None:
    assert lake_with_links.folders("landing/p") == [ONLY]
    assert names(lake_with_links, "landing") == [f"landing/p/{ONLY}/manifest.json"]


def test_links_and_invalid_names_are_warned_of_once(lake_with_links: Storage) -> None:
    with structlog.testing.capture_logs() as logged:
        for _ in range(2):
            lake_with_links.folders("landing/p")
            lake_with_links.list("landing")
    expected = {f"landing/p/{name}" for name in ("round", "self", "nowhere", "latest", "a name")}
    assert set(lake_with_links.ignored) == expected
    assert sorted(key for entry in logged for key in entry["keys"].split(", ")) == sorted(expected)


class ShortWriter(io.RawIOBase):
    """An unbuffered file that takes so many bytes at a time."""

    def __init__(self, taken: int) -> None:
        self.taken = taken
        self.name = "/lake/x"
        self.kept = b""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.kept += bytes(data[: self.taken])
        return self.taken


def test_a_short_write_is_continued() -> None:
    file = ShortWriter(3)
    disk.write_all(file, b"12345678")  # type: ignore[arg-type]
    assert file.kept == b"12345678"


def test_a_write_of_nothing_is_an_error() -> None:
    with pytest.raises(OSError, match="only a part"):
        disk.write_all(ShortWriter(0), b"1")  # type: ignore[arg-type]


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
        timeout=600,
    )
    assert done.stdout.count("File too large; raise the limit") == 3, done.stdout
    storage = open_lake(str(tmp_path / "lake"))
    assert (storage.list(), storage.read("kept")) == ([Entry("kept", 3)], b"old")
    with lake_lock(storage, "next"):
        pass
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def lock(lake: Storage) -> None:
    with lake_lock(lake, "r"):
        pass


def test_reading_leaves_no_folder_behind_and_the_first_write_makes_it(tmp_path: Path) -> None:
    for number, write in enumerate(
        (
            lambda lake: lake.put("a/b", b"x"),
            lambda lake: lake.replace("a/b", b"x", None),
            lambda lake: lake.scratch(),
            lock,
        )
    ):
        root = tmp_path / str(number) / "lake"
        lake = open_lake(str(root))
        assert (lake.list(), lake.folders(), lake.files(), lake.exists("a"), lock_owner(lake)) == (
            [], [], [], False, None
        )  # fmt: skip
        assert lake.read_versioned("a/b") is None
        assert (lake.clean_scratch(), lake.abandoned_scratch()) == (0, [])
        assert not root.parent.exists()
        write(lake)
        assert root.is_dir()


def test_a_file_from_elsewhere_can_be_the_first_of_a_lake(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    lake = open_lake(str(tmp_path / "new" / "lake"))
    lake.put_file("a/b", tmp_path / "x")
    assert lake.read("a/b") == b"x"


def test_a_link_to_itself_is_no_lake(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(UsageError, match="CATALUNYA_LAKE"):
        open_lake(str(tmp_path / "link"))
