"""The settings file of an environment on AWS: what is missing or wrong is named, and the example is valid."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from infrastructure import parameters
from infrastructure.parameters import EXAMPLE, Parameters, SettingsError, read
from tests.project import ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CATALUNYA_ENVIRONMENTS", str(tmp_path))
    return tmp_path


def test_a_missing_file_is_named_with_the_command_that_makes_it(folder):
    with pytest.raises(SettingsError, match=f"cp {EXAMPLE} {folder / 'production.toml'}"):
        read("production")


@pytest.mark.parametrize("name", ["", "demo", "../production"])
def test_an_environment_that_does_not_exist_is_refused(folder, name):
    with pytest.raises(SettingsError, match="development, production"):
        read(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "region is missing"),
        ('region = "eu-west-1', "is not TOML"),
        ('region = "Ireland"\nairflow = true', "region: "),
        ('region = "eu-west-1"\nairflow = true\nalert_mail = "a@example.org"', "alert_mail: Extra inputs"),
        ('region = "eu-west-1"\nairflow = true\nbudget_usd = -1', "budget_usd: "),
        ('region = "eu-west-1"\nairflow = true\nairflow_instance = "t3.large"', "airflow_instance: "),
        ('region = "eu-west-1"', "airflow = true"),
        ('region = "eu-west-1"\nenvironment = "development"', "environment"),
    ],
)
def test_a_wrong_setting_is_named(folder, text, message):
    (folder / "production.toml").write_text(text)
    with pytest.raises(SettingsError, match=message) as refused:
        read("production")
    assert str(folder / "production.toml") in str(refused.value)


def test_the_example_is_valid_and_names_every_setting(folder):
    text = EXAMPLE.read_text()
    for environment in parameters.ENVIRONMENTS:
        (folder / f"{environment}.toml").write_text(text)
        assert read(environment).airflow
    shown = {line.lstrip("#").split(" = ")[0] for line in text.splitlines() if " = " in line}
    for_tests = {"environment", "package", "socrata_url", "idescat_url", "icgc_url"}
    assert shown == set(Parameters.model_fields) - for_tests


def test_the_example_shows_the_defaults(folder):
    lines = [line[1:] for line in EXAMPLE.read_text().splitlines() if line.startswith("#") and " = " in line]
    given = tomllib.loads("\n".join(lines))
    made = parameters.parameters("production", {"region": "eu-west-1", "airflow": True})
    shown = {name: getattr(made, name) for name in given}
    no_default = {
        "account",
        "alert_email",
        "workers",
        "external_id",
        "people",
        "project_url",
        "github_repository",
        "site_domain",
        "site_certificate",
    }
    assert {name: value for name, value in given.items() if name not in no_default} == {
        name: value for name, value in shown.items() if name not in no_default
    }


def test_a_region_without_budgets_has_none():
    for region, expected in (("eu-west-1", True), ("eu-south-2", False)):
        made = parameters.parameters("production", {"region": region, "airflow": True})
        assert made.has_budget is expected
    assert not parameters.parameters("development", {"budget_usd": 0}).has_budget


def test_the_command_line_of_the_cdk_has_one_version():
    manifest = json.loads((ROOT / "infrastructure/package.json").read_text())
    lock = json.loads((ROOT / "infrastructure/package-lock.json").read_text())
    version = manifest["devDependencies"]["aws-cdk"]
    assert version[0].isdigit()
    assert lock["packages"]["node_modules/aws-cdk"]["version"] == version
