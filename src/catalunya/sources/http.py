"""One polite way to ask a portal: timeouts, bounded retries, conditional requests, hashing to disk."""

from __future__ import annotations

import codecs
import hashlib
import re
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from errno import EIO
from importlib.metadata import PackageNotFoundError, version
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import httpx
import msgspec
import stamina

from catalunya.address import Login, is_loopback, redacted, split_login
from catalunya.errors import SourceUnreadable
from catalunya.lake import disk
from catalunya.sources.transport import Transport, pieces, proxy_of

PROJECT_URL = "https://github.com/catalunya-data-pipeline/catalunya-data-pipeline"
"""Where a portal's staff can find out who asks; part of the user agent."""

LONGEST_RETRY_AFTER_S = 120.0
_CONNECT_S = 10.0
_READ_S = 60.0
_REDIRECTS = 5
_ERROR_BODY = 64 * 1024
_SMALL_PIECE = 1 << 16
_WHOLE_BODY = 256 * 1024 * 1024
_RETRIED = {202, 408, 425, 429}
"""Beside these every 5xx; Socrata answers 202 while it prepares an answer."""


class InvalidResponse(Exception):
    """The answer is not what was asked for; it is asked again. The message says what was found."""

    def __init__(self, found: str, *, wait_s: float | None = None) -> None:
        super().__init__(found)
        self.wait_s = wait_s


UNDECODABLE = (msgspec.DecodeError, ValueError, OverflowError, RecursionError)
"""What decoding bytes that are not the JSON expected may raise; `UnicodeDecodeError` is a `ValueError`."""


