"""A lake in an S3 bucket, by obstore. Settings are the standard AWS variables."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import obstore
import stamina
from obstore import exceptions as s3_errors
from obstore.store import S3Store
from typing_extensions import override

from catalunya import settings
from catalunya.errors import CatalunyaError, UsageError
from catalunya.lake.scratch import explained, write_all
from catalunya.lake.storage import (
    Conflict,
    Entries,
    Entry,
    KeyExists,
    MissingKey,
    Names,
    Storage,
    Version,
    check_key,
    deletable,
    expect_size,
    folder_key,
    is_key,
)

if TYPE_CHECKING:
    from obstore import PutMode, PutResult
    from obstore.store import ClientConfig, RetryConfig, S3Config

T = TypeVar("T")

_PATIENCE_S = 60.0
"""How long a write is tried again that another request is in the way of."""
_MIB = 1024 * 1024
_PART_BYTES = 16 * _MIB
_PARTS_AT_ONCE = 4
_DELETED_AT_ONCE = 1_000
"""S3 deletes so many objects with one request."""
_NO_KEY = "a name that the lake never gives"
_PROBE = "locks/probe.json"
_MOST_PARTS = 9_000
"""S3 allows 10,000 parts in one upload."""


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
        self.prefix = prefix
        self.endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
        self.region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        self._store = self._connect(retries=8)
        self._reach()
        self._conditions_hold = self.endpoint is None
        """AWS itself honours conditions; any other store is asked before the first write that needs them."""

    @override
    def read(self, key: str) -> bytes:
        with self._explained(key):
            return bytes(obstore.get(self._store, check_key(key)).bytes())

    @override
    def exists(self, key: str) -> bool:
        try:
            with self._explained(key):
                obstore.head(self._store, check_key(key))
        except MissingKey:
            return False
        return True

    @override
    def folders(self, prefix: str = "") -> Names:
        folder = folder_key(prefix)
        with self._explained(folder):
            found = obstore.list_with_delimiter(self._store, folder or None)["common_prefixes"]
        names = [name.rstrip("/").rsplit("/", 1)[-1] for name in found]
        self.stray((f"{folder}/{name}".lstrip("/") for name in names if not is_key(name)), _NO_KEY)
        return sorted(name for name in names if is_key(name))

    @override
    def files(self, prefix: str = "") -> Names:
        folder = folder_key(prefix)
        with self._explained(folder):
            found = obstore.list_with_delimiter(self._store, folder or None)["objects"]
        return sorted(meta["path"].rsplit("/", 1)[-1] for meta in found)

    @override
    def list(self, prefix: str = "") -> Entries:
        return self._listed(folder_key(prefix), None)

    @override
    def list_after(self, prefix: str, name: str) -> Entries:
        folder = folder_key(prefix)
        start = f"{folder}/" if folder else ""
        # The storage's own order is that of whole keys: what lies in a folder of just this name comes too.
        found = self._listed(folder, f"{start}{name}" if name else None)
        return [entry for entry in found if entry.key.removeprefix(start).split("/", 1)[0] > name]

    @override
    def folders_after(self, prefix: str, name: str) -> Names:
        if not name:
            return self.folders(prefix)
        folder = folder_key(prefix)
        start = f"{folder}/" if folder else ""
        rest = [entry.key.removeprefix(start).split("/", 1) for entry in self.list_after(prefix, name)]
        return sorted({parts[0] for parts in rest if len(parts) == 2})

    def _listed(self, folder: str, offset: str | None) -> Entries:
        with self._explained(folder):
            found = [
                Entry(meta["path"], meta["size"])
                for chunk in obstore.list(self._store, folder or None, offset=offset)
                for meta in chunk
            ]
        self.stray((entry.key for entry in found if not is_key(entry.key)), _NO_KEY)
        return sorted((entry for entry in found if is_key(entry.key)), key=lambda entry: entry.key)

    @override
    def put(self, key: str, data: bytes, *, create: bool = False) -> None:
        if not create:
            check_key(key)
            with self._explained(key):
                self._patiently(lambda: obstore.put(self._store, key, data, use_multipart=False))
            return
        try:
            self._put_if(key, data, "create")
        except Conflict:
            raise KeyExists(f"{self.uri(key)} is there already; it was left as it was") from None

    @override
    def put_file(self, key: str, path: Path, *, size: int | None = None) -> None:
        check_key(key)
        with explained(path):
            bytes_here = path.stat().st_size
        expect_size(path, bytes_here, size)
        part_bytes = max(_PART_BYTES, -(-bytes_here // _MOST_PARTS))
        writer = uuid.uuid4().hex
        try:
            with self._explained(key):
                self._patiently(
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
            stored = int(obstore.head(self._store, key)["size"])
        if stored != bytes_here:
            raise CatalunyaError(f"{self.uri(key)}: {stored} bytes were stored of {bytes_here}; run again")
        path.unlink()

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
                found = obstore.get(self._store, check_key(key), options={"range": {"suffix": count}})
                return int(found.meta["size"]), bytes(found.bytes())
            except s3_errors.BaseError:
                # An empty object has no last bytes: S3 answers 416.
                if obstore.head(self._store, key)["size"]:
                    raise
                return 0, b""

    @override
    def copy(self, source: str, target: str) -> None:
        check_key(source), check_key(target)
        with self._explained(source):
            self._patiently(lambda: obstore.copy(self._store, source, target))

    @override
    def read_versioned(self, key: str) -> tuple[bytes, Version] | None:
        try:
            with self._explained(key):
                found = obstore.get(self._store, check_key(key))
                data = bytes(found.bytes())
        except MissingKey:
            return None
        return data, Version(found.meta["e_tag"] or "")

    @override
    def replace(self, key: str, data: bytes, expected: Version | None) -> Version:
        return self._put_if(key, data, {"e_tag": expected.token} if expected else "create")

    @override
    def delete(self, key: str) -> None:
        check_key(key)
        with contextlib.suppress(MissingKey), self._explained(key):
            self._patiently(lambda: obstore.delete(self._store, key))

    @override
    def delete_folder(self, prefix: str) -> None:
        doomed = [entry.key for entry in self.list(deletable(prefix))]
        for start in range(0, len(doomed), _DELETED_AT_ONCE):
            batch = doomed[start : start + _DELETED_AT_ONCE]
            with self._explained(prefix):
                self._patiently(partial(obstore.delete, self._store, batch))

    @override
    def uri(self, key: str) -> str:
        check_key(key.replace("*", "x"))
        return f"{self.url}/{key}"

    @override
    def duckdb_secret_sql(self) -> str | None:
        credentials = _environment_credentials() or _boto3_credentials()
        if not credentials:
            raise UsageError(
                "AWS_ACCESS_KEY_ID: DuckDB reads S3 only with keys from the environment, or with boto3 "
                "installed, from the profile or the machine's role; set the keys or fetch the files first"
            )
        options = {**credentials, "region": self.region, "scope": self.url}
        flags = ""
        if self.endpoint:
            parts = urlsplit(self.endpoint)
            options |= {"endpoint": parts.netloc, "url_style": "path"}
            flags = f", use_ssl {str(parts.scheme == 'https').lower()}"
        listed = ", ".join(f"{name} {_quoted(value)}" for name, value in options.items())
        return f"create or replace secret lake (type s3, {listed}{flags})"

    def age_s(self, key: str) -> float | None:
        """Seconds since `key` was last written, by the storage's own clock; None when it is not there.

        Both times, `Last-Modified` and `Date`, come from one response, so no other clock matters. Whole
        seconds.
        """
        check_key(key)
        retries = stamina.retry_context(
            on=_is_passing, attempts=9, timeout=60, wait_initial=0.1, wait_max=10, wait_jitter=0.1
        ).with_name(f"age of {self.uri(key)}", (), {})
        try:
            for attempt in retries:
                with attempt:
                    times = self._times(key)
                    now = parsedate_to_datetime(times["date"]) if "date" in times else datetime.now(UTC)
                    return (now - parsedate_to_datetime(times["last-modified"])).total_seconds()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise CatalunyaError(f"{self.uri(key)} could not be read: HTTP status {error.code}") from None
        except OSError as error:
            raise CatalunyaError(f"{self.uri(key)} could not be read: {error}") from None
        raise AssertionError("a retry loop ends by returning or raising")

    def _times(self, key: str) -> dict[str, str]:
        """The headers of an object, names in lower case; raises what `urllib` raises."""
        url = obstore.sign(self._store, "HEAD", key, timedelta(minutes=1))
        # Not httpx: it logs addresses, and a signed one is a credential.
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310
        ask = _DIRECT.open if settings.is_loopback(url) else urllib.request.urlopen
        with ask(request, timeout=10) as response:
            return {name.lower(): value for name, value in response.headers.items()}

    def _connect(self, *, retries: int) -> S3Store:
        _refuse_after_fork()
        config: S3Config = {"region": self.region}
        client: ClientConfig = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=60)}
        if self.endpoint:
            config["endpoint"] = self.endpoint
            config["virtual_hosted_style_request"] = False
            client["allow_http"] = self.endpoint.startswith("http://")
        retry: RetryConfig = {
            "max_retries": retries,
            "retry_timeout": timedelta(seconds=60),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=10),
                "base": 2,
            },
        }
        return S3Store(
            self.bucket,
            prefix=self.prefix or None,
            config=config,
            client_options=client,
            retry_config=retry,
            credential_provider=_profile_provider(),
        )

    def _reach(self) -> None:
        try:
            obstore.list_with_delimiter(self._connect(retries=3), "locks")
        except s3_errors.BaseError as error:
            where = f" at {self.endpoint}" if self.endpoint else f" in region {self.region}"
            raise UsageError(
                f"CATALUNYA_LAKE: the bucket of {self.url} cannot be reached{where}: {_reason(error)}; "
                "check its name, AWS_REGION, AWS_ENDPOINT_URL and the credentials (they need s3:ListBucket)"
            ) from None

    def _put_if(self, key: str, data: bytes, mode: PutMode) -> Version:
        check_key(key)
        self._require_conditions()
        writer = uuid.uuid4().hex
        try:
            with self._explained(key):
                done = self._put_now(key, data, mode, writer)
            return Version(done["e_tag"] or "")
        except (Conflict, MissingKey):
            return self._own_write(key, writer)

    def _put_now(self, key: str, data: bytes, mode: PutMode, writer: str) -> PutResult:
        return self._patiently(
            lambda: obstore.put(
                self._store, key, data, mode=mode, attributes={"writer": writer}, use_multipart=False
            )
        )

    def _patiently(self, request: Callable[[], T]) -> T:
        """Try again what the store calls a passing clash with another request (status 409), for a minute at most.

        Each attempt comes right after a check that the lock is still held, where the lake is guarded.
        """
        for attempt in stamina.retry_context(
            on=_is_clash, attempts=None, timeout=_PATIENCE_S, wait_initial=0.1, wait_max=5, wait_jitter=0.1
        ).with_name(f"a write to {self.url}", (), {}):
            with attempt:
                self._guard()
                return request()
        raise AssertionError("a retry loop ends by returning or raising")

    def _require_conditions(self) -> None:
        """Ask a store, once per lake and process, whether a conditional write can fail: locks and the pointer need it.

        What a store did well is remembered in the lake, for the next process. Raises `UsageError`.
        """
        if self._conditions_hold:
            return
        good = json.dumps({"endpoint": self.endpoint, "conditional_writes": True}).encode()
        try:
            if self.read(_PROBE) != good:
                self._probe()
        except MissingKey:
            with contextlib.suppress(Conflict), self._explained(_PROBE):
                self._put_now(_PROBE, b"{}", "create", uuid.uuid4().hex)
            self._probe()
        else:
            self._conditions_hold = True
            return
        with self._explained(_PROBE):
            self._patiently(lambda: obstore.put(self._store, _PROBE, good, use_multipart=False))
        self._conditions_hold = True

    def _probe(self) -> None:
        """Two writes that must fail: over what is there, and over a version that is not there."""
        conditions: dict[str, PutMode] = {
            "If-None-Match": "create",
            "If-Match": {"e_tag": f'"{uuid.uuid4().hex}"'},
        }
        for name, mode in conditions.items():
            try:
                with self._explained(_PROBE):
                    self._put_now(_PROBE, b"{}", mode, uuid.uuid4().hex)
            except (Conflict, MissingKey):
                continue
            raise UsageError(
                f"CATALUNYA_LAKE: the store of {self.url} at {self.endpoint} does not honour {name}: it overwrote an object "
                "that it should have kept, so that two runs could hold the lake at once; use a store with conditional "
                "writes (AWS S3, MinIO, Cloudflare R2), or a local folder"
            )

    def _own_write(self, key: str, writer: str) -> Version:
        """The version this very write left behind when only its answer was lost and the retry failed."""
        try:
            with self._explained(key):
                found = obstore.get(self._store, key)
        except MissingKey:
            found = None
        if found is not None and found.attributes.get("writer") == writer:
            return Version(found.meta["e_tag"] or "")
        raise Conflict(f"{self.uri(key)} was changed by somebody else meanwhile; it was left as it is now")

    def _download(self, key: str, file: BinaryIO) -> None:
        """Part by part, so that memory is bounded and a slow line needs no long time-out; a small file by one request."""
        found = obstore.get(self._store, check_key(key))
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

    @contextlib.contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        _refuse_after_fork()
        where = f"{self.url}/{key}"
        try:
            yield
        except (FileNotFoundError, s3_errors.NotFoundError):
            raise MissingKey(f"{where} is not in the lake") from None
        except (s3_errors.AlreadyExistsError, s3_errors.PreconditionError) as error:
            if _is_clash(error):
                raise CatalunyaError(
                    f"{where}: the storage answered for {_PATIENCE_S} s that another request is in the way "
                    f"({_reason(error)}); run again"
                ) from None
            raise Conflict(f"{where} was changed by somebody else meanwhile") from None
        except (s3_errors.PermissionDeniedError, s3_errors.UnauthenticatedError) as error:
            raise CatalunyaError(
                f"{where}: access denied ({_reason(error)}); check the AWS credentials and that they may "
                "list, read, write and delete below this address"
            ) from None
        except s3_errors.BaseError as error:
            raise CatalunyaError(
                f"{where}: the storage failed after every retry ({_reason(error)}); run again"
            ) from None

    @override
    def _scratch_base(self) -> Path:
        return Path(tempfile.gettempdir()) / f"catalunya-{os.getuid()}"


def _is_clash(error: Exception) -> bool:
    """True for a 409: another request for the key is under way, and nobody has won yet."""
    known = isinstance(error, s3_errors.BaseError)
    return (
        known
        and re.search(r"409 Conflict|ConditionalRequestConflict|OperationAborted", str(error)) is not None
    )


def _is_passing(error: Exception) -> bool:
    """True for what another try may correct: a throttled or broken server, a lost connection."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code == 429 or error.code >= 500
    return isinstance(error, OSError)


