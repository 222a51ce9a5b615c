"""A process killed at any moment leaves the last release readable, and the next run ends as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from catalunya.demo import portal
from tests.conftest import ROOT
from tests.pipeline.conftest import CLEAN, DAY, Command

KILLS = int(os.environ.get("CATALUNYA_KILLS", "20"))
"""Set it to 200 for the long version of this test."""
SEED = 20260105
ROWS = 600
LATER = "2026-03-05T06:00:00Z"


class Warm:
    """Runs of the command, forked off a process that has imported everything."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.pipeline.warm", str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=CLEAN,
        )

    def run(self, command: Command, *, kill_after: float | None = None) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        order = {"env": command.variables(), "argv": ["run"], "kill_after": kill_after}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[Warm]:
    warm = Warm(tmp_path / "run.log")
    yield warm
    assert warm.process.stdin
    warm.process.stdin.close()
    warm.process.wait(30)


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


def test_kills_at_random_moments_leave_the_same_release_as_an_undisturbed_run(tmp_path, warm):
    """Each round kills the second release of a lake at another moment, then runs again undisturbed."""
    moments = random.Random(SEED)
    with (
        portal.running(rows=ROWS, day=DAY) as first,
        portal.running(rows=ROWS + 3, day=date(2026, 3, 2)) as second,
    ):
        base = tmp_path / "base"
        assert warm.run(Command(str(base), first.url))["code"] == 0, warm.log.read_text("utf-8")
        before = published(base)
        calm = tmp_path / "calm"
        shutil.copytree(base, calm)
        done = warm.run(Command(str(calm), second.url, now=LATER))
        assert done["code"] == 0, warm.log.read_text("utf-8")
        wanted = published(calm)
        assert wanted != before
        killed = 0
        for number in range(KILLS):
            lake = tmp_path / "killed"
            shutil.rmtree(lake, ignore_errors=True)
            shutil.copytree(base, lake)
            command = Command(str(lake), second.url, now=LATER)
            moment = moments.uniform(0.02, 1.0) * done["seconds"]
            killed += warm.run(command, kill_after=moment)["code"] is None
            where = f"round {number}, killed after {moment:.2f} of {done['seconds']:.2f} s"
            assert published(lake) in (before, wanted), f"{where}: a mixture"
            again = warm.run(command)
            assert again["code"] == 0, f"{where}: {warm.log.read_text('utf-8')}"
            assert published(lake) == wanted, where
            assert not any((lake / "candidates").glob("*")), f"{where}: a candidate was left behind"
        assert killed >= KILLS // 2, f"only {killed} of {KILLS} runs were still going when they were killed"
