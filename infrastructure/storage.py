"""The buckets: the lake, the results of queries, the public site, and the access logs of these."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Aws, Duration, RemovalPolicy, Validations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from catalunya.lake import layout
from infrastructure import permissions
from infrastructure.parameters import Parameters

DAYS = {
    layout.CANDIDATES: 7,
    layout.RUNS: 14,
    permissions.LOCKS: 7,
    layout.ALERTS: 365,
}
"""Prefix to the days that its objects are kept; objects of other prefixes stay until the pipeline deletes them."""
OLD_DAYS = {
    layout.LANDING: 365,
    layout.STAGING: 30,
    layout.QUARANTINE: 30,
    layout.CANDIDATES: 1,
    layout.RELEASES: 30,
    layout.PUBLISHED: 7,
    layout.LEDGER: 365,
    layout.RUNS: 1,
    layout.ALERTS: 1,
    layout.DOCS: 30,
    permissions.LOCKS: 1,
    layout.CURRENT: 365,
}
"""Prefix to the days that a version is kept after it was replaced or deleted."""


class Buckets(Construct):
    """Buckets that are private, encrypted, and accessible over TLS only."""

    def __init__(self, scope: Construct, name: str, settings: Parameters) -> None:
        super().__init__(scope, name)
        self.settings = settings
        self.logs = self._bucket("logs", lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(90))])
        Validations.of(self.logs).acknowledge(
            Acknowledgment(
                id="AwsSolutions-S1",
                reason="This bucket receives the access logs of the others; its own log would log itself.",
            )
        )
        self.lake = self._bucket("lake", versioned=True, logged=True, lifecycle_rules=_lifecycle_rules())
        self.results = self._bucket(
            "results", logged=True, lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(3))]
        )
        self.site = self._bucket("site", logged=True, lifecycle_rules=[]) if settings.site else None
        self._deny_deletes_in_landing()

    def name_of(self, kind: str) -> str:
        """Return the name of a bucket; the account makes it globally unique.

        CloudFormation finds a bucket that exists already, such as a lake that was kept, by a literal name only.
        """
        return f"{self.settings.prefix}-{kind}-{self.settings.account or Aws.ACCOUNT_ID}"

    def _bucket(
        self,
        kind: str,
        *,
        lifecycle_rules: list[s3.LifecycleRule],
        versioned: bool = False,
        logged: bool = False,
    ) -> s3.Bucket:
        kept = self.settings.is_production and kind == "lake"
        return s3.Bucket(
            self,
            kind.title(),
            bucket_name=self.name_of(kind),
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=versioned,
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE if kept else RemovalPolicy.DESTROY,
            lifecycle_rules=[
                *lifecycle_rules,
                s3.LifecycleRule(abort_incomplete_multipart_upload_after=Duration.days(2)),
            ],
            server_access_logs_bucket=self.logs if logged else None,
            server_access_logs_prefix=f"{kind}/" if logged else None,
        )

    def _deny_deletes_in_landing(self) -> None:
        self.lake.add_to_resource_policy(
            iam.PolicyStatement(
                sid="NobodyDeletesWhatLanded",
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["s3:DeleteObject", "s3:DeleteObjectVersion"],
                resources=[self.lake.arn_for_objects(pattern) for pattern in permissions.LANDED],
            )
        )

    def restrict_pointer_to(self, role: iam.IRole) -> None:
        """Deny everybody except `role`, administrators too, to write or delete `current.json`."""
        self.lake.add_to_resource_policy(
            iam.PolicyStatement(
                sid="PublishAloneMovesThePointer",
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"],
                resources=[self.lake.arn_for_objects(layout.CURRENT)],
                conditions={"ArnNotEquals": {"aws:PrincipalArn": role.role_arn}},
            )
        )


def _lifecycle_rules() -> list[s3.LifecycleRule]:
    rules = []
    for prefix, old_days in OLD_DAYS.items():
        days = DAYS.get(prefix)
        rules.append(
            s3.LifecycleRule(
                id=prefix.removesuffix(".json"),
                prefix=prefix if prefix == layout.CURRENT else f"{prefix}/",
                expiration=Duration.days(days) if days else None,
                expired_object_delete_marker=None if days else True,
                noncurrent_version_expiration=Duration.days(old_days),
            )
        )
    return rules
