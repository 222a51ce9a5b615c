"""A session with portals: bounded retries, a limited request rate, redirects, and bodies hashed while they are stored."""

from __future__ import annotations

import codecs
import hashlib
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

from urllib3.connection import port_by_scheme
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from catalunya.address import Login, is_loopback, redacted, split_login
from catalunya.errors import SourceUnreadable
from catalunya.lake import disk
from catalunya.lake.snapshot import LandedFile
from catalunya.retries import retry_context
from catalunya.sources.egress import Egress, refusals
from catalunya.sources.rate_limit import rate_limiter
from catalunya.sources.responses import InvalidResponse, body_of, raise_for_status
from catalunya.sources.stop import Stop
from catalunya.sources.transport import RequestFailed, Response, Transport

_REDIRECTS = 5
_LONGEST_WAIT_S = 20.0
_WHOLE_BODY = 256 * 1024 * 1024
_STORED_BYTES = 1 << 30
"""The largest body that is stored, unpacked; one page of 50,000 rows has 20 MB."""
_DECODED_BYTES = 1 << 15
"""Bytes decoded at a time: text that is larger than the processor's cache takes three times as long."""

Origin = tuple[str | None, str | None, int | None]
"""Scheme, host and port of an address."""


@dataclass(frozen=True)
class Answer:
    """A complete answer: what was made of its body, and size and SHA-256 when it was stored."""

    status: int
    headers: Mapping[str, str]
    url: str
    data: Any = None
    size: int = 0
    sha256: str = ""

    def landed_file(self, name: str, rows: int, role: str | None = None) -> LandedFile:
        """Return the record of the stored body in the manifest."""
        return LandedFile(name=name, url=self.url, size=self.size, sha256=self.sha256, rows=rows, role=role)

    @property
    def unchanged(self) -> bool:
        """True for 304: the validators of the request still hold."""
        return self.status == 304

    @property
    def demo(self) -> bool:
        """True when the server says that its data are made up."""
        return str(self.headers.get("x-catalunya-demo")).lower() == "true"


