"""Checks of a response: its status, the message of an error, and whether its body is the expected JSON."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from catalunya.address import redacted
from catalunya.errors import SourceUnreadable
from catalunya.sources.transport import PROXY_HINT, RequestFailed, Response, proxy_of

LONGEST_RETRY_AFTER_S = 120.0
ERROR_BODY = 64 * 1024
"""Bytes of a body in which the message of an error is looked for."""
LONGEST_MESSAGE = 300
"""Characters of a portal's message that are told."""
_RETRIED = {202, 408, 425, 429}
"""Besides every 5xx; Socrata answers 202 while it prepares an answer."""

UNDECODABLE = (msgspec.DecodeError, ValueError, OverflowError, RecursionError)
"""Raised when bytes are not the expected JSON; `UnicodeDecodeError` is a `ValueError`."""
_NEW_DECODER = threading.Lock()
"""msgspec ends the process with a segmentation fault when two threads use a type for the first time at once."""


class InvalidResponse(RequestFailed):
    """The response is not what was requested."""


class Rejected(SourceUnreadable):
    """The portal refused the request, and repeating it would not help."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def decode(body: bytes | memoryview | msgspec.Raw, kind: Any = Any, expected: str = "JSON") -> Any:
    """Decode `body` as JSON of the type `kind`; raise `InvalidResponse`, which says what it is instead."""
    with _NEW_DECODER:
        decoder = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        found = portal_message(bytes(memoryview(body)[:ERROR_BODY])) or f"JSON of another form ({error})"
        raise InvalidResponse(f"found {found}, expected {expected}") from None
    except RecursionError:
        raise InvalidResponse("found JSON that is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise InvalidResponse(f"found JSON that is not UTF-8 ({error.reason})") from None
    except UNDECODABLE as error:
        start = bytes(memoryview(body)[:200]).lstrip()
        if not start:
            raise InvalidResponse("found an empty body") from None
        if start.startswith(b"<"):
            raise InvalidResponse("found a page of HTML or XML, expected JSON") from None
        raise InvalidResponse(f"found JSON that is cut off or broken ({error})") from None


def portal_message(body: bytes) -> str | None:
    """Return the message of an error body, in either of Socrata's forms or Idescat's; None for any other body."""
    try:
        data = msgspec.json.decode(body)
    except UNDECODABLE:
        return None
    if not isinstance(data, dict):
        return None
    if data.get("class") == "error":
        return f"{_short(data.get('label', 'error'))} ({_short(data.get('id', '?'))})"
    if isinstance(data.get("message"), str):
        code = data.get("code") or data.get("errorCode")
        text = _short(data["message"])
        return f"{text} ({_short(code)})" if code else text
    return None


def _short(value: Any) -> str:
    """Return what a portal says on one line of at most 300 characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE] + "…"


def raise_for_status(response: Response, dataset: str) -> None:
    """Return for 2xx and 304; raise `InvalidResponse` for a status that may pass, `Rejected` for the others."""
    status = response.status
    if status == 304 or (200 <= status < 300 and status not in _RETRIED):
        return
    where = f"{dataset}: GET {redacted(response.url)}"
    message = portal_message(body_of(response, ERROR_BODY))
    found = f"status {status}" + (f", {message}" if message else "")
    if status in _RETRIED or status >= 500:
        wait = _retry_after(response.headers.get("retry-after"))
        if wait is not None and wait > LONGEST_RETRY_AFTER_S:
            raise SourceUnreadable(
                f"{where}: {found}, to be requested again in {wait:.0f} s, more than the "
                f"{LONGEST_RETRY_AFTER_S:.0f} s that a run waits. Run again later; "
                "SOCRATA_APP_TOKEN raises Socrata's limits."
            )
        raise InvalidResponse(found, wait_s=wait)
    proxy = proxy_of(response.url)
    if status == 407 and proxy:
        raise Rejected(f"{where}: the proxy {redacted(proxy)} refused: {found}. {PROXY_HINT}", status)
    raise Rejected(f"{where}: {found}, expected 200. {_status_hint(status)}", status)


def _status_hint(status: int) -> str:
    if status in {401, 403}:
        return (
            "Check SOCRATA_APP_TOKEN, the user and password of the base URL if it needs them, and whether the "
            "dataset is still public."
        )
    if status in {404, 410}:
        return "The dataset is gone or was renamed: look for it in the portal and correct its definition, or the base URL."
    if status == 416:
        return "The request asks for more than the portal sends at once; ask for less."
    return "Compare the request with the portal's documentation and correct the dataset definition."


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After, given as seconds or as an HTTP date; None when it is neither."""
    if value is None:
        return None
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (aware - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError, TypeError, IndexError):
        # For example a zone of more than a day, or a year outside of the calendar.
        return None


def body_of(response: Response, limit: int) -> bytes:
    """Return the body, or its first `limit` bytes."""
    body = bytearray()
    for chunk in response.chunks():
        body += chunk
        if len(body) >= limit:
            break
    return bytes(body[:limit])
