"""urllib3 under httpx: bodies in large pieces, and an end to every response, however slowly it drips.

httpx's own transport parses HTTP/1.1 in Python and hands out 64 KiB at a time; a million rows take it
twice as long as all else together (`bench/fetch.py`). urllib3 keeps the connections; the bodies are read
by the `http.client` beneath it into one buffer, outside the interpreter's lock.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator

import httpx
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import BaseHTTPResponse, HTTPResponse

from catalunya.address import is_loopback, redacted, split_login

_PIECE = 1 << 19
_current = threading.local()


class _Deadline:
    """Cuts one exchange off when its time is over, at whatever point it is."""

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._seconds = seconds
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True

    def start(self, connected: socket.socket | None) -> None:
        self._socket = connected
        self._timer.start()

    def stop(self) -> None:
        self._timer.cancel()

    def fault(self) -> httpx.ReadTimeout:
        return httpx.ReadTimeout(f"the response was not complete after {self._seconds:g} s")

    def _expire(self) -> None:
        self.expired = True
        if self._socket is not None:
            try:
                # Not SSLSocket.shutdown: it would take the TLS state away from the reading thread.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            except OSError:
                self._socket = None


class _TimedHTTP(HTTPConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        _current.watch.start(self.sock)
        return super().getresponse()


class _TimedHTTPS(HTTPSConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        _current.watch.start(self.sock)
        return super().getresponse()


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _TimedHTTP


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TimedHTTPS


class _Body(httpx.SyncByteStream):
    def __init__(self, raw: BaseHTTPResponse, watch: _Deadline, received: Callable[[int], None]) -> None:
        self._raw = raw
        self._watch = watch
        self._received = received
        self._whole = False

    def __iter__(self) -> Iterator[bytes]:
        return (bytes(piece) for piece in self.pieces())

    def pieces(self) -> Iterator[memoryview]:
        """The body as it came, in a buffer that is filled again: a piece is good until the next."""
        # urllib3's own `read` and `readinto` copy every piece twice.
        body: http.client.HTTPResponse = self._raw._original_response  # type: ignore[attr-defined]
        buffer = memoryview(bytearray(_PIECE))
        try:
            while size := body.readinto(buffer):
                self._received(size)
                yield buffer[:size]
        except http.client.IncompleteRead as error:
            raise self._fault(httpx.RemoteProtocolError(_cut_off(error.expected))) from error
        except (http.client.HTTPException, OSError, ValueError, OverflowError) as error:
            # The last two: chunk sizes that are no sizes.
            raise self._fault(_as_httpx(error)) from error
        if self._watch.expired:
            raise self._watch.fault()
        if body.length:
            raise httpx.RemoteProtocolError(_cut_off(body.length))
        self._whole = True

    def close(self) -> None:
        self._watch.stop()
        if not self._whole:
            # What is left of the body would be taken for the next answer.
            self._raw.close()
        self._raw.release_conn()

    def _fault(self, error: httpx.TransportError) -> httpx.TransportError:
        return self._watch.fault() if self._watch.expired else error


def pieces(response: httpx.Response) -> Iterator[memoryview | bytes]:
    """The decoded body of a response of this transport; a piece is good until the next is asked for."""
    if "content-encoding" in response.headers:
        return response.iter_bytes()
    body: _Body = response.extensions["body"]
    return body.pieces()


class Transport(httpx.BaseTransport):
    """An httpx transport over urllib3; `received` is told the bytes of every piece of a body."""

    def __init__(self, *, total_s: float, received: Callable[[int], None], connections: int = 4) -> None:
        self._total_s = total_s
        self._received = received
        self._connections = connections
        self._ssl: ssl.SSLContext | None = None
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The response with its body unread; raises httpx's own exceptions."""
        limits = request.extensions.get("timeout", {})
        watch = _Deadline(self._total_s)
        _current.watch = watch
        try:
            raw = self._manager(request.url).urlopen(
                request.method,
                str(request.url),
                headers=dict(request.headers.items()),
                timeout=urllib3.Timeout(connect=limits.get("connect"), read=limits.get("read")),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            watch.stop()
            raise (watch.fault() if watch.expired else _as_httpx(error)) from error
        body = _Body(raw, watch, self._received)
        return httpx.Response(
            raw.status,
            # As bytes: a header may hold any, and httpx takes only ASCII as text. No cookie is kept: it would go
            # into the next request, and httpx takes only ASCII there too.
            headers=[
                (name.encode("latin-1"), value.encode("latin-1"))
                for name, value in raw.headers.items()
                if name.lower() != "set-cookie"
            ],
            stream=body,
            extensions={"body": body},
            request=request,
        )

    def close(self) -> None:
        """Close every connection."""
        for manager in self._managers.values():
            manager.clear()

    def _manager(self, url: httpx.URL) -> urllib3.PoolManager:
        """The pool for `url`: straight, or through the proxy that the environment names for it."""
        proxy = proxy_of(url) or ""
        with self._lock:
            if url.scheme == "https" and self._ssl is None:
                self._ssl = httpx.create_ssl_context()
            name = f"{url.scheme} {proxy}"
            if name not in self._managers:
                self._managers[name] = self._make(proxy)
            return self._managers[name]

    def _make(self, proxy: str) -> urllib3.PoolManager:
        manager = (
            _through(proxy, maxsize=self._connections, ssl_context=self._ssl)
            if proxy
            else urllib3.PoolManager(maxsize=self._connections, ssl_context=self._ssl)
        )
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager


def proxy_of(url: httpx.URL) -> str | None:
    """The proxy that the environment names for `url`, its password included; None where it goes straight.

    This machine is never asked through a proxy.
    """
    if is_loopback(url.host) or urllib.request.proxy_bypass(url.host):
        return None
    return urllib.request.getproxies().get(url.scheme) or None


def _through(proxy: str, *, maxsize: int, ssl_context: ssl.SSLContext | None) -> urllib3.ProxyManager:
    try:
        address, login = split_login(proxy if "://" in proxy else f"http://{proxy}")
        sent = urllib3.make_headers(proxy_basic_auth=":".join(login)) if login else None
        return urllib3.ProxyManager(address, maxsize=maxsize, ssl_context=ssl_context, proxy_headers=sent)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise urllib3.exceptions.ProxyError("no address of a proxy", error) from error


def _as_httpx(error: Exception) -> httpx.TransportError:
    kinds: list[tuple[type[Exception], type[httpx.TransportError]]] = [
        (urllib3.exceptions.ProxyError, httpx.ProxyError),
        (urllib3.exceptions.ConnectTimeoutError, httpx.ConnectTimeout),
        (urllib3.exceptions.ReadTimeoutError, httpx.ReadTimeout),
        (urllib3.exceptions.NewConnectionError, httpx.ConnectError),
        (urllib3.exceptions.ProtocolError, httpx.RemoteProtocolError),
        (http.client.HTTPException, httpx.RemoteProtocolError),
        (TimeoutError, httpx.ReadTimeout),
    ]
    theirs = next((theirs for ours, theirs in kinds if isinstance(error, ours)), httpx.ReadError)
    wrapped = isinstance(error, urllib3.exceptions.ProtocolError | urllib3.exceptions.ProxyError)
    cause = error.args[1] if wrapped and error.args[1:] else error
    return theirs(redacted(f"{type(cause).__name__}: {cause}"))


def _cut_off(missing: int | None) -> str:
    return f"the body was cut off {missing} bytes before its end" if missing else "the body was cut off"
