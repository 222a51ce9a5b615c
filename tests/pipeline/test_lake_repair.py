"""`catalunya lake repair`: what can be made again is made again, what may be the only copy is kept, a kill does no harm."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from catalunya.lake.lock import lake_lock
from catalunya.lake.opening import open_lake
from tests.pipeline import test_lake_check as damages
from tests.pipeline.command import Answer, Command
from tests.pipeline.life import LIFE, copy_lake
from tests.pipeline.test_lake_check import HARMLESS, calm, checked, lake, one, said, shown

__all__ = ["calm", "lake"]


def lost_csv(lake: Path) -> str:
    path = one(shown(lake), "csv/*.csv", 0)
    path.unlink()
    return str(path)


REPAIRED = [
    damages.truncated_staged_file, damages.staged_file_of_another, damages.lost_staged_file, damages.cut_quarantine,
    damages.flipped_quarantine, damages.damaged_index, damages.pointer_to_nothing, damages.empty_pointer,
    damages.lost_pointer, damages.ledger_without_json, damages.release_with_an_extra_file, damages.flipped_mart,
    damages.release_without_checksums, damages.damaged_refusal, damages.damaged_candidate, lost_csv,
]  # fmt: skip
LEFT = [
    damages.unlinked, damages.flipped_page, damages.emptied_manifest, damages.lost_snapshot, damages.edited_checksums,
    damages.pointer_of_another_generation,
]  # fmt: skip
"""What nothing in the lake can be made again from."""


@pytest.fixture
def command(lake, calm) -> Command:
    return Command(str(lake), None, now="2026-02-04T06:00:00Z", home=calm.corrected_home)


def repair(command: Command, *options: str, kill_at: int | None = None) -> Answer:
    return command("lake", "repair", *options, kill_at=kill_at)


def contents(lake: Path) -> dict[str, str]:
    """The checksum of every file that a listing shows."""
    files = (path for path in lake.rglob("*") if path.is_file() and ".lake" not in path.parts)
    return {
        path.relative_to(lake).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


@pytest.mark.parametrize("damage", REPAIRED, ids=lambda damage: damage.__name__)
def test_what_is_whole_makes_the_rest_again_and_nothing_else_is_lost(damage, lake, command):
    sound = contents(lake)
    damage(lake)
    damaged = contents(lake)
    done = repair(command, "--yes")
    assert (done.code, done.json["status"]) == (0, "sound"), done.stderr
    after = contents(lake)
    derived = ("staging/", "quarantine/")
    kept = {*after.values()}
    for name, digest in damaged.items():
        assert name.startswith(derived) or after.get(name) == sound.get(name) or digest in kept, name
    for name, digest in sound.items():
        assert not name.startswith(("releases/", "landing/")) or after[name] == digest or "refused" in name, (
            name
        )


def test_without_yes_nothing_is_changed_and_a_second_repair_finds_nothing(lake, command):
    spoil(lake)
    damaged = contents(lake)
    planned = repair(command)
    assert planned.code == 1
    assert len(planned.json["repairs"]) >= 7 and not any(step["done"] for step in planned.json["repairs"])
    assert contents(lake) == damaged
    assert repair(command, "--yes").code == 0
    again = repair(command, "--yes")
    # The forked command itself ends without removing its temporary files.
    assert (again.code, [r for r in again.json["repairs"] if "temporary" not in r["plan"]]) == (0, [])


@pytest.mark.parametrize("damage", LEFT, ids=lambda damage: damage.__name__)
def test_what_cannot_be_made_again_stays_as_it_is_and_is_still_named(damage, lake, command):
    where = damage(lake)
    damaged = contents(lake)
    done = repair(command, "--yes")
    assert (done.code, done.json["status"]) == (1, "damaged")
    assert where in done.stderr
    assert damaged.items() <= contents(lake).items()


def test_what_killed_runs_left_is_deleted(lake, command):
    left = {name: case for name, case in HARMLESS.items() if case.kind == "leftover"}
    for case in left.values():
        case.make(lake)
    assert len({fault.key for fault in checked(lake).faults}) >= len(left)
    assert repair(command, "--yes").code == 0
    # The forked command itself ends without removing its temporary files.
    assert not [f for f in checked(lake).faults if "scratch/" not in f.key], said(checked(lake))
    assert not (lake / ".lake/scratch/host-1-0").exists()


def test_an_old_copy_of_the_pointer_is_replaced_by_the_release_that_a_person_names(lake, command):
    damages.pointer_of_another_generation(lake)
    newest = one(lake, "releases/*").name
    assert repair(command, "--yes", "--to", newest).code == 0
    assert shown(lake).name == newest


def spoil(lake: Path) -> None:
    for damage in (
        damages.truncated_staged_file, damages.damaged_index, damages.ledger_without_json,
        damages.release_with_an_extra_file, damages.flipped_mart, damages.empty_pointer, HARMLESS["incomplete release"].make,
    ):  # fmt: skip
        if damage is damages.empty_pointer:
            known = shown(lake)
        damage(lake)
    assert known.exists()


def test_a_kill_at_any_write_does_no_harm_and_the_same_command_goes_on(calm, tmp_path):
    def fresh(name: str) -> Command:
        copy_lake(calm.before(len(LIFE)), tmp_path / name)
        spoil(tmp_path / name)
        return Command(str(tmp_path / name), None, now="2026-02-04T06:00:00Z", home=calm.corrected_home)

    whole = repair(fresh("whole"), "--yes")
    assert whole.code == 0, whole.stderr
    wanted = contents(tmp_path / "whole")
    # What was deleted to be staged again is staged by the next run, where the repair was killed in between.
    for at in range(1, whole.writes + 1, max(1, whole.writes // 5)):
        command = fresh(f"killed-{at}")
        before = set(contents(tmp_path / f"killed-{at}").values())
        assert repair(command, "--yes", kill_at=at).code is None
        halfway = set(contents(tmp_path / f"killed-{at}").values())
        done = repair(command, "--yes")
        assert done.code == 0, f"killed at write {at}: {done.stderr}"
        assert command("stage").code == 0
        found = contents(tmp_path / f"killed-{at}")
        assert lasting(found) == lasting(wanted)
        assert before & set(wanted.values()) <= halfway | set(found.values())


def lasting(found: dict[str, str]) -> dict[str, str]:
    """What does not depend on when commands ran, nor on which counts an index took from the files."""
    return {
        k: v
        for k, v in found.items()
        if not k.startswith(("damaged/", "current", "ledger/")) and "_index" not in k
    }


def test_it_refuses_while_a_run_holds_the_lake(lake, command):
    damages.lost_staged_file(lake)
    with lake_lock(open_lake(str(lake)), "20260204T050000Z-00000001"):
        answer = repair(command, "--yes")
    assert answer.code == 1
    assert "20260204T050000Z-00000001" in answer.json["message"]
