"""The workflows of GitHub Actions: pinned, with least permissions, and only what the Makefile does."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.project import ROOT
from tools import check_portals

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text("utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_every_command_is_a_target_of_the_makefile(workflow: Path) -> None:
    shards = re.findall(r"shard: \[(.*)\]", workflow.read_text("utf-8"))
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    assert commands or workflow.stem == "pages"
    for command in commands:
        words = command.split()
        assert words[0] == "make"
        wanted = shards[0].split(", ") if words[1] == '"$SHARD"' else words[1:]
        assert set(wanted) <= TARGETS


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_by_hash_and_nothing_is_permitted_by_default(workflow: Path) -> None:
    content = yaml.safe_load(workflow.read_text("utf-8"))
    assert content["permissions"] == {}
    for job in content["jobs"].values():
        assert job["permissions"]
        assert job["timeout-minutes"]
    for step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"] == {"persist-credentials": False}


def test_a_run_that_finds_the_portals_as_they_were_reports_nothing() -> None:
    datasets = {"population": {"outcome": "unchanged", "message": ""}}
    warnings = ["social_services: 3 values of places are not a number and were set to null"]
    assert check_portals.report(0, {"status": "released", "datasets": datasets, "warnings": warnings}) == ""


@pytest.mark.parametrize("outcome", ["unreadable", "drifted"])
def test_a_source_that_changed_is_reported_with_what_the_run_says_of_it(outcome: str) -> None:
    datasets = {
        "population": {"outcome": outcome, "message": "population: no such table"},
        "boundaries": {"outcome": "new", "message": ""},
    }
    found = check_portals.report(0, {"status": "released", "datasets": datasets})
    assert f"`population`: {outcome}. population: no such table" in found
    assert "boundaries" not in found


def test_new_columns_and_a_refusal_are_reported() -> None:
    warning = "municipalities: new column altitud in the source; kept in `raw`"
    assert warning in check_portals.report(0, {"status": "released", "warnings": [warning]})
    found = check_portals.report(3, {"status": "refused", "message": "too few rows"})
    assert "exit code 3 (refused)" in found
    assert "too few rows" in found


GH = """#!/bin/sh
echo "$*" >> "$GH_LOG"
[ "$2" = list ] && echo "$GH_OPEN"
exit 0
"""


@pytest.mark.parametrize(
    ("issues", "expected"),
    [("[]", "issue create --title A portal changed --label source"), ('[{"number": 7}]', "issue comment 7")],
)
def test_one_issue_is_open_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, issues: str, expected: str
) -> None:
    command = tmp_path / "bin" / "gh"
    command.parent.mkdir()
    command.write_text(GH)
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GH_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("GH_OPEN", issues)
    assert check_portals.open_issue(tmp_path) == 0
    assert not (tmp_path / "log").exists()
    (tmp_path / "report.md").write_text("changed")
    assert check_portals.open_issue(tmp_path) == 0
    assert expected in (tmp_path / "log").read_text().splitlines()[-1]


def test_the_settings_of_a_github_environment_become_the_file_that_a_deployment_reads(tmp_path: Path) -> None:
    settings = 'region = "eu-west-1"\nalert_email = "o\'hara@example.org"\n# "$HOME" `id`\n'
    env = {**os.environ, "ENVIRONMENT": "development", "SETTINGS": settings}
    command = ["make", "-f", ROOT / "Makefile", "aws-settings"]
    (tmp_path / "infrastructure" / "environments").mkdir(parents=True)
    subprocess.run(command, cwd=tmp_path, env=env, check=True)
    assert (tmp_path / "infrastructure" / "environments" / "development.toml").read_text() == settings


def test_the_bill_of_materials_lists_what_the_image_installs(tmp_path: Path) -> None:
    subprocess.run(["make", "sbom"], cwd=ROOT, check=True)
    found = json.loads((ROOT / ".artefacts" / "sbom.cdx.json").read_text("utf-8"))
    assert found["bomFormat"] == "CycloneDX"
    listed = {(one["name"].lower(), one.get("version")) for one in found["components"]}
    wanted = (ROOT / "orchestration" / "requirements.txt").read_text("utf-8").splitlines()
    for line in wanted:
        name, _, rest = line.partition("==")
        if rest and not line.startswith((" ", "#")) and ";" not in rest:
            assert (name.partition("[")[0].lower(), rest.strip()) in listed
