"""Who may assume which role, and what Airflow, people and GitHub may do then."""

from __future__ import annotations

import json
import zipfile

import pytest
from pydantic import ValidationError

from infrastructure.parameters import parameters
from tests.aws.policy import ACCOUNT, REGION, Account
from tests.aws.synthesis import WORKER, synthesise

pytestmark = pytest.mark.aws


def test_the_orchestrator_invokes_the_functions_and_assumes_the_roles_of_its_tasks(account, environment):
    role = f"catalunya-{environment}-orchestrator"
    function = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:catalunya-{environment}-"
    assert account.may(role, "lambda:InvokeFunction", f"{function}ingest")
    assert account.may(role, "lambda:InvokeFunction", f"{function}stage")
    assert not account.may(role, "lambda:InvokeFunction", f"{function}other")
    assert not account.may(role, "lambda:UpdateFunctionCode", f"{function}ingest")
    assert assumed_by(account, environment, account.roles()[role]) == {"build", "publish", "monitor"}


def assumed_by(account: Account, environment: str, principal: str, **context: str) -> set[str]:
    """Return the roles that a principal may assume."""
    prefix = f"catalunya-{environment}-"
    names = (name for name in account.roles() if account.may_assume(principal, name, **context))
    return {name.removeprefix(prefix) for name in names}


PERSON = f"arn:aws:iam::{ACCOUNT}:user/anna"
ANALYST = f"arn:aws:iam::{ACCOUNT}:role/aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_Stewards_0123456789abcdef"
SECOND_FACTOR = {"aws:MultiFactorAuthPresent": "true"}


def test_only_a_worker_may_become_the_orchestrator_in_production(templates):
    account = templates["production"]
    assert assumed_by(account, "production", WORKER) == {"orchestrator", "reader"}
    assert "orchestrator" not in assumed_by(account, "production", PERSON, **SECOND_FACTOR)
    assert "orchestrator" not in assumed_by(account, "production", f"arn:aws:iam::{ACCOUNT}:role/other")


def test_people_publish_and_act_as_steward_with_a_second_factor_only(templates):
    account = templates["production"]
    assert assumed_by(account, "production", PERSON) == {"reader"}
    assert assumed_by(account, "production", PERSON, **{"aws:MultiFactorAuthPresent": "false"}) == {"reader"}
    assert assumed_by(account, "production", PERSON, **SECOND_FACTOR) == {"reader", "publish", "steward"}
    assert assumed_by(account, "production", ANALYST) == {"reader"}
    stranger = "arn:aws:iam::999999999999:user/eve"
    assert assumed_by(account, "production", stranger, **SECOND_FACTOR) == set()


def test_a_function_role_is_assumed_by_lambda_alone(account, environment):
    assert assumed_by(account, environment, "lambda.amazonaws.com") == {"ingest", "stage"}


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Account]:
    """Production with an external id, people of IAM Identity Center and a repository that deploys; and GitHub's stack."""
    folder = tmp_path_factory.mktemp("configured")
    with zipfile.ZipFile(folder / "functions.zip", "w") as archive:
        archive.writestr("catalunya/runs/aws_lambda.py", "")
    synthesise(
        folder / "out", folder / "functions.zip", "production", external_id="from-our-rack",
        people=[ANALYST.replace("0123456789abcdef", "*")], github_repository="someone/pipeline",
    )  # fmt: skip
    found = (folder / "out").glob("*.template.json")
    return {
        one.name.split(".")[0].removeprefix("catalunya-"): Account(json.loads(one.read_text()))
        for one in found
    }


def test_a_host_outside_of_aws_names_the_external_id(configured):
    account = configured["production"]
    assert "orchestrator" not in assumed_by(account, "production", WORKER)
    assert "orchestrator" not in assumed_by(account, "production", WORKER, **{"sts:ExternalId": "another"})
    assert "orchestrator" in assumed_by(account, "production", WORKER, **{"sts:ExternalId": "from-our-rack"})


def test_people_of_identity_center_are_named_by_their_role(configured):
    account = configured["production"]
    assert assumed_by(account, "production", ANALYST) == {"reader", "publish", "steward"}
    other = ANALYST.replace("Stewards", "Everybody")
    assert assumed_by(account, "production", other) == {"reader"}


GITHUB = "token.actions.githubusercontent.com"
PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{GITHUB}"


def test_nothing_on_github_may_do_anything_unless_a_repository_is_given(templates):
    for account in templates.values():
        assert GITHUB not in json.dumps(account.template)
        assert not [name for name in account.roles() if "deployment" in name]


def test_a_deployment_is_trusted_from_its_repository_and_environment_alone_and_assumes_cdks_roles(configured):
    account = configured["production"]
    role = "catalunya-production-deployment"

    def may(repository: str, environment: str, audience: str = "sts.amazonaws.com") -> bool:
        subject = f"repo:{repository}:environment:{environment}"
        claims = {f"{GITHUB}:aud": audience, f"{GITHUB}:sub": subject}
        return account.may_assume(PROVIDER, role, "sts:AssumeRoleWithWebIdentity", **claims)

    assert may("someone/pipeline", "production")
    assert not may("someone/pipeline", "development")
    assert not may("catalunya/pipeline", "production")
    assert not may("someone/pipeline", "production", "another")
    assert not account.may_assume(PERSON, role, **SECOND_FACTOR)
    for kind in ("deploy", "file-publishing", "lookup"):
        arn = f"arn:aws:iam::{ACCOUNT}:role/cdk-hnb659fds-{kind}-role-{ACCOUNT}-{REGION}"
        assert account.may(role, "sts:AssumeRole", arn)
    assert not account.may(role, "sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/administrator")


def test_the_trust_in_github_is_in_no_stack_of_an_environment(configured):
    assert set(configured) == {"production", "github"}
    assert not configured["production"].of_type("AWS::IAM::OIDCProvider")
    [provider] = configured["github"].of_type("AWS::IAM::OIDCProvider").values()
    assert (provider["Url"], provider["ClientIdList"]) == (f"https://{GITHUB}", ["sts.amazonaws.com"])


def test_requests_of_the_functions_name_the_repository(configured, templates):
    for account, address in (
        (configured["production"], "https://github.com/someone/pipeline"),
        (templates["production"], None),
    ):
        for function in account.of_type("AWS::Lambda::Function").values():
            assert function["Environment"]["Variables"].get("CATALUNYA_PROJECT_URL") == address


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "workers: production needs `airflow = true`, or the ARNs"),
        ({"workers": [f"arn:aws:iam::{ACCOUNT}:root"]}, "workers.0"),
        ({"workers": [f"arn:aws:iam::{ACCOUNT}:role/*"]}, "workers.0"),
        ({"workers": [WORKER], "people": [f"arn:aws:iam::{ACCOUNT}:role/*"]}, "people.0"),
    ],
)
def test_production_is_refused_when_everybody_could_become_the_orchestrator(given, message):
    with pytest.raises(ValidationError, match=message):
        parameters("production", given)
    assert parameters("development", {}).workers == ()
