"""The roles of the pipeline, the orchestrator that assumes them, and the role that deploys."""

from __future__ import annotations

from typing import cast

from aws_cdk import Acknowledgment, ArnFormat, Aws, CfnElement, Duration, Stack, Validations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infrastructure import permissions
from infrastructure.parameters import GITHUB, Parameters
from infrastructure.permissions import RolePermissions
from infrastructure.storage import Buckets

BY_FUNCTION = ("ingest", "stage")
"""Roles of the functions."""
BY_TASK = ("build", "publish", "monitor")
"""Roles that the tasks of the orchestrator assume."""
BY_PEOPLE = ("publish", "steward")
"""Roles that people of the account may assume with a second factor: to roll back, and to refuse or accept a snapshot."""
_BOOTSTRAP = "hnb659fds"
"""The qualifier that `cdk bootstrap` gives its roles."""


class Roles(Construct):
    """Roles named `<prefix>-<name>`."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        settings: Parameters,
        storage: Buckets,
        airflow: iam.Role | None = None,
    ) -> None:
        super().__init__(scope, name)
        self.settings = settings
        self.storage = storage
        self.airflow = airflow
        self.by_name: dict[str, iam.Role] = {}
        for role in permissions.ROLES:
            self.by_name[role.name] = self._role(role)
        self.orchestrator = self.by_name["orchestrator"]
        self.deployment = self._deployment() if settings.github_repository else None
        self._allow_orchestration()
        storage.restrict_pointer_to(self.by_name["publish"])

    def _role(self, granted: RolePermissions) -> iam.Role:
        role = iam.Role(
            self,
            granted.name.title(),
            role_name=f"{self.settings.prefix}-{granted.name}",
            description=f"Catalunya, {self.settings.environment}: {granted.description}.",
            assumed_by=self._trusted(granted.name),
            max_session_duration=Duration.hours(4),
        )
        lake = self.storage.lake
        for action, patterns in (
            ("s3:GetObject", granted.reads),
            ("s3:PutObject", (*granted.writes, *granted.uploads)),
            ("s3:AbortMultipartUpload", granted.uploads),
            ("s3:DeleteObject", granted.deletes),
        ):
            needed = permissions.without_covered(patterns)
            if needed:
                role.add_to_policy(_allow([action], [lake.arn_for_objects(p) for p in needed]))
        only = {"StringLike": {"s3:prefix": [*granted.lists]}} if granted.lists else {}
        role.add_to_policy(
            iam.PolicyStatement(actions=["s3:ListBucket"], resources=[lake.bucket_arn], conditions=only)
        )
        self._acknowledge_wildcards(
            role, {*granted.reads, *granted.writes, *granted.uploads, *granted.deletes}
        )
        return role

    def _acknowledge_wildcards(self, role: iam.Role, patterns: set[str]) -> None:
        lake = self.storage.lake
        reasons = permissions.WHY_PATTERNS
        found = {nag_address(lake, p): reasons[p.split("/")[0]] for p in sorted(patterns) if "*" in p}
        acknowledge_wildcards(role, found)

    def _trusted(self, name: str) -> iam.IPrincipal:
        if name == "orchestrator":
            return self._workers()
        if name in BY_FUNCTION:
            return iam.ServicePrincipal("lambda.amazonaws.com")
        if name == "reader":
            return iam.AccountRootPrincipal()
        orchestrator = [iam.ArnPrincipal(self.by_name["orchestrator"].role_arn)] if name in BY_TASK else []
        return iam.CompositePrincipal(*orchestrator, *(self._people() if name in BY_PEOPLE else []))

    def _workers(self) -> iam.IPrincipal:
        """Return the principals that Airflow runs under."""
        external_id = self.settings.external_id
        asked = {"StringEquals": {"sts:ExternalId": external_id}} if external_id else {}
        outside = [iam.ArnPrincipal(arn).with_conditions(asked) for arn in self.settings.workers]
        inside = [iam.ArnPrincipal(self.airflow.role_arn)] if self.airflow else []
        return iam.CompositePrincipal(*inside, *outside) if inside or outside else iam.AccountRootPrincipal()

    def _people(self) -> list[iam.PrincipalBase]:
        """Return people of the account with a second factor.

        A session of IAM Identity Center does not say whether there was one, so its roles are named one by one.
        """
        account = iam.AccountRootPrincipal()
        people = [account.with_conditions({"Bool": {"aws:MultiFactorAuthPresent": "true"}})]
        if self.settings.people:
            people.append(account.with_conditions({"ArnLike": {"aws:PrincipalArn": [*self.settings.people]}}))
        return people

    def _allow_orchestration(self) -> None:
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
        assumed = [self.by_name[name].role_arn for name in BY_TASK]
        role.add_to_policy(_allow(["sts:AssumeRole"], assumed))

    def _deployment(self) -> iam.Role:
        """Return the role of the repository's workflows; it may only assume the roles that `cdk bootstrap` made."""
        repository = self.settings.github_repository
        subject = f"repo:{repository}:environment:{self.settings.environment}"
        provider = Stack.of(self).format_arn(
            service="iam", region="", resource="oidc-provider", resource_name=GITHUB
        )
        role = iam.Role(
            self,
            "Deployment",
            role_name=f"{self.settings.prefix}-deployment",
            description=f"Catalunya, {self.settings.environment}: deploys from {repository}.",
            max_session_duration=Duration.hours(1),
            assumed_by=iam.WebIdentityPrincipal(
                provider,
                {"StringEquals": {f"{GITHUB}:aud": "sts.amazonaws.com", f"{GITHUB}:sub": subject}},
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


def _allow(actions: list[str], resources: list[str]) -> iam.PolicyStatement:
    return iam.PolicyStatement(actions=actions, resources=resources)


def acknowledge_wildcards(role: iam.Role, reasons: dict[str, str]) -> None:
    """Acknowledge for cdk-nag each resource with a `*`: the address that cdk-nag shows, to the reason for the `*`."""
    Validations.of(role).acknowledge(
        *(
            Acknowledgment(id=f"AwsSolutions-IAM5[Resource::{address}]", reason=reason)
            for address, reason in reasons.items()
        )
    )


def nag_address(bucket: s3.Bucket, pattern: str) -> str:
    """Return the address that cdk-nag shows for objects of a bucket of the stack."""
    name = Stack.of(bucket).resolve(
        Stack.of(bucket).get_logical_id(cast(CfnElement, bucket.node.default_child))
    )
    return f"<{name}.Arn>/{pattern}"
