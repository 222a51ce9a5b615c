"""Trino, over a catalogue of its Hive connector that reads and writes the lake."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from catalunya.address import is_loopback_url
from catalunya.errors import BuildFailed, UsageError
from catalunya.lake.storage import Storage
from catalunya.settings import Settings
from catalunya.sql import quote
from catalunya.warehouse.engines.base import Cost
from catalunya.warehouse.engines.hive import Columns, HiveEngine, import_driver, shortened

_UNITS = {"B": 1, "kB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40, "PB": 2**50}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class TrinoEngine(HiveEngine):
    """The Trino server at CATALUNYA_TRINO_URL."""

    name = "trino"
    has_view_comments = True

    def __init__(self, storage: Storage, settings: Settings) -> None:
        super().__init__(storage, settings)
        if settings.trino_url is None:
            raise UsageError(
                "CATALUNYA_TRINO_URL: the engine trino needs it, such as http://trino.internal:8080"
            )
        if settings.trino_password and settings.trino_url.startswith("http://"):
            raise UsageError("CATALUNYA_TRINO_PASSWORD: Trino takes a password over https only")
        self._url = settings.trino_url
        self._since = datetime.now(UTC)
        self._open: Any = None

    def query(self, sql: str, schema: str | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run a statement; raises `BuildFailed` with Trino's message."""
        trino = import_driver("trino", "dbt.adapters.trino", "trino.exceptions", "trino")
        try:
            cursor = self._connection(trino).cursor()
            cursor.execute(sql)
            rows = [tuple(row) for row in cursor.fetchall()]
        except (trino.exceptions.Error, OSError) as error:
            message = getattr(error, "message", None) or str(error)
            raise BuildFailed(f"Trino at {self._url} could not run `{shortened(sql)}`: {message}") from None
        return [column[0] for column in cursor.description or []], rows

    def variables(self, candidate_id: str) -> dict[str, str]:
        """Return the variables of the output `trino` of the profile."""
        host, port, scheme = self._server
        return {
            "CATALUNYA_CANDIDATE": self.schema(candidate_id),
            "CATALUNYA_TRINO_HOST": host,
            "CATALUNYA_TRINO_PORT": str(port),
            "CATALUNYA_TRINO_SCHEME": scheme,
            "CATALUNYA_TRINO_USER": self.settings.trino_user,
            "CATALUNYA_TRINO_CATALOG": self.settings.trino_catalog,
        }

    def create_schema(self, name: str, location: str) -> None:
        """Create a schema whose tables are below `location`."""
        self.query(f"create schema if not exists {self._catalog}.{name} with (location = {quote(location)})")

    def create_table(
        self, schema: str, name: str, columns: Columns, location: str, partition: str | None = None
    ) -> None:
        """Create an external table, and its partitions from the names of the folders."""
        order = [*(column for column in columns if column != partition), *([partition] if partition else [])]
        listed = ", ".join(f"{column} {_type(columns[column])}" for column in order)
        options = f"format = 'PARQUET', external_location = {quote(location)}"
        if partition:
            options += f", partitioned_by = array[{quote(partition)}]"
        self.query(f"create table {self._catalog}.{schema}.{name} ({listed}) with ({options})")
        if partition:
            self.query(
                f"call {self._catalog}.system.sync_partition_metadata({quote(schema)}, {quote(name)}, 'ADD')"
            )

    def tables(self, schema: str) -> dict[str, str]:
        """Return the tables and views of a schema, by `information_schema`."""
        _, rows = self.query(
            f"select table_name, table_type from {self._catalog}.information_schema.tables "
            f"where table_schema = {quote(schema)}"
        )
        return {name: "view" if kind == "VIEW" else "table" for name, kind in rows}

    def drop_table(self, schema: str, name: str, kind: str, prefix: str) -> bool:
        """Drop a table; one that Trino manages only if its files, which Trino deletes, are under `prefix`."""
        address = f'{self._catalog}.{schema}."{name}"'
        if kind != "view" and not self._is_external(address):
            _, rows = self.query(f'select distinct "$path" from {address}')
            if any(not str(path).startswith(prefix) for (path,) in rows):
                return False
        self.query(f"drop {kind} if exists {address}")
        return True

    def _is_external(self, address: str) -> bool:
        """True for a table whose files stay when it is dropped."""
        _, [(statement,)] = self.query(f"show create table {address}")
        return "external_location" in str(statement)

    def drop_schema(self, name: str) -> None:
        """Remove an empty schema."""
        self.query(f"drop schema if exists {self._catalog}.{name}")

    def check(self) -> str:
        """Run a no-op query; raises `BuildFailed` when Trino does not answer or has no such catalogue."""
        self.query(f"select 1 from {self._catalog}.information_schema.schemata limit 1")
        return f"Trino at {self._url} answers, catalogue {self._catalog}"

    def cost(self) -> Cost | None:
        """Return the cost of this user's queries since the engine was opened, on schemas that only runs use."""
        if self._open is None:
            return None
        found = [query for query in self._history() if self._is_own(query)]
        stats = [query.get("queryStats", {}) for query in found]
        return Cost(
            queries=len(found),
            bytes_scanned=sum(_bytes(s.get("physicalInputDataSize", "0B")) for s in stats),
            engine_seconds=round(sum(_seconds(s.get("elapsedTime", "0s")) for s in stats), 3),
        )

    def _is_own(self, query: dict[str, Any]) -> bool:
        began = query.get("queryStats", {}).get("createTime", "")
        user = query.get("sessionUser") or query.get("session", {}).get("user")
        recent = bool(began) and datetime.fromisoformat(began) >= self._since
        schema = self.settings.sql_schema
        text = f"{query.get('session', {}).get('schema', '')} {query.get('query', '')}"
        own = f"{schema}_candidate_" in text or f"{schema}_releases" in text
        return recent and own and bool(user == self.settings.trino_user)

    def _history(self) -> list[dict[str, Any]]:
        headers = {"X-Trino-User": self.settings.trino_user}
        if self.settings.trino_password:
            pair = f"{self.settings.trino_user}:{self.settings.trino_password}".encode()
            headers["Authorization"] = f"Basic {b64encode(pair).decode()}"
        request = urllib.request.Request(f"{self._url}/v1/query", headers=headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                return list(json.loads(response.read()))
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise BuildFailed(f"Trino at {self._url} did not return its list of queries: {error}") from None

    @property
    def _catalog(self) -> str:
        return self.settings.trino_catalog

    @property
    def _server(self) -> tuple[str, int, str]:
        """Host, port and scheme."""
        parts = urlsplit(self._url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80), parts.scheme

    def _connection(self, trino: Any) -> Any:
        if self._open is None:
            host, port, scheme = self._server
            password = self.settings.trino_password
            self._open = trino.dbapi.connect(
                host=host,
                port=port,
                http_scheme=scheme,
                user=self.settings.trino_user,
                auth=trino.auth.BasicAuthentication(self.settings.trino_user, password) if password else None,
                catalog=self.settings.trino_catalog,
                source="catalunya",
                timezone="UTC",
                request_timeout=30 if is_loopback_url(self._url) else 60,
            )
        return self._open


def _type(kind: str) -> str:
    return "timestamp(3)" if kind == "timestamp" else kind


def _bytes(text: str) -> int:
    """`1.5MB` as a number of bytes."""
    match = re.fullmatch(r"([\d.]+)([A-Za-z]+)", text)
    return round(float(match[1]) * _UNITS[match[2]]) if match else 0


def _seconds(text: str) -> float:
    """`1.50s` as a number of seconds."""
    match = re.fullmatch(r"([\d.]+)([a-z]+)", text)
    return float(match[1]) * _SECONDS[match[2]] if match else 0.0


ENGINE = TrinoEngine
