"""docs/aws.md, followed: its commands as they stand, from an empty account on loopback to an empty account again.

What a person does between the commands, the test does: it edits the settings file, and Airflow's instance boots. The
emulator starts no instance, so the script of its first boot runs here, with AWS's own command line and all other commands
recorded; then Airflow runs with the settings that the script wrote.

One module, because the guide is one sequence in one account.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import boto3
import pytest

from catalunya.demo import server as portal
from catalunya.demo.server import RunningPortal
from infrastructure import package
from orchestration.tests.airflow_instance import scheduled_run, start_airflow
from orchestration.tests.api import EndedRun
from tests.aws import more_resources
from tests.aws.invocation import DAY
from tests.aws.machine import Machine
from tests.project import ROOT, missing
from tests.s3 import S3Emulator, running
from tools.athena_emulator import install
from tools.athena_emulator.install import NotInstalled

if TYPE_CHECKING:
    from tools.athena_emulator.environment import Environment

pytestmark = [pytest.mark.aws, pytest.mark.xdist_group("aws")]

GUIDE = ROOT / "docs" / "aws.md"
BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
NOT_FOLLOWED = {"make aws-airflow": "the emulator has no sessions; test_deploy.py tests the command"}
NAME = "catalunya-production"
REGION = "eu-west-1"
NEW = "people_attended"
"""A dataset and a mart that the update brings: the source of `service_users` once more."""


def shell(command: str | list[str], folder: Path, env: dict[str, str] | None = None, typed: str = "") -> str:
    """Run a command, or text that is pasted into a shell; fails with what it printed."""
    line = ["bash"] if isinstance(command, str) else command
    given = command + typed if isinstance(command, str) else typed
    done = subprocess.run(
        line, cwd=folder, env=env, input=given, capture_output=True, text=True, check=False, timeout=550
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@dataclass
class Guide:
    """The blocks of the guide, each of which is run or named as not followed."""

    folder: Path
    """The clone of the repository that the reader has."""
    env: dict[str, str]
    left: list[str] = field(default_factory=lambda: BLOCK.findall(GUIDE.read_text()))

    def run(self, beginning: str, **variables: str) -> str:
        """Paste the block that begins so; `variables` are what the reader types or has besides."""
        found = [one for one in self.left if one.strip().startswith(beginning)]
        block = min(found, key=len)
        assert block.strip() == beginning or len(found) == 1, found
        self.left.remove(block)
        return shell(block, self.folder, {**self.env, **variables})

    def again(self, command: str) -> str:
        """Run a command of the guide once more."""
        assert command in GUIDE.read_text()
        return shell(command, self.folder, self.env)


@dataclass
class Account:
    """What is in the account."""

    emulator: S3Emulator

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.emulator.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def left(self) -> dict[str, list[str]]:
        """Return what costs or gives somebody a right, by kind."""
        stacks = self.client("cloudformation").list_stacks()["StackSummaries"]
        return {
            kind: names
            for kind, names in {
                "stacks": [s["StackName"] for s in stacks if s["StackStatus"] != "DELETE_COMPLETE"],
                "buckets": [one["Name"] for one in self.client("s3").list_buckets()["Buckets"]],
                "databases": [one["Name"] for one in self.client("glue").get_databases()["DatabaseList"]],
                "roles": [one["RoleName"] for one in self.client("iam").list_roles()["Roles"]],
                "functions": [
                    one["FunctionName"] for one in self.client("lambda").list_functions()["Functions"]
                ],
                "secrets": [
                    one["Name"] for one in self.client("secretsmanager").list_secrets()["SecretList"]
                ],
                "sites": [
                    one["DomainName"]
                    for one in self.client("cloudfront")
                    .list_distributions()["DistributionList"]
                    .get("Items", [])
                ],
                "stores": [
                    one["Name"]
                    for one in self.client("cloudfront")
                    .list_key_value_stores()["KeyValueStoreList"]
                    .get("Items", [])
                ],
                "queues": self.client("sqs").list_queues().get("QueueUrls", []),
                "topics": [one["TopicArn"] for one in self.client("sns").list_topics()["Topics"]],
                "logs": [g["logGroupName"] for g in self.client("logs").describe_log_groups()["logGroups"]],
                "alarms": [
                    a["AlarmName"] for a in self.client("cloudwatch").describe_alarms()["MetricAlarms"]
                ],
                "groups": [
                    one["AutoScalingGroupName"]
                    for one in self.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
                ],
            }.items()
            if names
        }

    def shown_site(self) -> str:
        """The release of the site that readers see."""
        bucket = f"{NAME}-site-000000000000"
        store = self.client("cloudfront").describe_key_value_store(Name=bucket)["KeyValueStore"]["ARN"]
        path = f"/key-value-stores/{quote(store, safe='')}/keys/current"
        with urllib.request.urlopen(f"{self.emulator.endpoint}{path}", timeout=60) as answer:
            name = json.load(answer)["Value"]
        found = self.client("s3").get_object(Bucket=bucket, Key=f"sites/{name}/site.json")["Body"].read()
        return str(json.loads(found)["release_id"])

    def boot(self, folder: Path) -> Machine:
        """Boot the instance that the group of the stack would start now."""
        (group,) = self.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
        template = self.client("ec2").describe_launch_template_versions(
            LaunchTemplateId=group["LaunchTemplate"]["LaunchTemplateId"],
            Versions=[group["LaunchTemplate"]["Version"]],
        )["LaunchTemplateVersions"][0]["LaunchTemplateData"]
        script = base64.b64decode(template["UserData"]).decode()
        machine = Machine(folder, script, f'exec {install.command_line()} "$@"')
        done = machine.boot({**self.emulator.env, "AWS_REGION": REGION})
        assert done.returncode == 0, done.stdout + done.stderr
        return machine


@pytest.fixture
def portals() -> Iterator[RunningPortal]:
    with portal.running(day=DAY) as running_portal:
        yield running_portal


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    server = tmp_path / "server"
    server.mkdir()
    script = Path(more_resources.__file__)
    with running(server, script=script, region=REGION, LAMBDA_EXECUTOR="local") as emulator:
        yield Account(emulator)


@pytest.fixture
def athena(tmp_path: Path, account: Account) -> Iterator[Environment]:
    from tools.athena_emulator.environment import running

    folder = tmp_path / "athena"
    folder.mkdir()
    try:
        install.command_line()
        with running(folder, aws=account.emulator.endpoint, region=REGION) as environment:
            yield environment
    except NotInstalled as error:
        missing(str(error))


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository with the files as they are now, that the reader clones and pulls from."""
    folder = tmp_path / "origin"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in shell(listed, ROOT).split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    shell(["git", "init", "-q", "-b", "main"], folder)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    # By force: `.gitignore` names folders that are tracked all the same.
    shell(["git", "add", "-A", "--force"], folder)
    shell(["git", *who, "commit", "-q", "--no-verify", "-m", "A commit"], folder)


