"""HTTP exchanges over urllib3: connections, proxies, TLS, and a time limit for every response as a whole.

No timeout of urllib3 ends a response that arrives a few bytes at a time, so that a timer closes its socket.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, ProtocolError, ProxyError, ReadTimeoutError
from urllib3.response import BaseHTTPResponse, HTTPResponse

from catalunya.address import is_loopback, redacted, split_login
from catalunya.sources import egress
from catalunya.sources.egress import Egress
from catalunya.sources.stop import Stop

ASK_PORTAL = "Run again later; if it stays so, ask the portal."
PROXY_HINT = (
    "Correct HTTP_PROXY or HTTPS_PROXY (http:// and https:// proxies can be used), or name the portal's host in NO_PROXY "
    "if it is reached without a proxy."
)
_CHUNK = 1 << 19
_CONNECT_S = 10.0
_READ_S = 60.0
_CONNECTIONS = 4
_current = threading.local()


class RequestFailed(Exception):
    """A failure that may be temporary, so that the request is repeated; the message says what was found.

    `hint` says what to do when it stays, `wait_s` how long the portal asks to wait before the next attempt.
    """

    def __init__(self, found: str, *, hint: str = ASK_PORTAL, wait_s: float | None = None) -> None:
        super().__init__(found)
        self.hint = hint
        self.wait_s = wait_s


class _Deadline:
    """Ends one exchange after `seconds`, wherever it is, by shutting its socket down."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.expired = False
        self._is_over = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True

    def start(self, connected: socket.socket | None) -> None:
        self._socket = connected
        self._timer.start()
        if self._is_over:
            self.interrupt()

    def cancel(self) -> None:
        self._timer.cancel()

    def _expire(self) -> None:
        self.expired = True
        self.interrupt()

    def interrupt(self) -> None:
        """End the exchange now, or once it is connected."""
        self._is_over = True
        if self._socket is not None:
            try:
                # Not SSLSocket.shutdown: it would take the TLS state away from the reading thread.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            except OSError:
                self._socket = None


@contextmanager
def _checked(connection: HTTPConnection) -> Iterator[Callable[[socket.socket], socket.socket]]:
    """Look at the addresses of a host before and after the connection; a proxy is whatever the environment names."""
    host, port = connection.host, connection.port
    if connection.proxy is not None or _current.egress.may_be_private(host, port):
        yield lambda connected: connected
        return

    def check(connected: socket.socket) -> socket.socket:
        try:
            egress.require_public_peer(host, connected)
        except egress.Refused:
            connected.close()
            raise
        return connected

    egress.require_public(host, port)
    yield check


