"""A web server of the site on loopback, for a look at it; a server in public has the same headers."""

from __future__ import annotations

from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catalunya.errors import UsageError
from catalunya.site.build import CURRENT

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
}


class _Headers:
    """Adds the headers to every answer; only assets, whose names change with their content, may be kept for long."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_asset = scope.get("path", "").startswith("/assets/")
        kept = "public, max-age=31536000, immutable" if is_asset else "no-cache"

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = {**HEADERS, "cache-control": kept}
                message["headers"] += [(name.encode(), value.encode()) for name, value in extra.items()]
            await send(message)

        await self._app(scope, receive, add)


def site_app(target: Path) -> Starlette:
    """Return the application that serves the site that `target` shows; a site built later is served from then on."""
    if not (target / CURRENT / "index.html").is_file():
        raise UsageError(f"{target} has no site; run `catalunya site build` first")
    files = StaticFiles(directory=target / CURRENT, html=True, follow_symlink=True)
    return Starlette(
        routes=[Mount("/", files)],
        middleware=[Middleware(_Headers), Middleware(GZipMiddleware, minimum_size=500)],
    )


def serve_site(target: Path, port: int) -> None:
    """Serve the site on loopback until interrupted."""
    uvicorn.run(site_app(target), host="127.0.0.1", port=port, log_level="warning")
