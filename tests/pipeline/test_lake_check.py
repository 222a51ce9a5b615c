"""`catalunya lake check`: a sound lake has no fault, and each kind of damage is named with its file and what to do.

One long module: the damages are functions of a few lines, which the tests of the repair use, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from catalunya.demo import server
from catalunya.lake.opening import open_lake
from catalunya.operations.integrity.check import Report, check
from tests.factories import DEFINITIONS
from tests.pipeline.command import LATER_DAY, SMALL, Command
from tests.pipeline.life import LIFE, Undisturbed, copy_lake, saved

NOW = datetime(2026, 2, 4, 6, tzinfo=UTC)


def checked(lake: Path | str) -> Report:
    return check(open_lake(str(lake)), DEFINITIONS, NOW)


def said(report: Report) -> str:
    return "\n".join(f"{fault.kind} {fault}" for fault in report.faults)


@pytest.fixture(scope="module")
def calm(tmp_path_factory, fork_server, small_project) -> Undisturbed:
    """The month in the life of a lake that nothing disturbed."""
    return saved(tmp_path_factory, small_project)


@pytest.fixture
def lake(calm, tmp_path) -> Path:
    """The lake at the end of that month: releases, refused and accepted snapshots, a ledger."""
    copy_lake(calm.before(len(LIFE)), tmp_path / "lake")
    return tmp_path / "lake"


def test_a_sound_lake_has_no_fault_on_any_day_of_its_life(calm, tmp_path):
    for number in range(len(LIFE) + 1):
        copy_lake(calm.before(number), tmp_path / str(number))
        report = checked(tmp_path / str(number))
        assert not report.faults, f"before step {number}: {said(report)}"
    assert report.counts["releases"] == 3 and report.counts["snapshots"] > 5


def test_the_site_beside_the_lake_is_no_fault(lake):
    (lake / "site" / "20260105T060000Z-aaaaaaaa").mkdir(parents=True)
    (lake / "site" / "current").symlink_to("20260105T060000Z-aaaaaaaa")
    report = checked(lake)
    assert not report.faults, said(report)


def one(lake: Path, pattern: str, place: int = -1) -> Path:
    return sorted(lake.glob(pattern))[place]


def shown(lake: Path) -> Path:
    return lake / "releases" / json.loads((lake / "current.json").read_text())["release_id"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}))


def with_its_checksum(path: Path) -> Path:
    """Write the checksum of a changed file into SHA256SUMS, as somebody does who wants to hide the change."""
    sums = next(folder / "SHA256SUMS" for folder in path.parents if (folder / "SHA256SUMS").exists())
    name, digest = path.relative_to(sums.parent).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()
    lines = sums.read_text().splitlines()
    sums.write_text("".join(f"{digest if line[66:] == name else line[:64]}  {line[66:]}\n" for line in lines))
    return sums


def unlinked(lake: Path) -> str:
    path = one(lake, "landing/population/*/page-00000.json", 0)
    path.unlink()
    return str(path)


def flipped_page(lake: Path) -> str:
    path = one(lake, "landing/social_services/*/page-00000.json", 0)
    flip(path)
    return str(path)


def emptied_manifest(lake: Path) -> str:
    path = one(lake, "landing/social_services/*/manifest.json", 0)
    path.write_bytes(b"")
    return str(path)


def lost_manifest(lake: Path) -> str:
    path = one(lake, "landing/social_services/*/manifest.json", 0)
    path.unlink()
    return str(path)


def lost_snapshot(lake: Path) -> str:
    path = one(lake, "landing/boundaries/*", 0)
    shutil.rmtree(path)
    return str(path)


def truncated_staged_file(lake: Path) -> str:
    path = one(lake, "staging/population/*/*.parquet", 0)
    path.write_bytes(path.read_bytes()[:-100])
    return str(path)


def staged_file_of_another(lake: Path) -> str:
    first, second = (
        one(lake, "staging/social_services/*/*.parquet", 0),
        one(lake, "staging/social_services/*/*.parquet", 1),
    )
    shutil.copy(second, first)
    return f"{first} is the staged file of snapshot {second.stem}"


def lost_staged_file(lake: Path) -> str:
    path = one(lake, "staging/boundaries/*/*.parquet", 0)
    path.unlink()
    return str(path)


def cut_quarantine(lake: Path) -> str:
    path = one(lake, "quarantine/population/*/*.parquet", 0)
    path.write_bytes(path.read_bytes()[:-10])
    return str(path)


def flipped_quarantine(lake: Path) -> str:
    path = one(lake, "quarantine/population/*/*.parquet", 0)
    data = path.read_bytes()
    path.write_bytes(b"X" * 8 + data[8:])
    return str(path)


def damaged_index(lake: Path) -> str:
    path = lake / "staging/population/_index.json"
    path.write_text("{")
    return str(path)


def pointer_to_nothing(lake: Path) -> str:
    edit(lake / "current.json", release_id="20260101T000000Z-00000000")
    return f"{lake / 'current.json'} names release 20260101T000000Z-00000000"


def empty_pointer(lake: Path) -> str:
    (lake / "current.json").write_bytes(b"")
    return str(lake / "current.json")


def lost_pointer(lake: Path) -> str:
    (lake / "current.json").unlink()
    return f"{lake / 'current.json'} is missing"


def pointer_of_another_generation(lake: Path) -> str:
    older = one(lake, "releases/*", 0).name
    edit(lake / "current.json", release_id=older, previous=None, swapped_at="2026-01-29T06:00:00Z")
    return f"{lake / 'current.json'} is older than release {one(lake, 'releases/*').name}"


def ledger_without_json(lake: Path) -> str:
    path = one(lake, "ledger/*.json")
    path.write_text("not a record")
    return str(path)


def ledger_of_another_run(lake: Path) -> str:
    path = one(lake, "ledger/*.json", 0)
    shutil.copy(one(lake, "ledger/*.json"), path)
    return str(path)


def release_with_a_missing_file(lake: Path) -> str:
    path = shown(lake) / "datapackage.json"
    path.unlink()
    return str(path)


def release_with_an_extra_file(lake: Path) -> str:
    path = shown(lake) / "csv" / "extra.csv"
    path.write_text("a\n")
    return str(path)


def flipped_mart(lake: Path) -> str:
    path = one(shown(lake), "parquet/*.parquet", 0)
    flip(path)
    return str(path)


def edited_checksums(lake: Path) -> str:
    """A file is changed and its checksum with it: only the id of the release tells."""
    path = one(shown(lake), "csv/*.csv", 0)
    flip(path)
    return f"{with_its_checksum(path)} was changed"


def release_without_checksums(lake: Path) -> str:
    (shown(lake) / "SHA256SUMS").unlink()
    return str(shown(lake) / "SHA256SUMS")


def release_without_a_record(lake: Path) -> str:
    (shown(lake) / "release.json").unlink()
    return f"{lake / 'current.json'} names release {shown(lake).name}"


def rows_of_the_manifest(lake: Path) -> str:
    path = one(lake, "landing/social_services/*/manifest.json", 0)
    edit(path, rows=json.loads(path.read_text())["rows"] + 1)
    return f"{path} says"


def rows_of_the_release(lake: Path) -> str:
    path = shown(lake) / "release.json"
    rows = json.loads(path.read_text("utf-8"))["rows"]
    edit(path, rows={mart: count + 1 for mart, count in rows.items()})
    with_its_checksum(path)
    mart = sorted(rows)[0]
    return f"{mart}.parquet has {rows[mart]} rows, release.json says {rows[mart] + 1}"


def snapshot_of_another_dataset(lake: Path) -> str:
    path = one(lake, "landing/boundaries/*", 0)
    target = lake / "landing" / "population" / path.name
    shutil.copytree(path, target)
    return f"{target / 'manifest.json'} is the manifest of snapshot {path.name} of boundaries"


def damaged_refusal(lake: Path) -> str:
    path = one(lake, "landing/*/*/refused.json", 0)
    path.write_text("[]")
    return str(path)


def damaged_candidate(lake: Path) -> str:
    path = lake / "candidates" / "20260204T060000Z-00000001" / "candidate.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    return str(path)


def loop_of_links(lake: Path) -> str:
    path = one(lake, "landing/population/*/page-00000.json", 0)
    path.unlink()
    path.symlink_to(path.name)
    return f"{path} is ignored: a symbolic link that leads nowhere"


DAMAGES = [
    unlinked, flipped_page, emptied_manifest, lost_manifest, lost_snapshot, truncated_staged_file,
    staged_file_of_another, lost_staged_file, cut_quarantine, flipped_quarantine, damaged_index, pointer_to_nothing,
    empty_pointer, lost_pointer, pointer_of_another_generation, ledger_without_json, ledger_of_another_run,
    release_with_a_missing_file, release_with_an_extra_file, flipped_mart, edited_checksums, release_without_checksums,
    release_without_a_record, rows_of_the_manifest, rows_of_the_release, snapshot_of_another_dataset, damaged_refusal,
    damaged_candidate, loop_of_links,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_named_with_its_file_and_what_to_do(damage: Callable[[Path], str], lake):
    where = damage(lake)
    report = checked(lake)
    assert not report.is_sound, said(report)
    assert where in said(report)
    for fault in report.faults:
        assert fault.hint, fault
        assert "Traceback" not in str(fault)
    # A command that the tests fork ends without removing its temporary files: a leftover.
    assert sum(fault.kind == "damage" for fault in report.faults) <= 5, said(report)


@pytest.fixture
def foreign_lake(calm: Undisturbed) -> Iterator[Path]:
    """The lake in a folder that another user can reach, and this process as that user: root may read everything."""
    folder = Path(tempfile.mkdtemp(prefix="catalunya-"))
    copy_lake(calm.before(len(LIFE)), folder / "lake")
    is_root = os.geteuid() == 0
    if is_root:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder / "lake"
    finally:
        if is_root:
            os.seteuid(0)
        subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=True)
        shutil.rmtree(folder)


def test_what_this_user_may_not_read_is_named_with_the_command_that_corrects_it(foreign_lake):
    closed = [
        one(foreign_lake, "landing/population/*", 0),
        one(foreign_lake, "landing/social_services/*/page-00000.json", 0),
        one(foreign_lake, "staging/boundaries/*/*.parquet", 0),
        one(shown(foreign_lake), "csv/*.csv", 0),
        one(foreign_lake, "ledger/*.json"),
    ]
    for path in closed:
        path.chmod(0)
    report = checked(foreign_lake)
    assert not report.is_sound
    for path in closed:
        [fault] = [fault for fault in report.faults if str(path) in str(fault)]
        assert "ermission denied" in str(fault) or "cannot be read" in str(fault), fault
        assert "chmod" in str(fault) or "right to read" in str(fault), fault


@dataclass(frozen=True)
class Harmless:
    """What lies in a lake and does no harm: how it came there, what is said of it."""

    kind: str
    make: Callable[[Path], None]
    said: str


def write(path: Path, data: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


HOSTILE = "\x1b[2J\n[red]’; rm -rf ~"
LATE = "20260204T070000Z-00000001"
HARMLESS = {
    "stray file": Harmless(
        "stray", lambda lake: write(lake / "notes.txt"), "notes.txt is no file of the lake"
    ),
    "stray page": Harmless(
        "stray",
        lambda lake: write(one(lake, "landing/population/*", 0) / "page-00009.json"),
        "page-00009.json is not named in the manifest",
    ),
    "hostile name": Harmless(
        "stray", lambda lake: write(lake / "landing" / HOSTILE), "\\x1b[2J\\n[red]’; rm -rf ~ is ignored"
    ),
    "linked folder": Harmless(
        "stray",
        lambda lake: (lake / "releases" / "link").symlink_to(shown(lake)),
        "releases/link is ignored: a symbolic link to a folder",
    ),
    "hidden file": Harmless(
        "stray", lambda lake: write(lake / "landing" / ".DS_Store"), ".DS_Store is hidden"
    ),
    "temporary file": Harmless(
        "leftover", lambda lake: write(lake / "landing" / f".page.{'0' * 32}"), "is a temporary file"
    ),
    "scratch of a killed process": Harmless(
        "leftover",
        lambda lake: (
            write(lake / ".lake/scratch/host-1-0.alive"),
            write(lake / ".lake/scratch/host-1-0/part"),
        ),
        "scratch/host-1-0 has the temporary files of a process that is gone",
    ),
    "incomplete snapshot": Harmless(
        "leftover",
        lambda lake: write(lake / "landing/population" / LATE / "page-00000.json"),
        f"{LATE} is a snapshot without a manifest",
    ),
    "incomplete release": Harmless(
        "leftover",
        lambda lake: write(lake / "releases" / LATE / "csv" / "a.csv"),
        "is a release without release.json",
    ),
    "incomplete candidate": Harmless(
        "leftover", lambda lake: write(lake / "candidates" / LATE / "x.duckdb"), "is a candidate without"
    ),
    "steps of an old run": Harmless(
        "leftover",
        lambda lake: write(lake / "runs" / "20260101T000000Z-00000001" / "build.json"),
        "state of a run",
    ),
    "documentation of a lost release": Harmless(
        "leftover",
        lambda lake: write(lake / "docs" / LATE.replace("T07", "T08") / "index.html"),
        "which is gone",
    ),
    "staged file without a snapshot": Harmless(
        "stray",
        lambda lake: write(lake / "staging/population/snapshot_date=2026-02-04" / f"{LATE}.parquet"),
        "which is not in landing/population",
    ),
    "dataset without a definition": Harmless(
        "stray",
        lambda lake: write(lake / "landing" / "weather" / LATE / "a.json"),
        "weather is of a dataset that has no",
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_is_named_as_such_and_is_no_damage(name, lake):
    case = HARMLESS[name]
    case.make(lake)
    report = checked(lake)
    assert report.is_sound, said(report)
    named = [fault for fault in report.faults if case.said in str(fault)]
    assert [fault.kind for fault in named] == [case.kind], said(report)
    assert "\n" not in str(named[0]) and "\x1b" not in str(named[0])


def test_the_command_ends_with_1_and_prints_one_object_and_a_line_for_each_fault(lake, small_project):
    command = Command(str(lake), None, now="2026-02-04T06:00:00Z", home=small_project)
    sound = command("lake", "check")
    assert (sound.code, sound.json["status"], sound.json["faults"]) == (0, "sound", [])
    assert "everything fits together" in sound.stderr
    where = flipped_page(lake)
    damaged = command("lake", "check")
    assert (damaged.code, damaged.json["status"]) == (1, "damaged")
    # A command that the tests fork ends without removing its temporary files: a leftover.
    [fault] = [fault for fault in damaged.json["faults"] if fault["kind"] != "leftover"]
    assert (fault["address"], fault["kind"], fault["dataset_id"]) == (where, "damage", "social_services")
    [line] = [line for line in damaged.stderr.splitlines() if line.startswith("damage ")]
    assert where in line and "catalunya lake copy" in line


def test_a_run_that_writes_meanwhile_causes_no_fault(calm, small_project, tmp_path):
    copy_lake(calm.before(len(LIFE)), tmp_path / "lake")
    over = threading.Event()
    found: list[str] = []

    def look() -> None:
        while not over.wait(0.2):
            found.append(said(checked(tmp_path / "lake")))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        with server.running(rows=SMALL + 30, day=LATER_DAY) as portal:
            command = Command(
                str(tmp_path / "lake"), portal.url, now="2026-03-02T06:00:00Z", home=small_project
            )
            for words in (["run"], ["run", "--rebuild"]):
                answer = command(*words)
                assert answer.code == 0, answer.stderr
    finally:
        over.set()
        looking.join()
    assert len(found) > 3
    # The temporary files of the forked commands, as above.
    assert {line for text in found for line in text.splitlines() if "/scratch/" not in line} == set()


@pytest.mark.parametrize(
    "arguments", [("status",), ("show", "population"), ("verify",), ("lake", "check"), ("metrics",)]
)
def test_reading_a_lake_that_is_not_there_does_not_make_it(tmp_path, arguments):
    answer = Command(str(tmp_path / "mistyped" / "lake"), None)(*arguments)
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "mistyped").exists()
