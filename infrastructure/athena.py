"""The workgroups of Athena, and what the roles may do with them and with the Glue catalog.

A workgroup that enforces its output location refuses every `create table as` with a location of its own, and each
candidate has one. So the workgroup `build` does not enforce its settings, and its role may write nowhere else; the
workgroup `read` enforces them.
"""

from __future__ import annotations

from aws_cdk import ArnFormat, Stack
from aws_cdk import aws_athena as athena
from aws_cdk import aws_iam as iam
from constructs import Construct

from infrastructure.parameters import Parameters
from infrastructure.roles import Roles, acknowledge_wildcards, nag_address
from infrastructure.storage import Buckets

_QUERY = (
    "athena:StartQueryExecution",
    "athena:StopQueryExecution",
    "athena:GetQueryExecution",
    "athena:GetQueryResults",
    "athena:ListQueryExecutions",
    "athena:BatchGetQueryExecution",
    "athena:GetWorkGroup",
)
_READ = ("glue:GetDatabase", "glue:GetDatabases", "glue:GetTable", "glue:GetTables", "glue:GetPartitions")
_CHANGE = ("glue:CreateTable", "glue:UpdateTable", "glue:DeleteTable")
_SCHEMAS = ("glue:CreateDatabase", "glue:DeleteDatabase")
"""Of candidates. The stack makes the published schemas, but `create schema if not exists` needs the right as well."""
_PARTITIONS = ("glue:BatchCreatePartition", "glue:CreatePartition", "glue:GetPartition")
_VERSIONS = ("glue:GetTableVersions", "glue:DeleteTableVersion")
"""dbt-athena deletes all but the newest versions of a view that it has made."""


class Athena(Construct):
    """Workgroups `<prefix>-build` and `<prefix>-read`."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        settings: Parameters,
        storage: Buckets,
        roles: Roles,
        *,
        staging_tables: tuple[str, ...],
        mart_tables: tuple[str, ...],
    ) -> None:
        super().__init__(scope, name)
        self.settings = settings
        self.storage = storage
        self._workgroup("build", enforced=False)
        self._workgroup("read", enforced=True)
        builder, publisher = roles.by_name["build"], roles.by_name["publish"]
        for role in (builder, publisher):
            self._allow_queries(role)
        staged, marts = self._tables("staging", staging_tables), self._tables("marts", mart_tables)
        releases, candidates = (
            self._tables("marts_releases", ("*",)),
            self._tables("marts_candidate_*", ("*",)),
        )
        self._allow_glue(builder, _READ, [*staged, *candidates])
        # To delete a schema, a role needs the right to everything that could be in it.
        functions = self._arn("glue", "userDefinedFunction", f"{settings.database}_marts_candidate_*/*")
        self._allow_glue(builder, (*_CHANGE, *_PARTITIONS, *_VERSIONS, *_SCHEMAS), [*candidates, functions])
        self._allow_glue(publisher, _READ, [*marts, *releases, *candidates])
        self._allow_glue(publisher, (*_CHANGE, "glue:CreateDatabase"), [*marts, *releases])
        # The schema of a run that is not kept is deleted with its files.
        self._allow_glue(publisher, ("glue:DeleteTable", "glue:DeleteDatabase"), [*candidates, functions])
        self._allow_glue(roles.by_name["monitor"], _READ, [*staged, *marts])
        self._acknowledge_wildcards(builder)
        self._acknowledge_wildcards(publisher, releases=True)

    def _acknowledge_wildcards(self, role: iam.Role, *, releases: bool = False) -> None:
        glue = "arn:<AWS::Partition>:glue:<AWS::Region>:<AWS::AccountId>"
        candidate = f"{self.settings.database}_marts_candidate_*"
        why = "A candidate's schema is named after its run, whose id is made when it begins."
        of_releases = f"{glue}:table/{self.settings.database}_marts_releases/*"
        more = {
            of_releases: "A table of a release is named after it, whose id is made of its moment and content."
        }
        results = nag_address(self.storage.results, "build/*")
        acknowledge_wildcards(
            role,
            {
                f"{glue}:database/{candidate}": why,
                f"{glue}:table/{candidate}/*": why,
                f"{glue}:userDefinedFunction/{candidate}/*": why,
                **(more if releases else {}),
                results: "Athena names a result after its query, whose id it makes.",
            },
        )

    def _workgroup(self, kind: str, *, enforced: bool) -> None:
        results = athena.CfnWorkGroup.ResultConfigurationProperty(
            output_location=f"s3://{self.storage.results.bucket_name}/{kind}/",
            encryption_configuration=athena.CfnWorkGroup.EncryptionConfigurationProperty(
                encryption_option="SSE_S3"
            ),
        )
        athena.CfnWorkGroup(
            self,
            kind.title(),
            name=f"{self.settings.prefix}-{kind}",
            description={
                "build": "The pipeline's own queries.",
                "read": "Everybody's queries of what was published.",
            }[kind],
            recursive_delete_option=True,
            state="ENABLED",
            work_group_configuration=athena.CfnWorkGroup.WorkGroupConfigurationProperty(
                bytes_scanned_cutoff_per_query=self.settings.scan_limit_bytes,
                enforce_work_group_configuration=enforced,
                publish_cloud_watch_metrics_enabled=True,
                requester_pays_enabled=False,
                engine_version=athena.CfnWorkGroup.EngineVersionProperty(
                    selected_engine_version="Athena engine version 3"
                ),
                result_configuration=results,
            ),
        )

    def _allow_queries(self, role: iam.Role) -> None:
        group = self._arn("athena", "workgroup", f"{self.settings.prefix}-build")
        catalogue = self._arn("athena", "datacatalog", "AwsDataCatalog")
        role.add_to_policy(iam.PolicyStatement(actions=[*_QUERY], resources=[group]))
        role.add_to_policy(iam.PolicyStatement(actions=["athena:GetDataCatalog"], resources=[catalogue]))
        results = self.storage.results
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"],
                resources=[results.arn_for_objects("build/*")],
            )
        )
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["s3:GetBucketLocation", "s3:ListBucket"], resources=[results.bucket_arn]
            )
        )

    def _tables(self, kind: str, names: tuple[str, ...]) -> list[str]:
        """Return the ARNs of a database and its tables; every call of Glue needs both, and the catalog's."""
        database = f"{self.settings.database}_{kind}"
        tables = [self._arn("glue", "table", f"{database}/{name}") for name in names]
        return [self._arn("glue", "database", database), *tables]

    def _allow_glue(self, role: iam.Role, actions: tuple[str, ...], resources: list[str]) -> None:
        catalogue = self._arn("glue", "catalog")
        role.add_to_policy(iam.PolicyStatement(actions=[*actions], resources=[catalogue, *resources]))

    def _arn(self, service: str, resource: str, name: str | None = None) -> str:
        shape = ArnFormat.SLASH_RESOURCE_NAME if name else ArnFormat.NO_RESOURCE_NAME
        return Stack.of(self).format_arn(
            service=service, resource=resource, resource_name=name, arn_format=shape
        )
