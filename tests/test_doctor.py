"""The doctor finds each mistake in a set-up, says how to correct it, and stops at none."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from catalunya.operations import doctor
from catalunya.operations.doctor import examine
from catalunya.publication.signature import SecretKey
from catalunya.settings import Settings
from tests.project import ROOT, copy_small_home

CHECKS = [
    "dbt-core",
    "adapter",
    "project",
    "profile",
    "connection",
    "extensions",
    "lake",
    "signature",
    "alerts",
]

KEY = SecretKey.generate()


def checks(home: Path, **more: str) -> dict[str, doctor.CheckResult]:
    lake = str(home.parent / "lake")
    settings = Settings(**{"CATALUNYA_HOME": home, "CATALUNYA_LAKE": lake, **more})
    return {finding.what: finding for finding in examine(settings)}


def test_a_good_set_up_is_well_in_every_check(home):
    found = checks(home)
    assert list(found) == CHECKS
    assert all(finding.well for finding in found.values()), found


@pytest.mark.parametrize(
    ("file", "before", "after", "check", "message"),
    [
        (
            "dbt/mart/dbt_project.yml",
            "profile: catalunya",
            "profile: catalonia",
            "profile",
            "no profile 'catalonia'",
        ),
        ("dbt/mart/dbt_project.yml", "name: mart", "nom: mart", "project", "lacks `name`"),
        ("dbt/mart/dbt_project.yml", "name: mart", "name: [", "project", "no YAML"),
        ("orchestration/dbt/profiles.yml", "    duckdb:", "    duck:", "profile", "no target 'duckdb'"),
    ],
)
def test_a_mistake_in_the_project_is_named_with_a_hint(home, file, before, after, check, message):
    path = home / file
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after, 1))
    finding = checks(home)[check]
    assert not finding.well
    assert message in finding.found
    assert finding.hint


def test_a_home_without_a_project_is_named(tmp_path):
    finding = checks(tmp_path / "empty")["project"]
    assert "dbt_project.yml is missing" in finding.found
    assert "CATALUNYA_HOME" in finding.hint


def test_an_adapter_that_is_missing_or_of_another_version_is_named(home, monkeypatch):
    real = metadata.version

    def absent(name: str) -> str:
        if name == "dbt-trino":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor, "version", absent)
    finding = checks(home, CATALUNYA_ENGINE="trino")["adapter"]
    assert "dbt-trino is not installed" in finding.found
    assert "--group trino" in finding.hint
    monkeypatch.setattr(doctor, "version", lambda name: "1.12.3" if name == "dbt-core" else real(name))
    finding = checks(home)["dbt-core"]
    assert not finding.well
    assert "1.12.3" in finding.found and "<1.12" in finding.found


def test_a_lake_that_cannot_be_written_is_named(home, tmp_path):
    (tmp_path / "file").write_text("")
    finding = checks(home, CATALUNYA_LAKE=str(tmp_path / "file"))["lake"]
    assert not finding.well
    assert "CATALUNYA_LAKE" in finding.hint


def test_the_script_ends_with_2_when_something_is_wrong(tmp_path):
    home = copy_small_home(tmp_path / "home")
    script = ROOT / "orchestration" / "scripts" / "setup_dbt.sh"
    (home / "dbt" / "mart" / "models" / "broken.sql").write_text("select {{ nothing(")
    done = subprocess.run(
        [script], env={"PATH": "/usr/bin:/bin", "CATALUNYA_HOME": str(home), "CATALUNYA_LAKE": str(home / "lake")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "broken" in done.stderr


def test_the_doctor_of_aws_ends_with_2_and_names_the_variables_that_it_needs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "catalunya", "doctor", "--aws", "--json"],
        env={"PATH": "/usr/bin:/bin", "CATALUNYA_LAKE": str(tmp_path / "lake")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    [finding] = json.loads(done.stdout)["findings"]
    assert finding["found"] == "not set: AWS_REGION, CATALUNYA_ROLES, CATALUNYA_LAMBDA_PREFIX"
    assert "docs/aws.md" in finding["hint"]


@pytest.mark.parametrize(
    ("variables", "well", "found", "hint"),
    [
        ({}, True, "releases are not signed", ""),
        (
            {"ENVIRONMENT": "production", "CATALUNYA_LAKE": "s3://a/b"},
            True,
            "are not signed",
            "catalunya key new",
        ),
        ({"CATALUNYA_REQUIRE_SIGNATURE": "true"}, False, "there is no key", "catalunya key new"),
        (
            {"CATALUNYA_SIGNING_KEY": "x"},
            False,
            "CATALUNYA_SIGNING_KEY: it is no key",
            "Correct the variable",
        ),
        ({"CATALUNYA_SIGNING_KEY": KEY.file()}, True, f"signed by the key {KEY.public.name}", ""),
    ],
    # The key is another one in each process.
    ids=("development", "production", "required", "no key", "signed"),
)
def test_production_without_a_signing_key_is_a_warning_and_an_error_where_it_is_required(
    monkeypatch, variables, well, found, hint
):
    monkeypatch.setattr(doctor, "_lake", lambda settings: "")
    monkeypatch.setattr(doctor, "_connection", lambda settings: "")
    results = examine(Settings(**variables))
    [result] = [result for result in results if result.what == "signature"]
    assert (result.well, found in result.found) == (well, True), result
    assert bool(hint) == bool(result.hint) and hint in result.hint


@pytest.mark.parametrize(
    ("addresses", "well", "found"),
    [
        ("", True, "nobody is told"),
        ("json://127.0.0.1/secret arn:aws:sns:eu-west-1:000000000000:topic", True, "2 addresses"),
        (
            "json://127.0.0.1/x, slak://secret/a, secret",
            False,
            "2 of 3 addresses cannot be used: number 2, 3",
        ),
    ],
)
def test_an_address_for_alerts_that_cannot_be_used_is_found_before_the_first_alert(
    monkeypatch, addresses, well, found
):
    monkeypatch.setattr(doctor, "_lake", lambda settings: "")
    monkeypatch.setattr(doctor, "_connection", lambda settings: "")
    [result] = [one for one in examine(Settings(CATALUNYA_NOTIFY_URLS=addresses)) if one.what == "alerts"]
    assert (result.well, found in result.found) == (well, True), result
    assert "secret" not in str(result)
    assert well == (not result.hint)
