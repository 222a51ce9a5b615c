"""The files that Athena itself writes into S3."""

from __future__ import annotations

from urllib.parse import urlsplit

import obstore
from obstore.store import S3Store


class Store:
    """S3 at an endpoint."""

    def __init__(self, endpoint: str, region: str) -> None:
        self._endpoint = endpoint
        self._region = region
        self._buckets: dict[str, S3Store] = {}

    def put(self, address: str, data: bytes) -> None:
        """Write a file at `s3://bucket/key`."""
        bucket, key = _parts(address)
        obstore.put(self._bucket(bucket), key, data)

    def anything_in(self, address: str) -> bool:
        """True when there is a file below `s3://bucket/prefix`."""
        bucket, prefix = _parts(address)
        return any(chunk for chunk in obstore.list(self._bucket(bucket), prefix.rstrip("/"), chunk_size=1))

    def _bucket(self, name: str) -> S3Store:
        if name not in self._buckets:
            self._buckets[name] = S3Store(
                name,
                endpoint=self._endpoint,
                region=self._region,
                access_key_id="test",
                secret_access_key="test",
                client_options={"allow_http": True},
                virtual_hosted_style_request=False,
            )
        return self._buckets[name]


def _parts(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return parts.netloc, parts.path.lstrip("/")
