"""A server on loopback that hears what is posted to it: alerts, lineage."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class WebhookSink:
    """Host and port of the server, and every JSON that came, in order."""

    address: str
    heard: list[dict[str, Any]] = field(default_factory=list)

    @property
    def channel(self) -> str:
        """As an address for alerts."""
        return f"json://{self.address}"


@contextmanager
def listening() -> Iterator[WebhookSink]:
    """A server of the caller's own, while the context lasts."""
    heard: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield WebhookSink(f"127.0.0.1:{server.server_port}", heard)
        finally:
            server.shutdown()
