"""The demo portal: three protocols on one address, run in a thread for tests or in front for people."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from catalunya.demo.api.icgc import FOLDER, DownloadPortal
from catalunya.demo.api.idescat import IdescatPortal
from catalunya.demo.api.socrata import SocrataPortal
from catalunya.demo.data.boundaries import boundaries
from catalunya.demo.data.datasets import REGISTER, demo_datasets
from catalunya.demo.data.files import FilesPortal, read_files
from catalunya.demo.data.population import population_table
from catalunya.demo.data.register import EPOCH
from catalunya.demo.errors import PortTaken
from catalunya.demo.faults.middleware import FaultMiddleware, LogEntry
from catalunya.demo.faults.switches import Faults

START_SECONDS = 120


class Portal:
    """What the portal serves at present. `set_day` moves it in time; `faults` may be changed at any moment."""

    def __init__(self, day: date, faults: Faults, files: Path | None, rows: int | None) -> None:
        self.faults = faults
        self.log: list[LogEntry] = []
        self.server: uvicorn.Server | None = None
        self._files: FilesPortal | None = read_files(files) if files is not None else None
        self._rows = rows
        self.set_day(day)

    @property
    def demo(self) -> bool:
        """Whether the data are generated."""
        return self._files is None

    def set_day(self, day: date) -> None:
        """Serve what the portals would have on that day; files given are served as they are."""
        self.day = day
        if self._files is not None:
            self.socrata = SocrataPortal(self._files.datasets, self.faults)
            self.idescat = IdescatPortal(self._files.population)
            self.icgc = DownloadPortal(self._files.boundaries, self._files.boundaries_modified)
            return
        self.socrata = SocrataPortal(demo_datasets(day, self._rows), self.faults)
        if self._rows is not None:
            self.socrata.show(REGISTER)
        self.idescat = IdescatPortal(population_table(day))
        self.icgc = DownloadPortal(lambda level, scale: msgspec.json.encode(boundaries(level, scale)))

    def cut(self, client: tuple[str, int] | None) -> bool:
        """Close the connection of a client without an answer; False where that is not in our hands."""
        if self.server is None or client is None:
            return False
        for connection in list(self.server.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None and transport.get_extra_info("peername")[:2] == tuple(client):
                transport.abort()
                return True
        return False


def create_app(
    *,
    day: date | None = None,
    faults: Faults | None = None,
    files: Path | None = None,
    rows: int | None = None,
) -> Starlette:
    """Return the portal as an ASGI application, as of `day` (default: the epoch of the demo data).

    `files` is a folder of real files to serve instead of generated data; `rows` makes the register that long.
    Raises FilesIncomplete.
    """
    portal = Portal(day or EPOCH, faults if faults is not None else Faults(), files, rows)

    async def resource(request: Request) -> Response:
        return await portal.socrata.resource(request)

    async def view(request: Request) -> Response:
        return await portal.socrata.view(request)

    async def columns(request: Request) -> Response:
        return await portal.socrata.columns(request)

    async def tables(request: Request) -> Response:
        return await portal.idescat.answer(request)

    async def file(request: Request) -> Response:
        return await portal.icgc.answer(request)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "demo": portal.demo, "day": portal.day.isoformat()})

    app = Starlette(
        routes=[
            Route("/resource/{name}", resource),
            Route("/api/views/{name}/columns.json", columns),
            Route("/api/views/{name}", view),
            Route("/taules/v2", tables),
            Route("/taules/v2/{path:path}", tables),
            Route(FOLDER + "/{name}", file),
            Route("/health", health),
        ],
        middleware=[
            Middleware(
                FaultMiddleware,
                faults=lambda: portal.faults,
                log=portal.log,
                demo=portal.demo,
                cut=portal.cut,
            )
        ],
    )
    app.state.portal = portal
    return app


class RunningPortal:
    """A portal that runs in a thread: its address, the requests it saw, and its faults."""

    def __init__(self, portal: Portal, url: str) -> None:
        self.portal = portal
        self.url = url

    @property
    def log(self) -> list[LogEntry]:
        """Requests seen: method, path with query, status (0 where there was no answer)."""
        return self.portal.log

    @property
    def faults(self) -> Faults:
        """The faults, to be changed while it runs."""
        return self.portal.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self.portal.faults.active = faults.active

    def set_day(self, day: date) -> None:
        """Move the portal to another day."""
        self.portal.set_day(day)


@contextmanager
def running(
    app: Starlette | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    day: date | None = None,
    faults: Faults | None = None,
    files: Path | None = None,
    rows: int | None = None,
) -> Iterator[RunningPortal]:
    """Run a portal on a thread, port 0 for any free one, and stop it at the end; raises PortTaken."""
    app = app or create_app(day=day, faults=faults, files=files, rows=rows)
    listening = _listen(host, port)
    server = _server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_SECONDS
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    try:
        yield RunningPortal(app.state.portal, f"http://{host}:{listening.getsockname()[1]}")
    finally:
        server.should_exit = server.force_exit = True
        thread.join(timeout=START_SECONDS)
        listening.close()


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8081,
    day: date | None = None,
    files: Path | None = None,
    faults: Sequence[str] = (),
    rows: int | None = None,
) -> None:
    """Serve until interrupted; raises UnknownFault, PortTaken and FilesIncomplete before it listens."""
    app = create_app(day=day, faults=Faults.parse(faults), files=files, rows=rows)
    listening = _listen(host, port)
    try:
        _server(app).run(sockets=[listening])
    finally:
        listening.close()


def _server(app: Starlette) -> uvicorn.Server:
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    app.state.portal.server = server
    return server


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise PortTaken(
            f"the demo portal cannot listen on {host}:{port} ({error.strerror}); stop what uses the port or give another"
        ) from error
    return listening
