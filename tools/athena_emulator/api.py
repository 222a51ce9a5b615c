"""The HTTP server: Athena's JSON API. Glue's, and what is not about queries, is passed on to ministack."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from botocore.exceptions import ClientError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from tools.athena_emulator import results
from tools.athena_emulator.glue import Glue
from tools.athena_emulator.queries import ENGINE, Queries, QueryExecution
from tools.athena_emulator.unsupported import InvalidRequest, check_request

Content = dict[str, Any]

_PAGE = 1000
_CATALOG = {
    "Name": "AwsDataCatalog", "Type": "GLUE", "Description": "", "Parameters": {"catalog-id": "000000000000"},
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A request to Athena or Glue."""

    access_key: str
    """The key that signed it."""
    operation: str
    """As IAM calls it, such as `athena:StartQueryExecution`."""
    content: Content


class AthenaApi:
    """The operations that ministack does not have or has otherwise than Athena."""

    def __init__(self, queries: Queries, glue: Glue) -> None:
        self._queries = queries
        self._glue = glue
        self._operations: dict[str, Callable[[Content], Content]] = {
            "StartQueryExecution": self._start_query,
            "GetQueryExecution": lambda content: {"QueryExecution": self._query(content).describe()},
            "BatchGetQueryExecution": self._describe_queries,
            "ListQueryExecutions": self._list_queries,
            "StopQueryExecution": self._stop_query,
            "GetQueryResults": self._results,
            "GetWorkGroup": lambda content: {"WorkGroup": self._workgroup(content["WorkGroup"])},
            "GetDataCatalog": self._catalog,
            "GetTableMetadata": self._table_metadata,
        }

    def respond(self, target: str, body: bytes) -> tuple[int, bytes]:
        """Carry out the operation of Athena or Glue that `X-Amz-Target` names; returns the status and the body."""
        operation = self._operations.get(target.removeprefix("AmazonAthena."))
        if operation is None:
            return self._glue.forward(target, body)
        try:
            return 200, json.dumps(operation(json.loads(body or b"{}"))).encode()
        except InvalidRequest as error:
            name, message = "InvalidRequestException", str(error)
        except ClientError as error:
            name, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
        return 400, json.dumps({"__type": name, "message": message, "Message": message}).encode()

    def _start_query(self, content: Content) -> Content:
        sql = content["QueryString"]
        check_request(sql)
        name = content.get("WorkGroup", "primary")
        group = self._workgroup(name)["Configuration"]
        own = group.get("ResultConfiguration", {}).get("OutputLocation")
        is_enforced = own is not None and group["EnforceWorkGroupConfiguration"]
        given = content.get("ResultConfiguration", {}).get("OutputLocation")
        location = own if is_enforced else given or own
        if location is None:
            raise InvalidRequest(
                "No output location provided. An output location is required either through the Workgroup result "
                "configuration setting or as an API input."
            )
        query = QueryExecution(
            sql=sql,
            group=name,
            database=content.get("QueryExecutionContext", {}).get("Database", "default").lower(),
            location=location.rstrip("/") + "/",
            is_enforced=is_enforced,
            cutoff=group.get("BytesScannedCutoffPerQuery"),
            parameters=content.get("ExecutionParameters", []),
        )
        return {"QueryExecutionId": self._queries.start(query, content.get("ClientRequestToken"))}

    def _describe_queries(self, content: Content) -> Content:
        known = self._queries.by_id
        return {
            "QueryExecutions": [
                known[one].describe() for one in content["QueryExecutionIds"] if one in known
            ],
            "UnprocessedQueryExecutionIds": [
                {"QueryExecutionId": one, "ErrorCode": "INVALID_INPUT", "ErrorMessage": "not found"}
                for one in content["QueryExecutionIds"]
                if one not in known
            ],
        }

    def _list_queries(self, content: Content) -> Content:
        group = content.get("WorkGroup", "primary")
        ids = [query.id for query in reversed(self._queries.by_id.values()) if query.group == group]
        page, more = _page(ids, content, 50)
        return {"QueryExecutionIds": page, **more}

    def _stop_query(self, content: Content) -> Content:
        self._queries.stop(self._query(content))
        return {}

    def _results(self, content: Content) -> Content:
        """Return rows of a query that has succeeded; the first row of a SELECT is the names of its columns."""
        query = self._query(content)
        if query.state != "SUCCEEDED":
            raise InvalidRequest(f"Query has not yet finished. Current state: {query.state}")
        columns = query.answer.columns
        rows: list[list[str | None]] = query.rows
        if query.kind[0] == "DML" and columns:
            rows = [[column["name"] for column in columns], *rows]
        page, more = _page(rows, content, _PAGE)
        return {
            "ResultSet": {
                "Rows": [{"Data": [{} if v is None else {"VarCharValue": v} for v in row]} for row in page],
                "ResultSetMetadata": {"ColumnInfo": [results.column_info(c["name"], c["type"]) for c in columns]},
            },
            "UpdateCount": query.answer.rows_changed or 0,
            **more,
        }  # fmt: skip

    def _catalog(self, content: Content) -> Content:
        if content["Name"].lower() != "awsdatacatalog":
            raise InvalidRequest(f"no catalogue {content['Name']}")
        return {"DataCatalog": _CATALOG}

    def _table_metadata(self, content: Content) -> Content:
        """Describe a table; ministack alone would describe one that does not exist."""
        try:
            self._glue.glue.get_table(DatabaseName=content["DatabaseName"], Name=content["TableName"])
        except ClientError as error:
            error.response["Error"]["Code"] = "MetadataException"
            raise
        return self._ask_ministack("GetTableMetadata", content)

    def _query(self, content: Content) -> QueryExecution:
        query = self._queries.by_id.get(content["QueryExecutionId"])
        if query is None:
            raise InvalidRequest(f"QueryExecution {content['QueryExecutionId']} was not found")
        return query

    def _workgroup(self, name: str) -> Content:
        """Return a workgroup of ministack, with the settings that Athena sets by itself."""
        group = self._ask_ministack("GetWorkGroup", {"WorkGroup": name}).get("WorkGroup")
        if group is None:
            raise InvalidRequest(f"WorkGroup {name} is not found.")
        defaults = {
            "EnforceWorkGroupConfiguration": name != "primary", "PublishCloudWatchMetricsEnabled": False,
            "RequesterPaysEnabled": False, "EngineVersion": ENGINE, "ResultConfiguration": {},
        }  # fmt: skip
        return {**group, "Configuration": {**defaults, **group["Configuration"]}}

    def _ask_ministack(self, operation: str, content: Content) -> Content:
        answer: Content = json.loads(
            self._glue.forward(f"AmazonAthena.{operation}", json.dumps(content).encode())[1]
        )
        return answer


