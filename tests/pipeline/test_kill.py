"""A process killed at any moment leaves the last release readable, and the next run ends as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from catalunya.demo import portal
from tests.pipeline.conftest import DAY, Command

KILLS = int(os.environ.get("CATALUNYA_KILLS", "20"))
SEED = 20260105


def published(lake: str) -> dict[str, bytes]:
    """The data of the release that the pointer shows: every byte of the marts."""
    pointer = json.loads(Path(lake, "current.json").read_text("utf-8"))
    folder = Path(lake, "releases", pointer["release_id"])
    assert (folder / "release.json").exists(), "the pointer shows an incomplete release"
    sums = (folder / "SHA256SUMS").read_text("utf-8").splitlines()
    assert all((folder / line.split("  ", 1)[1]).exists() for line in sums)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for kind in ("csv", "parquet")
        for path in sorted((folder / kind).iterdir())
    }


def kill_after(command: Command, seconds: float) -> bool:
    """Start a run, kill its whole process group after so many seconds; True when it was still running."""
    process = command.start("run")
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        process.communicate()
        return True
    process.communicate()
    return False


def test_kills_at_random_moments_leave_the_same_release_as_an_undisturbed_run(tmp_path):
    """Each round kills the second release of a lake at another moment, then runs again undisturbed."""
    moments = random.Random(SEED)
    with portal.running(day=DAY) as demo:
        base = Command(str(tmp_path / "base"), demo.url)
        assert base.run().json["status"] == "released"
        before = published(base.lake)
        demo.set_day(DAY.replace(month=3))
        calm = Command(str(tmp_path / "calm"), demo.url, now="2026-03-05T06:00:00Z")
        shutil.copytree(base.lake, calm.lake)
        started = time.monotonic()
        assert calm.run().json["status"] == "released"
        span = time.monotonic() - started
        wanted = published(calm.lake)
        assert wanted != before
        killed = 0
        for round_number in range(KILLS):
            lake = tmp_path / "killed"
            shutil.rmtree(lake, ignore_errors=True)
            shutil.copytree(base.lake, lake)
            command = Command(str(lake), demo.url, now="2026-03-05T06:00:00Z")
            moment = moments.uniform(0.15, 1.0) * span
            killed += kill_after(command, moment)
            shown = published(command.lake)
            assert shown in (before, wanted), f"round {round_number}: a mixture after {moment:.2f} s"
            answer = command.run()
            assert answer.code == 0, f"round {round_number}, killed after {moment:.2f} s: {answer.words}"
            assert published(command.lake) == wanted, f"round {round_number}, killed after {moment:.2f} s"
            left = [p.name for p in lake.iterdir() if p.name in {"candidates"} and any(p.iterdir())]
            assert left == [], f"round {round_number}: left behind {left}"
        assert killed >= KILLS // 2, f"only {killed} of {KILLS} runs were still going when they were killed"
