"""The site as a folder: shown as a whole or not at all, and what did not change is not written anew."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from catalunya.errors import CatalunyaError, UsageError
from catalunya.site import build as site_build
from catalunya.site.folder import SiteFolder
from catalunya.site.language import CODES, language
from catalunya.site.publishing import local_folder
from catalunya.site.side_by_side import side_by_side
from tests.pipeline.command import ReleasedLake
from tests.project import ROOT
from tests.site.changed import ChangedSite
from tests.site.conftest import build


def files_of(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def test_a_release_gives_the_same_site_again(
    first_release: ReleasedLake, target: Path, tmp_path: Path
) -> None:
    shutil.copytree(target, tmp_path / "site", symlinks=True, copy_function=os.link)
    again = build(first_release.lake, tmp_path / "site")
    assert again.folder.name == (target / "current").resolve().name
    assert again.unchanged == again.pages > 9_000


def test_what_did_not_change_is_the_file_of_before(changed: ChangedSite, target: Path) -> None:
    before, after = files_of(target / "current"), files_of(changed.site)
    unchanged = 0
    for name in before.keys() & after.keys():
        if name.startswith(("data/", "releases/")):
            # Files of the lake, for which `downloads.py` has a rule of its own.
            continue
        was, is_now = before[name].stat(), after[name].stat()
        if before[name].read_bytes() == after[name].read_bytes():
            assert (was.st_ino, was.st_mtime_ns) == (is_now.st_ino, is_now.st_mtime_ns), name
            unchanged += name.endswith("/index.html")
        else:
            assert was.st_ino != is_now.st_ino
    assert changed.answer["pages_unchanged"] == unchanged > 9_000
    written = changed.answer["pages"] - unchanged
    assert changed.answer["pages_written"] == written
    assert f"{written:,} written and {unchanged:,} unchanged" in changed.told
    assert re.search(r"MB in \d+\.\d s", changed.told)
    assert "writing the pages" in changed.told


def test_only_the_pages_of_services_that_changed_are_written(changed: ChangedSite, target: Path) -> None:
    for code in CODES:
        folder = f"{code}/{language(code).text('path.services')}/S"
        before, after = (
            {name: path.stat().st_ino for name, path in files_of(site).items() if name.startswith(folder)}
            for site in (target / "current", changed.site)
        )
        written = {name for name, inode in after.items() if before.get(name) != inode}
        assert {name.split("/")[2].split("-")[0] for name in written} == set(changed.services.values())
        # An address stays, whatever a service is called now.
        assert before.keys() <= after.keys()


def test_nothing_is_written_through_a_link_into_the_site_of_before(
    changed: ChangedSite, target: Path
) -> None:
    shown = (target / "current").resolve()
    assert shown.name.endswith(site_build._digest(sorted(files_of(shown)), shown))


def test_a_file_of_the_site_of_before_stays_the_same_file(tmp_path: Path) -> None:
    old, new, source = tmp_path / "old", tmp_path / "new", tmp_path / "source"
    (old / "a").mkdir(parents=True)
    (old / "a" / "same.html").write_text("same")
    (old / "other.html").write_text("old")
    (old / "copy.bin").write_text("bytes")
    source.write_text("bytes")
    folder = SiteFolder(new, old)
    folder.put("a/same.html", b"same")
    folder.put("other.html", b"new")
    folder.put("more.html", b"more")
    folder.copy("copy.bin", source)
    folder.copy("copied.bin", source)
    assert folder.unchanged == {"a/same.html", "copy.bin"}
    for name, path in files_of(new).items():
        assert path.samefile(old / name) if name in folder.unchanged else path.stat().st_nlink == 1
    for again in (
        lambda: folder.put("a/same.html", b"other"),
        lambda: folder.copy("copy.bin", old / "other.html"),
    ):
        with pytest.raises(FileExistsError):
            again()
    assert {name: path.read_text() for name, path in files_of(old).items()} == {
        "a/same.html": "same", "other.html": "old", "copy.bin": "bytes",
    }  # fmt: skip


def test_a_file_system_without_hard_links_gets_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "same.html").write_text("same")
    folder = SiteFolder(tmp_path / "new", tmp_path / "old")
    folder.put("same.html", b"same")
    assert (tmp_path / "new" / "same.html").read_text() == "same"
    assert folder.unchanged == set()


def build_small(release_id: str, target: Path) -> None:
    """Build a site of three files, one of which every release has."""

    def write(_: Any, __: Any, release: Any, files: SiteFolder, *___: Any) -> None:
        for name in ("ca/index.html", "index.html"):
            files.put(name, release.release_id.encode())
        files.put("ca/same/index.html", b"same")

    storage: Any = None
    release: Any = SimpleNamespace(release_id=release_id)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site_build, "_write", write)
        site_build.build_site(storage, {}, release, target)


def build_until(changes: int, release_id: str, target: Path) -> int:
    """Build a small site in a fork that dies before it makes one change more; return its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = changes

    def die_before_a_change(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(arguments[1], str) and set("wxa") & set(arguments[1])
        kinds = ("os.mkdir", "os.rename", "os.symlink", "os.link", "os.remove", "os.rmdir", "shutil.rmtree")
        if writes or event in kinds:
            left -= 1
            if left < 0:
                os._exit(9)

    try:
        sys.addaudithook(die_before_a_change)
        build_small(release_id, target)
        os._exit(0)
    finally:
        os._exit(1)


def test_a_kill_before_any_change_leaves_one_whole_site(tmp_path: Path) -> None:
    target = tmp_path / "site"
    same = target / "current" / "ca" / "same" / "index.html"

    def shown() -> str:
        """The release that is shown; fails when it is not whole."""
        found = {name: path.read_text() for name, path in files_of(target / "current").items()}
        assert found.pop("ca/same/index.html") == "same"
        assert set(found) == {"ca/index.html", "index.html"}
        [release_id] = set(found.values())
        return release_id

    old, new = "20260101T000000Z-00000000", "20260102T000000Z-11111111"
    seen = []
    for changes in range(60):
        # The site of before is built again, too, over what a killed build left of it.
        assert build_until(99, old, target) == 0
        assert shown() == old
        inode = same.stat().st_ino
        code = build_until(changes, new, target)
        seen.append(shown())
        assert same.stat().st_ino == inode
        if code == 0:
            break
        assert code == 9
    assert code == 0
    assert seen[0] == old
    assert seen.index(new) > 6
    # The site before the one that is shown is kept.
    assert len(list(target.iterdir())) == 3


def test_a_build_that_stops_leaves_the_old_site_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "site"
    build_small("20260101T000000Z-00000000", target)
    for name in ("_names", "_digest", "_swap"):
        with monkeypatch.context() as patch:
            patch.setattr(site_build, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                build_small("20260102T000000Z-11111111", target)
        assert (target / "current" / "index.html").read_text() == "20260101T000000Z-00000000"
        assert not [path for path in target.iterdir() if path.name.startswith(".")]
    build_small("20260103T000000Z-22222222", target)
    assert (target / "current" / "index.html").read_text() == "20260103T000000Z-22222222"
    # The site before the one that is shown is kept.
    assert len(list(target.iterdir())) == 3


def test_a_folder_of_something_else_is_left_alone(first_release: ReleasedLake, tmp_path: Path) -> None:
    (tmp_path / "thesis.odt").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.odt"):
        build(first_release.lake, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.odt"]


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    file = tmp_path / "site"
    file.write_text("years of work")
    with pytest.raises(UsageError, match=f"--to {file} is a file; name a folder"):
        build_small("20260101T000000Z-00000000", file)
    with pytest.raises(UsageError, match=f"--to {file} is a file; name a folder"):
        local_folder(str(file))
    assert file.read_text() == "years of work"


@pytest.mark.parametrize("place", ["file/site", "link"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(UsageError, match=f"--to {tmp_path / place} cannot be written"):
        build_small("20260101T000000Z-00000000", tmp_path / place)


def test_work_side_by_side_is_answered_in_its_order() -> None:
    assert side_by_side(lambda number: number * number, range(5)) == [0, 1, 4, 9, 16]


def test_a_mistake_in_a_fork_is_raised_with_where_it_was() -> None:
    def work(number: int) -> int:
        return 10 // number

    with pytest.raises(ZeroDivisionError) as caught:
        side_by_side(work, [1, 0])
    assert "return 10 // number" in "".join(caught.value.__notes__)


class Unportable(Exception):
    """An error that no other process can make again: its arguments are not those that it was made with."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")


def test_a_mistake_that_cannot_be_sent_from_a_fork_is_told_by_its_text() -> None:
    def work(number: int) -> int:
        raise Unportable("page 7", "no such text")

    with pytest.raises(Exception, match="page 7: no such text"):
        side_by_side(work, [1])


@pytest.mark.skipif(sys.platform != "linux", reason="forks are of Linux alone")
def test_a_fork_that_is_killed_is_an_error() -> None:
    def work(number: int) -> int:
        if number:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(CatalunyaError, match="memory"):
        side_by_side(work, [0, 1])


@pytest.mark.skipif(sys.platform != "linux", reason="forks are of Linux alone")
def test_a_fork_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, signal, time\n"
        "from pathlib import Path\n"
        "from catalunya.site.side_by_side import side_by_side\n"
        "def work(one):\n"
        f"    Path({str(tmp_path)!r}, str(os.getpid())).touch()\n"
        "    if one:\n"
        "        os.kill(os.getppid(), signal.SIGKILL)\n"
        "    time.sleep(600)\n"
        "side_by_side(work, [0, 1])\n"
    )
    killed = subprocess.run([sys.executable, "-B", "-c", code], check=False, cwd=ROOT, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    for path in tmp_path.iterdir():
        while (
            Path("/proc", path.name).exists()
            and "zombie" not in Path("/proc", path.name, "status").read_text()
        ):
            pass
