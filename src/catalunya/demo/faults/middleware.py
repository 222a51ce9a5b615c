"""The faults that lie in the way of the bytes: delays, refusals, bodies cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catalunya.demo.faults.switches import Fault, Faults

LogEntry = tuple[str, str, int]
MAINTENANCE = (
    "<!DOCTYPE html><html><head><title>Manteniment</title></head><body><h1>En manteniment</h1></body></html>"
)
DRIP_PIECES = 20


class FaultMiddleware:
    """Wraps the portal: logs each request, marks demo data, and applies the faults that are switched on."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        faults: Callable[[], Faults],
        log: list[LogEntry],
        demo: bool,
        cut: Callable[[tuple[str, int] | None], bool],
    ) -> None:
        self._app = app
        self._faults = faults
        self._log = log
        self._demo = demo
        self._cut = cut
        self._without_token = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        query = scope["query_string"].decode()
        asked = scope["path"] + (f"?{query}" if query else "")
        entry = len(self._log)
        self._log.append((scope["method"], asked, 0))

        async def marked_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._log[entry] = (scope["method"], asked, message["status"])
                if self._demo:
                    message["headers"] = [*message["headers"], (b"x-catalunya-demo", b"true")]
            await send(message)

        await self._answer(scope, receive, marked_send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        faults, dataset = self._faults(), dataset_of(scope["path"])
        if (slow := faults.take("slow", dataset)) is not None:
            await asyncio.sleep(1.0 if slow.number is None else slow.number)
        if faults.take("down", dataset) is not None:
            if self._cut(scope.get("client")):
                return
            await Response(status_code=503)(scope, receive, send)
            return
        refusal = self._refusal(scope, faults, dataset)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        cut = next((f for name in ("truncated", "cut_json") if (f := faults.take(name, dataset))), None)
        drip = faults.take("drip", dataset)
        if cut is None and drip is None:
            await self._app(scope, receive, send)
            return
        start, body = await self._collect(scope, receive)
        await send_spoiled(start, body, send, cut, drip)

    def _refusal(self, scope: Scope, faults: Faults, dataset: str) -> Response | None:
        if faults.take("http_429", dataset) is not None or self._throttled(scope, faults, dataset):
            body = {"code": "too_many_requests", "error": True, "message": "Too many requests"}
            return JSONResponse(body, status_code=429, headers={"Retry-After": "1"})
        if faults.take("http_500", dataset) is not None:
            body = {"code": "internal_error", "error": True, "message": "Internal error"}
            return JSONResponse(body, status_code=500)
        if faults.take("html_error", dataset) is not None:
            return HTMLResponse(MAINTENANCE)
        return None

    def _throttled(self, scope: Scope, faults: Faults, dataset: str) -> bool:
        fault = faults.find("throttled", dataset)
        if fault is None or "x-app-token" in Headers(scope=scope) or b"app_token" in scope["query_string"]:
            return False
        self._without_token += 1
        return self._without_token % max(1, int(fault.number or 3)) == 0

    async def _collect(self, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
        start: Message = {}
        body: list[bytes] = []

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                body.append(bytes(message.get("body", b"")))

        await self._app(scope, receive, keep)
        return start, b"".join(body)


async def send_spoiled(
    start: Message, body: bytes, send: Send, cut: Fault | None, drip: Fault | None
) -> None:
    """Send a response whose body is cut short, cut in the middle of its JSON, or comes in drops."""
    headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
    length = len(body)
    if cut is not None:
        compressed = any(name == b"content-encoding" for name, _ in headers)
        body = (
            body[: max(1, length * 2 // 3)]
            if not (compressed and cut.name == "cut_json")
            else b'[{"registre":"S0'
        )
        if cut.name == "cut_json":
            headers = [(name, value) for name, value in headers if name != b"content-encoding"]
            length = len(body)
    if start["status"] != 304:
        headers.append((b"content-length", str(length).encode()))
    await send({**start, "headers": headers})
    pieces = DRIP_PIECES if drip is not None else 1
    size = max(1, -(-len(body) // pieces))
    for position in range(0, len(body), size):
        await send(
            {"type": "http.response.body", "body": body[position : position + size], "more_body": True}
        )
        if drip is not None:
            await asyncio.sleep(0.02 if drip.number is None else drip.number)
    if cut is None or cut.name != "truncated":
        await send({"type": "http.response.body", "body": b""})


def dataset_of(path: str) -> str:
    """Return the dataset that an address belongs to: a Socrata id, `population` or `boundaries`."""
    parts = path.strip("/").split("/")
    if parts[0] == "resource" and len(parts) > 1:
        return parts[1].partition(".")[0]
    if parts[:2] == ["api", "views"] and len(parts) > 2:
        return parts[2].partition(".")[0]
    return {"taules": "population", "datacloud": "boundaries"}.get(parts[0], "")
