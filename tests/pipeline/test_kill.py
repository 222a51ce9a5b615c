"""A process killed at any moment of a lake's life leaves a whole release readable, and the life ends as if undisturbed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

from catalunya.lake.opening import open_lake
from catalunya.operations.integrity.check import check
from tests.factories import DEFINITIONS
from tests.pipeline.command import Answer
from tests.pipeline.life import (
    LIFE,
    Scene,
    Step,
    Undisturbed,
    VisibleState,
    copy_lake,
    published,
    saved,
    scene,
    whole,
)
from tests.s3 import S3Emulator

KILLS = int(os.environ.get("CATALUNYA_KILLS", "4"))
"""The project's own check asks for 20; 200 are the long version of this test."""
ON_S3 = max(1, KILLS // 10)
"""So many more on S3."""
LIVES = KILLS // 20
"""So many lives are lived from their first day to their last, with a kill in most steps."""
SEED = 20260105
PARTS = min(KILLS, 4)
"""The kills are dealt to so many tests, which run beside each other."""
TRIES = 5
DONE = {
    "accept": "is not a refused snapshot",
    "rollback": "is the current release already",
}
"""What a command says when the killed one had done its work."""


@dataclass(frozen=True)
class Kill:
    """A step to kill, and after which share of its time, or of its writes to the lake."""

    number: int
    share: float
    by_write: bool

    @property
    def step(self) -> Step:
        return LIFE[self.number]

    def limit(self, seconds: float, writes: int) -> dict[str, Any]:
        """Where a command of so many seconds and writes is killed."""
        if self.by_write:
            return {"kill_at": 1 + int(self.share * writes)}
        return {"kill_after": self.share * seconds}


def dealt(kills: int, seed: int) -> list[Kill]:
    """Kills at random moments, each step once before any comes again, half of them right before a write."""
    dice = random.Random(seed)
    numbers: list[int] = []
    while len(numbers) < kills:
        numbers += dice.sample(range(len(LIFE)), len(LIFE))
    return [Kill(number, dice.uniform(0.02, 0.98), dice.random() < 0.5) for number in numbers[:kills]]


@pytest.fixture(scope="module")
def calm(tmp_path_factory, fork_server, small_project) -> Undisturbed:
    """The life that nothing disturbed."""
    return saved(tmp_path_factory, small_project)


@pytest.fixture(scope="module")
def life(calm, small_project) -> Iterator[Scene]:
    """The steps of the life, with portals of this process."""
    with scene(small_project, calm.corrected_home, calm.known) as found:
        yield found


def no_release_lost(before: set[str], lake: Path, keep: int, where: str) -> None:
    """A whole release goes by retention alone: the oldest, and only while more than `keep` are left."""
    left = whole(lake)
    gone = before - left
    assert not gone or (len(left) >= keep and max(gone) < min(left)), f"{where}: {gone} of {before} are gone"


def no_damage(lake: Path, step: Step, where: str) -> None:
    """What a killed command left is named as that, and nothing is damaged."""
    now = datetime.fromisoformat(step.now)
    report = check(open_lake(str(lake)), DEFINITIONS, now)
    assert report.is_sound, f"{where}: {[str(fault) for fault in report.faults]}"


def killed_and_repeated(
    life: Scene, calm: Undisturbed, kill: Kill, lake: Path, pace: dict[str, float]
) -> tuple[bool, str]:
    """Kill a step, look at what readers see, repeat it until it ends; whether it was killed, and what was done."""
    step = kill.step
    kept = whole(lake)
    allowed = (published(lake), calm.seen(kill.number + 1).release)
    command = life.command(str(lake), step)
    limit = kill.limit(pace.get(step.name, calm.seconds[step.name]), calm.writes[step.name])
    killed = command(*life.arguments(step, kept), **limit)
    if killed.code is not None:
        # It was faster this time.
        pace[step.name] = killed.seconds
    where = f"{step.name} {limit}"
    assert published(lake) in allowed, f"{where}: a mixture"
    no_release_lost(kept, lake, step.keep, where)
    no_damage(lake, step, where)
    answer = command(*life.arguments(step, whole(lake)))
    check_repeated(answer, step.arguments[0], where)
    no_release_lost(kept, lake, step.keep, where)
    # How long a step takes depends on what else the machine does at the time.
    if answer.code == 0 and killed.code is None:
        pace[step.name] = answer.seconds
    return killed.code is None, where


def check_repeated(answer: Answer, word: str, where: str) -> None:
    """A repeated command ends well, or says that its work is done already."""
    done = word in DONE and answer.code == 2 and DONE[word] in answer.json["message"]
    assert answer.code == 0 or done, f"{where}: {answer.stderr}"


def same(found: VisibleState, wanted: VisibleState, keep: int, where: str) -> None:
    """A lake shows what the undisturbed one does."""
    assert found.datasets == wanted.datasets, where
    assert found.release == wanted.release, where
    if keep == 30:
        assert found.whole == wanted.whole, where
    # Else `no_release_lost` has looked: a run killed while it deletes leaves the rest to the next release, and one killed
    # right before the pointer moves leaves a whole release beside its successor of the same content.


@pytest.mark.parametrize("part", range(PARTS))
def test_a_kill_at_a_random_moment_of_a_lakes_life_changes_nothing_that_follows(part, life, calm, tmp_path):
    pace: dict[str, float] = {}
    for kill in dealt(KILLS, SEED)[part::PARTS]:
        number, lake = kill.number, tmp_path / "killed"
        for _ in range(TRIES):
            copy_lake(calm.before(number), lake)
            killed, where = killed_and_repeated(life, calm, kill, lake, pace)
            if killed:
                break
        else:
            pytest.fail(f"{where}: it ends before it can be killed")
        same(VisibleState.of(lake, LIFE[number].now), calm.seen(number + 1), LIFE[number].keep, where)
        assert not any((lake / "candidates").glob("*")), f"{where}: a candidate was left behind"
        # What a run left is seen at once; what another command left shows in the run that follows.
        if number + 1 < len(LIFE) and LIFE[number].arguments != ("run",):
            after = LIFE[number + 1]
            answer = life.command(str(lake), after)(*life.arguments(after, whole(lake)))
            assert answer.code == 0, f"{where}, then {after.name}: {answer.stderr}"
            same(
                VisibleState.of(lake, after.now),
                calm.seen(number + 2),
                after.keep,
                f"{where}, then {after.name}",
            )


@pytest.mark.skipif(LIVES == 0, reason="whole lives are lived with CATALUNYA_KILLS=20 or more")
@pytest.mark.parametrize("number", range(max(1, LIVES)))
def test_a_life_with_a_kill_in_most_steps_ends_as_the_undisturbed_one(number, life, calm, tmp_path):
    dice = random.Random(SEED + number)
    lake = tmp_path / "lake"
    lake.mkdir()
    pace: dict[str, float] = {}
    story = []
    for at, step in enumerate(LIFE):
        kills = dice.choice((0, 1, 1, 2))
        for _ in range(kills):
            kill = Kill(at, dice.uniform(0.02, 0.98), dice.random() < 0.5)
            story.append(killed_and_repeated(life, calm, kill, lake, pace)[1])
        if not kills:
            answer = life.command(str(lake), step)(*life.arguments(step, whole(lake)))
            assert answer.code == 0, f"{step.name} after {story}: {answer.stderr}"
        same(VisibleState.of(lake, step.now), calm.seen(at + 1), step.keep, "; ".join(story))


@pytest.fixture
def store(s3_emulator: S3Emulator, s3_bucket: str) -> S3Store:
    return S3Store(
        s3_bucket,
        prefix="lake",
        endpoint=s3_emulator.endpoint,
        region="us-east-1",
        access_key_id="test",
        secret_access_key="test",
        client_options={"allow_http": True},
    )


def upload(lake: Path, store: S3Store) -> None:
    for path in lake.rglob("*"):
        if path.is_file():
            obstore.put(store, path.relative_to(lake).as_posix(), path)


def download(store: S3Store, lake: Path) -> None:
    for chunk in obstore.list(store):
        for meta in chunk:
            path = lake / meta["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(obstore.get(store, meta["path"]).bytes()))


def expire_leases(store: S3Store) -> None:
    """What a minute does to the leases of a process that was killed."""
    obstore.delete(store, [meta["path"] for chunk in obstore.list(store, "locks") for meta in chunk])


@pytest.mark.parametrize("at", range(ON_S3))
def test_a_kill_at_a_random_moment_on_s3_changes_nothing_that_follows(
    at, life, calm, tmp_path, s3_emulator, s3_bucket, store
):
    kill = dealt(ON_S3, SEED + 1)[at]
    number, step = kill.number, kill.step
    upload(calm.before(number), store)
    command = life.command(f"s3://{s3_bucket}/lake", step, s3_emulator.env)
    kept = whole(calm.before(number))
    limit = kill.limit(calm.seconds[step.name], calm.writes[step.name])
    command(*life.arguments(step, kept), **limit)
    where = f"{step.name} {limit}"
    halfway = tmp_path / "halfway"
    download(store, halfway)
    assert published(halfway) in (published(calm.before(number)), calm.seen(number + 1).release), where
    no_release_lost(kept, halfway, step.keep, where)
    expire_leases(store)
    check_repeated(command(*life.arguments(step, whole(halfway))), step.arguments[0], where)
    lake = tmp_path / "after"
    download(store, lake)
    no_release_lost(kept, lake, step.keep, where)
    same(VisibleState.of(lake, step.now), calm.seen(number + 1), step.keep, where)