class Http(AbstractContextManager["Http"]):
    """A session with portals. Every failure ends as `SourceUnreadable` that says what to do.

    Args:
        attempts: Attempts of one request.
        timeout_s: Limit of one whole response, in seconds.
        app_token: Socrata's token.
        project_url: Where a portal's staff can find out who asks; part of the user agent.
        egress: The hosts that it may call; by default the origin of each request, and no other that it redirects to.
        first_wait_s: The pause before the first retry, unless the portal names one with Retry-After.
        stopped: Once it is set, every request ends as `SourceUnreadable` at once: nobody waits for its result.
    """

    def __init__(
        self,
        *,
        attempts: int = 5,
        timeout_s: float = 300.0,
        app_token: str | None = None,
        project_url: str | None = None,
        egress: Egress | None = None,
        first_wait_s: float = 0.2,
        stopped: Stop | None = None,
    ) -> None:
        self.app_token = app_token
        self.requests = 0
        self._attempts = attempts
        self._first_wait_s = first_wait_s
        self._egress = egress or Egress()
        self._stopped = stopped or Stop()
        self._lock = threading.Lock()
        self._logins: dict[Origin, Login] = {}
        self._headers = {"User-Agent": user_agent(project_url), "Accept": "application/json"}
        self._transport = Transport(timeout_s=timeout_s, stopped=self._stopped)

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    @property
    def bytes_received(self) -> int:
        """Bytes of all bodies as they were sent."""
        return self._transport.bytes

    def sign_in(self, base_url: str) -> str:
        """Return `base_url` without the user and password in it, which requests to its origin carry from now on."""
        plain, login = split_login(base_url)
        if login is not None:
            self._logins[_origin(plain)] = login
        return plain

    def pause(self, seconds: float) -> None:
        """Wait before a whole reading is repeated; scaled like the pauses before retries."""
        time.sleep(min(seconds * self._first_wait_s / 0.2, _LONGEST_WAIT_S))

    def get(
        self,
        url: str,
        *,
        dataset: str,
        parse: Callable[[bytes], Any],
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return what `parse`, which may raise `InvalidResponse`, makes of the body of `url`."""

        def read(response: Response) -> Answer:
            data = parse(body_of(response, _WHOLE_BODY))
            return Answer(response.status, response.headers, response.url, data)

        return self._request(url, dataset, params, headers, read)

    def store(
        self,
        url: str,
        path: Path,
        *,
        dataset: str,
        parse: Callable[[Path], Any],
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        watch: Callable[[int, bytes], None] = lambda offset, chunk: None,
    ) -> Answer:
        """Store the body of `url`, which must be UTF-8, at `path`; `parse` reads it and may raise `InvalidResponse`.

        `watch` is called with the offset and the bytes of each part as it is received, in each attempt from 0 on.
        With a condition in `headers` the answer may be 304 (`unchanged`), and nothing is stored.
        """

        def read(response: Response) -> Answer:
            if response.status == 304:
                if not headers:
                    raise InvalidResponse("found status 304 for a request without a condition")
                return Answer(304, response.headers, response.url)
            digest = hashlib.sha256()
            # msgspec, which decodes the file, does not look at the text of fields that it skips.
            text = codecs.getincrementaldecoder("utf-8")()
            size = 0
            with disk.explained(path):
                file = path.open("wb", buffering=0)
            try:
                with file:
                    for chunk in response.chunks():
                        self._check_stopped(dataset)
                        watch(size, chunk)
                        size += len(chunk)
                        if size > _STORED_BYTES:
                            raise SourceUnreadable(
                                f"{dataset}: GET {redacted(response.url)}: the body is larger than {_STORED_BYTES:,} bytes, "
                                "unpacked; nothing of it was kept. Look at the address, and ask the portal."
                            )
                        digest.update(chunk)
                        with disk.explained(path):
                            disk.write_all(file, chunk)
                        for start in range(0, len(chunk), _DECODED_BYTES):
                            text.decode(chunk[start : start + _DECODED_BYTES])
                text.decode(b"", final=True)
            except UnicodeDecodeError as error:
                found = f"{error.reason}, byte {error.object[error.start]:#04x}"
                raise InvalidResponse(f"found a body that is not UTF-8 ({found})") from None
            if not size:
                raise InvalidResponse("found an empty body")
            return Answer(
                response.status, response.headers, response.url, parse(path), size, digest.hexdigest()
            )

        return self._request(url, dataset, params, headers, read)

    def _check_stopped(self, dataset: str) -> None:
        if self._stopped.is_set():
            raise SourceUnreadable(f"{dataset}: the reading was stopped.")

    def _request(
        self,
        url: str,
        dataset: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        read: Callable[[Response], Answer],
    ) -> Answer:
        """Return what `read` makes of a good response; repeat the request after `RequestFailed`."""
        try:
            target = parse_url(self.sign_in(with_parameters(url, params))).url
            origin = _origin(target)
        except (LocationParseError, UnicodeError) as error:
            raise SourceUnreadable(
                f"{dataset}: GET {redacted(url)}: {redacted(error)}; correct the address."
            ) from error
        where = f"{dataset}: GET {target}"
        sent = {
            **self._headers,
            "Accept-Encoding": "identity" if is_loopback(origin[1] or "") else "gzip",
            **(headers or {}),
        }
        if origin in self._logins:
            sent["Authorization"] = _basic(self._logins[origin])
        tries = 0
        retries = retry_context(
            on=_wait_of,
            attempts=self._attempts,
            timeout=None,
            wait_initial=self._first_wait_s,
            wait_max=_LONGEST_WAIT_S,
            wait_jitter=self._first_wait_s,
        ).with_name(where, (), {})
        try:
            for attempt in retries:
                with attempt:
                    tries += 1
                    with self._open(target, sent, dataset) as response:
                        return read(response)
        except RequestFailed as error:
            raise SourceUnreadable(f"{where}: {error}; tried {tries} times. {error.hint}") from error
        raise AssertionError("a retry loop ends by returning or raising")

    @contextmanager
    def _open(self, url: str, headers: Mapping[str, str], dataset: str) -> Iterator[Response]:
        """Give a good response (2xx or 304) after any redirects, its body unread."""
        egress = self._egress.including(url)
        for _ in range(_REDIRECTS + 1):
            self._check_stopped(dataset)
            rate_limiter(parse_url(url).host or "").wait()
            with refusals(url, dataset):
                egress.check(url)
            with self._lock:
                self.requests += 1
            with refusals(url, dataset), self._transport.get(url, headers, egress) as response:
                location = response.headers.get("location")
                if location is None or response.status not in {301, 302, 303, 307, 308}:
                    raise_for_status(response, dataset)
                    yield response
                    return
            url, headers = redirect(url, location, headers, dataset)
        raise SourceUnreadable(
            f"{dataset}: GET {redacted(url)}: more than {_REDIRECTS} redirects; "
            "check the address in the dataset definition or the base URL."
        )


def with_parameters(url: str, params: Mapping[str, str] | None) -> str:
    """Return `url` with a query as the portals' documentation writes it: `$limit` and `a,b`, not `%24limit` and `a%2Cb`."""
    return f"{url}?{urlencode(params, safe='$*(),:')}" if params else url


def _origin(url: str) -> Origin:
    parts = parse_url(url)
    return parts.scheme, parts.host, parts.port or port_by_scheme.get(parts.scheme or "")


def _basic(login: Login) -> str:
    return "Basic " + b64encode(":".join(login).encode()).decode()


def user_agent(project_url: str | None) -> str:
    """Return how requests name themselves: project, version and, where it is set, the address of who asks."""
    try:
        name = f"catalunya-data-pipeline/{version('catalunya')}"
    except PackageNotFoundError:
        name = "catalunya-data-pipeline/0"
    return f"{name} (+{project_url})" if project_url else name


def _wait_of(error: Exception) -> bool | float:
    if not isinstance(error, RequestFailed):
        return False
    return True if error.wait_s is None else error.wait_s


def redirect(
    url: str, location: str, headers: Mapping[str, str], dataset: str
) -> tuple[str, Mapping[str, str]]:
    """Return the address that `location` names and the headers for it; no secret goes to another origin."""
    where = f"{dataset}: GET {redacted(url)}: redirected"
    shown = redacted(location)
    try:
        target, login = split_login(urljoin(url, location))
        parts = parse_url(target)
        before, after = _origin(url), _origin(target)
    except ValueError as error:
        raise InvalidResponse(f"found a redirect to {shown}, which is not a valid address") from error
    if parts.scheme not in {"http", "https"} or not parts.host:
        raise SourceUnreadable(
            f"{where} to {shown}, which is no web address; check the base URL, or ask the portal."
        )
    if before[0] == "https" and after[0] != "https":
        raise SourceUnreadable(f"{where} from https to {shown}, which is not followed; check the base URL.")
    kept = dict(headers)
    if before != after:
        kept.pop("X-App-Token", None)
        if (*before, *after) != ("http", before[1], 80, "https", before[1], 443):
            kept.pop("Authorization", None)
    if login is not None:
        kept["Authorization"] = _basic(login)
    return parts.url, kept
