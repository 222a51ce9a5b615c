"""Standard streams that are closed, full, or read by nobody, and their encoding."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.command import Command


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(str(tmp_path / "lake"), "http://127.0.0.1:9")


def shell(command: Command, words: str) -> tuple[int, str, str]:
    """The exit code and the streams of `catalunya WORDS` in a shell, whose redirections `words` may have."""
    script = f'set -o pipefail; "{sys.executable}" -m catalunya {words}'
    done = subprocess.run(
        ["bash", "-c", script],
        env=command.variables(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


on_a_full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


@pytest.mark.parametrize(
    "stderr", ["2>&-", "2>&- <&- 3>&-", "2> >(exit)", pytest.param("2>/dev/full", marks=on_a_full_disk)]
)
def test_a_run_goes_on_when_nobody_reads_its_standard_error(command, small_demo, tmp_path, stderr):
    command.url = small_demo.url
    code, answer, _ = shell(command, f"ingest --json {stderr}")
    assert code == json.loads(answer)["exit_code"] == 0
    [record] = (tmp_path / "lake" / "ledger").glob("*.json")
    assert json.loads(record.read_text("utf-8"))["exit_code"] == 0


@on_a_full_disk
@pytest.mark.parametrize("words", ["status --json", "metrics"])
def test_an_answer_that_cannot_be_written_is_one_line(command, words):
    code, _, said = shell(command, f"{words} > /dev/full")
    assert code == 1
    assert said.splitlines()[-1].startswith(
        "error the answer cannot be written to standard output: No space left"
    )
    assert "Traceback" not in said


@pytest.mark.parametrize("words", ["status --json", "metrics", "--help"])
@pytest.mark.parametrize("unread", [">&-", "| exec 0<&-"])
def test_an_answer_that_nobody_reads_is_no_error(command, words, unread):
    code, _, said = shell(command, f"{words} {unread}")
    assert (code, "error" in said, "Traceback" in said) == (0, False, False)


def test_json_is_utf_8_in_every_locale(command, tmp_path):
    command.lake = str(tmp_path / "l·l")
    env = command.variables() | {"PYTHONIOENCODING": "latin-1"}
    words = [sys.executable, "-m", "catalunya", "status", "--json"]
    done = subprocess.run(words, env=env, capture_output=True, timeout=600, check=False)
    assert json.loads(done.stdout.decode("utf-8"))["lake"] == command.lake
