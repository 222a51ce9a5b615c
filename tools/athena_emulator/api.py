"""The HTTP server: Athena's JSON API, and Glue's passed on to the emulator."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standin.athena import results
from standin.athena.catalogue import Glue, GlueRefused
from standin.athena.queries import ENGINE, Queries, Query, WorkGroup
from standin.athena.refusals import InvalidRequest, admit
from standin.athena.store import Store
from standin.client import Client

_PAGE = 1000
_CATALOG = {
    "Name": "AwsDataCatalog",
    "Type": "GLUE",
    "Description": "",
    "Parameters": {"catalog-id": "000000000000"},
}


class ApiError(Exception):
    """An error of the API: its name and message."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True)
class Asked:
    """A request: who signed it, what for, and with which words."""

    access_key: str
    operation: str
    """As IAM calls it, such as `athena:StartQueryExecution`."""
    content: dict[str, Any]


class Athena:
    """The operations, by their names in the API."""

    def __init__(self, queries: Queries, glue: Glue, default_output: str | None) -> None:
        self._queries = queries
        self._glue = glue
        self._groups = {"primary": WorkGroup("primary", output=default_output, enforced=False)}

    def answer(self, operation: str, content: dict[str, Any]) -> dict[str, Any]:
        """Carry out an operation; raises `ApiError`."""
        method: Callable[[dict[str, Any]], dict[str, Any]] | None = getattr(self, operation, None)
        if operation == "answer" or operation.startswith("_") or method is None:
            raise ApiError("InvalidRequestException", f"the stand-in does not know {operation}")
        return method(content)

    def StartQueryExecution(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Begin a query."""
        sql = content["QueryString"]
        try:
            admit(sql)
        except InvalidRequest as invalid:
            raise ApiError("InvalidRequestException", str(invalid)) from None
        group = self._group(content.get("WorkGroup", "primary"))
        location = group.location(content.get("ResultConfiguration", {}).get("OutputLocation"))
        if location is None:
            raise ApiError(
                "InvalidRequestException",
                "No output location provided. An output location is required either through the Workgroup result "
                "configuration setting or as an API input.",
            )
        context = content.get("QueryExecutionContext", {})
        query = Query(
            sql=sql,
            group=group,
            database=context.get("Database", "default").lower(),
            location=location,
            parameters=content.get("ExecutionParameters", []),
        )
        return {"QueryExecutionId": self._queries.start(query, content.get("ClientRequestToken"))}

    def GetQueryExecution(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """The state and statistics of a query."""
        return {"QueryExecution": self._query(content["QueryExecutionId"]).described()}

    def BatchGetQueryExecution(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """The same of up to 50 queries."""
        found = [(query_id, self._queries.find(query_id)) for query_id in content["QueryExecutionIds"]]
        return {
            "QueryExecutions": [query.described() for _, query in found if query],
            "UnprocessedQueryExecutionIds": [
                {"QueryExecutionId": query_id, "ErrorCode": "INVALID_INPUT", "ErrorMessage": "not found"}
                for query_id, query in found
                if query is None
            ],
        }

    def ListQueryExecutions(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Ids of a workgroup's queries, newest first."""
        ids = self._queries.ids(content.get("WorkGroup", "primary"))
        start, size = int(content.get("NextToken", 0)), int(content.get("MaxResults", 50))
        more = {"NextToken": str(start + size)} if start + size < len(ids) else {}
        return {"QueryExecutionIds": ids[start : start + size], **more}

    def StopQueryExecution(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """End a query."""
        self._queries.stop(self._query(content["QueryExecutionId"]))
        return {}

    def GetQueryResults(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Rows of a query that has succeeded; the first row of a SELECT are its columns' names."""
        query = self._query(content["QueryExecutionId"])
        if query.state != "SUCCEEDED":
            raise ApiError(
                "InvalidRequestException", f"Query has not yet finished. Current state: {query.state}"
            )
        columns = query.answer.columns
        rows: list[list[str | None]] = query.rows
        if query.kind[0] == "DML":
            rows = [[column["name"] for column in columns], *rows] if columns else rows
        start, size = int(content.get("NextToken", 0)), int(content.get("MaxResults", _PAGE))
        shown = rows[start : start + size]
        answer: dict[str, Any] = {
            "ResultSet": {
                "Rows": [{"Data": [{} if v is None else {"VarCharValue": v} for v in row]} for row in shown],
                "ResultSetMetadata": {"ColumnInfo": results.column_info(columns)},
            },
            "UpdateCount": query.answer.rows_changed or 0,
        }
        if start + size < len(rows):
            answer["NextToken"] = str(start + size)
        return answer

    def GetWorkGroup(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """The settings of a workgroup."""
        return {"WorkGroup": self._group(content["WorkGroup"]).described()}

    def ListWorkGroups(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """All workgroups."""
        return {
            "WorkGroups": [
                {"Name": name, "State": "ENABLED", "EngineVersion": ENGINE, "CreationTime": group.created}
                for name, group in self._groups.items()
            ]
        }

    def CreateWorkGroup(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """A new workgroup."""
        if content["Name"] in self._groups:
            raise ApiError("InvalidRequestException", f"WorkGroup {content['Name']} is already created")
        self._groups[content["Name"]] = _configured(
            WorkGroup(content["Name"]), content.get("Configuration", {})
        )
        return {}

    def UpdateWorkGroup(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Other settings of a workgroup."""
        _configured(self._group(content["WorkGroup"]), content.get("ConfigurationUpdates", {}))
        return {}

    def DeleteWorkGroup(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Remove a workgroup."""
        self._groups.pop(self._group(content["WorkGroup"]).name)
        return {}

    def ListDataCatalogs(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """The one catalogue."""
        return {"DataCatalogsSummary": [{"CatalogName": _CATALOG["Name"], "Type": _CATALOG["Type"]}]}

    def GetDataCatalog(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """The one catalogue."""
        if content["Name"].lower() != "awsdatacatalog":
            raise ApiError("InvalidRequestException", f"no catalogue {content['Name']}")
        return {"DataCatalog": _CATALOG}

    def ListDatabases(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Databases of Glue."""
        found = self._glue.call("GetDatabases", {})["DatabaseList"]
        return {"DatabaseList": [{"Name": database["Name"]} for database in found]}

    def GetDatabase(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """A database of Glue."""
        found = self._glue.call("GetDatabase", {"Name": content["DatabaseName"]})["Database"]
        return {"Database": {"Name": found["Name"]}}

    def ListTableMetadata(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """Tables of a database of Glue."""
        found = self._glue.call("GetTables", {"DatabaseName": content["DatabaseName"]})["TableList"]
        return {"TableMetadataList": [_table_metadata(table) for table in found]}

    def GetTableMetadata(self, content: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """A table of Glue."""
        wanted = {"DatabaseName": content["DatabaseName"], "Name": content["TableName"]}
        return {"TableMetadata": _table_metadata(self._glue.call("GetTable", wanted)["Table"])}

    def _query(self, query_id: str) -> Query:
        query = self._queries.find(query_id)
        if query is None:
            raise ApiError("InvalidRequestException", f"QueryExecution {query_id} was not found")
        return query

    def _group(self, name: str) -> WorkGroup:
        if name not in self._groups:
            deployed = self._glue.work_group(name)
            if deployed is None:
                raise ApiError("InvalidRequestException", f"WorkGroup {name} is not found.")
            self._groups[name] = _configured(WorkGroup(name), deployed)
        return self._groups[name]


def _configured(group: WorkGroup, content: dict[str, Any]) -> WorkGroup:
    """A workgroup with the settings of CreateWorkGroup or UpdateWorkGroup."""
    result = content.get("ResultConfiguration") or content.get("ResultConfigurationUpdates") or {}
    group.output = result.get("OutputLocation", group.output)
    group.enforced = content.get("EnforceWorkGroupConfiguration", group.enforced)
    group.cutoff = content.get("BytesScannedCutoffPerQuery", group.cutoff)
    if content.get("RemoveBytesScannedCutoffPerQuery"):
        group.cutoff = None
    return group


def _table_metadata(table: dict[str, Any]) -> dict[str, Any]:
    return {
        "Name": table["Name"],
        "TableType": table.get("TableType", "EXTERNAL_TABLE"),
        "Columns": table.get("StorageDescriptor", {}).get("Columns", []),
        "PartitionKeys": table.get("PartitionKeys", []),
        "Parameters": table.get("Parameters", {}),
    }


@contextmanager
def serving(
    port: int,
    *,
    aws: str,
    trino: str,
    region: str,
    default_output: str | None = None,
    asked: list[Asked] | None = None,
) -> Iterator[Athena]:
    """Athena on a port of loopback, until left; Glue on the same port. Every request is added to `asked`."""
    glue = Glue(aws, region)
    queries = Queries(Client(trino), glue, Store(aws, region))
    athena = Athena(queries, glue, default_output)
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(athena, glue, [] if asked is None else asked))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="athena")
    thread.start()
    try:
        yield athena
    finally:
        server.shutdown()
        server.server_close()
        queries.close()
        thread.join()


def _handler(athena: Athena, glue: Glue, asked: list[Asked]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            """Say that the server is up."""
            self._send(200, b"{}")

        def do_POST(self) -> None:
            """An operation of Athena or Glue."""
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            target = self.headers.get("X-Amz-Target", "")
            service, _, operation = target.partition(".")
            name = service.removeprefix("AWS").removeprefix("Amazon").lower()
            signer = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
            asked.append(Asked(signer[1] if signer else "", f"{name}:{operation}", json.loads(body or b"{}")))
            if service == "AWSGlue":
                self._send(*glue.forward(target, body))
            elif service == "AmazonAthena":
                self._send(*_answered(athena, operation, body))
            else:
                self._send(*_error("UnknownOperationException", f"no service for {target!r}"))

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("x-amzn-RequestId", str(uuid.uuid4()))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _answered(athena: Athena, operation: str, body: bytes) -> tuple[int, bytes]:
    try:
        return 200, json.dumps(athena.answer(operation, json.loads(body or b"{}"))).encode()
    except ApiError as error:
        return _error(error.name, str(error))
    except GlueRefused as refused:
        return _error("MetadataException", str(refused))


def _error(name: str, message: str) -> tuple[int, bytes]:
    return 400, json.dumps({"__type": name, "message": message, "Message": message}).encode()