@pytest.fixture
def guide(tmp_path: Path, origin: Path, athena: Environment) -> Guide:
    """A reader with a clone and the keys of an administrator; AWS_ENDPOINT_URL leads to the emulator."""
    shell(["git", "clone", "-q", str(origin), str(tmp_path / "clone")], tmp_path)
    endpoints = {k: v for k, v in athena.variables().items() if k.startswith("AWS_") and "REGION" not in k}
    # `make test-aws` leaves variables by which the make of the guide would print more.
    own = ("AWS_", "CATALUNYA_", "ENVIRONMENT", "MAKE", "MFLAGS")
    outside = {k: v for k, v in os.environ.items() if not k.startswith(own)}
    nowhere = str(tmp_path / "none")
    tools = f"{ROOT / '.uv/bin'}:{os.environ['PATH']}"
    env = {
        **outside, **endpoints, "AWS_CONFIG_FILE": nowhere, "AWS_SHARED_CREDENTIALS_FILE": nowhere, "PATH": tools,
    }  # fmt: skip
    return Guide(tmp_path / "clone", env)


def build_functions(folder: Path) -> Path:
    """Build the functions' package of a checkout, for the Python and the processor of this machine."""
    architecture = "arm64" if os.uname().machine in {"arm64", "aarch64"} else "x86_64"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    target = folder / ".artefacts" / "local"
    options = ["--architecture", architecture, "--python", version, "--output", str(target)]
    env = {**os.environ, "PATH": f"{ROOT / '.uv/bin'}:{os.environ['PATH']}"}
    shell([sys.executable, "-m", package.__name__, *options], folder, env)
    return target / f"functions-{architecture}.zip"


