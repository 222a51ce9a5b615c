"""A real HTTP server on loopback that answers as each test scripts it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from catalunya.sources import Http


@dataclass
class Asked:
    path: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class Reply:
    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    """Bytes of the body that are announced and never sent."""
    drip_s: float = 0.0
    """Pause between single bytes."""
    drip_headers: bool = False

    def encoded(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Answering = Callable[[Asked], Reply]


class Server:
    """Runs `answer` for every request and remembers what was asked."""

    def __init__(self, answer: Answering) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(parts.path, dict(parse_qsl(parts.query)), headers)
                server.asked.append(asked)
                reply = server.answer(asked)
                body = reply.encoded()
                try:
                    if reply.drip_headers:
                        self._drip(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 200, reply.drip_s)
                        return
                    self.send_response(reply.status)
                    for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                        self.send_header(name, value)
                    if reply.status != 304:
                        self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    if reply.status != 304:
                        sent = body[: len(body) - reply.cut]
                        self._drip(sent, reply.drip_s) if reply.drip_s else self.wfile.write(sent)
                    if reply.cut:
                        self.close_connection = True
                except OSError:
                    self.close_connection = True

            def _drip(self, body: bytes, pause_s: float) -> None:
                for number in range(len(body)):
                    self.wfile.write(body[number : number + 1])
                    self.wfile.flush()
                    time.sleep(pause_s)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Answering], Server]]:
    running: list[Server] = []

    def start(answer: Answering) -> Server:
        running.append(Server(answer))
        return running[-1]

    yield start
    for server in running:
        server.close()


@pytest.fixture
def in_turn() -> Callable[..., Answering]:
    """Answers in the order given, the last one for ever."""

    def make(*replies: Reply) -> Answering:
        left = list(replies)
        return lambda asked: left.pop(0) if len(left) > 1 else left[0]

    return make


@pytest.fixture
def http() -> Iterator[Http]:
    """A session whose pauses are short, so that five tries take milliseconds."""
    with Http(first_wait_s=0.002, timeout_s=5) as session:
        yield session


class Register:
    """A Socrata portal over rows in memory, with faults that a test switches on."""

    def __init__(self, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
        self.rows = list(rows)
        self.columns = list(columns)
        self.updated: int | None = 1_700_000_000
        self.most = 50_000
        self.count_as: Callable[[int], Any] = lambda n: [{"count": str(n)}]
        self.view: Callable[[int, list[dict[str, Any]]], list[dict[str, Any]]] = lambda page, rows: rows
        """What the page request number `page` sees of all rows."""
        self.pages = 0
        self.headers: dict[str, str] = {}
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> Reply:
        if asked.path.startswith("/api/views/"):
            columns = [{"fieldName": name, "dataTypeName": "text"} for name in [":id", *self.columns]]
            body: dict[str, Any] = {"id": "ivft-vegh", "columns": columns}
            if self.updated is not None:
                body["rowsUpdatedAt"] = self.updated
            return Reply(body, headers=self.headers)
        if "count" in asked.query.get("$select", ""):
            return Reply(self.count_as(len(self.rows)), headers=self.headers)
        assert asked.query["$order"] == ":id"
        with self._lock:
            self.pages += 1
            rows = self.view(self.pages, self.rows)
        start, limit = int(asked.query["$offset"]), int(asked.query["$limit"])
        return Reply(rows[start : start + min(limit, self.most)], headers=self.headers)
