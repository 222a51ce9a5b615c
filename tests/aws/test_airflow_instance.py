"""The instance that runs Airflow: its resources, and its first boot with every command of the machine recorded."""

from __future__ import annotations

import base64
import inspect
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from catalunya.datasets import loader
from catalunya.runs import aws_lambda
from catalunya.runs.record import code_revision
from infrastructure import costs
from tests.aws.machine import VOLUME, Machine
from tests.aws.policy import ACCOUNT, Account
from tests.aws.synthesis import synthesise
from tests.project import ROOT

pytestmark = pytest.mark.aws

COMMAND_LINE = """case "$*" in
    *get-secret-value*Seed*) echo seedseedseedseedseedseedseedseedseedseedseedseedseedseedseedseed ;;
    *get-secret-value*Password*) echo passwordofadmin0123456789 ;;
    "s3 cp"*) cp "$BOOT_SOURCES" "${@: -1}" ;;
esac"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("airflow")
    with zipfile.ZipFile(folder / "functions.zip", "w") as archive:
        archive.writestr("catalunya/runs/aws_lambda.py", "")
    synthesise(folder / "out", folder / "functions.zip", airflow=True, workers=[])
    return folder / "out"


@pytest.fixture(scope="module")
def account(out: Path) -> Account:
    return Account(json.loads((out / "catalunya-production.template.json").read_text()))


def only(account: Account, kind: str) -> dict[str, Any]:
    (found,) = (one for one in account.template["Resources"].values() if one["Type"] == kind)
    return dict(found["Properties"])


def asset(out: Path, name: str) -> dict[str, Any]:
    files = json.loads((out / "catalunya-production.assets.json").read_text())["files"]
    return next(one for one in files.values() if name in one.get("displayName", ""))


@pytest.fixture
def machine(tmp_path: Path, out: Path, account: Account) -> Machine:
    folder = out / asset(out, "Sources")["source"]["path"]
    sources = tmp_path / "sources.zip"
    with zipfile.ZipFile(sources, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return Machine(tmp_path / "machine", user_data(account), f"BOOT_SOURCES={sources}\n{COMMAND_LINE}")


def user_data(account: Account) -> str:
    """Return the script as an instance gets it, for the volume of this test."""
    (resource,) = (
        one for one in account.template["Resources"].values() if one["Type"] == "AWS::EC2::LaunchTemplate"
    )
    parts = resource["Properties"]["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Fn::Join"][1]

    def text(part: Any) -> str:
        if isinstance(part, str):
            return part
        name = part.get("Ref", "")
        if name.startswith("AirflowInstanceData"):
            return VOLUME
        return name if name.startswith("AirflowInstance") else str(account.resolve(part))

    return "".join(map(text, parts))


def test_an_instance_has_no_open_port_and_its_metadata_are_read_with_a_token_one_hop_further(account):
    ports = only(account, "AWS::EC2::SecurityGroup")
    assert "SecurityGroupIngress" not in ports
    assert {rule["ToPort"] for rule in ports["SecurityGroupEgress"]} == {80, 443}
    assert "AWS::EC2::SecurityGroupIngress" not in {
        one["Type"] for one in account.template["Resources"].values()
    }
    template = only(account, "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    assert template["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 2}
    assert "KeyName" not in template
    assert only(account, "AWS::EC2::FlowLog")["TrafficType"] == "ALL"


def test_its_disks_are_encrypted_and_the_data_outlive_the_instance_and_the_production_stack(account, out):
    root = only(account, "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]["BlockDeviceMappings"]
    assert [disk["Ebs"]["Encrypted"] for disk in root] == [True]
    for environment, policy in {"production": "Snapshot", "development": "Delete"}.items():
        template = json.loads((out / f"catalunya-{environment}.template.json").read_text())
        (volume,) = (one for one in template["Resources"].values() if one["Type"] == "AWS::EC2::Volume")
        assert volume["Properties"]["Encrypted"] is True
        assert (volume["DeletionPolicy"], volume["UpdateReplacePolicy"]) == (policy, policy)


def test_a_deployment_waits_for_airflow_to_be_healthy_and_no_two_instances_hold_the_volume(account):
    (group,) = (
        one
        for one in account.template["Resources"].values()
        if one["Type"] == "AWS::AutoScaling::AutoScalingGroup"
    )
    assert group["CreationPolicy"]["ResourceSignal"]["Count"] == 1
    update = group["UpdatePolicy"]["AutoScalingRollingUpdate"]
    assert (update["WaitOnResourceSignals"], update["MinInstancesInService"]) == (True, 0)
    assert (group["Properties"]["MinSize"], group["Properties"]["MaxSize"]) == ("1", "1")
    kinds = {account.template["Resources"][name]["Type"] for name in group["DependsOn"]}
    assert {"AWS::IAM::Policy", "AWS::EC2::Route"} <= kinds


def test_the_instance_may_become_the_orchestrator_and_little_else(account):
    role = "catalunya-production-airflow"
    orchestrator = f"arn:aws:iam::{ACCOUNT}:role/catalunya-production-orchestrator"
    assert account.may(role, "sts:AssumeRole", orchestrator)
    for other in ("publish", "build", "steward"):
        assert not account.may(
            role, "sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/catalunya-production-{other}"
        )
    allowed = {
        action
        for one in account.statements(role)
        for action in ([one["Action"]] if isinstance(one["Action"], str) else one["Action"])
    }
    assert allowed == {
        "sts:AssumeRole", "s3:GetObject", "secretsmanager:GetSecretValue", "ec2:AttachVolume",
        "cloudformation:SignalResource", "ssm:UpdateInstanceInformation", "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel", "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
    }  # fmt: skip
    roles = account.of_type("AWS::IAM::Role").values()
    trust = next(one for one in roles if one["RoleName"] == "catalunya-production-orchestrator")
    assert "-airflow" in json.dumps(trust["AssumeRolePolicyDocument"])
    assert f"{ACCOUNT}:root" not in json.dumps(trust["AssumeRolePolicyDocument"])


def test_the_sources_are_tracked_files_that_the_image_needs_and_hold_no_settings(out):
    folder = out / asset(out, "Sources")["source"]["path"]
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found <= set(listed.stdout.splitlines())
    for needed in (
        "orchestration/Dockerfile", "orchestration/docker-compose.yml", "orchestration/scripts/up.sh", "uv.lock",
        "src/catalunya/settings.py", "dbt/mart/tests/rows_are_all_accounted_for.sql", "datasets/population.yml",
    ):  # fmt: skip
        assert needed in found
    assert not [name for name in found if name.endswith(".env")]
    assert os.access(folder / "orchestration/scripts/up.sh", os.X_OK)


def test_a_first_boot_formats_the_volume_writes_the_settings_and_starts_the_stack(machine):
    (machine.root / "busy").touch()
    done = machine.boot()
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(machine.commands("aws ec2 attach-volume")) == 2
    assert len(machine.commands("mkfs.ext4")) == 1
    order = [line.split()[0] for line in machine.record]
    assert order.index("mount") < order.index("apt-get") < order.index("docker")
    assert any("up --" in line or " up " in line for line in machine.commands("docker"))
    (signal,) = machine.commands("aws cloudformation signal-resource")
    assert "--unique-id i-0123456789abcdef0 --status SUCCESS" in signal
    assert "LABEL=catalunya /var/lib/docker" in (machine.root / "etc/fstab").read_text()
    assert machine.settings_file.stat().st_mode & 0o077 == 0


def test_the_settings_pass_the_check_of_the_containers_in_production(machine):
    assert machine.boot().returncode == 0
    settings = machine.settings
    assert len(base64.urlsafe_b64decode(settings["AIRFLOW__CORE__FERNET_KEY"])) == 32
    secrets = [value for name, value in settings.items() if name.endswith(("_KEY", "_SECRET", "_PASSWORD"))]
    assert len(set(secrets)) == len(secrets) == 6
    assert settings["CATALUNYA_REVISION"] == (code_revision(ROOT) or "")
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **settings}
    script = ROOT / "orchestration/docker/entrypoint.sh"
    checked = subprocess.run(["bash", script, "true"], env=env, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    refused = subprocess.run(
        ["bash", script, "true"],
        env={**env, "POSTGRES_PASSWORD": "airflow"},
        capture_output=True,
        check=False,
    )
    assert refused.returncode == 1


def test_the_next_instance_keeps_the_volume_and_has_the_same_keys(machine):
    assert machine.boot().returncode == 0
    first = machine.settings
    assert machine.boot().returncode == 0
    assert machine.settings == first
    assert len(machine.commands("mkfs.ext4")) == 1


@pytest.mark.parametrize(
    ("name", "behaviour"),
    [
        ("docker", 'case "$*" in build*) exit 1 ;; esac'),
        ("blkid", "exit 8"),
        ("apt-get", "exit 100"),
        ("mount", "exit 32"),
    ],
)
def test_a_boot_that_fails_says_so_to_the_deployment_and_destroys_nothing(machine, name, behaviour):
    machine.replace(name, behaviour)
    done = machine.boot()
    assert done.returncode != 0
    (signal,) = machine.commands("aws cloudformation signal-resource")
    assert signal.endswith("--status FAILURE")
    if name == "blkid":
        assert not machine.commands("mkfs.ext4")


def test_the_bill_in_the_guide_has_what_the_instance_is_made_of(account):
    launched = only(account, "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    assert launched["InstanceType"] == "t4g.large"
    [interface] = launched["NetworkInterfaces"]
    assert interface["AssociatePublicIpAddress"] is True
    [system] = launched["BlockDeviceMappings"]
    kinds = [resource["Type"] for resource in account.template["Resources"].values()]
    made = {
        "volumes_gb": system["Ebs"]["VolumeSize"] + only(account, "AWS::EC2::Volume")["Size"],
        "secrets": kinds.count("AWS::SecretsManager::Secret"),
    }
    counted = {name: one.default for name, one in inspect.signature(costs.machine).parameters.items()}
    assert made == {name: counted[name] for name in made}
    # The budget does not alert on what the instance costs at any rate.
    budget = only(account, "AWS::Budgets::Budget")["Budget"]["BudgetLimit"]["Amount"]
    assert sum(line.usd for line in costs.machine()) < 0.7 * budget
    assert not {"AWS::EC2::NatGateway", "AWS::EC2::VPCEndpoint", "AWS::EC2::EIP"} & set(kinds)


@pytest.mark.parametrize("region", ["eu-west-1", "eu-south-2"])
def test_the_whole_stack_is_clean_for_cdk_nag_and_exists_in_the_region(tmp_path, region):
    with zipfile.ZipFile(tmp_path / "functions.zip", "w") as archive:
        archive.writestr("catalunya/runs/aws_lambda.py", "")
    out = tmp_path / "out"
    more = {"github_repository": "owner/name", "workers": [], "airflow": True}
    synthesise(out, tmp_path / "functions.zip", region=region, **more)
    templates = sorted(map(str, out.glob("*.template.json")))
    assert len(templates) == 3
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--regions", region, "--", *templates]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_sources_of_the_instance_have_the_code_and_the_definitions_that_the_functions_are_deployed_with(
    out, monkeypatch
):
    folder = out / asset(out, "Sources")["source"]["path"]
    own = aws_lambda.code_digest()
    monkeypatch.setattr(aws_lambda, "__file__", str(folder / "src" / "catalunya" / "runs" / "aws_lambda.py"))
    assert aws_lambda.code_digest.__wrapped__() == own
    assert loader.load(folder / "datasets") == loader.load(ROOT / "datasets")