class _RawResponse(http.client.HTTPResponse):
    """Passes over every interim response (103 Early Hints); the standard library does so with 100 alone."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 101 < status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)


class _HTTPConnection(HTTPConnection):
    response_class = _RawResponse

    def _new_conn(self) -> socket.socket:
        with _checked(self) as check:
            return check(super()._new_conn())

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        _current.deadline.start(self.sock)
        return super().getresponse()


class _HTTPSConnection(HTTPSConnection):
    response_class = _RawResponse

    def _new_conn(self) -> socket.socket:
        with _checked(self) as check:
            return check(super()._new_conn())

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        _current.deadline.start(self.sock)
        return super().getresponse()


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class Response:
    """A response whose body is not read yet."""

    def __init__(self, url: str, raw: BaseHTTPResponse, deadline: _Deadline) -> None:
        self.url = url
        self.status: int = raw.status
        self.headers: Mapping[str, str] = raw.headers
        self._raw = raw
        self._deadline = deadline

    def chunks(self) -> Iterator[bytes]:
        """Yield the decompressed body; raise `RequestFailed` when it is not complete."""
        with _explained(self.url, self._deadline):
            while chunk := self._raw.read(_CHUNK):
                yield chunk


class Transport:
    """Connections to portals. Counts the bytes of bodies as sent.

    `timeout_s` is the limit of one whole response; once `stopped` is set, no exchange waits any more.
    """

    def __init__(self, *, timeout_s: float, stopped: Stop) -> None:
        self.bytes = 0
        self._stopped = stopped
        stopped.interrupts(self._interrupt)
        self._timeout_s = timeout_s
        self._timeout = urllib3.Timeout(connect=min(_CONNECT_S, timeout_s), read=min(_READ_S, timeout_s))
        self._pools: dict[tuple[str, str], urllib3.PoolManager] = {}
        self._lock = threading.Lock()
        self._exchanges: set[_Deadline] = set()

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str], allowed: Egress) -> Iterator[Response]:
        """Send one GET request and give its response, whatever its status; raise `RequestFailed`, `egress.Refused`."""
        _current.egress = allowed
        deadline = _current.deadline = _Deadline(self._timeout_s)
        raw = None
        self._exchanges.add(deadline)
        try:
            if self._stopped.is_set():
                raise RequestFailed("the reading was stopped")
            with _explained(url, deadline):
                raw = self._pool(url).urlopen(
                    "GET",
                    url,
                    headers=dict(headers),
                    timeout=self._timeout,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                )
            yield Response(url, raw, deadline)
        finally:
            deadline.cancel()
            self._exchanges.discard(deadline)
            if raw is not None:
                with self._lock:
                    self.bytes += raw.tell()
                # A connection whose body was read to its end is back in the pool already and stays open.
                raw.close()

    def _interrupt(self) -> None:
        for deadline in tuple(self._exchanges):
            deadline.interrupt()

    def close(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            pool.clear()

    def _pool(self, url: str) -> urllib3.PoolManager:
        """Return the connections for `url`: direct, or through the proxy that the environment names for it."""
        proxy = proxy_of(url) or ""
        scheme = url.partition(":")[0]
        with self._lock:
            pool = self._pools.get((scheme, proxy))
            if pool is None:
                tls = _tls_context() if scheme == "https" else None
                pool = (
                    _proxied(proxy, tls)
                    if proxy
                    else urllib3.PoolManager(ssl_context=tls, maxsize=_CONNECTIONS)
                )
                pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
                self._pools[scheme, proxy] = pool
            return pool


def _tls_context() -> ssl.SSLContext:
    """Verify certificates against SSL_CERT_FILE or SSL_CERT_DIR, else against certifi's authorities."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if folder and not file:
        return ssl.create_default_context(capath=folder)
    return ssl.create_default_context(cafile=file or certifi.where())


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for `url`, its password included; None for a direct connection.

    A portal on this machine is never requested through a proxy.
    """
    parts = urllib3.util.parse_url(url)
    host = parts.host or ""
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(parts.scheme or "") or None


def _proxied(proxy: str, tls: ssl.SSLContext | None) -> urllib3.ProxyManager:
    try:
        address, login = split_login(proxy if "://" in proxy else f"http://{proxy}")
        headers = urllib3.make_headers(proxy_basic_auth=":".join(login)) if login else None
        return urllib3.ProxyManager(address, ssl_context=tls, proxy_headers=headers, maxsize=_CONNECTIONS)
    except (HTTPError, ValueError) as error:
        raise ProxyError("invalid address of a proxy", error) from error


@contextmanager
def _explained(url: str, deadline: _Deadline) -> Iterator[None]:
    """Raise every failure of an exchange as `RequestFailed`."""
    try:
        yield
    except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        if not deadline.expired:
            raise _failure(error, url) from error
    if deadline.expired:
        late = TimeoutError(f"the response was not complete after {deadline.seconds:g} s")
        raise _failure(late, url) from late


def _failure(error: Exception, url: str) -> RequestFailed:
    wrapped = isinstance(error, ProtocolError | ProxyError)
    cause = error.args[1] if wrapped and error.args[1:] else error
    text = redacted(f"{type(cause).__name__}: {cause}")
    hint = ASK_PORTAL
    proxy = redacted(proxy_of(url) or "")
    if isinstance(cause, http.client.IncompleteRead):
        missing = f" {cause.expected} bytes before its end" if cause.expected else ""
        text = f"the body was cut off{missing}"
    elif isinstance(error, ConnectTimeoutError):
        parts = urllib3.util.parse_url(url)
        text = f"no connection ({text})"
        hint = f"Check that {parts.scheme}://{parts.netloc} is right and can be reached from here."
    elif isinstance(error, ReadTimeoutError | TimeoutError):
        text = f"timed out ({text})"
        hint = "Run again later, or raise CATALUNYA_HTTP_TIMEOUT."
    if isinstance(error, ProxyError):
        text, hint = f"the proxy {proxy} cannot be used ({text})", PROXY_HINT
    elif proxy:
        hint = f"The request went through the proxy {proxy}. {PROXY_HINT}"
    return RequestFailed(text, hint=hint)
