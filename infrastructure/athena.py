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
)
"""Queries, and the list of them, from which the costs of a run are counted."""
_WORKGROUP = ("athena:GetWorkGroup",)
"""For the check before a build, and for what the console shows."""
_CONSOLE = ("athena:ListWorkGroups", "athena:ListDataCatalogs")
_METADATA = (
    "athena:GetDataCatalog",
    "athena:ListDatabases",
    "athena:GetDatabase",
    "athena:ListTableMetadata",
    "athena:GetTableMetadata",
)
_ANY_STATEMENT = ("glue:GetDatabase", "glue:GetDatabases")
_DEFINITION = ("glue:CreateDatabase",)
"""Athena asks for these in the name of the caller, of the catalog and of the database `default`, whatever the statement and
the database are; the second for data definition.

Source: Athena's guide, "Configure access to databases and tables in the AWS Glue Data Catalog".
"""
_READ = ("glue:GetDatabase", "glue:GetTable", "glue:GetTables")
_CHANGE = ("glue:CreateTable", "glue:UpdateTable", "glue:DeleteTable")
_PARTITIONS = ("glue:GetPartitions", "glue:BatchGetPartition", "glue:BatchCreatePartition")
"""Of the tables over the staged files."""
_VERSIONS = ("glue:GetTableVersions", "glue:DeleteTableVersion")
"""dbt-athena deletes all but the newest versions of a view that it has made."""

_WHY_RESULTS = "Athena names a result after its query, whose id it makes."
_WHY_CANDIDATES = "A candidate's schema is named after its run, whose id is made when it begins."
_WHY_RELEASES = "A table of a release is named after it, whose id is made of its moment and content."
_WHY_MARTS = "A new mart is published by the next run, without a deploy before."


class Athena(Construct):
    """Workgroups `<prefix>-build` and `<prefix>-read`."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        settings: Parameters,
        storage: Buckets,
        roles: Roles,
    ) -> None:
        super().__init__(scope, name)
        self.settings = settings
        self.storage = storage
        self._workgroup("build", enforced=False)
        self._workgroup("read", enforced=True)
        builder, publisher, reader = (roles.by_name[role] for role in ("build", "publish", "reader"))
        marts, releases, candidates = "marts", "marts_releases", "marts_candidate_*"
        self._allow_queries(builder, "build", (*_QUERY, *_WORKGROUP), _DEFINITION)
        self._allow_queries(publisher, "build", _QUERY, _DEFINITION)
        schemas = ("glue:CreateDatabase", "glue:DeleteDatabase")
        self._allow_glue(builder, (*_READ, *_CHANGE, *_PARTITIONS, *_VERSIONS, *schemas), candidates)
        # The stack makes the published schemas; a view of them is replaced, and a table of a release is not changed.
        self._allow_glue(
            publisher, ("glue:GetDatabase", "glue:GetTable", "glue:CreateTable", "glue:UpdateTable"), marts
        )
        self._allow_glue(publisher, (*_READ, "glue:CreateTable", "glue:DeleteTable"), releases)
        # The schema of a run that is not kept is deleted with its files.
        self._allow_glue(publisher, ("glue:GetTables", "glue:DeleteTable", "glue:DeleteDatabase"), candidates)
        self._allow_queries(reader, "read", (*_QUERY, *_WORKGROUP))
        self._allow_console(reader)
        self._allow_glue(reader, _READ, marts, releases)
        self._acknowledge_wildcards(builder, "build", candidates=True)
        self._acknowledge_wildcards(publisher, "build", candidates=True, releases=True)
        self._acknowledge_wildcards(reader, "read", releases=True)

    def _acknowledge_wildcards(
        self, role: iam.Role, group: str, *, candidates: bool = False, releases: bool = False
    ) -> None:
        glue = "arn:<AWS::Partition>:glue:<AWS::Region>:<AWS::AccountId>"
        candidate = f"{self.settings.database}_marts_candidate_*"
        reasons = {nag_address(self.storage.results, f"{group}/*"): _WHY_RESULTS}
        if candidates:
            for kind in (
                f"database/{candidate}",
                f"table/{candidate}/*",
                f"userDefinedFunction/{candidate}/*",
            ):
                reasons[f"{glue}:{kind}"] = _WHY_CANDIDATES
        if releases:
            reasons[f"{glue}:table/{self.settings.database}_marts_releases/*"] = _WHY_RELEASES
            reasons[f"{glue}:table/{self.settings.database}_marts/*"] = _WHY_MARTS
        acknowledge_wildcards(role, reasons)

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

    def _allow_queries(
        self, role: iam.Role, group: str, actions: tuple[str, ...], definition: tuple[str, ...] = ()
    ) -> None:
        """Allow queries in a workgroup, with what Athena itself asks for then in the name of the caller.

        Source of the actions on the results and on the location: AWS re:Post, "Unable to verify/create output bucket".
        """
        workgroup = self._arn("athena", "workgroup", f"{self.settings.prefix}-{group}")
        results = self.storage.results
        for some, resources in (
            ([*actions], [workgroup]),
            (
                [*_ANY_STATEMENT, *definition],
                [self._arn("glue", "catalog"), self._arn("glue", "database", "default")],
            ),
            (
                ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
                [results.arn_for_objects(f"{group}/*")],
            ),
            (["s3:ListBucket", "s3:ListBucketMultipartUploads"], [results.bucket_arn]),
            (["s3:GetBucketLocation"], [results.bucket_arn, self.storage.lake.bucket_arn]),
        ):
            role.add_to_policy(iam.PolicyStatement(actions=some, resources=resources))

    def _allow_console(self, role: iam.Role) -> None:
        """Allow what Athena's console and drivers show beside the editor: workgroups, catalogs, databases and tables."""
        catalogue = self._arn("athena", "datacatalog", "AwsDataCatalog")
        role.add_to_policy(iam.PolicyStatement(actions=[*_METADATA], resources=[catalogue]))
        role.add_to_policy(iam.PolicyStatement(actions=[*_CONSOLE], resources=["*"]))
        acknowledge_wildcards(role, {"*": "These lists have no resource that they could be limited to."})

    def _allow_glue(self, role: iam.Role, actions: tuple[str, ...], *schemas: str) -> None:
        """Allow actions on schemas and their tables: Glue asks for the right to a resource and all that it is in.

        To delete a schema, a role needs the right to everything that could be in it.
        """
        names = [f"{self.settings.database}_{schema}" for schema in schemas]
        databases = [self._arn("glue", "catalog"), *(self._arn("glue", "database", name) for name in names)]
        tables = [self._arn("glue", "table", f"{name}/*") for name in names]
        functions = [self._arn("glue", "userDefinedFunction", f"{name}/*") for name in names]
        of_databases = [one for one in actions if one in {"glue:GetDatabase", "glue:CreateDatabase"}]
        of_tables = [one for one in actions if not one.endswith("Database")]
        for some, resources in (
            (of_databases, databases),
            (of_tables, [*databases, *tables]),
            ([one for one in actions if one == "glue:DeleteDatabase"], [*databases, *tables, *functions]),
        ):
            if some:
                role.add_to_policy(iam.PolicyStatement(actions=some, resources=resources))

    def _arn(self, service: str, resource: str, name: str | None = None) -> str:
        shape = ArnFormat.SLASH_RESOURCE_NAME if name else ArnFormat.NO_RESOURCE_NAME
        return Stack.of(self).format_arn(
            service=service, resource=resource, resource_name=name, arn_format=shape
        )