class Rejected(SourceUnreadable):
    """The portal refused the request, and asking again would not help."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """A complete answer: `data` when it was read as JSON, size and SHA-256 when it was stored."""

    status: int
    headers: httpx.Headers
    url: str
    data: Any = None
    size: int = 0
    sha256: str = ""

    @property
    def unchanged(self) -> bool:
        """True for 304: what is known still holds."""
        return self.status == 304

    @property
    def demo(self) -> bool:
        """True when the server says that its data are made up."""
        return str(self.headers.get("x-catalunya-demo")).lower() == "true"


class Http:
    """A session with portals. Every failure ends as `SourceUnreadable` that says what to do.

    `attempts` and `timeout_s` are tries of one request and seconds for one whole response; `rate` is
    requests per second after the first `burst`, not applied to this machine; `first_wait_s` and
    `longest_wait_s` bound the pause before a retry, unless the portal names one with Retry-After.
    """

    def __init__(
        self,
        *,
        attempts: int = 5,
        timeout_s: float = 300.0,
        app_token: str | None = None,
        contact: str = PROJECT_URL,
        rate: float = 4.0,
        burst: int = 8,
        first_wait_s: float = 0.2,
        longest_wait_s: float = 20.0,
    ) -> None:
        self.app_token = app_token
        self.requests = 0
        self.bytes = 0
        self._attempts = attempts
        self._first_wait_s = first_wait_s
        self._longest_wait_s = longest_wait_s
        self._bucket = _RateLimiter(rate, burst)
        self._lock = threading.Lock()
        self._logins: dict[tuple[str, str, int | None], Login] = {}
        self._client = httpx.Client(
            transport=Transport(total_s=timeout_s, received=self._received),
            timeout=httpx.Timeout(min(_READ_S, timeout_s), connect=min(_CONNECT_S, timeout_s)),
            headers={"User-Agent": user_agent(contact), "Accept": "application/json"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def sign_in(self, base_url: str) -> str:
        """`base_url` without the user and password that it may name; requests to its host carry them from now on."""
        plain, login = split_login(base_url)
        if login is not None:
            self._logins[_origin(httpx.URL(plain))] = login
        return plain

    def pause(self, seconds: float) -> None:
        """Wait before something larger than a request is tried again; scaled like the retries."""
        time.sleep(min(seconds * self._first_wait_s / 0.2, self._longest_wait_s))

    def json(
        self,
        url: str,
        *,
        dataset: str,
        expect: type[Any],
        check: Callable[[Any], object] | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The JSON of `url`, of the type `expect` (dict or list), that `check` did not call `InvalidResponse`."""

        def read(response: httpx.Response) -> Answer:
            body = _body(response, _WHOLE_BODY)
            data = decode(body)
            if not isinstance(data, expect):
                raise InvalidResponse(
                    f"found {_shape(data)} where a JSON {_NAMES[expect]} is due{_said(body)}"
                )
            if check is not None:
                check(data)
            return Answer(response.status_code, response.headers, _address(response), data, len(body))

        return self._ask(url, dataset, params, headers, read)

    def store(
        self,
        url: str,
        path: Path,
        *,
        dataset: str,
        begin: Callable[[], Callable[[memoryview | bytes], None]] | None = None,
        check: Callable[[Path], object] | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The body of `url` stored at `path`, hashed on the way, that `check` did not call `InvalidResponse`.

        `begin` is called at each try; what it returns is handed the body in pieces, good until the next.
        A body that is not UTF-8 throughout is `InvalidResponse`.

        With a condition in `headers` the answer may be 304 (`unchanged`), and nothing is stored.
        """

        def read(response: httpx.Response) -> Answer:
            if response.status_code == 304:
                if not headers:
                    raise InvalidResponse("found status 304 for a request without a condition")
                return Answer(304, response.headers, _address(response))
            digest = hashlib.sha256()
            size = 0
            text = _Utf8()
            feed = begin() if begin else None
            with disk.explained(path):
                file = path.open("wb", buffering=0)
            with file:
                for piece in pieces(response):
                    digest.update(piece)
                    with disk.explained(path):
                        _write(file, piece)
                    text.feed(piece)
                    size += len(piece)
                    if feed is not None:
                        feed(piece)
            text.finish()
            if not size:
                raise InvalidResponse("found an empty body")
            if check is not None:
                check(path)
            return Answer(
                response.status_code,
                response.headers,
                _address(response),
                size=size,
                sha256=digest.hexdigest(),
            )

        return self._ask(url, dataset, params, headers, read)

    def _ask(
        self,
        url: str,
        dataset: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        read: Callable[[httpx.Response], Answer],
    ) -> Answer:
        # As the portals' documentation writes them, not `%24limit` and `%2C`.
        try:
            target = httpx.URL(self.sign_in(f"{url}?{urlencode(params, safe='$*(),:')}" if params else url))
        except (httpx.InvalidURL, UnicodeError) as error:
            raise SourceUnreadable(
                f"{dataset}: GET {redacted(url)}: {error}; correct the address."
            ) from error
        where = f"{dataset}: GET {target}"
        sent = {"Accept-Encoding": "identity" if is_loopback(target.host) else "gzip", **(headers or {})}
        tries = 0
        retries = stamina.retry_context(
            on=_backoff,
            attempts=self._attempts,
            timeout=None,
            wait_initial=self._first_wait_s,
            wait_max=self._longest_wait_s,
            wait_jitter=self._first_wait_s,
        ).with_name(where, (), {})
        try:
            for attempt in retries:
                with attempt:
                    tries += 1
                    with self._open(target, sent, dataset) as response:
                        return read(response)
        except (InvalidResponse, httpx.TransportError, httpx.DecodingError) as error:
            raise SourceUnreadable(
                f"{where}: {_explain(error, target)}; tried {tries} times. {_advice(error, target)}"
            ) from error
        except httpx.InvalidURL as error:
            raise SourceUnreadable(f"{where}: {redacted(error)}; correct the address.") from error
        raise AssertionError("a retry loop ends by returning or raising")

    @contextmanager
    def _open(self, url: httpx.URL, headers: Mapping[str, str], dataset: str) -> Iterator[httpx.Response]:
        """A good response (2xx, or 304), its body unread, after any redirects."""
        login = self._logins.get(_origin(url))
        if login is not None:
            headers = {**headers, "Authorization": _basic(login)}
        request = self._client.build_request("GET", url, headers=dict(headers))
        for _ in range(_REDIRECTS + 1):
            self._bucket.take(request.url.host)
            with self._lock:
                self.requests += 1
            response = self._client.send(request, stream=True)
            try:
                if response.next_request is None:
                    _judge(response, dataset)
                    yield response
                    return
                request = _follow(request, response.next_request, dataset)
            finally:
                response.close()
        raise SourceUnreadable(
            f"{dataset}: GET {url}: more than {_REDIRECTS} redirects, the last to {redacted(request.url)}; "
            "check the address in the dataset definition or the base URL."
        )

    def _received(self, size: int) -> None:
        with self._lock:
            self.bytes += size


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _basic(login: Login) -> str:
    return "Basic " + b64encode(":".join(login).encode()).decode()


def _address(response: httpx.Response) -> str:
    return redacted(response.request.url)


def _write(file: RawIOBase, piece: memoryview | bytes) -> None:
    """Write all of `piece`: a file without a buffer may take less than it is given."""
    rest = memoryview(piece)
    while rest:
        taken = file.write(rest)
        if not taken:
            raise OSError(EIO, f"{taken} of {len(rest)} bytes were written")
        rest = rest[taken:]


class _Utf8:
    """Checks that bytes that come in pieces are UTF-8; `InvalidResponse` when they are not."""

    def __init__(self) -> None:
        self._left = b""

    def feed(self, piece: memoryview | bytes) -> None:
        """Take the next piece."""
        if len(piece) <= _SMALL_PIECE:
            self._take(bytes(piece), final=False)
        elif self._left or not _is_of_short_characters(piece):
            self._take(_beyond_ascii(piece), final=False)

    def finish(self) -> None:
        """Take the end, where no character may be cut off."""
        self._take(b"", final=True)

    def _take(self, piece: bytes, *, final: bool) -> None:
        piece = self._left + piece
        try:
            _, used = codecs.utf_8_decode(piece, "strict", final)
        except UnicodeDecodeError as error:
            raise InvalidResponse(
                f"found a body that is not UTF-8 ({error.reason}, byte {piece[error.start]:#04x})"
            ) from None
        self._left = piece[used:]


def _is_of_short_characters(piece: memoryview | bytes) -> bool:
    """Whether all of `piece` is ASCII and whole characters of two bytes, as nearly all Catalan text is; the fast check."""
    import numpy as np

    body = np.frombuffer(piece, dtype=np.uint8)
    highest = body.max()
    if highest < 0x80:
        return True
    if highest >= 0xE0:
        return False
    # First bytes of characters of two, 0xC2 to 0xDF, become 0x02 to 0x1F; 0xC0 and 0xC1, which none begins with, 0 and 1.
    shifted = body + np.uint8(0x40)
    if shifted.min() < 2:
        return False
    # As numbers, which NumPy compares many times as fast as booleans; copies of this size cost more than all else.
    begins = (shifted < 0x20).view(np.uint8)
    goes_on = (shifted >= 0xC0).view(np.uint8)
    return not goes_on[0] and not begins[-1] and not np.bitwise_xor(goes_on[1:], begins[:-1]).max()


def _beyond_ascii(piece: memoryview | bytes) -> bytes:
    """`piece` with one space for each run of ASCII: UTF-8 exactly when all of it is, and far less to decode."""
    # NumPy takes 0.15 s to import, and most runs store nothing.
    import numpy as np

    body = np.frombuffer(piece, dtype=np.int8)
    at = np.flatnonzero(body < 0)
    if not len(at):
        return b" "
    ends = np.append(at[1:] != at[:-1] + 1, at[-1] + 1 != len(body))
    places = np.arange(len(at)) + np.cumsum(ends) - ends + int(at[0] > 0)
    kept = np.full(places[-1] + 1 + int(ends[-1]), ord(" "), dtype=np.int8)
    kept[places] = body[at]
    return kept.tobytes()


class _RateLimiter:
    """Lets `burst` requests through at once, then `rate` a second."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._left = float(burst)
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def take(self, host: str) -> None:
        if is_loopback(host):
            return
        with self._lock:
            now = time.monotonic()
            self._left = min(self._burst, self._left + (now - self._at) * self._rate) - 1
            self._at = now
            wait = max(0.0, -self._left / self._rate)
        if wait:
            time.sleep(wait)


def user_agent(contact: str = PROJECT_URL) -> str:
    """How requests name themselves: project, version and where to complain."""
    try:
        return f"catalunya-data-pipeline/{version('catalunya')} (+{contact})"
    except PackageNotFoundError:
        return f"catalunya-data-pipeline/0 (+{contact})"


def portal_message(body: bytes) -> str | None:
    """What a portal's error body says, in either of Socrata's shapes or Idescat's; None when it is none."""
    try:
        data = msgspec.json.decode(body)
    except UNDECODABLE:
        return None
    if not isinstance(data, dict):
        return None
    if data.get("class") == "error":
        return f"{data.get('label', 'error')} ({data.get('id', '?')})"
    if isinstance(data.get("message"), str):
        code = data.get("code") or data.get("errorCode")
        text = " ".join(data["message"].split())
        text = text if len(text) <= 300 else text[:300] + "…"
        return f"{text} ({code})" if code else text
    return None


_NAMES: dict[type[Any], str] = {dict: "object", list: "list"}


def _backoff(error: Exception) -> bool | float:
    if isinstance(error, InvalidResponse):
        return True if error.wait_s is None else error.wait_s
    if isinstance(error, httpx.UnsupportedProtocol):
        return False
    return isinstance(error, httpx.TransportError | httpx.DecodingError)


def _judge(response: httpx.Response, dataset: str) -> None:
    """Nothing for 2xx and 304; `InvalidResponse` for what may pass; `Rejected` for what will not."""
    status = response.status_code
    if status == 304 or (200 <= status < 300 and status not in _RETRIED):
        return
    where = f"GET {_address(response)}"
    said = portal_message(_body(response, _ERROR_BODY))
    found = f"status {status}" + (f", {said}" if said else "")
    if status in _RETRIED or status >= 500:
        wait = _retry_after(response.headers.get("retry-after"))
        if wait is not None and wait > LONGEST_RETRY_AFTER_S:
            raise SourceUnreadable(
                f"{dataset}: {where}: {found}, to be asked again in {wait:.0f} s, more than the "
                f"{LONGEST_RETRY_AFTER_S:.0f} s that a run waits. Run again later; "
                "SOCRATA_APP_TOKEN raises Socrata's limits."
            )
        raise InvalidResponse(found, wait_s=wait)
    proxy = proxy_of(response.request.url)
    if status == 407 and proxy:
        raise Rejected(
            f"{dataset}: {where}: the proxy {redacted(proxy)} refused: {found}. {_PROXY_REMEDY}", status
        )
    raise Rejected(f"{dataset}: {where}: {found}, expected 200. {_remedy(status)}", status)


def _remedy(status: int) -> str:
    if status in {401, 403}:
        return (
            "Check SOCRATA_APP_TOKEN, the user and password of the base URL if it needs them, and whether the "
            "dataset is still public."
        )
    if status in {404, 410}:
        return "The dataset is gone or was renamed: look for it in the portal and correct its definition, or the base URL."
    if status == 416:
        return "More was asked than the portal gives at once; ask for less."
    return "Compare the request with the portal's documentation and correct the dataset definition."


def _follow(request: httpx.Request, onward: httpx.Request, dataset: str) -> httpx.Request:
    """The redirected request, without the token when it leaves the host."""
    before, after = request.url, onward.url
    if after.scheme not in {"http", "https"} or not after.host:
        raise SourceUnreadable(
            f"{dataset}: GET {redacted(before)}: redirected to {redacted(after)}, which is no web address; "
            "check the base URL, or ask the portal."
        )
    if before.scheme == "https" and after.scheme != "https":
        raise SourceUnreadable(
            f"{dataset}: GET {redacted(before)}: redirected from https to {redacted(after)}, which is not followed; "
            "check the base URL."
        )
    if (before.scheme, before.host, before.port) != (after.scheme, after.host, after.port):
        onward.headers.pop("X-App-Token", None)
    return onward


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After asks for, given as seconds or as an HTTP date; None when it is neither."""
    if value is None:
        return None
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (aware - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError, TypeError, IndexError):
        # A zone of more than a day, a year of no calendar, and what else the parser stumbles over.
        return None


def _body(response: httpx.Response, limit: int) -> bytes:
    """The body, whole or its first `limit` bytes."""
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) >= limit:
            break
    return bytes(body[:limit])


def decode(body: bytes | msgspec.Raw, kind: Any = Any) -> Any:
    """`body` decoded as JSON of the type `kind`; `InvalidResponse`, which says what it is instead, when it is none."""
    try:
        return msgspec.json.decode(body, type=kind)
    except UNDECODABLE as error:
        raise InvalidResponse(not_json(bytes(memoryview(body)[:200]), error)) from None


def not_json(start: bytes, error: Exception) -> str:
    """What a body that is not JSON is, from its first bytes."""
    if isinstance(error, RecursionError):
        return "found JSON that is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"found JSON that is not UTF-8 ({error.reason})"
    text = start[:200].lstrip().lower()
    if not text:
        return "found an empty body"
    if text.startswith(b"<"):
        return "found a page of HTML or XML where JSON is due"
    return f"found JSON that is cut off or broken ({error})"


def _shape(data: object) -> str:
    return f"a JSON {_NAMES.get(type(data), type(data).__name__)}"


def _said(body: bytes) -> str:
    message = portal_message(body[:_ERROR_BODY])
    return f": {message}" if message else ""


_PROXY_REMEDY = (
    "Correct HTTP_PROXY or HTTPS_PROXY (http:// and https:// proxies can be used), or name the portal's host in NO_PROXY "
    "if it is reached without a proxy."
)


def _explain(error: Exception, url: httpx.URL) -> str:
    text = redacted(error).strip() or type(error).__name__
    proxy = proxy_of(url)
    if isinstance(error, httpx.ProxyError):
        return f"the proxy {redacted(proxy or '')} cannot be used ({text})"
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return f"no connection ({text})"
    if isinstance(error, httpx.TimeoutException):
        return f"timed out ({text})"
    return text


def _advice(error: Exception, url: httpx.URL) -> str:
    proxy = proxy_of(url)
    if isinstance(error, httpx.ProxyError):
        return _PROXY_REMEDY
    if proxy and isinstance(error, httpx.TransportError):
        return f"The request went through the proxy {redacted(proxy)}. {_PROXY_REMEDY}"
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return f"Check that {url.scheme}://{url.netloc.decode()} is right and can be reached from here."
    if isinstance(error, httpx.TimeoutException):
        return "Run again later, or raise CATALUNYA_HTTP_TIMEOUT."
    return "Run again later; if it stays so, ask the portal."
