"""Queries from their start to their end: state, results, statistics and the file in S3."""

from __future__ import annotations

import re
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError
from trino.exceptions import TrinoQueryError

from tools.athena_emulator import results, trino_client, unsupported
from tools.athena_emulator.glue import Glue
from tools.athena_emulator.translate import CATALOG, TrinoStatement, translate, without_leading_comments
from tools.athena_emulator.trino_client import Cancelled, TrinoResult
from tools.athena_emulator.unsupported import StatementFailed

WORKERS = 8
ENGINE = {"SelectedEngineVersion": "AUTO", "EffectiveEngineVersion": "Athena engine version 3"}
_CANCELLED = "Query cancelled by the user"


@dataclass
class QueryExecution:
    """One execution."""

    sql: str
    group: str
    database: str
    location: str
    """Where results go; ends with a slash."""
    is_enforced: bool
    """True when tables without a location of their own are the only ones that the workgroup takes."""
    cutoff: int | None
    """Bytes that the query may scan."""
    parameters: list[str]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str = "QUEUED"
    reason: str = ""
    error: dict[str, Any] | None = None
    submitted: float = field(default_factory=time.time)
    began: float | None = None
    ended: float | None = None
    answer: TrinoResult = field(default_factory=TrinoResult)
    rows: list[list[str | None]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def kind(self) -> tuple[str, str]:
        """Type and subtype of the statement."""
        text = re.sub(r"\s+", " ", without_leading_comments(self.sql)[:4000]).upper()
        if re.match(r"CREATE TABLE\b.*\bAS (SELECT|WITH|\()", text):
            return "DDL", "CREATE_TABLE_AS_SELECT"
        words = text.split(" ")[:2]
        first = words[0].strip("(")
        if first in {"SELECT", "WITH", "VALUES", "TABLE"}:
            return "DML", "SELECT"
        if first in {"INSERT", "DELETE", "UPDATE", "MERGE", "UNLOAD", "OPTIMIZE", "VACUUM", "EXECUTE"}:
            return "DML", first
        kind = "UTILITY" if first in {"SHOW", "DESCRIBE", "EXPLAIN"} else "DDL"
        return kind, first if first == "EXPLAIN" else "_".join(words)

    @property
    def output(self) -> str:
        """Address of the file of the result."""
        if self.kind[1] == "CREATE_TABLE_AS_SELECT":
            return f"{self.location}tables/{self.id}"
        return f"{self.location}{self.id}.{'csv' if self.kind[0] == 'DML' else 'txt'}"

    def end(self, state: str, reason: str = "") -> None:
        """Set the final state."""
        self.reason, self.ended, self.state = reason, time.time(), state

    def fail(self, reason: str, *, is_system_error: bool = False) -> None:
        """End the query as failed."""
        category = 1 if is_system_error else 2
        self.error = {
            "ErrorCategory": category, "ErrorType": 1000 + category, "Retryable": False, "ErrorMessage": reason,
        }  # fmt: skip
        self.end("FAILED", reason)

    def describe(self) -> dict[str, Any]:
        """Return what GetQueryExecution answers."""
        end = self.ended or time.time()
        queued = round(1000 * ((self.began or end) - self.submitted))
        total = round(1000 * (end - self.submitted))
        status = {
            "State": self.state, "SubmissionDateTime": self.submitted, "CompletionDateTime": self.ended,
            "StateChangeReason": self.reason or None, "AthenaError": self.error,
        }  # fmt: skip
        return {
            "QueryExecutionId": self.id, "Query": self.sql, "StatementType": self.kind[0],
            "SubstatementType": self.kind[1], "ResultConfiguration": {"OutputLocation": self.output},
            "ResultReuseConfiguration": {"ResultReuseByAgeConfiguration": {"Enabled": False}},
            "QueryExecutionContext": {"Database": self.database, "Catalog": CATALOG},
            "Status": {name: value for name, value in status.items() if value is not None},
            "WorkGroup": self.group, "EngineVersion": ENGINE,
            "Statistics": {
                "DataScannedInBytes": self.answer.bytes_scanned, "EngineExecutionTimeInMillis": total - queued,
                "TotalExecutionTimeInMillis": total, "QueryQueueTimeInMillis": queued,
                "ServiceProcessingTimeInMillis": 0, "ResultReuseInformation": {"ReusedPreviousResult": False},
            },
        }  # fmt: skip


class Queries:
    """All queries that were started, and the threads that run them."""

    def __init__(self, trino: str, glue: Glue) -> None:
        self._trino = trino
        self._glue = glue
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="query")
        self._tokens: dict[str, str] = {}
        self.by_id: dict[str, QueryExecution] = {}

    def start(self, query: QueryExecution, token: str | None = None) -> str:
        """Start a query and return its id; the same token starts it once."""
        if token and token in self._tokens:
            return self._tokens[token]
        self.by_id[query.id] = query
        if token:
            self._tokens[token] = query.id
        self._pool.submit(self._run, query)
        return query.id

    def stop(self, query: QueryExecution) -> None:
        """Ask a query to end."""
        query.stop.set()
        if query.state == "QUEUED":
            query.end("CANCELLED", _CANCELLED)

    def close(self) -> None:
        """End all queries."""
        for query in self.by_id.values():
            query.stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _run(self, query: QueryExecution) -> None:
        if query.stop.is_set():
            return
        query.state, query.began = "RUNNING", time.time()
        try:
            unsupported.check_statement(query.sql)
            self._execute(query)
            self._write_result(query)
        except (StatementFailed, ClientError) as error:
            query.fail(str(error))
        except TrinoQueryError as error:
            is_system_error = error.error_type in {"INTERNAL_ERROR", "INSUFFICIENT_RESOURCES"}
            query.fail(f"{error.error_name}: {error.message}", is_system_error=is_system_error)
        except Cancelled:
            query.end("CANCELLED", query.reason or _CANCELLED)
        except Exception as error:  # noqa: BLE001 - an error in a thread has to reach the client
            query.fail(f"INTERNAL_ERROR: {type(error).__name__}: {error}", is_system_error=True)
        else:
            query.end("SUCCEEDED")

    def _execute(self, query: QueryExecution) -> None:
        default_location = f"{query.location}tables/{query.id}"
        statement = translate(query.sql, default_location)
        if not isinstance(statement, TrinoStatement):
            self._glue.run(statement, query.database, query.location)
            return
        if statement.writes_to not in {None, default_location} and query.is_enforced:
            raise StatementFailed(
                "The Create Table As Select query failed because it was submitted with an 'external_location' property "
                "to an Athena Workgroup that enforces a centralized output location for all queries."
            )
        if statement.writes_to and self._glue.holds_files(statement.writes_to):
            raise StatementFailed(
                f"HIVE_PATH_ALREADY_EXISTS: Target directory for table already exists: {statement.writes_to}"
            )
        sql = statement.sql
        if query.parameters:
            escaped = sql.replace("'", "''")
            sql = f"execute immediate '{escaped}' using {', '.join(query.parameters)}"
        query.answer = trino_client.run(
            self._trino,
            sql,
            catalog=statement.catalog,
            schema=query.database,
            session={**unsupported.ONE_WRITER, **statement.session},
            stop=query.stop,
            on_progress=lambda answer: _check_cutoff(query, answer),
        )
        if query.answer.update is not None:
            query.answer.columns, query.answer.rows = [], []
        kinds = [column["type"] for column in query.answer.columns]
        query.rows = [
            [results.as_text(value, kind) for value, kind in zip(row, kinds, strict=True)]
            for row in query.answer.rows
        ]

    def _write_result(self, query: QueryExecution) -> None:
        kind, subtype = query.kind
        if subtype == "CREATE_TABLE_AS_SELECT":
            return
        if kind != "DML":
            content = results.text_file(query.rows)
        elif query.answer.update is None:
            content = results.csv_file([column["name"] for column in query.answer.columns], query.rows)
        else:
            content = b""
        self._glue.put(query.output, content)


def _check_cutoff(query: QueryExecution, answer: TrinoResult) -> None:
    """Cancel a query that scans more than its workgroup allows."""
    query.answer = answer
    if query.cutoff and answer.bytes_scanned > query.cutoff:
        query.reason = "Bytes scanned limit was exceeded"
        raise Cancelled
