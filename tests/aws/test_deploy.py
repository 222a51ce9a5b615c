"""The commands that deploy, use and destroy a stack, by the CDK's own command line, in an account on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from infrastructure import account, airflow_session
from infrastructure.account import Account, AccountError
from infrastructure.package import Package
from infrastructure.parameters import WITHOUT_BUDGETS, parameters
from tests.aws import more_resources
from tests.project import ROOT
from tests.s3 import S3Emulator, running

pytestmark = [pytest.mark.aws, pytest.mark.xdist_group("aws")]

NAME = "catalunya-production"
NUMBER = "000000000000"
LAKE = f"{NAME}-lake-{NUMBER}"


@dataclass
class Commands:
    """`python -m infrastructure.deploy` in an account that is empty at first."""

    emulator: S3Emulator
    folder: Path
    package: Path

    def write(self, environment: str, **settings: Any) -> None:
        lines = {"region": "eu-west-1", "airflow": True, "package": str(self.package), **settings}
        text = "\n".join(
            f"{name} = {str(v).lower() if isinstance(v, bool) else repr(v)}" for name, v in lines.items()
        )
        (self.folder / f"{environment}.toml").write_text(text)

    def __call__(self, command: str, environment: str = "production", *options: str, **variables: str) -> Any:
        outside = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        keys = {name: value for name, value in self.emulator.env.items() if name != "AWS_REGION"}
        nowhere = str(self.folder / "none")
        env = {
            **outside,
            **keys,
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            "AWS_EC2_METADATA_DISABLED": "true",
            "CATALUNYA_ENVIRONMENTS": str(self.folder),
            **variables,
        }
        env = {name: value for name, value in env.items() if value}
        line = [sys.executable, "-m", "infrastructure.deploy", command, environment, *options]
        return subprocess.run(
            line, cwd=ROOT, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )

    def client(self, service: str, region: str = "eu-west-1") -> Any:
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.emulator.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def status(self, name: str = NAME, region: str = "eu-west-1") -> str | None:
        found = self.client("cloudformation", region).list_stacks()["StackSummaries"]
        return next(
            (
                s["StackStatus"]
                for s in found
                if s["StackName"] == name and s["StackStatus"] != "DELETE_COMPLETE"
            ),
            None,
        )

    def buckets(self) -> set[str]:
        return {one["Name"] for one in self.client("s3").list_buckets()["Buckets"]}


@pytest.fixture
def commands(tmp_path: Path, bundle: Package) -> Iterator[Commands]:
    server = tmp_path / "server"
    server.mkdir()
    with running(server, script=Path(more_resources.__file__), LAMBDA_EXECUTOR="local") as emulator:
        yield Commands(emulator, tmp_path, bundle.path)


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_kept_lake_becomes_a_part_of_the_next_stack_and_everything_can_be_deleted(commands):
    commands.write("production", alert_email="somebody@example.org")
    told = commands("deploy")
    succeeded(told)
    assert "make aws-airflow ENVIRONMENT=production" in told.stderr
    assert "somebody@example.org confirms the mail" in told.stderr
    page = {"Bucket": LAKE, "Key": "landing/population/20260105T060000Z-1a2b3c4d/page-00000.json"}
    commands.client("s3").put_object(**page, Body=b"landed")
    for options in ((), ("--confirm", "catalunya-development")):
        refused = commands("destroy", "production", *options)
        assert refused.returncode == 1
        assert f"CONFIRM={NAME}" in refused.stderr
    assert commands.status() == "CREATE_COMPLETE"
    told = commands("destroy", "production", "--confirm", NAME)
    succeeded(told)
    assert f"s3://{LAKE} is kept" in told.stderr
    assert commands.status() is None
    assert {one for one in commands.buckets() if one.startswith("catalunya")} == {LAKE}
    succeeded(commands("deploy"))
    assert commands.client("s3").get_object(**page)["Body"].read() == b"landed"
    stack = commands.client("cloudformation").describe_stacks(StackName=NAME)["Stacks"][0]
    assert stack["EnableTerminationProtection"] is True
    commands.client("glue").create_database(DatabaseInput={"Name": "catalunya_production_marts_candidate_x"})
    succeeded(commands("destroy", "production", "--confirm", NAME, "--delete-lake", "--delete-toolkit"))
    assert (commands.status(), commands.status("CDKToolkit")) == (None, None)
    assert commands.buckets() == set()
    assert commands.client("glue").get_databases()["DatabaseList"] == []


def test_a_first_deployment_that_failed_is_deleted_and_repeated(commands):
    commands.write("production")
    taken = {"Bucket": f"{NAME}-results-{NUMBER}"}
    commands.client("s3").create_bucket(
        **taken, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    failed = commands("deploy")
    assert failed.returncode == 1
    assert "`cdk deploy` ended with 1" in failed.stderr
    assert commands.status() == "ROLLBACK_COMPLETE"
    assert LAKE not in commands.buckets()
    commands.client("s3").delete_bucket(**taken)
    told = commands("deploy")
    succeeded(told)
    assert "the first deployment of catalunya-production failed" in told.stderr
    assert commands.status() == "CREATE_COMPLETE"


def test_spain_gets_the_same_stack_without_a_budget_and_development_is_deleted_without_a_question(commands):
    commands.write("development", region="eu-south-2", github_repository="owner/name")
    told = commands("deploy", "development")
    succeeded(told)
    assert "CloudFormation has none in eu-south-2" in told.stderr
    stacks = commands.client("cloudformation", "eu-south-2")
    found = stacks.list_stack_resources(StackName="catalunya-development")["StackResourceSummaries"]
    assert "AWS::Budgets::Budget" not in {one["ResourceType"] for one in found}
    assert commands.status("catalunya-github", "eu-south-2") == "CREATE_COMPLETE"
    variables = dict(
        line.split("=", 1) for line in succeeded(commands("variables", "development")).splitlines()
    )
    assert (variables["AWS_REGION"], variables["AWS_DEFAULT_REGION"]) == ("eu-south-2", "eu-south-2")
    refused = commands("destroy", "development", "--delete-toolkit", AWS_SECRET_ACCESS_KEY="")
    assert refused.returncode == 1
    succeeded(commands("destroy", "development"))
    assert {one for one in commands.buckets() if one.startswith("catalunya")} == set()
    assert commands.status("catalunya-github", "eu-south-2") == "CREATE_COMPLETE"
    succeeded(commands("destroy", "development", "--delete-toolkit"))
    assert commands.status("catalunya-github", "eu-south-2") is None
    assert commands.buckets() == set()


def test_a_command_has_the_identity_and_the_variables_of_the_role_and_the_shell_keeps_its_own(commands):
    commands.write("production")
    succeeded(commands("deploy"))
    line = ("--", "sh", "-c", "echo $CATALUNYA_LAKE $AWS_REGION ${CATALUNYA_ROLES:-none} $AWS_SESSION_TOKEN")
    own = succeeded(commands("run", "production", *line)).split()
    assert own == [f"s3://{LAKE}", "eu-west-1", "none"]
    # The options stand before the environment; a command follows it.
    reader = succeeded(commands("run", "--role", "reader", "production", *line)).split()
    assert reader[:3] == own
    assert len(reader) == 4
    asked = commands(
        "run", "--role", "publish", "--mfa", "arn:aws:iam::000000000000:mfa/me", "production", *line
    )
    assert asked.returncode == 1
    assert "CODE=" in asked.stderr
    status = commands("run", "production", "--", "catalunya", "status", "--json")
    assert '"release"' in succeeded(status)
    nothing = commands("release", "production", "--to", str(commands.folder / "release"))
    assert nothing.returncode == 1
    assert "no release yet" in nothing.stderr


@pytest.mark.parametrize(
    ("settings", "variables", "message"),
    [
        ({"account": "123456789012"}, {}, "the settings file names 123456789012"),
        ({}, {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "aws sso login"),
        ({}, {"AWS_PROFILE": "missing"}, "missing"),
    ],
)
def test_a_wrong_or_missing_identity_is_named_before_anything_is_made(commands, settings, variables, message):
    commands.write("production", **settings)
    refused = commands("deploy", **variables)
    assert refused.returncode == 1
    assert message in refused.stderr
    assert commands.buckets() == set()


def test_who_asks_is_found_at_the_endpoint_of_the_region(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr("botocore.httpsession.URLLib3Session.send", lambda self, request: asked(request.url))
    with pytest.raises(AccountError, match="cannot be used"):
        account.connect(parameters("production", {"region": "eu-south-2", "airflow": True}))


def asked(url: str) -> None:
    from botocore.exceptions import EndpointConnectionError

    assert url == "https://sts.eu-south-2.amazonaws.com/"
    raise EndpointConnectionError(endpoint_url=url)


def test_regions_without_budgets_are_those_whose_cloudformation_has_no_such_resource():
    import cfnlint

    folder = Path(cfnlint.__file__).parent / "data" / "schemas" / "providers"
    regions = {path.stem for path in folder.glob("*-*-*.json") if "-iso" not in path.stem}
    assert len(regions) > 30
    without = {one for one in regions if '"AWS::Budgets::Budget"' not in (folder / f"{one}.json").read_text()}
    assert without == WITHOUT_BUDGETS


PLUGIN = """#!/usr/bin/env bash
printf '%s\\n' "$@" >"$PLUGIN_RECORD"
"""


class Client:
    """Answers of AWS to what opens a session."""

    def __init__(self, service: str) -> None:
        self.meta = type("Meta", (), {"endpoint_url": f"https://{service}.eu-west-1.amazonaws.com"})

    def describe_stacks(self, **request: Any) -> dict[str, Any]:
        outputs = {"Airflow": "group", "AirflowPassword": "arn:of:secret"}
        return {"Stacks": [{"Outputs": [{"OutputKey": k, "OutputValue": v} for k, v in outputs.items()]}]}

    def describe_auto_scaling_groups(self, **request: Any) -> dict[str, Any]:
        assert request == {"AutoScalingGroupNames": ["group"]}
        states = {"i-old": "Terminating", "i-new": "InService"}
        found = [{"InstanceId": k, "LifecycleState": v} for k, v in states.items()]
        return {"AutoScalingGroups": [{"Instances": found}]}

    def start_session(self, **request: Any) -> dict[str, Any]:
        assert request["DocumentName"] == "AWS-StartPortForwardingSession"
        return {"SessionId": "s", "TokenValue": "t", "StreamUrl": "wss://", "ResponseMetadata": {}}

    def get_secret_value(self, **request: Any) -> dict[str, str]:
        return {"SecretString": "the-password"}


def test_a_session_forwards_the_port_of_the_instance_that_is_in_service(tmp_path, monkeypatch):
    class Session:
        def client(self, service: str) -> Client:
            return Client(service)

    settings = parameters("production", {"airflow": True})
    found = Account(Session(), NUMBER, "eu-west-1", "arn")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AccountError, match="session-manager-plugin is missing"):
        airflow_session.forward(found, settings, 8081, print)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    plugin = tmp_path / airflow_session.PLUGIN
    plugin.write_text(PLUGIN)
    plugin.chmod(0o755)
    monkeypatch.setenv("PLUGIN_RECORD", str(tmp_path / "record"))
    said: list[str] = []
    airflow_session.forward(found, settings, 8081, said.append)
    session, region, operation, _, request, endpoint = (tmp_path / "record").read_text().splitlines()
    assert "ResponseMetadata" not in session
    assert (region, operation) == ("eu-west-1", "StartSession")
    assert '"Target": "i-new"' in request
    assert '"localPortNumber": ["8081"]' in request
    assert endpoint == "https://ssm.eu-west-1.amazonaws.com"
    assert "http://localhost:8081, user admin, password the-password" in said[0]
