"""Record the requests of the pipeline to S3, in a proxy, as the actions that AWS would require of a role."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote, urlsplit

from tests.lake.faulty_proxy import FaultyProxy

Action = tuple[str, str]
"""An action and its key; actions on the bucket have the key ""."""


def actions_of(method: str, path: str, body: bytes) -> list[Action]:
    """Return the actions of one request to S3, by AWS's table of the permissions that its operations need."""
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
    """A proxy of an S3 server that records the actions of each role."""

    def __init__(self, backend: str) -> None:
        self.actions: dict[str, set[Action]] = {}
        self._role = "nobody"
        self.front = FaultyProxy(backend)
        self.front.listener = self._record

    @contextmanager
    def role(self, name: str) -> Iterator[None]:
        before, self._role = self._role, name
        try:
            yield
        finally:
            self._role = before

    def _record(self, method: str, path: str, body: bytes) -> None:
        self.actions.setdefault(self._role, set()).update(actions_of(method, path, body))
