"""A process killed at any moment leaves the last release readable, and the next run ends as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import shutil
from datetime import date
from pathlib import Path

from catalunya.demo import portal
from tests.pipeline.conftest import DAY, Command

KILLS = int(os.environ.get("CATALUNYA_KILLS", "20"))
"""Set it to 200 for the long version of this test."""
SEED = 20260105
ROWS = 600
LATER = "2026-03-05T06:00:00Z"


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


def test_kills_at_random_moments_leave_the_same_release_as_an_undisturbed_run(tmp_path):
    """Each round kills the second release of a lake at another moment, then runs again undisturbed."""
    moments = random.Random(SEED)
    with (
        portal.running(rows=ROWS, day=DAY) as first,
        portal.running(rows=ROWS + 3, day=date(2026, 3, 2)) as second,
    ):
        base, calm, lake = tmp_path / "base", tmp_path / "calm", tmp_path / "killed"
        done = Command(str(base), first.url).run()
        assert done.code == 0, done.words
        before = published(base)
        shutil.copytree(base, calm)
        undisturbed = Command(str(calm), second.url, now=LATER).run()
        assert undisturbed.code == 0, undisturbed.words
        wanted = published(calm)
        assert wanted != before
        killed = 0
        for number in range(KILLS):
            shutil.rmtree(lake, ignore_errors=True)
            shutil.copytree(base, lake)
            command = Command(str(lake), second.url, now=LATER)
            moment = moments.uniform(0.02, 1.0) * undisturbed.seconds
            killed += command.run(kill_after=moment).code is None
            where = f"round {number}, killed after {moment:.2f} of {undisturbed.seconds:.2f} s"
            assert published(lake) in (before, wanted), f"{where}: a mixture"
            again = command.run()
            assert again.code == 0, f"{where}: {again.words}"
            assert published(lake) == wanted, where
            assert not any((lake / "candidates").glob("*")), f"{where}: a candidate was left behind"
        assert killed >= KILLS // 2, f"only {killed} of {KILLS} runs were still going when they were killed"
