"""What the pipeline asks of S3, as the actions that AWS would look for in a role: heard by a proxy on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote, urlsplit

from tests.lake.faulty_proxy import FaultyProxy

Asked = tuple[str, str]
"""An action and the key it is done to; a bucket's own actions have the key ""."""


def asked(method: str, path: str, body: bytes) -> list[Asked]:
    """The actions of one request to S3, by AWS's table of the permissions that its operations need."""
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    _, bucket, key = [*unquote(parts.path).split("/", 2), "", ""][:3]
    if not key:
        if method == "POST" and "delete" in query:
            return [("s3:DeleteObject", found) for found in re.findall(r"<Key>(.*?)</Key>", body.decode())]
        return [("s3:ListBucket", "")] if method in {"GET", "HEAD"} else [(f"unknown {method} {bucket}", "")]
    if method in {"GET", "HEAD"}:
        return [("s3:GetObject", key)]
    if method in {"PUT", "POST"}:
        return [("s3:PutObject", key)]
    return [("s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject", key)]


class Recorder:
    """A proxy before an S3 server that keeps apart what each duty asked for."""

    def __init__(self, backend: str) -> None:
        self.heard: dict[str, set[Asked]] = {}
        self._duty = "nobody"
        self.front = FaultyProxy(backend)
        self.front.listener = self._hear

    @contextmanager
    def duty(self, name: str) -> Iterator[None]:
        before, self._duty = self._duty, name
        try:
            yield
        finally:
            self._duty = before

    def _hear(self, method: str, path: str, body: bytes) -> None:
        self.heard.setdefault(self._duty, set()).update(asked(method, path, body))