def _reason(error: Exception) -> str:
    """The first line of obstore's message, with S3's own code and words in place of the XML."""
    text = str(error)
    said = re.search(r"<Code>(.*?)</Code>(?:.*?<Message>(.*?)</Message>)?", text, re.DOTALL)
    first = text.splitlines()[0].partition(": <?xml")[0]
    return f"{first}: {': '.join(filter(None, said.groups()))}" if said else first


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Without any proxy."""

_s3_process: list[int] = []


def _refuse_after_fork() -> None:
    """obstore's threads do not survive a fork: in the child its calls would wait for ever."""
    if not _s3_process:
        _s3_process.append(os.getpid())
    elif _s3_process[0] != os.getpid():
        raise CatalunyaError(
            f"process {os.getpid()} was forked from process {_s3_process[0]}, which already used S3; "
            "start it afresh (spawn), or fork before the lake is opened"
        )


def _environment_credentials() -> dict[str, str] | None:
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not key or not secret:
        return None
    token = os.environ.get("AWS_SESSION_TOKEN")
    return {"key_id": key, "secret": secret, **({"session_token": token} if token else {})}


def _boto3_credentials() -> dict[str, str] | None:
    try:
        boto3 = importlib.import_module("boto3")
    except ImportError:
        return None
    found = boto3.Session().get_credentials()
    if found is None:
        return None
    frozen = found.get_frozen_credentials()
    token = {"session_token": frozen.token} if frozen.token else {}
    return {"key_id": frozen.access_key, "secret": frozen.secret_key, **token}


def _profile_provider() -> Any:
    """A provider for AWS_PROFILE, which obstore does not read itself; None when obstore finds its own."""
    profile = os.environ.get("AWS_PROFILE")
    if not profile or _environment_credentials():
        return None
    try:
        importlib.import_module("boto3")
    except ImportError:
        raise UsageError(
            f"AWS_PROFILE: reading the profile {profile!r} needs boto3; install it, or run "
            "`aws configure export-credentials --format env` and set the AWS_… variables it prints"
        ) from None
    return importlib.import_module("obstore.auth.boto3").Boto3CredentialProvider()
