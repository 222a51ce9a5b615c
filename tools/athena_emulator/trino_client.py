"""A query on Trino over its REST protocol: what it answers, and what it cost."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class QueryFailed(Exception):
    """Trino refused or broke off a query; `name` is its kind of error."""

    def __init__(self, message: str, name: str, kind: str) -> None:
        super().__init__(message)
        self.name = name
        self.kind = kind


class Cancelled(Exception):
    """Somebody stopped the query."""


@dataclass
class Answer:
    """Columns, rows and statistics of a query."""

    columns: list[dict[str, Any]] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    update: str | None = None
    """What a statement that is no SELECT did, such as CREATE TABLE."""
    rows_changed: int | None = None
    stats: dict[str, Any] = field(default_factory=dict)

    @property
    def bytes_scanned(self) -> int:
        """Bytes that connectors read from storage."""
        return int(self.stats.get("physicalInputBytes", 0))


class Client:
    """A Trino server; safe for several threads."""

    def __init__(self, url: str, *, user: str = "athena") -> None:
        self.url = url
        self.user = user

    def run(
        self,
        sql: str,
        *,
        catalog: str,
        schema: str | None = None,
        session: dict[str, str] | None = None,
        stop: threading.Event | None = None,
        watch: Callable[[Answer], None] | None = None,
    ) -> Answer:
        """Run a statement to its end; raises `QueryFailed`, or `Cancelled` when `stop` was set.

        `watch` sees every part of the answer as it comes; when it raises, the query is stopped.
        """
        headers = {"X-Trino-User": self.user, "X-Trino-Catalog": catalog, "X-Trino-Time-Zone": "UTC"}
        if schema:
            headers["X-Trino-Schema"] = schema
        if session:
            headers["X-Trino-Session"] = ",".join(f"{name}={value}" for name, value in session.items())
        page = self._ask("POST", f"{self.url}/v1/statement", headers, sql.encode())
        answer = Answer()
        while True:
            self._collect(answer, page)
            following = page.get("nextUri")
            try:
                if watch is not None:
                    watch(answer)
                if stop is not None and stop.is_set() and following:
                    raise Cancelled
            except Cancelled:
                if following:
                    self._ask("DELETE", following, headers)
                raise
            if following is None:
                return answer
            page = self._ask("GET", following, headers)

    def _collect(self, answer: Answer, page: dict[str, Any]) -> None:
        error = page.get("error")
        if error:
            raise QueryFailed(error["message"], error["errorName"], error["errorType"])
        answer.columns = page.get("columns") or answer.columns
        answer.rows += page.get("data") or []
        answer.update = page.get("updateType") or answer.update
        answer.rows_changed = page.get("updateCount", answer.rows_changed)
        answer.stats = page.get("stats") or answer.stats

    def _ask(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None = None
    ) -> dict[str, Any]:
        request = urllib.request.Request(url, data=body, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            data = response.read()
        return dict(json.loads(data)) if data else {}
