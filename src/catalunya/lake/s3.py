"""A lake in an S3 bucket, by obstore. Settings are the standard AWS variables."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import obstore
from obstore import exceptions as s3_errors
from typing_extensions import override

from catalunya import settings
from catalunya.errors import CatalunyaError, UsageError
from catalunya.lake import s3_client
from catalunya.lake.disk import explained, write_all
from catalunya.lake.scratch import private_base
from catalunya.lake.storage import (
    INVALID_NAME,
    Conflict,
    Entries,
    Entry,
    MissingKey,
    Names,
    Storage,
    Version,
    check_key,
    deletable,
    folder_key,
    is_key,
)
from catalunya.retries import RetryingCaller

if TYPE_CHECKING:
    from obstore import ListResult, ObjectMeta, PutMode

T = TypeVar("T")

CONTENTION_TIMEOUT_S = 60.0
"""How long a write is tried again that another request is in the way of."""
_PART_BYTES = 16 * 1024 * 1024
_PARTS_AT_ONCE = 4
_MOST_PARTS = 9_000
"""S3 allows 10,000 parts in one upload."""
_DELETED_AT_ONCE = 1_000
"""S3 deletes so many objects with one request."""
_PROBE = "locks/probe.json"


class S3Storage(Storage):
    """A lake in an S3 bucket, or in any store that speaks S3 with conditional puts.

    Settings are the standard AWS variables. Requests are retried for at most a minute.
    """

    is_local = False

    def __init__(self, bucket: str, prefix: str) -> None:
        super().__init__()
        settings.spare_loopback()
        if prefix and not is_key(prefix):
            raise UsageError(f"CATALUNYA_LAKE: {prefix!r} cannot be a prefix: use plain names joined by '/'")
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self.bucket = bucket
        self.endpoint = s3_client.endpoint()
        self.region = settings.aws_region() or settings.AWS_REGION
        self._scratch_base = private_base()
        connect = partial(s3_client.connect, bucket, prefix, self.region, self.endpoint)
        self._store = connect(retries=8)
        self._prefix = f"{prefix}/" if prefix else ""
        try:
            obstore.list_with_delimiter(connect(retries=3), "locks")
        except s3_errors.BaseError as error:
            where = f" at {self.endpoint}" if self.endpoint else f" in region {self.region}"
            raise UsageError(
                f"CATALUNYA_LAKE: the bucket of {self.url} cannot be reached{where}: {s3_client.first_line(error)}; "
                "check its name, AWS_REGION, AWS_ENDPOINT_URL and the credentials (they need s3:ListBucket)"
            ) from None
        self._conditions_hold = self.endpoint is None
        """AWS itself honours conditions; any other store is probed before the first write that needs them."""

    @override
    def read_versioned(self, key: str) -> tuple[bytes, Version] | None:
        try:
            with self._explained(key):
                found = obstore.get(self._store, key)
                return bytes(found.bytes()), Version(found.meta["e_tag"] or "")
        except MissingKey:
            return None

    @override
    def exists(self, key: str) -> bool:
        try:
            with self._explained(key):
                obstore.head(self._store, key)
        except MissingKey:
            return False
        return True

    @override
    def list(self, prefix: str = "", *, after: str = "") -> Entries:
        folder = folder_key(prefix)
        start = f"{folder}/" if folder else ""
        offset = f"{start}{after}" if after else None
        with s3_client.explained(f"{self.url}/{folder}"):
            chunks = obstore.list(self._store, folder or None, offset=offset)
            sizes = {meta["path"]: meta["size"] for chunk in chunks for meta in chunk}
        # The storage's own order is that of whole keys: what lies in a folder of just this name comes too.
        return sorted(
            Entry(key, sizes[key])
            for key in self._valid(sizes)
            if key.removeprefix(start).split("/", 1)[0] > after
        )

    @override
    def folders(self, prefix: str = "", *, after: str = "") -> Names:
        if after:
            start = len(folder_key(prefix) + "/") if prefix else 0
            parts = [entry.key[start:].split("/", 1) for entry in self.list(prefix, after=after)]
            return sorted({name for name, *rest in parts if rest})
        keys = [key.rstrip("/") for key in self._children(prefix)["common_prefixes"]]
        return sorted(key.rsplit("/", 1)[-1] for key in self._valid(keys))

    @override
    def files(self, prefix: str = "") -> Names:
        return sorted(meta["path"].rsplit("/", 1)[-1] for meta in self._children(prefix)["objects"])

    def _children(self, prefix: str) -> ListResult[Sequence[ObjectMeta]]:
        folder = folder_key(prefix)
        with s3_client.explained(f"{self.url}/{folder}"):
            return obstore.list_with_delimiter(self._store, folder or None)

    def _valid(self, keys: Collection[str]) -> Names:
        self.ignore((key for key in keys if not is_key(key)), INVALID_NAME)
        return [key for key in keys if is_key(key)]

    @override
    def _overwrite(self, key: str, data: bytes) -> None:
        with self._explained(key):
            self._send(lambda: obstore.put(self._store, key, data, use_multipart=False))

    @override
    def replace(self, key: str, data: bytes, expected: Version | None) -> Version:
        check_key(key)
        self._require_conditional_writes()
        writer = uuid.uuid4().hex
        try:
            return self._put_if(key, data, {"e_tag": expected} if expected else "create", writer)
        except (Conflict, MissingKey):
            return self._own_write(key, writer)

    @override
    def put_file(self, key: str, path: Path) -> None:
        with explained(path):
            size = path.stat().st_size
        part_bytes = max(_PART_BYTES, -(-size // _MOST_PARTS))
        writer = uuid.uuid4().hex
        try:
            with self._explained(key):
                self._send(
                    lambda: obstore.put(
                        self._store,
                        key,
                        path,
                        attributes={"writer": writer},
                        chunk_size=part_bytes,
                        max_concurrency=_PARTS_AT_ONCE,
                    )
                )
        except MissingKey:
            self._own_write(key, writer)
        with self._explained(key):
            stored = obstore.head(self._store, key)["size"]
        if stored != size:
            raise CatalunyaError(f"{self.uri(key)}: {stored} bytes were stored of {size}; run again")
        path.unlink()

    @override
    def copy(self, source: str, target: str) -> None:
        check_key(source), check_key(target)
        with self._explained(source):
            self._send(lambda: obstore.copy(self._store, source, target))

    @override
    def fetch(self, key: str, folder: Path) -> Path:
        target = folder / check_key(key).rsplit("/", 1)[-1]
        unfinished = folder / f".{target.name}.{uuid.uuid4().hex}"
        try:
            with explained(target):
                folder.mkdir(parents=True, exist_ok=True)
                with unfinished.open("xb") as file, self._explained(key):
                    self._download(key, file)
                unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
        return target

    @override
    def read_tail(self, key: str, count: int) -> tuple[int, bytes]:
        with self._explained(key):
            try:
                found = obstore.get(self._store, key, options={"range": {"suffix": count}})
                return int(found.meta["size"]), bytes(found.bytes())
            except s3_errors.BaseError:
                # An empty object has no last bytes: S3 answers 416.
                if obstore.head(self._store, key)["size"]:
                    raise
                return 0, b""

    @override
    def stored_sha256(self, key: str) -> str | None:
        if self._head_client is None:
            return None
        full_key = f"{self._prefix}{check_key(key)}"
        return s3_client.stored_sha256(self._head_client, self.bucket, full_key, self.uri(key))

    @cached_property
    def _head_client(self) -> Any:
        return s3_client.head_client(self.region, self.endpoint)

    @override
    def delete(self, key: str) -> None:
        with contextlib.suppress(MissingKey), self._explained(key):
            self._send(lambda: obstore.delete(self._store, key))

    @override
    def delete_folder(self, prefix: str) -> None:
        folder = deletable(prefix)
        keys = [entry.key for entry in self.list(folder)]
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            batch = keys[start : start + _DELETED_AT_ONCE]
            with self._explained(folder):
                self._send(partial(obstore.delete, self._store, batch))

    def age_s(self, key: str) -> float | None:
        """Seconds since `key` was last written, by the storage's own clock; None when it is not there.

        Both times, `Last-Modified` and `Date`, come from one response, so no other clock matters. Whole
        seconds.
        """
        found = s3_client.headers(self._store, check_key(key), self.uri(key))
        if found is None:
            return None
        now = parsedate_to_datetime(found["date"]) if "date" in found else datetime.now(UTC)
        return (now - parsedate_to_datetime(found["last-modified"])).total_seconds()

    def _send(self, request: Callable[[], T]) -> T:
        """Send a write again for as long as the store says that another request is in the way (status 409).

        Each attempt comes right after a check that the lock is still held, where the lake is guarded.
        """

        def guarded() -> T:
            self._guard()
            return request()

        retrying = RetryingCaller(
            attempts=None, timeout=CONTENTION_TIMEOUT_S, wait_initial=0.1, wait_max=5, wait_jitter=0.1
        )
        return retrying(s3_client.is_contention, guarded)

    def _put_if(self, key: str, data: bytes, mode: PutMode, writer: str) -> Version:
        with self._explained(key):
            done = self._send(
                lambda: obstore.put(
                    self._store, key, data, mode=mode, attributes={"writer": writer}, use_multipart=False
                )
            )
        return Version(done["e_tag"] or "")

    def _own_write(self, key: str, writer: str) -> Version:
        """The version this very write left behind when only its answer was lost and the retry failed."""
        with contextlib.suppress(MissingKey), self._explained(key):
            found = obstore.get(self._store, key)
            if found.attributes.get("writer") == writer:
                return Version(found.meta["e_tag"] or "")
        raise Conflict(f"{self.uri(key)} was changed by somebody else meanwhile; it was left as it is now")

    def _require_conditional_writes(self) -> None:
        """Probe a store, once per lake and endpoint, for conditional writes: locks and the pointer need them.

        The result is stored in the lake, for the next process. Raises `UsageError`.
        """
        if self._conditions_hold:
            return
        passed = json.dumps({"endpoint": self.endpoint, "conditional_writes": True}).encode()
        found = self.read_versioned(_PROBE)
        if found is None or found[0] != passed:
            if found is None:
                with contextlib.suppress(Conflict):
                    self._put_if(_PROBE, b"{}", "create", uuid.uuid4().hex)
            self._probe()
            self._overwrite(_PROBE, passed)
        self._conditions_hold = True

    def _probe(self) -> None:
        """Send two writes that must fail: over what is there, and over a version that is not there."""
        conditions: dict[str, PutMode] = {
            "If-None-Match": "create",
            "If-Match": {"e_tag": f'"{uuid.uuid4().hex}"'},
        }
        for name, mode in conditions.items():
            try:
                self._put_if(_PROBE, b"{}", mode, uuid.uuid4().hex)
            except (Conflict, MissingKey):
                continue
            raise UsageError(
                f"CATALUNYA_LAKE: the store of {self.url} at {self.endpoint} does not honour {name}: it overwrote an object "
                "that it should have kept, so that two runs could hold the lake at once; use a store with conditional "
                "writes (AWS S3, MinIO, Cloudflare R2), or a local folder"
            )

    def _download(self, key: str, file: BinaryIO) -> None:
        """Part by part, so that memory is bounded and a slow line needs no long time-out; a small file by one request."""
        found = obstore.get(self._store, key)
        meta = found.meta
        if meta["size"] <= _PART_BYTES:
            write_all(file, memoryview(found.bytes()))
            return
        del found
        for start in range(0, meta["size"], _PART_BYTES):
            end = min(start + _PART_BYTES, meta["size"])
            part = obstore.get(
                self._store, key, options={"range": (start, end), "if_match": meta["e_tag"]}
            ).bytes()
            if len(part) != end - start:
                raise CatalunyaError(
                    f"{self.uri(key)}: {len(part)} bytes came of bytes {start} to {end}; run again"
                )
            write_all(file, memoryview(part))

    def _explained(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Explain errors of requests for a key; raises `UsageError` for an invalid one."""
        return s3_client.explained(self.uri(key))
