"""Run a statement on Trino, and say what it answered and what it cost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import stamina
from trino.client import ClientSession, TrinoRequest
from trino.exceptions import TrinoQueryError


class Cancelled(Exception):
    """The query was stopped before its end."""


@dataclass
class TrinoResult:
    """Columns, rows and statistics of a query."""

    columns: list[dict[str, Any]] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    update: str | None = None
    """What a statement that is no SELECT did, such as CREATE TABLE."""
    rows_changed: int | None = None
    bytes_scanned: int = 0
    """Bytes that connectors read from storage."""


def _has_no_node(error: Exception) -> bool:
    return isinstance(error, TrinoQueryError) and error.error_name == "NO_NODES_AVAILABLE"


@stamina.retry(on=_has_no_node, attempts=None, timeout=60, wait_initial=0.2, wait_max=2)
def run(
    url: str,
    sql: str,
    *,
    catalog: str,
    schema: str,
    session: dict[str, str],
    stop: threading.Event,
    on_progress: Callable[[TrinoResult], None],
) -> TrinoResult:
    """Run a statement to its end, with session properties, on the Trino server at `url`.

    Trino takes statements some seconds before it knows of a node that reads tables; it is asked again for a minute.

    Args:
        stop: ends the query when it is set.
        on_progress: is called with every part of the answer; when it raises `Cancelled`, the query is ended.

    Raises:
        TrinoQueryError: Trino could not run it.
        Cancelled: it was ended.
    """
    server = urlsplit(url)
    properties = ClientSession("athena", catalog=catalog, schema=schema, properties=session, timezone="UTC")
    trino = TrinoRequest(str(server.hostname), server.port or 80, properties, http_scheme="http")
    answer = TrinoResult()
    response = trino.post(sql)
    while True:
        page = trino.process(response)
        answer.columns = page.columns or answer.columns
        answer.rows += page.rows
        answer.update = page.update_type or answer.update
        answer.rows_changed = answer.rows_changed if page.update_count is None else page.update_count
        answer.bytes_scanned = int(page.stats.get("physicalInputBytes", answer.bytes_scanned))
        try:
            on_progress(answer)
            if stop.is_set() and page.next_uri:
                raise Cancelled
        except Cancelled:
            if page.next_uri:
                trino.delete(page.next_uri)
            raise
        if page.next_uri is None:
            return answer
        response = trino.get(page.next_uri)
