"""What the emulator has of Glue and Athena: what Athena itself does in Glue, and what the answers lack."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from standin.athena.translate import AddPartitions, CreateSchema, CreateTable, SetProperties, Table

_INPUT_FIELDS = (
    "Name", "Description", "Owner", "Retention", "StorageDescriptor", "PartitionKeys", "ViewOriginalText",
    "ViewExpandedText", "TableType", "Parameters",
)  # fmt: skip


class GlueRefused(Exception):
    """Glue said no; the message is the reason."""


class Glue:
    """The emulator's Glue."""

    def __init__(self, endpoint: str, region: str) -> None:
        self._endpoint = endpoint
        self._region = region

    def carry_out(
        self, order: CreateTable | CreateSchema | SetProperties | AddPartitions, database: str
    ) -> None:
        """Do what a statement of Hive's kind asks for; names without a schema are in `database`."""
        if isinstance(order, CreateSchema):
            self._create_schema(order)
        elif isinstance(order, CreateTable):
            self._create_table(order, order.table.schema or database)
        elif isinstance(order, SetProperties):
            self._set_properties(order.table, order.properties, database)
        else:
            self._add_partitions(order, database)

    def call(self, operation: str, content: dict[str, Any]) -> dict[str, Any]:
        """Ask the emulator; raises `GlueRefused` with the name of its error."""
        status, body = self.forward(f"AWSGlue.{operation}", json.dumps(content).encode())
        answer = dict(json.loads(body or b"{}"))
        if status != 200:
            kind = str(answer.get("__type", "")).rsplit("#", 1)[-1]
            raise GlueRefused(f"{kind}: {answer.get('message') or answer.get('Message')}")
        return answer

    def forward(self, target: str, body: bytes) -> tuple[int, bytes]:
        """Pass a request on; status and body of the answer, which is corrected.

        The emulator answers an empty description where AWS leaves it out. Trino takes a description for the comment
        of a table, and knows its own views by that comment: with an empty one it does not find them again.
        """
        if target == "AWSGlue.GetTableVersions":
            return self._table_versions(json.loads(body))
        request = urllib.request.Request(self._endpoint, data=body, headers=self._headers(target))
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                status, answer = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, answer = error.code, error.read()
        if b'"Description"' in answer:
            answer = json.dumps(_mended(json.loads(answer))).encode()
        return status, answer

    def work_group(self, name: str) -> dict[str, Any] | None:
        """The settings of a workgroup that was made in the emulator, by a stack for instance; None of no such one."""
        status, body = self.forward("AmazonAthena.GetWorkGroup", json.dumps({"WorkGroup": name}).encode())
        return dict(json.loads(body)["WorkGroup"]["Configuration"]) if status == 200 else None

    def _headers(self, target: str) -> dict[str, str]:
        """The emulator keeps its regions apart, and takes the region from where a signature names it."""
        service = "glue" if target.startswith("AWSGlue.") else "athena"
        scope = f"test/20260101/{self._region}/{service}/aws4_request"
        return {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": target,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
        }

    def _table_versions(self, content: dict[str, Any]) -> tuple[int, bytes]:
        """The emulator keeps one version of a table: the one that is."""
        wanted = {"DatabaseName": content["DatabaseName"], "Name": content["TableName"]}
        status, body = self.forward("AWSGlue.GetTable", json.dumps(wanted).encode())
        if status != 200:
            return status, body
        table = json.loads(body)["Table"]
        versions = [{"Table": table, "VersionId": table.get("VersionId", "1")}]
        return 200, json.dumps({"TableVersions": versions}).encode()

    def _create_schema(self, order: CreateSchema) -> None:
        place = {"LocationUri": order.location} if order.location else {}
        try:
            self.call("CreateDatabase", {"DatabaseInput": {"Name": order.name, **place}})
        except GlueRefused as refused:
            if not (order.if_not_exists and "AlreadyExists" in str(refused)):
                raise

    def _create_table(self, order: CreateTable, database: str) -> None:
        descriptor = {
            "Columns": _glue_columns(order.columns),
            "Location": order.location,
            "InputFormat": order.formats[0],
            "OutputFormat": order.formats[1],
            "SerdeInfo": {
                "SerializationLibrary": order.serde,
                "Parameters": {"serialization.format": "1", **order.serde_properties},
            },
        }
        table = {
            "Name": order.table.name,
            "TableType": "EXTERNAL_TABLE",
            "StorageDescriptor": descriptor,
            "PartitionKeys": _glue_columns(order.partition_keys),
            "Parameters": order.properties,
        }
        try:
            self.call("CreateTable", {"DatabaseName": database, "TableInput": table})
        except GlueRefused as refused:
            if not (order.if_not_exists and "AlreadyExists" in str(refused)):
                raise

    def _set_properties(self, table: Table, properties: dict[str, str], database: str) -> None:
        schema = table.schema or database
        known = self.call("GetTable", {"DatabaseName": schema, "Name": table.name})["Table"]
        changed = {name: known[name] for name in _INPUT_FIELDS if known.get(name) is not None}
        changed["Parameters"] = {**known.get("Parameters", {}), **properties}
        self.call("UpdateTable", {"DatabaseName": schema, "TableInput": changed})

    def _add_partitions(self, order: AddPartitions, database: str) -> None:
        schema = order.table.schema or database
        known = self.call("GetTable", {"DatabaseName": schema, "Name": order.table.name})["Table"]
        descriptor = known["StorageDescriptor"]
        keys = [key["Name"] for key in known["PartitionKeys"]]
        wanted = []
        for values, place in order.partitions:
            path = "/".join(f"{key}={value}" for key, value in zip(keys, values, strict=True))
            located = {**descriptor, "Location": place or f"{descriptor['Location']}/{path}"}
            wanted.append({"Values": list(values), "StorageDescriptor": located})
        answer = self.call(
            "BatchCreatePartition",
            {"DatabaseName": schema, "TableName": order.table.name, "PartitionInputList": wanted},
        )
        faults = [e for e in answer.get("Errors", []) if "AlreadyExists" not in str(e.get("ErrorDetail"))]
        if faults:
            raise GlueRefused(f"{faults[0]['ErrorDetail']}")


def _glue_columns(columns: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    kinds = {"varchar": "string", "integer": "int"}
    return [{"Name": name, "Type": kinds.get(kind, kind)} for name, kind in columns]


def _mended(answer: Any) -> Any:
    """The answer without empty descriptions and without fields that are null."""
    if isinstance(answer, list):
        return [_mended(part) for part in answer]
    if not isinstance(answer, dict):
        return answer
    return {
        name: _mended(value)
        for name, value in answer.items()
        if value is not None and not (name == "Description" and value == "")
    }
