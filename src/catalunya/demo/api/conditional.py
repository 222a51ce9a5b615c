"""Responses with validators: ETag, Last-Modified, and 304 where the client has them already."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import format_datetime, parsedate_to_datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

CHUNK = 1 << 20
GZIP_UP_TO = 8 << 20


class PagesResponse(Response):
    """A response whose body is made of pieces that exist already; they are sent without being joined."""

    def __init__(
        self, pieces: Sequence[bytes | memoryview], media_type: str, headers: Mapping[str, str]
    ) -> None:
        super().__init__(media_type=media_type, headers=headers)
        self.pieces = pieces
        self.headers["content-length"] = str(sum(len(piece) for piece in pieces))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces in chunks that the connection can take."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            for piece in self.pieces:
                for start in range(0, len(piece), CHUNK):
                    body = piece[start : start + CHUNK]
                    await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def etag_of(*parts: object) -> str:
    """Return a weak ETag that changes with any of the parts."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=12).hexdigest()
    return f'W/"{digest}"'


def not_modified(request: Request, etag: str, modified: datetime) -> bool:
    """Tell whether the request's validators say that the client has this version (RFC 9110, 13.1)."""
    sent = request.headers.get("if-none-match")
    if sent is not None:
        return sent.strip() == "*" or etag in (part.strip() for part in sent.split(","))
    since = request.headers.get("if-modified-since")
    if since is None:
        return False
    try:
        return modified.replace(microsecond=0) <= parsedate_to_datetime(since)
    except (TypeError, ValueError):
        return False


def answer(
    request: Request,
    pieces: Sequence[bytes | memoryview],
    *,
    etag: str,
    modified: datetime,
    media_type: str = "application/json; charset=utf-8",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the body with its validators, or 304; compressed where asked for and not very large."""
    validators = {
        "ETag": etag,
        "Last-Modified": format_datetime(modified, usegmt=True),
        "Vary": "Accept-Encoding",
        **(headers or {}),
    }
    if not_modified(request, etag, modified):
        return Response(status_code=304, headers=validators)
    size = sum(len(piece) for piece in pieces)
    if "gzip" in request.headers.get("accept-encoding", "") and 1_000 < size <= GZIP_UP_TO:
        pieces = [gzip.compress(b"".join(pieces), compresslevel=1, mtime=0)]
        validators["Content-Encoding"] = "gzip"
    return PagesResponse(pieces, media_type, validators)
