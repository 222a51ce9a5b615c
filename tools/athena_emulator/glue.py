"""What Athena itself does in Glue: Hive's data definition, and Glue's API passed on to ministack with corrections."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import urlsplit

import boto3
import urllib3

from tools.athena_emulator.translate import AddPartitions, CreateExternalTable, GlueStatement, SetProperties
from tools.athena_emulator.unsupported import StatementFailed

_INPUT_FIELDS = {
    "Name", "Description", "Owner", "Retention", "StorageDescriptor", "PartitionKeys", "ViewOriginalText",
    "ViewExpandedText", "TableType", "Parameters",
}  # fmt: skip


class Glue:
    """Glue, Athena and S3 of ministack."""

    def __init__(self, endpoint: str, region: str) -> None:
        self._endpoint = endpoint
        self._region = region
        self._http = urllib3.PoolManager(maxsize=40, timeout=60, retries=False)
        # The key of the engine: what Athena itself does, too, is done in the name of who asked the query.
        session = boto3.Session(aws_access_key_id="trino", aws_secret_access_key="test", region_name=region)
        self.glue: Any = session.client("glue", endpoint_url=endpoint)
        self.athena: Any = session.client("athena", endpoint_url=endpoint)
        self.s3: Any = session.client("s3", endpoint_url=endpoint)

    def forward(self, target: str, body: bytes) -> tuple[int, bytes]:
        """Pass a request on; returns the status and the corrected body of the answer.

        ministack answers an empty description where AWS leaves it out. Trino takes a description for the comment of a
        table, and knows its own views by that comment: with an empty one it does not find them again. ministack keeps
        its regions apart, and takes the region from where a signature names it. It keeps one version of a table.
        """
        versions = target == "AWSGlue.GetTableVersions"
        if versions:
            wanted = json.loads(body)
            target = "AWSGlue.GetTable"
            body = json.dumps({"DatabaseName": wanted["DatabaseName"], "Name": wanted["TableName"]}).encode()
        service = "glue" if target.startswith("AWSGlue.") else "athena"
        scope = f"test/20260101/{self._region}/{service}/aws4_request"
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": target,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
        }
        response = self._http.request("POST", self._endpoint, body=body, headers=headers)
        answer = response.json() if response.data else {}
        if versions and response.status == 200:
            table = answer["Table"]
            answer = {"TableVersions": [{"Table": table, "VersionId": table.get("VersionId", "1")}]}
        return response.status, json.dumps(_without_empty(answer)).encode()

    def run(self, statement: GlueStatement, database: str, output: str) -> None:
        """Carry out a statement; a name without a schema is in `database`, results go to `output`.

        Raises:
            StatementFailed: ministack could not read the statement.
            ClientError: Glue refused it.
        """
        table = {"DatabaseName": statement.table.schema or database, "Name": statement.table.name}
        if isinstance(statement, CreateExternalTable):
            self._create_external_table(statement.sql, database, output)
            # ministack takes what it cannot read for a query, which it does not run.
            self.glue.get_table(**table)
        elif isinstance(statement, SetProperties):
            known = self.glue.get_table(**table)["Table"]
            changed = {name: value for name, value in known.items() if name in _INPUT_FIELDS}
            changed["Parameters"] = {**known.get("Parameters", {}), **statement.properties}
            self.glue.update_table(DatabaseName=table["DatabaseName"], TableInput=changed)
        else:
            self._add_partitions(statement, table)

    def put(self, address: str, content: bytes) -> None:
        """Write a file to `s3://bucket/key`."""
        parts = urlsplit(address)
        self.s3.put_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"), Body=content)

    def holds_files(self, address: str) -> bool:
        """Return whether there is a file below `s3://bucket/prefix`."""
        parts = urlsplit(address)
        found = self.s3.list_objects_v2(Bucket=parts.netloc, Prefix=f"{parts.path.strip('/')}/", MaxKeys=1)
        return bool(found["KeyCount"])

    def _create_external_table(self, sql: str, database: str, output: str) -> None:
        started = self.athena.start_query_execution(
            QueryString=sql,
            QueryExecutionContext={"Database": database},
            ResultConfiguration={"OutputLocation": output},
        )
        status = {"State": "QUEUED"}
        while status["State"] in {"QUEUED", "RUNNING"}:
            time.sleep(0.02)
            found = self.athena.get_query_execution(QueryExecutionId=started["QueryExecutionId"])
            status = found["QueryExecution"]["Status"]
        if status["State"] == "FAILED":
            raise StatementFailed(status["StateChangeReason"])

    def _add_partitions(self, statement: AddPartitions, table: dict[str, str]) -> None:
        known = self.glue.get_table(**table)["Table"]
        descriptor = known["StorageDescriptor"]
        keys = [key["Name"] for key in known["PartitionKeys"]]
        wanted = []
        for values, location in statement.partitions:
            path = "/".join(f"{key}={value}" for key, value in zip(keys, values, strict=True))
            located = {**descriptor, "Location": location or f"{descriptor['Location']}/{path}"}
            wanted.append({"Values": list(values), "StorageDescriptor": located})
        answer = self.glue.batch_create_partition(
            DatabaseName=table["DatabaseName"], TableName=table["Name"], PartitionInputList=wanted
        )
        errors = [str(each["ErrorDetail"]) for each in answer.get("Errors", [])]
        if failed := [error for error in errors if "AlreadyExists" not in error]:
            raise StatementFailed(failed[0])


def _without_empty(answer: Any) -> Any:
    """Return the answer without empty descriptions and without fields that are null."""
    if isinstance(answer, list):
        return [_without_empty(part) for part in answer]
    if not isinstance(answer, dict):
        return answer
    return {
        name: _without_empty(value)
        for name, value in answer.items()
        if value is not None and not (name == "Description" and value == "")
    }
