"""Faults of the transport: delays, refused requests, closed connections, bodies that are cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catalunya.demo.faults.switches import Fault, Faults

LogEntry = tuple[str, str, int]
MAINTENANCE = (
    "<!DOCTYPE html><html><head><title>Manteniment</title></head><body><h1>En manteniment</h1></body></html>"
)
TOO_MANY = JSONResponse(
    {"code": "too_many_requests", "error": True, "message": "Too many requests"},
    status_code=429,
    headers={"Retry-After": "1"},
)
REFUSALS: dict[str, Response] = {
    "http_429": TOO_MANY,
    "http_500": JSONResponse(
        {"code": "internal_error", "error": True, "message": "Internal error"}, status_code=500
    ),
    "html_error": HTMLResponse(MAINTENANCE),
}
DRIP_PARTS = 20


class FaultMiddleware:
    """Wraps the portal: logs each request, marks demo data, and applies the faults that are switched on.

    `disconnect` closes the connection of a client and returns whether it could.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        faults: Faults,
        log: list[LogEntry],
        demo: bool,
        disconnect: Callable[[tuple[str, int] | None], bool],
    ) -> None:
        self._app = app
        self._faults = faults
        self._log = log
        self._demo = demo
        self._disconnect = disconnect
        self._without_token = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        query = scope["query_string"].decode()
        asked = scope["path"] + (f"?{query}" if query else "")
        entry = len(self._log)
        self._log.append((scope["method"], asked, 0))

        async def logged_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._log[entry] = (scope["method"], asked, message["status"])
                if self._demo:
                    MutableHeaders(scope=message)["x-catalunya-demo"] = "true"
            await send(message)

        await self._answer(scope, receive, logged_send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        dataset = dataset_of(scope["path"])
        if slow := self._faults.take("slow", dataset):
            await asyncio.sleep(slow.number(1.0))
        if self._faults.take("down", dataset):
            if not self._disconnect(scope.get("client")):
                await Response(status_code=503)(scope, receive, send)
            return
        for name, refusal in REFUSALS.items():
            if self._faults.take(name, dataset):
                await refusal(scope, receive, send)
                return
        if self._is_throttled(scope, dataset):
            await TOO_MANY(scope, receive, send)
            return
        cut = self._faults.take("truncated", dataset) or self._faults.take("cut_json", dataset)
        drip = self._faults.take("drip", dataset)
        if cut or drip:
            await self._send_damaged(scope, receive, send, cut, drip)
        else:
            await self._app(scope, receive, send)

    def _is_throttled(self, scope: Scope, dataset: str) -> bool:
        fault = self._faults.find("throttled", dataset)
        if fault is None or "x-app-token" in Headers(scope=scope) or b"app_token" in scope["query_string"]:
            return False
        self._without_token += 1
        return self._without_token % max(1, int(fault.number(3))) == 0

    async def _send_damaged(
        self, scope: Scope, receive: Receive, send: Send, cut: Fault | None, drip: Fault | None
    ) -> None:
        """Answer without compression; the body ends early, is cut in the middle of its JSON, or comes slowly."""
        kept = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        start: Message = {}
        body = bytearray()

        async def collect(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                body.extend(message.get("body", b""))

        await self._app({**scope, "headers": kept}, receive, collect)
        sent = bytes(body[: max(1, len(body) * 2 // 3)]) if cut else bytes(body)
        if cut and cut.name == "cut_json":
            MutableHeaders(scope=start)["content-length"] = str(len(sent))
        await send(start)
        size = max(1, -(-len(sent) // DRIP_PARTS)) if drip else max(1, len(sent))
        for position in range(0, len(sent), size):
            part = sent[position : position + size]
            await send({"type": "http.response.body", "body": part, "more_body": True})
            if drip:
                await asyncio.sleep(drip.number(0.02))
        if not cut or cut.name != "truncated":
            await send({"type": "http.response.body", "body": b""})


def dataset_of(path: str) -> str:
    """Return the dataset of an address: a Socrata id, `population`, `boundaries`, or nothing."""
    parts = [*path.strip("/").split("/"), "", ""]
    if parts[0] == "resource":
        return parts[1].partition(".")[0]
    if parts[:2] == ["api", "views"]:
        return parts[2].partition(".")[0]
    return {"taules": "population", "datacloud": "boundaries"}.get(parts[0], "")
