"""A process killed at any moment leaves the last release readable, and the next run ends as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalunya.demo import portal
from catalunya.demo.portal import RunningPortal
from tests.pipeline.conftest import LATER, LATER_DAY, SMALL, Answer, Command, once

KILLS = int(os.environ.get("CATALUNYA_KILLS", "4"))
"""The project's own check asks for 20; 200 are the long version of this test."""
SEED = 20260105
PARTS = min(KILLS, 4)
"""The kills are dealt to so many tests, which run beside each other."""


def published(lake: Path) -> dict[str, bytes]:
    """Every byte of the marts that the pointer shows; fails when the release it shows is not whole."""
    pointer = json.loads((lake / "current.json").read_text("utf-8"))
    folder = lake / "releases" / pointer["release_id"]
    assert (folder / "release.json").exists(), "the pointer shows an incomplete release"
    sums = (folder / "SHA256SUMS").read_text("utf-8").splitlines()
    assert all((folder / line.split("  ", 1)[1]).exists() for line in sums)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for kind in ("csv", "parquet")
        for path in sorted((folder / kind).iterdir())
    }


@pytest.fixture(scope="module")
def changed() -> Iterator[RunningPortal]:
    """A small register, eight weeks later."""
    with portal.running(rows=SMALL + 3, day=LATER_DAY) as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(small_release, changed, tmp_path_factory) -> tuple[Path, float]:
    """The small release's lake with a second one, and the seconds that its run took."""

    def make(lake: Path) -> Answer:
        shutil.copytree(small_release[0], lake)
        return Command(str(lake), changed.url, now=LATER).run()

    lake, answer = once(tmp_path_factory, "without-kills", make)
    return lake, answer.seconds


@pytest.mark.parametrize("part", range(PARTS))
def test_kills_at_random_moments_leave_the_same_release_as_an_undisturbed_run(
    part, small_release, undisturbed, changed, tmp_path
):
    """Each round kills the second release of a lake at another moment, then runs again undisturbed."""
    base, (calm, pace) = small_release[0], undisturbed
    before, wanted = published(base), published(calm)
    assert wanted != before
    dice = random.Random(SEED)
    for share in [dice.uniform(0.02, 1.0) for _ in range(KILLS)][part::PARTS]:
        lake = tmp_path / "killed"
        command = Command(str(lake), changed.url, now=LATER)
        moment = share * pace
        while True:
            shutil.rmtree(lake, ignore_errors=True)
            shutil.copytree(base, lake)
            if command.run(kill_after=moment).code is None:
                break
            assert moment > 0.1, "a run ends before it can be killed"
            moment /= 2
        where = f"killed after {moment:.2f} of {pace:.2f} s"
        assert published(lake) in (before, wanted), f"{where}: a mixture"
        again = command.run()
        assert again.code == 0, f"{where}: {again.words}"
        assert published(lake) == wanted, where
        assert not any((lake / "candidates").glob("*")), f"{where}: a candidate was left behind"
        # How long a run takes depends on what else the machine does at the time.
        pace = again.seconds
