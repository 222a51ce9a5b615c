"""Responses with ETag and Last-Modified, and 304 for a client that has the version already."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from email.utils import format_datetime, parsedate_to_datetime

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

CHUNK = 1 << 20
GZIP_UP_TO = 8 << 20
JSON = "application/json; charset=utf-8"


def etag_of(*parts: object) -> str:
    """Return a weak ETag that changes with any of the parts."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=12).hexdigest()
    return f'W/"{digest}"'


def not_modified(request: Request, etag: str, modified: datetime) -> bool:
    """Tell whether the request's validators say that the client has this version (RFC 9110, 13.1)."""
    sent = request.headers.get("if-none-match")
    if sent is not None:
        return sent.strip() == "*" or etag in (part.strip() for part in sent.split(","))
    try:
        return modified.replace(microsecond=0) <= parsedate_to_datetime(request.headers["if-modified-since"])
    except (KeyError, TypeError, ValueError):
        return False


def answer(
    request: Request,
    parts: Sequence[bytes | memoryview],
    *,
    etag: str,
    modified: datetime,
    media_type: str = JSON,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the body, given in parts, with its validators, or 304; compressed on request if not very large."""
    validators = {
        "ETag": etag,
        "Last-Modified": format_datetime(modified, usegmt=True),
        "Vary": "Accept-Encoding",
        **(headers or {}),
    }
    if not_modified(request, etag, modified):
        return Response(status_code=304, headers=validators)
    size = sum(map(len, parts))
    if "gzip" in request.headers.get("accept-encoding", "") and 1_000 < size <= GZIP_UP_TO:
        parts = [gzip.compress(b"".join(parts), compresslevel=1, mtime=0)]
        size = len(parts[0])
        validators["Content-Encoding"] = "gzip"
    validators["Content-Length"] = str(size)
    return StreamingResponse(_chunks(parts), headers=validators, media_type=media_type)


async def _chunks(parts: Sequence[bytes | memoryview]) -> AsyncIterator[bytes | memoryview]:
    for part in parts:
        for start in range(0, len(part), CHUNK):
            yield part[start : start + CHUNK]
