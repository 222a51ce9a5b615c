"""The containers of production are given what AWS needs, and the example of their settings names what the roles may use."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.aws.policy import ACCOUNT, REGION
from tests.project import ROOT

pytestmark = pytest.mark.aws

EXAMPLE = ROOT / "orchestration" / "config" / "environment" / "production.env.example"
COMPOSE = ROOT / "orchestration" / "docker-compose.yml"
IDENTITY = {
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_REGION", "AWS_DEFAULT_REGION", "CATALUNYA_EXTERNAL_ID", "CATALUNYA_ROLES", "CATALUNYA_PROJECT_URL",
}  # fmt: skip
"""By which boto3 and obstore find out who a process is, and what it may become."""


def test_every_way_to_give_a_container_an_identity_reaches_it():
    passed_on = yaml.safe_load(COMPOSE.read_text("utf-8"))["x-airflow"]["environment"]
    assert IDENTITY - set(passed_on) == set()


def test_each_variable_of_the_example_reaches_the_containers():
    text = COMPOSE.read_text("utf-8")
    named = re.findall(r"^#?([A-Z][A-Z_]+)=", EXAMPLE.read_text("utf-8"), re.MULTILINE)
    assert [name for name in named if not re.search(rf"\b{name}\b", text)] == []


def test_the_roles_may_use_what_the_example_names(templates):
    given = dict(re.findall(r"^([A-Z_]+)=(.+)$", EXAMPLE.read_text("utf-8"), re.MULTILINE))
    account = templates["production"]
    prefix = given["CATALUNYA_ROLES"].replace("ACCOUNT", ACCOUNT)
    named = {
        arn.removeprefix(prefix): name for name, arn in account.roles().items() if arn.startswith(prefix)
    }
    assert {"orchestrator", "build", "publish", "monitor"} <= set(named)
    bucket = given["CATALUNYA_LAKE"].replace("ACCOUNT", ACCOUNT).replace("s3://", "arn:aws:s3:::")
    group = f"arn:aws:athena:{REGION}:{ACCOUNT}:workgroup/{given['CATALUNYA_ATHENA_WORKGROUP']}"
    schema = given["CATALUNYA_SCHEMA"]
    tables = f"arn:aws:glue:{REGION}:{ACCOUNT}:table/{schema}"
    function = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{given['CATALUNYA_LAMBDA_PREFIX']}"
    for role, action, resource in (
        ("orchestrator", "lambda:InvokeFunction", f"{function}-ingest"),
        ("build", "s3:ListBucket", bucket),
        ("build", "athena:StartQueryExecution", group),
        ("build", "glue:CreateTable", f"{tables}_candidate_20260105t060000z_1a2b3c4d/population"),
        ("publish", "athena:StartQueryExecution", group),
        ("publish", "glue:UpdateTable", f"{tables}/population"),
        ("publish", "s3:PutObject", f"{bucket}/current.json"),
    ):
        assert account.may(named[role], action, resource), (role, action, resource)
