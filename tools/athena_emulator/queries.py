"""Queries from their start to their end: state, results, statistics and the file in S3."""

from __future__ import annotations

import re
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from standin.athena import refusals, results, translate
from standin.athena.catalogue import Glue, GlueRefused
from standin.athena.store import Store
from standin.client import Answer, Cancelled, Client, QueryFailed

WORKERS = 8
ENGINE = {"SelectedEngineVersion": "AUTO", "EffectiveEngineVersion": "Athena engine version 3"}


@dataclass
class WorkGroup:
    """The settings of a workgroup."""

    name: str
    output: str | None = None
    enforced: bool = True
    cutoff: int | None = None
    """Bytes that one query may scan."""
    created: float = field(default_factory=time.time)

    @property
    def insists(self) -> bool:
        """True when everything that its queries write goes to its own place."""
        return self.enforced and self.output is not None

    def location(self, asked: str | None) -> str | None:
        """Where results go: the workgroup's own place when it insists, else what the query asks for."""
        chosen = self.output if self.insists else asked or self.output
        return chosen.rstrip("/") + "/" if chosen else None

    def described(self) -> dict[str, Any]:
        """As GetWorkGroup answers."""
        result = {"OutputLocation": self.output} if self.output else {}
        configuration: dict[str, Any] = {
            "ResultConfiguration": result, "EnforceWorkGroupConfiguration": self.enforced,
            "PublishCloudWatchMetricsEnabled": False, "RequesterPaysEnabled": False, "EngineVersion": ENGINE,
        }  # fmt: skip
        if self.cutoff:
            configuration["BytesScannedCutoffPerQuery"] = self.cutoff
        return {
            "Name": self.name, "State": "ENABLED", "Configuration": configuration, "Description": "",
            "CreationTime": self.created,
        }  # fmt: skip