def _page(values: list[Any], content: Content, size: int) -> tuple[list[Any], dict[str, str]]:
    """Return the part of the values that a request asks for, and its `NextToken` where more follow."""
    start = int(content.get("NextToken", 0))
    end = start + int(content.get("MaxResults", size))
    return values[start:end], {"NextToken": str(end)} if end < len(values) else {}


@contextmanager
def serving(*, aws: str, trino: str, region: str) -> Iterator[tuple[str, list[Request]]]:
    """Serve Athena and Glue on a port of loopback; yields the endpoint, and the list that requests are added to."""
    glue = Glue(aws, region)
    queries = Queries(trino, glue)
    athena = AthenaApi(queries, glue)
    requests: list[Request] = []

    async def respond(request: HttpRequest) -> Response:
        body = await request.body()
        target = request.headers.get("X-Amz-Target", "")
        service, _, operation = target.partition(".")
        signer = re.search(r"Credential=([^/]+)/", request.headers.get("Authorization", ""))
        iam_name = f"{service.removeprefix('AWS').removeprefix('Amazon').lower()}:{operation}"
        requests.append(Request(signer[1] if signer else "", iam_name, json.loads(body or b"{}")))
        status, answer = await run_in_threadpool(athena.respond, target, body)
        return Response(answer, status, media_type="application/x-amz-json-1.1")

    listening = socket.create_server(("127.0.0.1", 0))
    app = Starlette(routes=[Route("/", respond, methods=["POST"])])
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=600,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="athena")
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", requests
    finally:
        server.should_exit = True
        thread.join()
        queries.close()
