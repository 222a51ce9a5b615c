"""The demo portal: three protocols on one address, run in a thread for tests or in the foreground for people."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
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
from catalunya.demo.data.datasets import REGISTER, PortalDataset, demo_datasets
from catalunya.demo.data.files import read_files
from catalunya.demo.data.population import PopulationTable, population_table
from catalunya.demo.data.register import EPOCH
from catalunya.demo.faults.middleware import FaultMiddleware, LogEntry
from catalunya.demo.faults.switches import Faults
from catalunya.listening import address_of, listen

START_SECONDS = 120
BOUNDARIES_MODIFIED = datetime(2024, 1, 15, 8, 0, tzinfo=UTC)


class RunningPortal:
    """A portal on its address: what it serves at present, the requests it saw, and its faults.

    `day` is the day of the generated data (default: the epoch of the register), `files` a folder of real files to
    serve instead, and `rows` makes the register that long. Raises UnknownFault, FilesIncomplete and PortTaken.
    """

    def __init__(
        self,
        host: str,
        port: int,
        day: date | None,
        faults: Sequence[str],
        files: Path | None,
        rows: int | None,
    ) -> None:
        self.faults = Faults.parse(faults)
        self.log: list[LogEntry] = []
        self._day = day or EPOCH
        self._files = read_files(files) if files is not None else None
        self._rows = rows
        self._socrata = SocrataPortal(self._datasets, self.faults)
        if rows is not None:
            self._socrata.publish(REGISTER)
        self.socket = listen(host, port, "the demo portal")
        self.url = f"http://{address_of(self.socket, host)}"
        self.server = uvicorn.Server(
            uvicorn.Config(
                self._app(),
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=1,
            )
        )

    def set_day(self, day: date) -> None:
        """Serve what the portals would have on that day; real files are served as they are."""
        self._day = day

    def set_rows(self, rows: int) -> None:
        """Serve a register of so many rows, as the argument `rows` does."""
        self._rows = rows

    def _datasets(self) -> dict[str, PortalDataset]:
        return self._files.datasets if self._files else demo_datasets(self._day, self._rows)

    def _population(self) -> PopulationTable:
        return self._files.population if self._files else population_table(self._day)

    def _app(self) -> Starlette:
        files = self._files
        idescat = IdescatPortal(self._population)
        icgc = (
            DownloadPortal(files.boundaries, files.boundaries_modified)
            if files
            else DownloadPortal(
                lambda level, scale: msgspec.json.encode(boundaries(level, scale)), BOUNDARIES_MODIFIED
            )
        )

        async def health(_: Request) -> Response:
            return JSONResponse({"status": "ok", "demo": files is None, "day": self._day.isoformat()})

        return Starlette(
            routes=[
                Route("/resource/{name}", self._socrata.resource),
                Route("/api/views/{name}/columns.json", self._socrata.columns),
                Route("/api/views/{name}", self._socrata.view),
                Route("/taules/v2", idescat.answer),
                Route("/taules/v2/{path:path}", idescat.answer),
                Route(FOLDER + "/{name}", icgc.answer),
                Route("/health", health),
            ],
            middleware=[
                Middleware(
                    FaultMiddleware,
                    faults=self.faults,
                    log=self.log,
                    demo=files is None,
                    disconnect=self._disconnect,
                )
            ],
        )

    def _disconnect(self, client: tuple[str, int] | None) -> bool:
        """Close the connection of a client without an answer; False where it is not found."""
        for connection in list(self.server.server_state.connections):
            transport = getattr(connection, "transport", None)
            if client and transport and transport.get_extra_info("peername")[:2] == tuple(client):
                transport.abort()
                return True
        return False


@contextmanager
def running(
    *, port: int = 0, day: date | None = None, files: Path | None = None, rows: int | None = None
) -> Iterator[RunningPortal]:
    """Run a portal in a thread on loopback, port 0 for any free one, and stop it at the end."""
    portal = RunningPortal("127.0.0.1", port, day, (), files, rows)
    thread = threading.Thread(target=portal.server.run, kwargs={"sockets": [portal.socket]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_SECONDS
    while not portal.server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    try:
        yield portal
    finally:
        portal.server.should_exit = portal.server.force_exit = True
        thread.join(timeout=START_SECONDS)
        portal.socket.close()


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8081,
    day: date | None = None,
    files: Path | None = None,
    faults: Sequence[str] = (),
    rows: int | None = None,
    on_listening: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until interrupted, and call `on_listening` with the URL once the socket is bound.

    Raises UnknownFault, FilesIncomplete and PortTaken before.
    """
    portal = RunningPortal(host, port, day, faults, files, rows)
    with portal.socket:
        on_listening(portal.url)
        portal.server.run(sockets=[portal.socket])
