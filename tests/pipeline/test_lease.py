"""A run on S3 that was paused for longer than its lease ends with an explanation, and changes nothing that others see."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import obstore
import pytest
from obstore.store import S3Store

from catalunya.demo import server
from catalunya.lake.lock import lake_lock
from catalunya.lake.opening import open_lake
from tests.pipeline.command import LATER, LATER_DAY, SMALL, Command
from tests.pipeline.test_kill import store, upload

__all__ = ["store"]

LEASE_S = 3.0
PAUSED = """
import os, signal, sys
from importlib import import_module
from catalunya.cli import main as cli
from catalunya.lake import lock
lock.lake_lock.__wrapped__.__kwdefaults__["lease_s"] = {lease_s}
module, name = {where!r}.rsplit(".", 1)
home = import_module(module)
real = getattr(home, name)
def paused(*args, **more):
    setattr(home, name, real)
    os.kill(os.getpid(), signal.SIGSTOP)
    return real(*args, **more)
setattr(home, name, paused)
sys.argv = ["catalunya", "run", "--json"]
cli.main()
"""
"""The command with a short lease, which stops itself the first time it comes to a function."""


def stopped(process: subprocess.Popen[str]) -> bool:
    """Wait until a process has stopped itself; False when it ended before."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    return os.WIFSTOPPED(status)


def objects(store: S3Store) -> dict[str, str]:
    """Every object but locks, with the version of it."""
    found = {meta["path"]: str(meta["e_tag"]) for chunk in obstore.list(store) for meta in chunk}
    return {key: tag for key, tag in found.items() if not key.startswith("locks/")}


@pytest.mark.parametrize(
    ("where", "published"),
    [
        ("catalunya.runs.pipeline.discard_candidates", False),
        ("catalunya.runs.state.build", False),
        ("catalunya.publish._upload", False),
        ("catalunya.publish.apply_retention", True),
    ],
)
def test_a_run_that_loses_its_lease_while_it_is_paused_neither_publishes_nor_deletes(
    where, published, small_release, small_project, tmp_path, s3_emulator, s3_bucket, store
):
    base = tmp_path / "base"
    shutil.copytree(small_release.lake, base, ignore=shutil.ignore_patterns(".lake"))
    release = next((base / "releases").iterdir())
    # Two more releases, so that retention has something to delete, and a candidate of somebody else.
    for number in (2, 3):
        shutil.copytree(release, release.with_name(f"2025010{number}T060000Z-0000000{number}"))
    other = base / "candidates" / "20260301T060000Z-00000001" / "candidate.json"
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    upload(base, store)
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        command = Command(
            f"s3://{s3_bucket}/lake", changed.url, now=LATER, home=small_project,
            env={**s3_emulator.env, "CATALUNYA_KEEP_RELEASES": "2"},
        )  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-c", PAUSED.format(where=where, lease_s=LEASE_S)],
            env=command.variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert stopped(process), process.stderr and process.stderr.read()
            time.sleep(LEASE_S + 2)
            with lake_lock(open_lake(command.lake), "another"):
                before = objects(store)
                process.send_signal(signal.SIGCONT)
                out, words = process.communicate(timeout=600)
                after = objects(store)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 1, words
    assert "lost its lock" in out and "run again" in out, words
    gone = {key for key in before if key not in after}
    own = {key for key in gone if key.startswith("candidates/20260302")}
    assert gone <= own, "something was deleted"
    assert after["current.json"] == before["current.json"], "the pointer was moved"
    whole = {key for key in after if key.startswith("releases/") and key.endswith("release.json")}
    assert whole == {key for key in before if key in whole}, "a release was made"
    assert (len(whole) == 4) is published
