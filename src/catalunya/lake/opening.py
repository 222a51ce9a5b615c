"""Opens a lake by its address: the one place that knows both kinds of storage."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from catalunya.errors import UsageError
from catalunya.lake.storage import Storage


def open_lake(url: str) -> Storage:
    """Open `./folder`, `/folder`, `file:///folder` or `s3://bucket/prefix`; the first write makes the folder.

    A local lake can be read without the right to write it; whatever writes it raises `UsageError` when it cannot.

    Raises `UsageError` that names CATALUNYA_LAKE when there is no such folder and it cannot be made, or the bucket cannot be
    reached.
    """
    scheme, separator, rest = url.partition("://")
    if scheme == "s3" and separator and rest.strip("/"):
        from catalunya.lake.s3 import S3Storage

        bucket, _, prefix = rest.partition("/")
        return S3Storage(bucket, prefix.strip("/"))
    from catalunya.lake.local import LocalStorage

    if not separator and url:
        return LocalStorage(Path(url))
    if scheme == "file" and rest.startswith("/"):
        return LocalStorage(Path(unquote(rest)))
    raise UsageError(f"CATALUNYA_LAKE: {url!r} is neither a folder nor s3://bucket/prefix")
