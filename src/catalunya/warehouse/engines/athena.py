"""Amazon Athena with the Glue Data Catalog, by the standard AWS settings."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from catalunya.datasets.types import hive_type
from catalunya.errors import BuildFailed, UsageError
from catalunya.lake.storage import Storage
from catalunya.settings import Settings
from catalunya.sql import quote
from catalunya.warehouse.engines.base import Cost
from catalunya.warehouse.engines.hive import Columns, HiveEngine, import_driver, shortened

CATALOG = "awsdatacatalog"
LEAST_BYTES = 10_000_000
"""Least bytes that a query that scans is charged for; data definition is free. Source: Athena's pricing page."""
_TB = 1_000_000_000_000
_BATCH = 50


class AthenaEngine(HiveEngine):
    """Athena in the workgroup CATALUNYA_ATHENA_WORKGROUP."""

    name = "athena"

    def __init__(self, storage: Storage, settings: Settings) -> None:
        super().__init__(storage, settings)
        self._since = datetime.now(UTC) - timedelta(seconds=1)
        self._clients: dict[str, Any] = {}
        self._own: set[str] = set()

    def query(self, sql: str, schema: str | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run a statement and wait for it; raises `BuildFailed` with Athena's message. All values are text."""
        athena = self._client("athena")
        wanted: dict[str, Any] = {
            "QueryString": sql,
            "QueryExecutionContext": {"Catalog": CATALOG, "Database": schema or self.settings.sql_schema},
            "WorkGroup": self.settings.athena_workgroup,
        }
        if self.settings.athena_results:
            wanted["ResultConfiguration"] = {"OutputLocation": self.settings.athena_results}
        with _explained(sql):
            query_id = athena.start_query_execution(**wanted)["QueryExecutionId"]
            self._own.add(query_id)
            self._wait(athena, query_id, sql)
            return self._rows(athena, query_id)

    def variables(self, candidate_id: str) -> dict[str, str]:
        """Return the variables of the output `athena` of the profile."""
        results = (
            {"CATALUNYA_ATHENA_RESULTS": self.settings.athena_results} if self.settings.athena_results else {}
        )
        return {
            "CATALUNYA_CANDIDATE": self.schema(candidate_id),
            "CATALUNYA_CANDIDATE_LOCATION": f"{self.tables_location(candidate_id)}/",
            "CATALUNYA_ATHENA_WORKGROUP": self.settings.athena_workgroup,
            "CATALUNYA_ATHENA_POLL": str(self.settings.athena_poll_s),
            "CATALUNYA_AWS_REGION": self.storage.region,
            **results,
        }

    def create_schema(self, name: str, location: str) -> None:
        """Create a database if there is none."""
        glue = self._client("glue")
        try:
            glue.get_database(Name=name)
        except glue.exceptions.EntityNotFoundException:
            # Athena looks the database of the context up, which must be one that this role may see.
            self.query(f"create schema if not exists `{name}` location {quote(location + '/')}", "default")

    def create_table(
        self, schema: str, name: str, columns: Columns, location: str, partition: str | None = None
    ) -> None:
        """Create an external table, and its partitions from the names of the folders."""
        listed = ", ".join(f"`{c}` {hive_type(kind)}" for c, kind in columns.items() if c != partition)
        by = f" partitioned by (`{partition}` {columns[partition]})" if partition else ""
        self.query(
            f"create external table `{schema}`.`{name}` ({listed}){by} stored as parquet "
            f"location {quote(location + '/')}",
            schema,
        )
        if partition:
            self.query(f"msck repair table `{schema}`.`{name}`", schema)

    def tables(self, schema: str) -> dict[str, str]:
        """Return the tables and views of a database, by Glue."""
        glue = self._client("glue")
        try:
            pages = glue.get_paginator("get_tables").paginate(DatabaseName=schema)
            found = [table for page in pages for table in page["TableList"]]
        except glue.exceptions.EntityNotFoundException:
            return {}
        return {t["Name"]: "view" if t.get("TableType") == "VIRTUAL_VIEW" else "table" for t in found}

    def drop_table(self, schema: str, name: str, kind: str, prefix: str) -> bool:
        """Remove a table from Glue, which deletes no file wherever the table's files are."""
        glue = self._client("glue")
        with suppress(glue.exceptions.EntityNotFoundException):
            glue.delete_table(DatabaseName=schema, Name=name)
        return True

    def drop_schema(self, name: str) -> None:
        """Remove a database."""
        glue = self._client("glue")
        with suppress(glue.exceptions.EntityNotFoundException):
            glue.delete_database(Name=name)

    def check(self) -> str:
        """Read the workgroup; raises `UsageError` when it cannot be used."""
        group = self.settings.athena_workgroup
        with _explained("get work group"):
            found = self._client("athena").get_work_group(WorkGroup=group)["WorkGroup"]["Configuration"]
        place = found.get("ResultConfiguration", {}).get("OutputLocation")
        if found.get("EnforceWorkGroupConfiguration") and place:
            raise UsageError(
                f"CATALUNYA_ATHENA_WORKGROUP: {group} enforces its own location of results ({place}), so that no "
                "table can be created under a run's prefix; build in a workgroup that does not"
            )
        if not place and not self.settings.athena_results:
            raise UsageError(
                f"CATALUNYA_ATHENA_RESULTS: the workgroup {group} has no location of results; set an s3:// address"
            )
        return f"Athena answers in the workgroup {group}"

    def cost(self) -> Cost | None:
        """Return the cost of the builds' queries since the engine was opened, dbt's included; None before the first."""
        if "athena" not in self._clients:
            return None
        found = [query for query in self._history() if self._is_own(query)]
        scanned = [q.get("Statistics", {}).get("DataScannedInBytes", 0) for q in found]
        charged = sum(max(count, LEAST_BYTES) for count in scanned if count)
        seconds = sum(q.get("Statistics", {}).get("EngineExecutionTimeInMillis", 0) for q in found) / 1000
        return Cost(
            queries=len(found),
            bytes_scanned=sum(scanned),
            engine_seconds=round(seconds, 3),
            usd=round(charged / _TB * self.settings.scan_usd_per_tb, 6),
            usd_per_tb=self.settings.scan_usd_per_tb,
        )

    def _is_own(self, query: dict[str, Any]) -> bool:
        database = str(query.get("QueryExecutionContext", {}).get("Database", ""))
        candidates = f"{self.settings.sql_schema}_candidate_"
        return query["QueryExecutionId"] in self._own or database.startswith(candidates)

    def _history(self) -> Iterator[dict[str, Any]]:
        """Executions of the workgroup since the engine was opened, newest first."""
        athena = self._client("athena")
        pages = athena.get_paginator("list_query_executions").paginate(
            WorkGroup=self.settings.athena_workgroup, PaginationConfig={"PageSize": _BATCH}
        )
        for page in pages:
            if not page["QueryExecutionIds"]:
                return
            answer = athena.batch_get_query_execution(QueryExecutionIds=page["QueryExecutionIds"])
            recent = [
                q for q in answer["QueryExecutions"] if q["Status"]["SubmissionDateTime"] >= self._since
            ]
            yield from recent
            if len(recent) < len(answer["QueryExecutions"]):
                return

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            boto3 = import_driver("athena", "dbt.adapters.athena", "boto3")
            self._clients[service] = boto3.client(service, region_name=self.storage.region)
        return self._clients[service]

    def _wait(self, athena: Any, query_id: str, sql: str) -> None:
        while True:
            status = athena.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]["Status"]
            if status["State"] == "SUCCEEDED":
                return
            if status["State"] in {"FAILED", "CANCELLED"}:
                reason = status.get("StateChangeReason", "")
                raise BuildFailed(
                    f"Athena query {query_id} {status['State'].lower()}: {reason} (`{shortened(sql)}`){_hint(reason)}"
                )
            time.sleep(min(self.settings.athena_poll_s, 1.0))

    def _rows(self, athena: Any, query_id: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        names: list[str] = []
        rows: list[tuple[Any, ...]] = []
        for page in athena.get_paginator("get_query_results").paginate(QueryExecutionId=query_id):
            names = [column["Name"] for column in page["ResultSet"]["ResultSetMetadata"]["ColumnInfo"]]
            rows += [
                tuple(value.get("VarCharValue") for value in row["Data"]) for row in page["ResultSet"]["Rows"]
            ]
        return names, rows[1:] if rows and rows[0] == tuple(names) else rows


@contextmanager
def _explained(sql: str) -> Iterator[None]:
    """Raise errors of the AWS client as errors of this project."""
    faults = importlib.import_module("botocore.exceptions")
    try:
        yield
    except (faults.ClientError, faults.BotoCoreError) as error:
        raise BuildFailed(f"Athena could not run `{shortened(sql)}`: {error}{_hint(str(error))}") from None


def _hint(reason: str) -> str:
    """Return what to do where AWS denied a request; empty for other reasons."""
    denied = re.search(r"AccessDenied|not authorized|insufficient .*permission", reason, re.IGNORECASE)
    return (
        "; `catalunya doctor --aws` names the right that is missing, see docs/aws.md, Who is who"
        if denied
        else ""
    )


ENGINE = AthenaEngine
