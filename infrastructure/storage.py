"""The buckets: the lake, the results of queries, and the logs of who asked for what."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Aws, Duration, RemovalPolicy, Validations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from catalunya.lake import layout
from infrastructure import duties
from infrastructure.parameters import Parameters

DAYS = {
    layout.CANDIDATES: 7,
    layout.RUNS: 14,
    duties.LOCKS: 7,
    layout.ALERTS: 365,
}
"""Prefix to the days that its objects live; what is in no line here lives until the pipeline deletes it."""
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
    duties.LOCKS: 1,
    layout.CURRENT: 365,
}
"""Prefix to the days that a version lives on after it was replaced or deleted."""
_COLD_DAYS = 90
"""After so long landed bytes are read once a month at most, by the check of their sums."""


class Storage(Construct):
    """Three buckets, all private, encrypted and over TLS alone."""

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
        self.lake = self._bucket("lake", versioned=True, logged=True, lifecycle_rules=_rules())
        self.results = self._bucket(
            "results", logged=True, lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(3))]
        )
        self._keep_landing()

    def name_of(self, kind: str) -> str:
        """The bucket's name: the same in every stack of this environment, unique in the world."""
        return f"{self.settings.prefix}-{kind}-{Aws.ACCOUNT_ID}"

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
            removal_policy=RemovalPolicy.RETAIN if kept else RemovalPolicy.DESTROY,
            lifecycle_rules=[
                *lifecycle_rules,
                s3.LifecycleRule(abort_incomplete_multipart_upload_after=Duration.days(2)),
            ],
            server_access_logs_bucket=self.logs if logged else None,
            server_access_logs_prefix=f"{kind}/" if logged else None,
        )

    def _keep_landing(self) -> None:
        self.lake.add_to_resource_policy(
            iam.PolicyStatement(
                sid="NobodyDeletesWhatLanded",
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["s3:DeleteObject", "s3:DeleteObjectVersion"],
                resources=[self.lake.arn_for_objects(pattern) for pattern in duties.LANDED],
            )
        )

    def only_moves_the_pointer(self, role: iam.IRole) -> None:
        """Deny everybody but `role` to write or delete `current.json`, administrators too."""
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


def _rules() -> list[s3.LifecycleRule]:
    rules = []
    for prefix, old_days in OLD_DAYS.items():
        days = DAYS.get(prefix)
        is_landing = prefix == layout.LANDING
        cold = s3.Transition(
            storage_class=s3.StorageClass.INFREQUENT_ACCESS, transition_after=Duration.days(_COLD_DAYS)
        )
        rules.append(
            s3.LifecycleRule(
                id=prefix.removesuffix(".json"),
                prefix=prefix if prefix == layout.CURRENT else f"{prefix}/",
                expiration=Duration.days(days) if days else None,
                expired_object_delete_marker=None if days else True,
                noncurrent_version_expiration=Duration.days(old_days),
                transitions=[cold] if is_landing else None,
            )
        )
    return rules
