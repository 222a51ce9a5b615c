"""A lake that this user may read and not write: every command that reads answers, and one that writes names the variable."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.command import Command, ReleasedLake, files_of

READ_ONLY = """
mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" || exit 99
python=$1; shift
exec "$python" -m catalunya "$@"
"""


@pytest.fixture
def read_only(small_release: ReleasedLake, small_project: Path, tmp_path: Path):
    """The command on a lake that its process cannot write."""
    private = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*private, "true"], check=False).returncode:
        pytest.skip("no private mounts for this user here")
    lake = tmp_path / "lake"
    shutil.copytree(small_release.lake, lake)
    shutil.rmtree(lake / ".lake")
    command = Command(str(lake), "http://127.0.0.1:9", home=small_project)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = [*private, "bash", "-c", READ_ONLY, str(lake), sys.executable, *arguments]
        return subprocess.run(
            words, env=command.variables(), capture_output=True, text=True, check=False, timeout=600
        )

    before = files_of(lake)
    yield run
    assert files_of(lake) == before
    assert not (lake / ".lake").exists()


def test_a_lake_that_cannot_be_written_is_read(read_only, tmp_path):
    for arguments in (
        ["status"],
        ["query", "select count(*) from population"],
        ["show", "population"],
        ["trace", "population", "--verify"],
        ["verify"],
        ["lake", "check"],
        ["lake", "copy", str(tmp_path / "lake"), str(tmp_path / "copy")],
    ):
        done = read_only(*arguments, "--json")
        assert done.returncode == 0, (arguments, done.stderr)
        assert json.loads(done.stdout)
    assert read_only("metrics").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["ingest"],
        ["rollback"],
        ["refuse", "20260105T060000Z-1a2b3c4d", "--why", "x"],
    ],
)
def test_a_command_that_writes_names_the_folder_that_it_cannot_write(read_only, arguments, tmp_path):
    done = read_only(*arguments, "--json")
    assert done.returncode == json.loads(done.stdout)["exit_code"] == 2, done.stderr
    assert (
        f"CATALUNYA_LAKE: the folder {tmp_path / 'lake'} cannot be written (Read-only file system)"
        in done.stderr
    )
    assert "Traceback" not in done.stderr
