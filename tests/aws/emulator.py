"""An account of AWS on loopback with a stack deployed in it, from the template that a real account would get."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

from infrastructure.package import Package
from tests.aws import more_resources
from tests.aws.needs import Place
from tests.aws.policy import Account
from tests.aws.synthesis import synthesise
from tests.s3 import S3Emulator, running

EMULATED_ACCOUNT = "000000000000"
WORKER = f"arn:aws:iam::{EMULATED_ACCOUNT}:role/airflow"
"""What Airflow runs as before it assumes a role of the stack."""
_USERS = f"arn:aws:iam::{EMULATED_ACCOUNT}:user"
AIRFLOW, PERSON = "airflow", "anna"
"""Access keys of Airflow's machine, and of somebody of the account."""
_OWNERS = {AIRFLOW: WORKER, PERSON: f"{_USERS}/anna", EMULATED_ACCOUNT: ""}
"""Access key to who has it. All functions have the last one: whoever wants to know which asks has a proxy for each."""


@dataclass
class Deployed:
    """A stack in the emulator."""

    name: str
    emulator: S3Emulator
    account: str
    policies: Account
    """The policies of its template."""
    _owners: dict[str, str] = field(default_factory=lambda: dict(_OWNERS))

    @property
    def lake(self) -> str:
        return f"s3://{self.name}-lake-{self.account}"

    def client(self, service: str, *, endpoint: str | None = None, access_key: str = "test") -> Any:
        return client(self.emulator, service, endpoint, access_key)

    def set_variables(self, function: str, **variables: str) -> None:
        """Add variables to the environment of a function."""
        functions = self.client("lambda")
        known = functions.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
        functions.update_function_configuration(
            FunctionName=function, Environment={"Variables": {**known, **variables}}
        )

    def principal_of(self, access_key: str) -> str:
        """Return the name of the role that a key was given to, or the ARN of another owner."""
        if access_key not in self._owners:
            arn = str(self.client("sts", access_key=access_key).get_caller_identity()["Arn"])
            self._owners[access_key] = arn.split("/")[1] if ":assumed-role/" in arn else arn
        return self._owners[access_key]

    def place(self, workgroup: str = "build") -> Place:
        """Return where queries run."""
        return Place(
            account=self.account,
            region=self.policies.region,
            workgroup=f"{self.name}-{workgroup}",
            results=f"{self.name}-results-{self.account}",
            lake=f"{self.name}-lake-{self.account}",
        )

    def keys(self, role: str, *, as_key: str = "test", endpoint: str | None = None) -> dict[str, str]:
        """Assume a role, as whoever has the key `as_key`; returns the variables with its credentials."""
        sts = self.client("sts", access_key=as_key, endpoint=endpoint)
        arn = f"arn:aws:iam::{self.account}:role/{self.name}-{role}"
        found = sts.assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": found["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
            "AWS_SESSION_TOKEN": found["SessionToken"],
        }

    def failed(self, stage: str) -> list[dict[str, Any]]:
        """Return the failed invocations in the queue, and delete them from it."""
        sqs = self.client("sqs")
        url = sqs.get_queue_url(QueueName=f"{self.name}-{stage}-failed")["QueueUrl"]
        found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        for message in found:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return [json.loads(message["Body"]) for message in found]


def client(emulator: S3Emulator, service: str, endpoint: str | None = None, access_key: str = "test") -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint or emulator.endpoint,
        region_name=emulator.env["AWS_REGION"],
        aws_access_key_id=access_key,
        aws_secret_access_key="test",
    )


@contextmanager
def deployed(
    folder: Path, package: Package, portal_url: str, environment: str = "production"
) -> Iterator[Deployed]:
    """The stack of an environment in an emulator of its own, whose functions read the portals at `portal_url`."""
    out = folder / "cdk"
    portals = dict.fromkeys(("socrata_url", "idescat_url", "icgc_url"), portal_url)
    synthesise(out, package.path, workers=[WORKER], **portals)
    server = folder / "server"
    server.mkdir()
    with running(server, script=Path(more_resources.__file__), LAMBDA_EXECUTOR="local") as emulator:
        name = f"catalunya-{environment}"
        account = client(emulator, "sts").get_caller_identity()["Account"]
        _bootstrap(emulator, account, out, name)
        _create(emulator, account, out, name)
        template = json.loads((out / f"{name}.template.json").read_text())
        yield Deployed(name, emulator, account, Account(template, account, emulator.env["AWS_REGION"]))


def _assets(account: str, region: str) -> str:
    return f"cdk-hnb659fds-assets-{account}-{region}"


def _bootstrap(emulator: S3Emulator, account: str, out: Path, name: str) -> None:
    """Create what `cdk bootstrap` and the upload of `cdk deploy` create."""
    bucket = _assets(account, emulator.env["AWS_REGION"])
    s3 = client(emulator, "s3")
    s3.create_bucket(Bucket=bucket)
    client(emulator, "ssm").put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String")
    for file in json.loads((out / f"{name}.assets.json").read_text())["files"].values():
        for destination in file["destinations"].values():
            s3.upload_file(str(out / file["source"]["path"]), bucket, destination["objectKey"])


def _create(emulator: S3Emulator, account: str, out: Path, name: str) -> None:
    bucket = _assets(account, emulator.env["AWS_REGION"])
    client(emulator, "s3").upload_file(str(out / f"{name}.template.json"), bucket, name)
    stacks = client(emulator, "cloudformation")
    stacks.create_stack(
        StackName=name,
        TemplateURL=f"{emulator.endpoint}/{bucket}/{name}",
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    deadline = time.monotonic() + 60
    while (status := stacks.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]).endswith("PROGRESS"):
        assert time.monotonic() < deadline, status
        time.sleep(0.2)
    events = stacks.describe_stack_events(StackName=name)["StackEvents"]
    assert status == "CREATE_COMPLETE", [e for e in events if "FAILED" in e["ResourceStatus"]]
