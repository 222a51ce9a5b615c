"""A forwarding HTTP server that fails on demand, to test what a lake does when S3 fails."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"

_CONDITIONS = {"if-match", "if-none-match"}
NO_SUCH_UPLOAD = b"<Error><Code>NoSuchUpload</Code><Message>No such upload</Message></Error>"


class FaultyProxy:
    def __init__(self, backend: str) -> None:
        self.lake_url = ""
        self.requests: list[tuple[str, str]] = []
        self.fault: Callable[[str, str], tuple[int, bytes] | None] = lambda method, path: None
        """Method and path to an answer given instead of the real one."""
        self.gate: Callable[[str, str, Mapping[str, str], bytes], tuple[int, bytes] | None] = (
            lambda method, path, headers, body: None
        )
        """Method, path, headers and body to an answer given instead of the real one; asked after `fault`."""
        self.lose_answer: Callable[[str, str], bool] = lambda method, path: False
        """True: the request is carried out, its answer replaced by 503."""
        self.listener: Callable[[str, str, bytes], None] = lambda method, path, body: None
        """Called with every request and its body."""
        self.answered: list[int] = []
        """The bytes of each answer's body that was read to its end."""
        self.ignore_conditions = False
        """True: `If-Match` and `If-None-Match` are dropped, as by a store that does not know them."""
        self.clock_ahead_s = 0
        """How far the storage's clock differs from ours, in all its times."""
        self.passed_s = 0
        """How much later the storage says that it is; the times of objects stay."""
        self._server = _server(self, urlsplit(backend).netloc)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def throttle(self, times: int) -> None:
        """Answer the next `times` requests with 503 SlowDown."""
        left = iter(range(times))
        self.fault = lambda method, path: (503, SLOW_DOWN) if next(left, None) is not None else None

    def slow_down(self) -> None:
        self.fault = lambda method, path: (503, SLOW_DOWN)


def _later(date: str, seconds: int) -> str:
    return format_datetime(parsedate_to_datetime(date) + timedelta(seconds=seconds), usegmt=True)


def _server(proxy: FaultyProxy, backend: str) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            proxy.requests.append((self.command, self.path))
            proxy.listener(self.command, self.path, body)
            fault = proxy.fault(self.command, self.path) or proxy.gate(
                self.command, self.path, dict(self.headers), body
            )
            if fault is not None:
                self._answer(fault[0], {}, fault[1])
                return
            connection = http.client.HTTPConnection(backend, timeout=600)
            sent = dict(self.headers)
            if proxy.ignore_conditions:
                sent = {name: value for name, value in sent.items() if name.lower() not in _CONDITIONS}
            connection.request(self.command, self.path, body, sent)
            response = connection.getresponse()
            content = response.read()
            if proxy.lose_answer(self.command, self.path):
                self._answer(503, {}, SLOW_DOWN)
            else:
                self._answer(response.status, dict(response.getheaders()), content)
            connection.close()

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response_only(status)
            length = headers.get("Content-Length") or headers.get("content-length") or str(len(content))
            shifts = {"last-modified": proxy.clock_ahead_s, "date": proxy.clock_ahead_s + proxy.passed_s}
            for name, value in headers.items():
                if name.lower() in shifts:
                    self.send_header(name, _later(value, shifts[name.lower()]))
                elif name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
                proxy.answered.append(len(content))

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    return server
