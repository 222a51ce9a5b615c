"""`catalunya lake copy`: the same lake elsewhere, valid at any moment, resumed by a second call, never mixed with others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from catalunya.errors import UsageError
from catalunya.lake import layout
from catalunya.lake.lock import lake_lock
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from catalunya.operations.integrity.same_lake import require_apart
from tests.factories import DEFINITIONS, land, local_lake
from tests.pipeline import test_lake_check as damages
from tests.pipeline.command import Answer, Command
from tests.pipeline.life import LIFE, Undisturbed, VisibleState, copy_lake
from tests.pipeline.test_lake_check import calm, checked, lake, one, said, shown

__all__ = ["calm", "lake"]

COPIED = ("current.json", "landing/", "staging/", "quarantine/", "releases/", "ledger/", "alerts/", "docs/")


@pytest.fixture
def copy(small_project) -> Callable[..., Answer]:
    def call(source: object, target: object, kill_at: int | None = None, **env: str) -> Answer:
        command = Command("unused", None, now="2026-02-04T06:00:00Z", home=small_project, env=env)
        return command("lake", "copy", str(source), str(target), kill_at=kill_at)

    return call


def contents(storage: Storage) -> dict[str, bytes]:
    return {e.key: storage.read(e.key) for e in storage.list() if e.key.startswith(COPIED)}


def damage_of(lake: Path | str) -> list[str]:
    return [str(fault) for fault in checked(lake).faults if fault.kind == "damage"]


def test_from_a_folder_to_s3_and_back_every_byte_is_the_same(lake, copy, s3_emulator, s3_bucket, tmp_path):
    bucket, back = f"s3://{s3_bucket}/some/lake", tmp_path / "back"
    there = copy(lake, bucket, **s3_emulator.env)
    assert (there.code, there.json["status"], there.json["equal"]) == (0, "copied", 0), there.stderr
    assert not checked(bucket).faults, said(checked(bucket))
    again = copy(lake, bucket, **s3_emulator.env)
    assert (again.code, again.json["copied"]) == (0, 0), again.stderr
    home = copy(bucket, back, **s3_emulator.env)
    assert home.code == 0, home.stderr
    assert contents(open_lake(str(back))) == contents(open_lake(str(lake))) == contents(open_lake(bucket))
    assert damage_of(back) == []
    # What is damaged there is named by its address.
    for key in (
        layout.release(shown(lake).name, "LICENCES.md"),
        one(lake, "staging/*/*/*.parquet").relative_to(lake),
    ):
        open_lake(bucket).delete(str(key))
        assert f"{bucket}/{key} is missing" in said(checked(bucket))
    # Both, and the index of the dataset, which is gone while a staged file is replaced.
    assert copy(lake, bucket, **s3_emulator.env).json["copied"] == 3
    # One object is another: it alone is copied.
    open_lake(bucket).put(layout.release(shown(lake).name, "dictionary.md"), b"other")
    repaired = copy(lake, bucket, **s3_emulator.env)
    assert (repaired.code, repaired.json["copied"]) == (0, 1), repaired.stderr


def test_a_backup_that_is_made_again_and_again_follows_the_lake(calm: Undisturbed, copy, tmp_path):
    backup = tmp_path / "backup"
    for number in (2, 5, 6, 9, len(LIFE)):
        source = tmp_path / str(number)
        copy_lake(calm.before(number), source)
        answer = copy(source, backup)
        assert answer.code == 0, answer.stderr
        assert damage_of(backup) == [], f"before step {number}"
        found, wanted = VisibleState.of(backup, LIFE[number - 1].now), calm.seen(number)
        assert (found.release, found.datasets) == (wanted.release, wanted.datasets), f"before step {number}"
    assert answer.json["equal"] > answer.json["copied"] > 0


def test_a_copy_that_is_killed_at_any_write_leaves_a_valid_lake_and_goes_on(calm, copy, tmp_path):
    """The target is a copy of earlier days, so that there are files to replace, too."""
    source, earlier = tmp_path / "source", tmp_path / "earlier"
    copy_lake(calm.before(len(LIFE)), source)
    copy_lake(calm.before(5), earlier)
    # What is staged by other rules differs under the same name.
    for path in earlier.glob("staging/*/*/*.parquet"):
        path.write_bytes(one(earlier, "staging/population/*/*.parquet").read_bytes())
    shutil.copytree(earlier, tmp_path / "whole")
    whole = copy(source, tmp_path / "whole")
    assert whole.code == 0, whole.stderr
    wanted = contents(open_lake(str(tmp_path / "whole")))
    for at in range(2, whole.writes, max(1, whole.writes // 5)):
        target = tmp_path / f"killed-{at}"
        copy_lake(calm.before(5), target)
        assert copy(source, target, kill_at=at).code is None
        assert damage_of(target) == [], f"killed at write {at} of {whole.writes}"
        done = copy(source, target)
        assert done.code == 0, done.stderr
        assert contents(open_lake(str(target))).keys() == wanted.keys()
        assert (target / "current.json").read_bytes() == wanted["current.json"]
        shutil.rmtree(target)


def test_a_lost_file_comes_back_from_an_older_backup_and_nothing_goes_back_in_time(
    calm, copy, lake, tmp_path
):
    backup = tmp_path / "backup"
    copy_lake(calm.before(6), backup)
    before = contents(open_lake(str(lake)))
    damages.unlinked(lake)
    damages.flipped_page(lake)
    shutil.rmtree(one(lake, "landing/boundaries/*", 0))
    assert damage_of(lake)
    answer = copy(backup, lake)
    assert (answer.code, answer.json["restored_only"]) == (0, True), answer.stderr
    assert contents(open_lake(str(lake))) == before
    assert damage_of(lake) == []


def test_nothing_damaged_is_copied(copy, lake, tmp_path):
    page = Path(damages.flipped_page(lake))
    answer = copy(lake, tmp_path / "backup")
    assert (answer.code, answer.json["status"]) == (1, "incomplete")
    assert str(page) in answer.stderr
    target = tmp_path / "backup" / page.parent.relative_to(lake)
    assert not (target / page.name).exists() and not (target / "manifest.json").exists()
    assert shown(tmp_path / "backup").name == shown(lake).name


def another(folder: Path) -> None:
    """A lake of real data, with a snapshot of its own."""
    land(local_lake(folder), DEFINITIONS["population"], [[{"a": 1}]])


def fork(folder: Path) -> None:
    """A copy that went on by itself."""
    land(local_lake(folder), DEFINITIONS["population"], [[{"a": 1}]])
    for path in folder.glob("landing/population/*/manifest.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "demo": True}))


def other_files(folder: Path) -> None:
    damages.write(folder / "lost+found" / "x")
    damages.write(folder / "thesis.doc")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (another, "the two never mix"),
        (fork, "is another lake"),
        (other_files, "is no lake: it holds thesis.doc"),
    ],
    ids=["real data", "fork", "other files"],
)
def test_what_is_not_the_same_lake_is_refused_and_stays_as_it_was(make, message, calm, copy, lake, tmp_path):
    target = tmp_path / "target"
    if make is fork:
        copy_lake(calm.before(5), target)
    make(target)
    before = {
        path: path.read_bytes() for path in target.rglob("*") if path.is_file() and ".lake" not in path.parts
    }
    answer = copy(lake, target)
    assert answer.code == 2, answer.stderr
    assert message in answer.json["message"]
    assert (target / ".lake").exists() is (make is not other_files)
    after = {
        path: path.read_bytes() for path in target.rglob("*") if path.is_file() and ".lake" not in path.parts
    }
    assert after == before


def test_a_source_that_is_no_lake_is_named_and_not_made(copy, lake, tmp_path):
    for source, message in ((tmp_path / "typo", "there is no such folder"), (lake, "are the same lake")):
        answer = copy(source, lake)
        assert (answer.code, message in answer.json["message"]) == (2, True), answer.stderr
    assert not (tmp_path / "typo").exists()
    (tmp_path / "empty").mkdir()
    assert "neither snapshots nor releases" in copy(tmp_path / "empty", tmp_path / "x").json["message"]


def test_a_lake_is_not_copied_into_itself_nor_out_of_itself(copy, lake, tmp_path):
    (tmp_path / "link").symlink_to(lake)
    for target in (lake / "backup", tmp_path / "link" / "a" / "b", lake.parent):
        answer = copy(lake, target)
        assert (answer.code, "is inside of" in answer.json["message"]) == (2, True), answer.stderr
    assert (
        not (lake / "backup").exists() and not (lake / "a").exists() and not (lake.parent / ".lake").exists()
    )


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("s3://bucket", "s3://bucket/", "the same"),
        ("s3://bucket/lake/", "s3://bucket//lake", "the same"),
        ("s3://bucket", "s3://bucket/backup", "s3://bucket/backup is inside of s3://bucket;"),
        ("s3://bucket/lake/backup", "s3://bucket/lake", "s3://bucket/lake/backup is inside"),
        ("s3://bucket/lake", "s3://bucket/lake2", None),
        ("s3://bucket/lake", "s3://bucket2/lake", None),
        ("s3://bucket/lake", "bucket/lake", None),
        ("/a/b%20c", "file:///a/b%2520c/", "the same"),
        ("/a", "file:///a/b", "is inside"),
        ("/a", "/ab", None),
        ("/a", "/", "/a is inside of /;"),
    ],
)
def test_one_lake_is_not_inside_of_another(source, target, message):
    if message is None:
        require_apart(source, target)
    else:
        with pytest.raises(UsageError, match=message):
            require_apart(source, target)


def test_a_target_on_which_a_run_works_is_left_alone(calm, copy, lake, tmp_path):
    target = tmp_path / "target"
    copy_lake(calm.before(5), target)
    with lake_lock(open_lake(str(target)), "20260204T050000Z-00000001"):
        answer = copy(lake, target)
    assert (answer.code, "20260204T050000Z-00000001" in answer.json["message"]) == (1, True)
