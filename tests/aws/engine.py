"""The needs of requests that no role signs itself: those of the engine that stands for Athena, and what only AWS does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from catalunya.lake import layout
from tests.aws import needs
from tests.aws.emulator import Deployed
from tests.aws.gate import ADMINISTRATOR, ENGINE, Gate
from tests.aws.needs import Need

if TYPE_CHECKING:
    from tools.athena_emulator.api import Request
    from tools.athena_emulator.environment import Environment

ENGINE_ONLY = ("ColumnStatistics", "GetUserDefinedFunctions")
"""Parts of the names of requests that Trino makes and Athena does not.

Trino plans with statistics, which it keeps in Glue; Athena's documentation asks for no right to them. Trino looks for
functions written in SQL, which Athena does not have.
"""


def of_engine(stack: Deployed, athena: Environment, gate: Gate) -> dict[str, set[Need]]:
    """Return what the engine's own requests needed, by the role that had asked the query."""
    found = {role: set(listed) for role, listed in gate.by_engine.items()}
    key = ADMINISTRATOR
    for one in athena.requests:
        if one.operation == "athena:StartQueryExecution":
            key = one.access_key
        elif one.access_key == ENGINE and key != ADMINISTRATOR and not is_trinos_own(one.operation):
            role = stack.principal_of(key)
            found.setdefault(role, set()).update(needs.of_json(one.operation, one.content, stack.place()))
    return found


def is_trinos_own(operation: str) -> bool:
    return any(part in operation for part in ENGINE_ONLY)


def asker(requests: Sequence[Request]) -> str:
    """Return the access key that asked the last query: roles ask one after the other, never at the same time."""
    keys = (one.access_key for one in reversed(requests) if one.operation == "athena:StartQueryExecution")
    return next(keys, ADMINISTRATOR)


def in_glue(stack: Deployed, action: str, schema: str, table: str | None = None) -> list[Need]:
    """Return what an action in Glue needs: the right to a resource and all that it is in."""
    database = f"{stack.name.replace('-', '_')}_{schema}"
    named = ["catalog", f"database/{database}", *([f"table/{database}/{table}"] if table else [])]
    return [Need(f"glue:{action}", stack.place().arn("glue", one)) for one in named]


def documented(stack: Deployed) -> dict[str, set[Need]]:
    """Return what AWS or a client needs where no test brings it about, by role."""
    place = stack.place()
    function = f"{stack.name}-{{}}"
    platform = {
        # Lambda does these in the name of the function. Source: Lambda's guide, "Execution role", "Retaining records of
        # asynchronous invocations".
        stage: {
            Need(
                "logs:CreateLogStream",
                place.arn("logs", f"log-group:/catalunya/{function.format(stage)}:log-stream:1"),
            ),
            Need(
                "logs:PutLogEvents",
                place.arn("logs", f"log-group:/catalunya/{function.format(stage)}:log-stream:1"),
            ),
            Need("sqs:SendMessage", place.arn("sqs", f"{function.format(stage)}-failed")),
        }
        for stage in ("ingest", "stage")
    }
    build, read = (place.arn("athena", f"workgroup/{function.format(one)}") for one in ("build", "read"))
    catalog = place.arn("athena", "datacatalog/AwsDataCatalog")
    console = ("ListDatabases", "GetDatabase", "ListTableMetadata", "GetTableMetadata", "GetDataCatalog")
    monitor = f"arn:aws:iam::{stack.account}:role/{stack.name}-monitor"
    # Alerts go to the topic unless other addresses are set, as they are in these runs; `test_deployed.py` sends some.
    alerts = Need("sns:Publish", place.arn("sns", function.format("alerts")))
    return {
        **platform,
        # By the DAG `catalunya_maintenance`, and by `catalunya doctor --aws` in `test_deployed.py`.
        "orchestrator": {Need("sts:AssumeRole", monitor), alerts},
        # dbt-athena stops the query of a build that is interrupted; people cancel theirs. Athena reads the partitions of the
        # tables over the staged files in batches. Source: the same guide, "MSCK REPAIR TABLE" and "Fine-grained access".
        "build": {
            Need("athena:StopQueryExecution", build),
            *in_glue(stack, "BatchGetPartition", "marts_candidate_1_staging", "population"),
            # dbt-athena deletes versions of a table when there are more than it keeps.
            *in_glue(stack, "DeleteTableVersion", "marts_candidate_1", "population"),
        },
        "publish": {
            Need("athena:StopQueryExecution", build),
            alerts,
            # The emulator makes external tables without a request to Glue.
            *in_glue(stack, "CreateTable", "marts_releases", "population_1"),
            # What belongs to a release is deleted with it, once there are more than are kept.
            *in_glue(stack, "DeleteTable", "marts_releases", "population_1"),
            Need(
                "s3:DeleteObject", f"arn:aws:s3:::{place.lake}/{layout.PUBLISHED}/files/1/population.parquet"
            ),
        },
        "monitor": {alerts},
        # The editor of the console, and the drivers. Source: Athena's guide, "AWS managed policies", AmazonAthenaFullAccess.
        "reader": {
            Need("athena:StopQueryExecution", read),
            Need("athena:GetWorkGroup", read),
            Need("athena:ListQueryExecutions", read),
            Need("athena:BatchGetQueryExecution", read),
            Need("athena:ListWorkGroups", "*"),
            Need("athena:ListDataCatalogs", "*"),
            *(Need(f"athena:{one}", catalog) for one in console),
            *(
                need
                for schema in ("marts", "marts_releases")
                for need in (
                    *in_glue(stack, "GetDatabase", schema),
                    *in_glue(stack, "GetTables", schema, "*"),
                    *in_glue(stack, "GetTable", schema, "population"),
                )
            ),
        },
    }