@dataclass
class Query:
    """One execution."""

    sql: str
    group: WorkGroup
    database: str
    location: str
    parameters: list[str] = field(default_factory=list)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str = "QUEUED"
    reason: str = ""
    error: dict[str, Any] | None = None
    submitted: float = field(default_factory=time.time)
    began: float | None = None
    ended: float | None = None
    answer: Answer = field(default_factory=Answer)
    rows: list[list[str | None]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def kind(self) -> tuple[str, str]:
        """Statement type and subtype."""
        return _kind(self.sql)

    @property
    def output(self) -> str:
        """Address of the file of the result."""
        if self.kind[1] == "CREATE_TABLE_AS_SELECT":
            return f"{self.location}tables/{self.id}"
        return f"{self.location}{self.id}.{'csv' if self.kind[0] == 'DML' else 'txt'}"

    def described(self) -> dict[str, Any]:
        """As GetQueryExecution answers."""
        status: dict[str, Any] = {"State": self.state, "SubmissionDateTime": self.submitted}
        if self.ended is not None:
            status["CompletionDateTime"] = self.ended
        if self.reason:
            status["StateChangeReason"] = self.reason
        if self.error:
            status["AthenaError"] = self.error
        end = self.ended or time.time()
        queued = round(1000 * ((self.began or end) - self.submitted))
        total = round(1000 * (end - self.submitted))
        statement, sub = self.kind
        return {
            "QueryExecutionId": self.id, "Query": self.sql, "StatementType": statement, "SubstatementType": sub,
            "ResultConfiguration": {"OutputLocation": self.output},
            "ResultReuseConfiguration": {"ResultReuseByAgeConfiguration": {"Enabled": False}},
            "QueryExecutionContext": {"Database": self.database, "Catalog": translate.CATALOG},
            "Status": status, "WorkGroup": self.group.name, "EngineVersion": ENGINE,
            "Statistics": {
                "DataScannedInBytes": self.answer.bytes_scanned, "EngineExecutionTimeInMillis": total - queued,
                "TotalExecutionTimeInMillis": total, "QueryQueueTimeInMillis": queued,
                "ServiceProcessingTimeInMillis": 0, "ResultReuseInformation": {"ReusedPreviousResult": False},
            },
        }  # fmt: skip


class Queries:
    """Everything that was ever started, and the threads that carry it out."""

    def __init__(self, client: Client, glue: Glue, store: Store) -> None:
        self._client = client
        self._glue = glue
        self._store = store
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="query")
        self._known: dict[str, Query] = {}
        self._tokens: dict[str, str] = {}

    def start(self, query: Query, token: str | None = None) -> str:
        """Begin a query and return its id; the same token starts it once."""
        if token and token in self._tokens:
            return self._tokens[token]
        self._known[query.id] = query
        if token:
            self._tokens[token] = query.id
        self._pool.submit(self._run, query)
        return query.id

    def find(self, query_id: str) -> Query | None:
        """A query by its id."""
        return self._known.get(query_id)

    def ids(self, group: str) -> list[str]:
        """The queries of a workgroup, newest first."""
        return [query.id for query in reversed(self._known.values()) if query.group.name == group]

    def stop(self, query: Query) -> None:
        """Ask a query to end."""
        query.stop.set()
        if query.state == "QUEUED":
            _end(query, "CANCELLED", "Query cancelled by the user")

    def close(self) -> None:
        """Let no query run on."""
        for query in self._known.values():
            query.stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _run(self, query: Query) -> None:
        if query.stop.is_set():
            return
        query.state, query.began = "RUNNING", time.time()
        try:
            refusals.check(query.sql)
            self._carry_out(query)
            self._keep(query)
        except (refusals.Refused, translate.SyntaxWrong, GlueRefused) as refused:
            _fail(query, str(refused), kind=2)
        except QueryFailed as failed:
            system = failed.kind in {"INTERNAL_ERROR", "INSUFFICIENT_RESOURCES"}
            _fail(query, f"{failed.name}: {failed}", kind=1 if system else 2)
        except Cancelled:
            _end(query, "CANCELLED", query.reason or "Query cancelled by the user")
        except Exception as fault:  # noqa: BLE001 - a thread's fault has to reach the client
            _fail(query, f"INTERNAL_ERROR: {type(fault).__name__}: {fault}", kind=1)
        else:
            _end(query, "SUCCEEDED")

    def _carry_out(self, query: Query) -> None:
        own_place = f"{query.location}tables/{query.id}"
        order = translate.translate(query.sql, own_place)
        if not isinstance(order, translate.Trino):
            self._glue.carry_out(order, query.database)
            return
        if order.writes_to not in {None, own_place} and query.group.insists:
            raise refusals.Refused(
                "The Create Table As Select query failed because it was submitted with an 'external_location' property "
                "to an Athena Workgroup that enforces a centralized output location for all queries."
            )
        if order.writes_to and self._store.anything_in(order.writes_to):
            raise refusals.Refused(
                f"HIVE_PATH_ALREADY_EXISTS: Target directory for table already exists: {order.writes_to}"
            )
        query.answer = self._client.run(
            _with_parameters(order.sql, query.parameters),
            catalog=order.catalog,
            schema=query.database,
            session={**refusals.ONE_WRITER, **order.session},
            stop=query.stop,
            watch=lambda answer: self._watch(query, answer),
        )
        if query.answer.update is not None:
            query.answer.columns, query.answer.rows = [], []
        query.rows = results.texts(query.answer.columns, query.answer.rows)

    def _watch(self, query: Query, answer: Answer) -> None:
        """Break off a query that scans more than its workgroup allows."""
        query.answer = answer
        if query.group.cutoff and answer.bytes_scanned > query.group.cutoff:
            query.reason = "Bytes scanned limit was exceeded"
            raise Cancelled

    def _keep(self, query: Query) -> None:
        if query.kind[1] == "CREATE_TABLE_AS_SELECT":
            return
        dml = query.kind[0] == "DML"
        selected = dml and query.answer.update is None
        content = (
            results.csv_file(query.answer.columns, query.rows) if selected else results.text_file(query.rows)
        )
        self._store.put(query.output, b"" if dml and not selected else content)


def _with_parameters(sql: str, parameters: list[str]) -> str:
    if not parameters:
        return sql
    return f"execute immediate '{sql.replace(chr(39), chr(39) * 2)}' using {', '.join(parameters)}"


def _fail(query: Query, reason: str, *, kind: int) -> None:
    query.error = {
        "ErrorCategory": kind,
        "ErrorType": 1000 + kind,
        "Retryable": False,
        "ErrorMessage": reason,
    }
    _end(query, "FAILED", reason)


def _end(query: Query, state: str, reason: str = "") -> None:
    query.reason, query.ended, query.state = reason, time.time(), state


def _kind(sql: str) -> tuple[str, str]:
    text = re.sub(r"\s+", " ", translate.bare(sql)[:4000]).upper()
    if re.match(r"CREATE TABLE\b.*\bAS (SELECT|WITH|\()", text):
        return "DDL", "CREATE_TABLE_AS_SELECT"
    word = text.split(" ")[0].strip("(")
    if word in {"SELECT", "WITH", "VALUES", "TABLE"}:
        return "DML", "SELECT"
    if word in {"INSERT", "DELETE", "UPDATE", "MERGE", "UNLOAD", "OPTIMIZE", "VACUUM", "EXECUTE"}:
        return "DML", word
    if word in {"SHOW", "DESCRIBE", "EXPLAIN"}:
        return "UTILITY", " ".join(text.split(" ")[:2]).replace(" ", "_") if word != "EXPLAIN" else "EXPLAIN"
    return "DDL", "_".join(text.split(" ")[:2])
