"""Portals as real HTTP servers on loopback, which answer as each test scripts them."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import prod
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from catalunya import sources
from catalunya.datasets.sources import DownloadFile, DownloadSource, IdescatSource, SocrataSource
from catalunya.settings import PORTAL_VARIABLES, Settings
from catalunya.sources import Fetched, FetchRequest, Http

REGISTER = SocrataSource(protocol="socrata", resource="ivft-vegh")
TABLE = IdescatSource(
    protocol="idescat",
    table="censph/540/19948/mun",
    rows=("YEAR", "MUN"),
    measure="AGE",
    fixed={"SEX": "TOTAL"},
    total={"MUN": "TOTAL"},
)
WANTED = ("MUN", "MUN.label", "YEAR", "AGE.TOTAL", "AGE.Y_GE065")
NAMES = {"080018": "Abrera", "080023": "Aguilar de Segarra", "171220": "Palmerola", "TOTAL": "Catalunya"}
FILES = DownloadSource(
    protocol="download",
    files=(
        DownloadFile(path="/comarques.json", level="comarca"),
        DownloadFile(path="/municipis.json", level="municipality"),
    ),
)


@dataclass
class Request:
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
    announced: bool = True
    """Whether the length of the body is given; without it the body ends with the connection."""
    midway: Callable[[], object] | None = None
    """Called when half of the body is sent."""
    midway_of_headers: bool = False
    """`midway` is called in the middle of the headers instead."""
    interim: bytes = b""
    """Sent before the response, such as one of status 103."""

    def encoded(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Answering = Callable[[Request], Reply]


class Server:
    """Calls `answer` for every request and records the requests."""

    def __init__(self, answer: Answering, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(parts.path, dict(parse_qsl(parts.query)), headers)
                server.requests.append(request)
                reply = server.answer(request)
                body = reply.encoded()
                try:
                    self.wfile.write(reply.interim)
                    if reply.midway_of_headers:
                        self._send(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 200, reply.midway)
                    self.send_response(reply.status)
                    for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                        self.send_header(name, value)
                    if reply.status != 304 and reply.announced:
                        self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    if reply.status != 304:
                        self._send(body[: len(body) - reply.cut], reply.midway)
                    if reply.cut or not reply.announced:
                        self.close_connection = True
                except OSError:
                    self.close_connection = True

            def _send(self, body: bytes, midway: Callable[[], object] | None) -> None:
                half = len(body) // 2
                self.wfile.write(body[:half])
                if midway is not None:
                    midway()
                self.wfile.write(body[half:])

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        if tls is not None:
            # A client that refuses the certificate ends the handshake, which is no error of the server.
            self._http.handle_error = lambda *_: None  # type: ignore[method-assign]
            # The handshake belongs to the thread of the request, as the first read of it.
            self._http.socket = tls.wrap_socket(
                self._http.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.port = self._http.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


Serve = Callable[[Answering], Server]
InTurn = Callable[..., Answering]


def fetch(source: Any, url: str, http: Http, spool: Path, **more: Any) -> Fetched | None:
    """Read a source; None when it is unchanged."""
    return sources.fetch(FetchRequest(source=source, base_url=url, http=http, spool=spool, **more))


def settings(url: str) -> Settings:
    """Settings under which every portal is at `url` and no request is repeated."""
    values: dict[str, Any] = dict.fromkeys(PORTAL_VARIABLES, url)
    return Settings(**values, CATALUNYA_HTTP_ATTEMPTS=1, CATALUNYA_HTTP_TIMEOUT=20)


class Timers:
    """Timers of deadlines that expire when the test says so."""

    def __init__(self) -> None:
        self.expirations: list[Callable[[], None]] = []

    def __call__(self, seconds: float, expire: Callable[[], None]) -> Timers:
        self.expirations.append(expire)
        return self

    def start(self) -> None: ...

    def cancel(self) -> None: ...

    def expire(self) -> None:
        self.expirations[-1]()


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

    def __call__(self, request: Request) -> Reply:
        if request.path.startswith("/api/views/"):
            columns = [{"fieldName": name, "dataTypeName": "text"} for name in [":id", *self.columns]]
            body: dict[str, Any] = {"id": "ivft-vegh", "columns": columns}
            if self.updated is not None:
                body["rowsUpdatedAt"] = self.updated
            return Reply(body, headers=self.headers)
        if "count" in request.query.get("$select", ""):
            return Reply(self.count_as(len(self.rows)), headers=self.headers)
        assert request.query["$order"] == ":id"
        with self._lock:
            self.pages += 1
            rows = self.view(self.pages, self.rows)
        start, limit = int(request.query["$offset"]), int(request.query["$limit"])
        return Reply(rows[start : start + min(limit, self.most)], headers=self.headers)


class Tables:
    """Idescat's table of people by year, municipality, sex and age, over a formula."""

    def __init__(self) -> None:
        self.categories: dict[str, list[str]] = {
            "YEAR": ["2021", "2022", "2023"],
            "MUN": list(NAMES),
            "SEX": ["F", "M", "TOTAL"],
            "AGE": ["Y_LE015", "Y016_064", "Y_GE065", "TOTAL"],
        }
        self.updated: str | None = "2026-02-01"
        self.order = ["YEAR", "MUN", "SEX", "AGE"]
        self.index_as_object = False
        self.value_as_object = False
        self.status: str | list[Any] | None = None
        self.ignored: set[str] = set()
        self.limit = 20_000

    def value(self, cell: dict[str, str]) -> int | None:
        if cell["MUN"] == "171220":
            return None
        place = list(NAMES).index(cell["MUN"]) + 1
        return int(cell["YEAR"]) * 10 + place + (1000 if cell["AGE"] == "TOTAL" else 0)

    def __call__(self, request: Request) -> Reply:
        assert request.path.startswith("/taules/v2/censph/540/19948/mun")
        kept = {}
        for name in self.order:
            only = request.query.get(name) if name not in self.ignored else None
            codes = self.categories[name]
            kept[name] = [code for code in codes if only is None or code in only.split(",")] or codes
        sizes = [len(codes) for codes in kept.values()]
        table: dict[str, Any] = {"version": "2.0", "class": "dataset", "id": self.order, "size": sizes}
        table["dimension"] = {name: {"category": self._category(name, kept[name])} for name in self.order}
        if self.updated:
            table["updated"] = self.updated
        if request.path.endswith("/data"):
            if prod(sizes) > self.limit:
                error = {
                    "class": "error",
                    "status": "416",
                    "id": "05",
                    "label": "Nombre màxim de dades superat.",
                }
                return Reply(error, status=416)
            self._fill(table, kept)
        return Reply(table)

    def _category(self, name: str, codes: list[str]) -> dict[str, Any]:
        labels = {code: NAMES.get(code, code) for code in codes}
        index: Any = codes
        if self.index_as_object:
            index = dict(reversed([(code, position) for position, code in enumerate(codes)]))
        return {"index": index, "label": labels}

    def _fill(self, table: dict[str, Any], kept: dict[str, list[str]]) -> None:
        cells: list[dict[str, str]] = [{}]
        for name, codes in kept.items():
            cells = [{**cell, name: code} for cell in cells for code in codes]
        values = [self.value(cell) for cell in cells]
        missing = {str(n): ".." for n, value in enumerate(values) if value is None}
        table["value"] = (
            {str(n): value for n, value in enumerate(values) if value is not None}
            if self.value_as_object
            else values
        )
        table["status"] = (
            [missing.get(str(n)) for n in range(len(values))] if self.status == [] else self.status or missing
        )


def geojson(*properties: dict[str, str]) -> dict[str, Any]:
    square = {"type": "Polygon", "coordinates": [[[1, 41], [1, 42], [2, 42], [1, 41]]]}
    features = [{"type": "Feature", "properties": one, "geometry": square} for one in properties]
    return {"type": "FeatureCollection", "features": features}


class Files:
    """A file server with ETags, as ICGC's."""

    def __init__(self) -> None:
        self.files: dict[str, Any] = {
            "/comarques.json": geojson({"CODICOMAR": "01"}, {"CODICOMAR": "02", "NOMCOMAR": "Alt Empordà"}),
            "/municipis.json": geojson({"CODIMUNI": "080018", "CODICOMAR": "41"}),
        }
        self.tags = {"/comarques.json": '"a"', "/municipis.json": '"b"'}

    def __call__(self, request: Request) -> Reply:
        tag = self.tags.get(request.path)
        if tag and request.headers.get("if-none-match") == tag:
            return Reply(status=304)
        headers = {"ETag": tag, "Last-Modified": "Tue, 20 Jan 2026 08:00:00 GMT"} if tag else {}
        return Reply(self.files[request.path], headers=headers)
