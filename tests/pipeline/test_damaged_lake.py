"""Every kind of file of a lake, damaged: commands explain it and go on where they can, and no release is lost."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from catalunya.demo import server
from tests.pipeline.command import LATER, LATER_DAY, SMALL, Command

KINDS = {
    "pointer": "current.json",
    "release": "releases/*/release.json",
    "manifest": "landing/social_services/*/manifest.json",
    "landed page": "landing/social_services/*/page-00000.json",
    "refusal": "landing/social_services/*/refused.json",
    "staged file": "staging/population/*/*.parquet",
    "index": "staging/*/_index.json",
    "quarantine": "quarantine/population/*/*.parquet",
    "ledger": "ledger/*.json",
}
DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "nested too deeply": lambda data: b"[" * 100_000,
    "other bytes": lambda data: bytes(255 - byte for byte in data[:2000]) + b"\x00\xff\xfe",
}


@pytest.fixture(scope="module")
def worn(small_release, small_project, tmp_path_factory) -> Path:
    """A lake with a release and a refused snapshot after it."""
    lake = tmp_path_factory.mktemp("worn") / "lake"
    shutil.copytree(small_release.lake, lake)
    with server.running(rows=200, day=LATER_DAY) as torn:
        assert Command(str(lake), torn.url, now=LATER, home=small_project).run().code == 3
    return lake


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_end_in_explained_errors_and_cost_no_release(kind, worn, small_project, tmp_path):
    for damage, spoil in DAMAGES.items():
        lake = tmp_path / damage.replace(" ", "-")
        shutil.copytree(worn, lake)
        whole = {path.parent.name for path in lake.glob("releases/*/release.json")}
        hit = sorted(lake.glob(KINDS[kind]))
        assert hit, kind
        for path in hit:
            path.write_bytes(spoil(path.read_bytes()))
        with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
            command = Command(str(lake), changed.url, now="2026-03-03T06:00:00Z", home=small_project)
            status = command("status")
            assert status.code in (0, 1), status.stderr
            answer = command.run()
        where = f"{kind}, {damage}: {answer.stderr}"
        for said in (status, answer):
            assert "Traceback" not in said.stderr, where
            assert said.json, where
        assert answer.code in (0, 1, 3, 4), where
        assert answer.json["message"], where
        assert whole <= {path.name for path in (lake / "releases").iterdir()}, where
        if kind in {"refusal", "staged file", "index", "quarantine", "ledger"}:
            assert (answer.code, answer.json["status"]) == (0, "released"), where
            record = json.loads(Path(answer.json["release"], "release.json").read_text())
            assert len(record["snapshots"]["social_services"]) == 2, where


LIMITED = 'ulimit -f "$0"; exec "$@"'


@pytest.mark.parametrize("blocks", ["20", "100", "1000", "2000"])
def test_a_disk_that_is_full_in_any_stage_is_explained_and_heals_when_there_is_room(small, blocks):
    """Of files that may have so many times 512 bytes at most some stage cannot write one."""
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        small.url = changed.url
        assert small("ingest").code == 0
        for words in (["stage"], ["run"]):
            full = subprocess.run(
                ["sh", "-c", LIMITED, blocks, sys.executable, "-m", "catalunya", *words, "--json"],
                env=small.variables(),
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            answer = json.loads(full.stdout)
            assert "Traceback" not in full.stderr, full.stderr
            assert full.returncode == answer["exit_code"], full.stderr
            if words == ["run"]:
                assert full.returncode == 1, answer
                assert re.search(r"run again|ulimit|free space|larger disk", answer["message"]), answer[
                    "message"
                ]
        healed = small.run(now="2026-03-02T12:00:00Z")
    assert (healed.code, healed.json["status"]) == (0, "released"), healed.stderr
