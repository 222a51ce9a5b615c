"""A web server of the site: for a look at it on loopback, and in a container behind a proxy with TLS."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catalunya.site.build import CURRENT
from catalunya.site.headers import ASSETS, HEADERS, cache_control, content_type
from catalunya.site.notices import not_yet

_LOOK_AGAIN_S = 60
"""After so long a client may ask again for a site that is not built yet."""


class _Headers:
    """Adds the headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                is_found = message["status"] < 400
                kept = cache_control(scope.get("path", "")) if is_found else "no-cache"
                extra = {**HEADERS, "cache-control": kept}
                message["headers"] += [(name.encode(), value.encode()) for name, value in extra.items()]
            await send(message)

        await self._app(scope, receive, add)


class _SiteFiles(StaticFiles):
    """The files of the site that the link names at the moment of the request.

    Of assets also those of the site before: a page that was loaded before the swap can ask for them after it.
    """

    def __init__(self, target: Path) -> None:
        super().__init__(directory=target / CURRENT, html=True, check_dir=False)
        self._target = target

    async def check_config(self) -> None:
        """Accept a folder that has no site yet."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Return the real path of a file and what it is; the link is followed once, so that both are of one site."""
        shown = (self._target / CURRENT).resolve()
        sites = [shown]
        if path.startswith(f"{ASSETS}/"):
            sites += [site for site in self._target.glob("[0-9]*") if site != shown]
        for site in sites:
            wanted = Path(os.path.normpath(site / path))
            if wanted.is_relative_to(site):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    return str(wanted), wanted.stat()
        return "", None

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the file, a redirect to the address with a slash at its end, or the page for either error."""
        try:
            response = await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code == 404 and not (self._target / CURRENT / "index.html").is_file():
                raise HTTPException(503) from None
            raise
        if isinstance(response, RedirectResponse):
            query = scope["query_string"].decode("ascii", "ignore")
            response.headers["location"] = f"/{quote(path)}/" + (f"?{query}" if query else "")
        elif isinstance(response, FileResponse):
            response.headers["content-type"] = content_type(str(response.path))
        return response


async def _no_site(_: Request, __: Exception) -> Response:
    """Answer while no site is built; clients and search engines are told to come again."""
    return HTMLResponse(not_yet(), 503, {"retry-after": str(_LOOK_AGAIN_S)})


def site_app(target: Path) -> Starlette:
    """Return the application that serves the site that `target` shows; a site built later is served from then on."""
    return Starlette(
        routes=[Mount("/", _SiteFiles(target))],
        middleware=[Middleware(_Headers), Middleware(GZipMiddleware, minimum_size=500)],
        exception_handlers={503: _no_site},
    )


def serve_site(target: Path, listening: socket.socket) -> None:
    """Serve the site on a socket until interrupted."""
    config = uvicorn.Config(site_app(target), log_level="warning", server_header=False)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
