"""One role a duty, the orchestrator that takes them, and the one that deploys."""

from __future__ import annotations

from typing import cast

from aws_cdk import Acknowledgment, ArnFormat, Aws, CfnElement, Duration, Stack, Validations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infrastructure import duties
from infrastructure.duties import Duty
from infrastructure.parameters import Parameters
from infrastructure.storage import Storage

BY_FUNCTION = ("ingest", "stage")
"""Duties that the functions have."""
BY_TASK = ("build", "publish", "monitor")
"""Roles that the orchestrator's tasks take."""
BY_PEOPLE = ("publish", "steward")
"""Roles that people of the account may take, with a second factor: to roll back, and to refuse or accept a snapshot."""
_BOOTSTRAP = "hnb659fds"
"""The qualifier that `cdk bootstrap` gives its roles."""
_GITHUB = "token.actions.githubusercontent.com"


class Roles(Construct):
    """Roles named `<prefix>-<duty>`."""

    def __init__(self, scope: Construct, name: str, settings: Parameters, storage: Storage) -> None:
        super().__init__(scope, name)
        self.settings = settings
        self.storage = storage
        self.by_duty: dict[str, iam.Role] = {}
        for duty in (duties.ORCHESTRATOR, *duties.DUTIES[:-1]):
            self.by_duty[duty.name] = self._duty(duty)
        self.orchestrator = self.by_duty["orchestrator"]
        self.deployment = self._deployment()
        self._let_orchestrate()
        storage.only_moves_the_pointer(self.by_duty["publish"])

    def _duty(self, duty: Duty) -> iam.Role:
        role = iam.Role(
            self,
            duty.name.title(),
            role_name=f"{self.settings.prefix}-{duty.name}",
            description=f"Catalunya, {self.settings.environment}: {duty.what}.",
            assumed_by=self._trusted(duty.name),
            max_session_duration=Duration.hours(4),
        )
        lake = self.storage.lake
        for action, patterns in (
            ("s3:GetObject", duty.reads),
            ("s3:PutObject", duty.writes),
            ("s3:AbortMultipartUpload", duty.writes),
            ("s3:DeleteObject", duty.deletes),
        ):
            if patterns:
                role.add_to_policy(_allow([action], [lake.arn_for_objects(p) for p in patterns]))
        role.add_to_policy(_allow(["s3:ListBucket", "s3:GetBucketLocation"], [lake.bucket_arn]))
        self._explain(role, {*duty.reads, *duty.writes, *duty.deletes})
        return role

    def _explain(self, role: iam.Role, patterns: set[str]) -> None:
        lake = self.storage.lake
        why = {shown(lake, p): duties.WHY_PATTERNS[p.split("/")[0]] for p in sorted(patterns) if "*" in p}
        explain(role, why)

    def _trusted(self, duty: str) -> iam.IPrincipal:
        if duty == "orchestrator":
            arns = self.settings.workers
            return (
                iam.CompositePrincipal(*map(iam.ArnPrincipal, arns)) if arns else iam.AccountRootPrincipal()
            )
        if duty in BY_FUNCTION:
            return iam.ServicePrincipal("lambda.amazonaws.com")
        people = iam.AccountRootPrincipal().with_conditions({"Bool": {"aws:MultiFactorAuthPresent": "true"}})
        if duty == "steward":
            return people
        worker = iam.ArnPrincipal(self.by_duty["orchestrator"].role_arn)
        return iam.CompositePrincipal(worker, people) if duty in BY_PEOPLE else worker

    def _let_orchestrate(self) -> None:
        role = self.orchestrator
        stack = Stack.of(self)
        functions = [
            stack.format_arn(
                service="lambda",
                resource="function",
                resource_name=f"{self.settings.prefix}-{name}",
                arn_format=ArnFormat.COLON_RESOURCE_NAME,
            )
            for name in BY_FUNCTION
        ]
        role.add_to_policy(_allow(["lambda:InvokeFunction"], functions))
        taken = [self.by_duty[name].role_arn for name in BY_TASK]
        role.add_to_policy(_allow(["sts:AssumeRole"], taken))

    def _deployment(self) -> iam.Role:
        """Taken by the repository's workflows; it may take the roles that `cdk bootstrap` made, and nothing else."""
        repository = self.settings.github_repository
        subject = f"repo:{repository}:environment:{self.settings.environment}"
        role = iam.Role(
            self,
            "Deployment",
            role_name=f"{self.settings.prefix}-deployment",
            description=f"Catalunya, {self.settings.environment}: deploys from {repository}.",
            max_session_duration=Duration.hours(1),
            assumed_by=iam.WebIdentityPrincipal(
                self._github_arn(),
                {"StringEquals": {f"{_GITHUB}:aud": "sts.amazonaws.com", f"{_GITHUB}:sub": subject}},
            ),
        )
        stack = Stack.of(self)
        roles = [
            stack.format_arn(
                service="iam",
                region="",
                resource="role",
                resource_name=f"cdk-{_BOOTSTRAP}-{kind}-role-{Aws.ACCOUNT_ID}-{Aws.REGION}",
            )
            for kind in ("deploy", "file-publishing", "lookup")
        ]
        role.add_to_policy(_allow(["sts:AssumeRole"], roles))
        return role

    def _github_arn(self) -> str:
        if self.settings.github_provider_arn:
            return self.settings.github_provider_arn
        provider = iam.CfnOIDCProvider(
            self, "Github", url=f"https://{_GITHUB}", client_id_list=["sts.amazonaws.com"]
        )
        return provider.attr_arn


def _allow(actions: list[str], resources: list[str]) -> iam.PolicyStatement:
    return iam.PolicyStatement(actions=actions, resources=resources)


def explain(role: iam.Role, reasons: dict[str, str]) -> None:
    """Acknowledge for cdk-nag each resource with a `*` in it, by the address that cdk-nag shows, and why it has one."""
    Validations.of(role).acknowledge(
        *(
            Acknowledgment(id=f"AwsSolutions-IAM5[Resource::{address}]", reason=why)
            for address, why in reasons.items()
        )
    )


def shown(bucket: s3.Bucket, pattern: str) -> str:
    """The address that cdk-nag shows for objects of a bucket of the stack."""
    name = Stack.of(bucket).resolve(
        Stack.of(bucket).get_logical_id(cast(CfnElement, bucket.node.default_child))
    )
    return f"<{name}.Arn>/{pattern}"
