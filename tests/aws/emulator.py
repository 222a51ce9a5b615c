"""An account of AWS on loopback with a stack deployed in it, from the template that a real account would get."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from infrastructure.package import Package
from tests.aws.synthesis import synthesise
from tests.s3 import S3Emulator, running

UNSUPPORTED = {"AWS::Budgets::Budget"}
"""Resources that the emulator does not have; they are removed from the template.

The emulator has no OIDC provider either: the stack omits it when the account has one already.
"""
_PROVIDER = "arn:aws:iam::000000000000:oidc-provider/token.actions.githubusercontent.com"


@dataclass
class Deployed:
    """A stack in the emulator."""

    name: str
    emulator: S3Emulator
    account: str

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

    def role_of(self, access_key: str) -> str:
        """Return the name of the role that a key was given to, or the ARN of another owner."""
        arn = str(self.client("sts", access_key=access_key).get_caller_identity()["Arn"])
        return arn.split("/")[1] if ":assumed-role/" in arn else arn

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
    synthesise(out, package.path, github_provider_arn=_PROVIDER, **portals)
    server = folder / "server"
    server.mkdir()
    with running(server, LAMBDA_EXECUTOR="local") as emulator:
        name = f"catalunya-{environment}"
        account = client(emulator, "sts").get_caller_identity()["Account"]
        _bootstrap(emulator, account, out, name)
        _create(emulator, account, out, name)
        yield Deployed(name, emulator, account)


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
    template = json.loads((out / f"{name}.template.json").read_text())
    unsupported = [
        key
        for key, one in template["Resources"].items()
        # An alarm on an expression of metrics.
        if one["Type"] in UNSUPPORTED or "Metrics" in one.get("Properties", {})
    ]
    for key in unsupported:
        del template["Resources"][key]
    bucket = _assets(account, emulator.env["AWS_REGION"])
    client(emulator, "s3").put_object(Bucket=bucket, Key=name, Body=json.dumps(template).encode())
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