def add_dataset_and_mart(folder: Path) -> None:
    """Follow docs/add-a-dataset.md in a checkout."""

    def copy(source: str, target: str, **more: str) -> None:
        text = (folder / source).read_text().replace("service_users", NEW)
        for old, new in more.items():
            text = text.replace(old, new)
        (folder / target).write_text(text)

    copy("datasets/service_users.yml", f"datasets/{NEW}.yml")
    marts = "dbt/mart/models/marts"
    copy(f"{marts}/service_users.sql", f"{marts}/{NEW}.sql")
    unit_test = {"people_attended_are_those": "people_attended_again_are_those"}
    copy(f"{marts}/service_users.yml", f"{marts}/{NEW}.yml", **unit_test)
    exposures = folder / "dbt/mart/models/exposures.yml"
    line = "      - ref('service_users')\n"
    exposures.write_text(exposures.read_text().replace(line, line + line.replace("service_users", NEW)))
    env = {
        **os.environ,
        "PYTHONPATH": str(folder / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CATALUNYA_HOME": str(folder),
    }
    shell([sys.executable, "-m", "catalunya", "datasets", "generate"], folder, env)


@contextmanager
def released(
    guide: Guide,
    machine: Machine,
    athena: Environment,
    portals: RunningPortal,
    folder: Path,
    before: Path | None = None,
) -> Iterator[EndedRun]:
    """Run Airflow with the settings of the instance and the definitions of the clone, until its first run has ended.

    It goes on with the database of `before`, as an instance does that attaches the volume of the one before.
    """
    own = ("AWS_", "CATALUNYA_", "ENVIRONMENT")
    settings = {name: value for name, value in machine.settings.items() if name.startswith(own)}
    endpoints = {name: value for name, value in athena.variables().items() if name.startswith("AWS_")}
    more = {
        **endpoints,
        **settings,
        "AWS_ENDPOINT_URL_CLOUDFRONT_KEYVALUESTORE": endpoints["AWS_ENDPOINT_URL"].replace(
            "127.0.0.1", "localhost"
        ),
        "CATALUNYA_HOME": str(guide.folder),
        "CATALUNYA_NOW": "",
        "CATALUNYA_ATHENA_POLL": "0.1",
        "CATALUNYA_LAMBDA_PATIENCE_SECONDS": "120",
    }
    folder.mkdir()
    if before:
        shutil.copytree(before / "airflow", folder / "airflow")
    with start_airflow(folder, portals, more) as airflow:
        ended = airflow.ended(airflow.trigger()) if before else scheduled_run(airflow)
        assert ended.state == "success", ended.states()
        yield ended


def query(account: Account, athena: Environment, sql: str) -> list[tuple[Any, ...]]:
    """Query the published marts as an analyst does: the role of readers, the workgroup of readers."""
    from pyathena import connect

    found = account.client("sts").assume_role(
        RoleArn=f"arn:aws:iam::000000000000:role/{NAME}-reader", RoleSessionName="analyst"
    )["Credentials"]
    with connect(
        work_group=f"{NAME}-read", schema_name="catalunya_production_marts", region_name=REGION,
        endpoint_url=athena.athena, poll_interval=0.1, aws_access_key_id=found["AccessKeyId"],
        aws_secret_access_key=found["SecretAccessKey"], aws_session_token=found["SessionToken"],
    ) as con:  # fmt: skip
        return list(con.cursor().execute(sql).fetchall())


def test_the_guide_leads_from_an_empty_account_to_a_release_an_update_a_rollback_and_an_empty_account(
    guide, account, athena, origin, portals, tmp_path
):
    assert account.left() == {}
    guide.run("cp infrastructure/environments/example.toml")
    settings = guide.folder / "infrastructure/environments/production.toml"
    addresses = dict.fromkeys(("socrata_url", "idescat_url", "icgc_url"), portals.url)
    edits = {
        "alert_email": "somebody@example.org",
        "package": str(build_functions(guide.folder)),
        **addresses,
    }
    with settings.open("a") as file:
        file.writelines(f"{name} = {json.dumps(value)}\n" for name, value in edits.items())

    guide.run("make deploy")
    first = account.boot(tmp_path / "first")
    variables = dict(line.split("=", 1) for line in guide.run("make aws-variables").splitlines())
    assert variables.items() <= first.settings.items()
    with released(guide, first, athena, portals, tmp_path / "airflow"):
        status = guide.run("make aws-run ENVIRONMENT=production")
    release = guide.folder / "catalunya-release"
    made = json.loads((release / "release.json").read_text())
    assert made["engine"] == "athena"
    assert (release / "catalunya.duckdb").stat().st_size > 100_000
    assert status == ""
    assert account.shown_site() == made["release_id"]
    people = "select count(*) from service_users"
    assert query(account, athena, people) == [(made["rows"]["service_users"],)]
    guide.run("make aws-alert")
    guide.run("make aws-failed")

    add_dataset_and_mart(origin)
    commit(origin)
    # The reader pulls and deploys in one block; only the emulator needs a package of its own, of what is pulled.
    shell(["git", "pull", "-q"], guide.folder)
    build_functions(guide.folder)
    guide.run("git pull && make deploy")
    second = account.boot(tmp_path / "second")
    secret = ("_KEY", "_SECRET", "_PASSWORD")
    keys = {name: value for name, value in first.settings.items() if name.endswith(secret)}
    assert keys.items() <= second.settings.items()
    again = tmp_path / "airflow-again"
    with released(guide, second, athena, portals, again, before=tmp_path / "airflow"):
        attended = query(account, athena, f"select count(*) from {NEW}")
    assert attended == query(account, athena, people)
    shutil.rmtree(release)
    guide.again("make aws-release ENVIRONMENT=production")
    newer = json.loads((release / "release.json").read_text())
    assert newer["release_id"] > made["release_id"]
    assert newer["rows"][NEW] == attended[0][0] > 0

    device = account.client("iam").create_virtual_mfa_device(VirtualMFADeviceName="mine")["VirtualMFADevice"]
    guide.run("make aws-run ROLE=publish", MFA=device["SerialNumber"], CODE="123456")
    shutil.rmtree(release)
    guide.again("make aws-release ENVIRONMENT=production")
    assert json.loads((release / "release.json").read_text())["release_id"] == made["release_id"]
    account.client("iam").delete_virtual_mfa_device(SerialNumber=device["SerialNumber"])

    guide.run("make destroy ENVIRONMENT=production CONFIRM=catalunya-production")
    assert [one for one in account.left()["buckets"] if one.startswith(NAME)] == [f"{NAME}-lake-000000000000"]
    guide.run("make destroy ENVIRONMENT=production CONFIRM=catalunya-production DELETE_LAKE=yes")
    assert account.left() == {}
    assert [one.strip().split(" ENV")[0] for one in guide.left] == [*NOT_FOLLOWED]
