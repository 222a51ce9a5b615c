"""One small interface over a local folder or `s3://bucket/prefix`.

Keys are relative POSIX paths of plain ASCII names (`landing/population/<id>/manifest.json`). Every write is
atomic: a reader sees the whole or nothing. On a local lake everything that is not data lies in `.lake/`,
which no key can name.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import hashlib
import importlib
import os
import re
import shutil
import socket
import tempfile
import threading
import urllib.error
import urllib.request
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions as s3_errors
from obstore.store import S3Store
from typing_extensions import override

from catalunya.errors import CatalunyaError, UsageError

if TYPE_CHECKING:
    from obstore import PutMode
    from obstore.store import ClientConfig, RetryConfig, S3Config

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]*")
_HIDDEN = ".lake"
_MIB = 1024 * 1024
_PART_BYTES = 16 * _MIB
_PARTS_AT_ONCE = 4
_MOST_PARTS = 9_000
"""S3 allows 10,000 parts in one upload."""


_REMEDIES = {
    errno.ENOSPC: "free space or move CATALUNYA_LAKE to a larger disk",
    errno.EDQUOT: "free space or move CATALUNYA_LAKE to a larger disk",
    errno.EROFS: "mount it writable or move CATALUNYA_LAKE",
    errno.EACCES: "give this user the right to read and write there or move CATALUNYA_LAKE",
    errno.EPERM: "give this user the right to read and write there or move CATALUNYA_LAKE",
}


class MissingKey(CatalunyaError, LookupError):
    """Nothing is stored under this key."""


class KeyExists(CatalunyaError):
    """A create-only write found something under its key; that was left as it was."""


class Conflict(CatalunyaError):
    """A compare-and-set found other content than expected; that was left as it was."""


@dataclass(frozen=True)
class Entry:
    """A stored object and its size in bytes."""

    key: str
    size: int


@dataclass(frozen=True)
class Version:
    """What a compare-and-set compares: the content's SHA-256 on a local lake, the ETag on S3."""

    token: str


def check_key(key: str) -> str:
    """Return `key`; raises `UsageError` unless it is a relative path of plain names that stays inside."""
    if _is_key(key):
        return key
    raise UsageError(
        f"{key!r} is not a key of the lake: use names of letters, digits and '._=-' joined by '/', "
        "none empty or starting with a dot"
    )


def _is_key(text: str) -> bool:
    return all(_SEGMENT.fullmatch(segment) for segment in text.split("/"))


def _folder_key(prefix: str) -> str:
    prefix = prefix.removesuffix("/")
    return check_key(prefix) if prefix else ""


class Storage(ABC):
    """The lake's bytes. Make one with `Storage.open(url)`."""

    url: str
    """Absolute: `/folder` or `s3://bucket/prefix`."""
    is_local: bool

    @classmethod
    def open(cls, url: str) -> Storage:
        """Open `./folder`, `/folder`, `file:///folder` or `s3://bucket/prefix`; makes the folder.

        Raises `UsageError` that names CATALUNYA_LAKE when the folder cannot be written or the bucket
        cannot be reached.
        """
        scheme, separator, rest = url.partition("://")
        if not separator and url:
            return LocalStorage(Path(url))
        if scheme == "file" and rest.startswith("/"):
            return LocalStorage(Path(unquote(rest)))
        if scheme == "s3" and rest.strip("/"):
            bucket, _, prefix = rest.partition("/")
            return S3Storage(bucket, prefix.strip("/"))
        raise UsageError(f"CATALUNYA_LAKE: {url!r} is neither a folder nor s3://bucket/prefix")

    @abstractmethod
    def read(self, key: str) -> bytes:
        """The content under `key`; raises `MissingKey`."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """True when something is stored under exactly this key."""

    @abstractmethod
    def folders(self, prefix: str = "") -> list[str]:
        """Names of the direct sub-folders of `prefix`, sorted."""

    @abstractmethod
    def list(self, prefix: str = "") -> list[Entry]:
        """Everything below the folder `prefix` (all folders deep; "" is the whole lake), sorted by key."""

    @abstractmethod
    def put(self, key: str, data: bytes, *, create: bool = False) -> None:
        """Write atomically and durably; with `create` raises `KeyExists` rather than overwrite."""

    @abstractmethod
    def put_file(self, key: str, path: Path) -> None:
        """Move a local file into the lake atomically; `path` is gone afterwards, and stays on failure."""

    @abstractmethod
    def fetch(self, key: str, folder: Path) -> Path:
        """A local path to read from: the stored file itself (local) or a download into `folder` (S3).

        Read it only. A download keeps the last part of the key as its name. Raises `MissingKey`.
        """

    @abstractmethod
    def read_versioned(self, key: str) -> tuple[bytes, Version] | None:
        """Content and version for a later `replace`; None when nothing is stored."""

    @abstractmethod
    def replace(self, key: str, data: bytes, expected: Version | None) -> Version:
        """Compare-and-set: write only if the stored version is `expected` (None: nothing is stored).

        Returns the new version; raises `Conflict` and leaves the content as it was.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove one object; nothing happens when it is not there."""

    @abstractmethod
    def delete_folder(self, prefix: str) -> None:
        """Remove everything below the folder `prefix`, nothing else; refuses the lake's root."""

    @abstractmethod
    def uri(self, key: str) -> str:
        """What DuckDB reads: an absolute path or `s3://bucket/prefix/key`. `key` may hold `*` globs."""

    @abstractmethod
    def duckdb_secret_sql(self) -> str | None:
        """The `create secret` statement that lets DuckDB's httpfs read this lake; None on a local lake.

        It holds credentials: execute it, never log it.
        """

    @abstractmethod
    def _scratch_base(self) -> Path: ...

    def scratch(self) -> Path:
        """This process's own folder for temporary files; removed when the process ends.

        On a local lake it is on the lake's own file system, so that `put_file` is a rename.
        """
        return _own_scratch(self._scratch_base())

    def clean_scratch(self) -> int:
        """Remove the temporary files of processes that are gone; returns how many processes that were."""
        return _clean_scratch(self._scratch_base())


class LocalStorage(Storage):
    """A lake in a local folder."""

    is_local = True

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            (self.root / _HIDDEN / "locks").mkdir(parents=True, exist_ok=True)
            (self.root / _HIDDEN / "scratch").mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root / _HIDDEN):
                pass
        except OSError as error:
            raise UsageError(
                f"CATALUNYA_LAKE: the folder {self.root} cannot be written ({error.strerror}); "
                "give a folder that this user can write"
            ) from error
        self.url = str(self.root)

    def lock_path(self, name: str) -> Path:
        """The file that the lock `name` is taken on."""
        return self.root / _HIDDEN / "locks" / f"{check_key(name)}.lock"

    @override
    def read(self, key: str) -> bytes:
        path = self._path(key)
        try:
            with _explained(path):
                return path.read_bytes()
        except CatalunyaError as error:
            if path.is_file():
                raise
            raise MissingKey(f"{path} is not in the lake") from error

    @override
    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    @override
    def folders(self, prefix: str = "") -> list[str]:
        try:
            with os.scandir(self._folder(prefix)) as entries:
                return sorted(e.name for e in entries if e.is_dir() and _SEGMENT.fullmatch(e.name))
        except (FileNotFoundError, NotADirectoryError):
            return []

    @override
    def list(self, prefix: str = "") -> list[Entry]:
        return sorted(self._walk(self._folder(prefix)), key=lambda entry: entry.key)

    @override
    def put(self, key: str, data: bytes, *, create: bool = False) -> None:
        target = self._path(key)
        with self._staged(target, data) as staged, self._exclusive():
            if create and target.exists():
                raise KeyExists(f"{target} is there already; it was left as it was")
            self._move(staged, target)

    @override
    def put_file(self, key: str, path: Path) -> None:
        target = self._path(key)
        with _explained(target):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                on_other_device = os.fstat(file.fileno()).st_dev != self.root.stat().st_dev
            if on_other_device:
                with self._staged_copy(path) as staged, self._exclusive():
                    self._move(staged, target)
                path.unlink()
            else:
                with self._exclusive():
                    self._move(path, target)

    @override
    def fetch(self, key: str, folder: Path) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise MissingKey(f"{path} is not in the lake")
        return path

    @override
    def read_versioned(self, key: str) -> tuple[bytes, Version] | None:
        try:
            data = self.read(key)
        except MissingKey:
            return None
        return data, _content_version(data)

    @override
    def replace(self, key: str, data: bytes, expected: Version | None) -> Version:
        target = self._path(key)
        with self._staged(target, data) as staged, self._exclusive():
            found = self.read_versioned(key)
            if (found[1] if found else None) != expected:
                raise Conflict(f"{target} was changed by somebody else meanwhile; it was left as it is now")
            self._move(staged, target)
        return _content_version(data)

    @override
    def delete(self, key: str) -> None:
        path = self._path(key)
        with _explained(path), self._exclusive():
            path.unlink(missing_ok=True)
            self._remove_empty(path.parent)

    @override
    def delete_folder(self, prefix: str) -> None:
        folder = self.root / _deletable(prefix)
        if not folder.resolve().is_relative_to(self.root):
            raise UsageError(f"{folder} leads out of the lake {self.root}; nothing was deleted")
        doomed = self.scratch() / uuid.uuid4().hex
        with _explained(folder):
            with self._exclusive():
                if not folder.is_dir():
                    return
                _rename_or_copy(folder, doomed)
                self._remove_empty(folder.parent)
            shutil.rmtree(doomed)

    @override
    def uri(self, key: str) -> str:
        check_key(key.replace("*", "x"))
        return str(self.root / key)

    @override
    def duckdb_secret_sql(self) -> str | None:
        return None

    @override
    def _scratch_base(self) -> Path:
        return self.root / _HIDDEN / "scratch"

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _folder(self, prefix: str) -> Path:
        return self.root / _folder_key(prefix)

    def _walk(self, folder: Path) -> Iterator[Entry]:
        try:
            with os.scandir(folder) as entries:
                found = [entry for entry in entries if _SEGMENT.fullmatch(entry.name)]
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in found:
            if entry.is_dir():
                yield from self._walk(Path(entry.path))
                continue
            with contextlib.suppress(FileNotFoundError):
                yield Entry(Path(entry.path).relative_to(self.root).as_posix(), entry.stat().st_size)

    @contextlib.contextmanager
    def _staged(self, target: Path, data: bytes) -> Iterator[Path]:
        staged = self.scratch() / uuid.uuid4().hex
        try:
            with _explained(target):
                with staged.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                yield staged
        finally:
            staged.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _staged_copy(self, path: Path) -> Iterator[Path]:
        staged = self.scratch() / uuid.uuid4().hex
        try:
            shutil.copyfile(path, staged)
            _fsync(staged)
            yield staged
        finally:
            staged.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lake's write lock: only around a comparison and a rename, never around copying."""
        with (self.root / _HIDDEN / "write.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _move(self, source: Path, target: Path) -> None:
        made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        _rename_or_copy(source, target)
        for folder in {target.parent, *(folder.parent for folder in made)}:
            _fsync(folder)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self.root and folder.is_relative_to(self.root):
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return
            folder = folder.parent


class S3Storage(Storage):
    """A lake in an S3 bucket, or in any store that speaks S3 with conditional puts.

    Settings are the standard AWS variables. Requests are retried for at most a minute.
    """

    is_local = False

    def __init__(self, bucket: str, prefix: str) -> None:
        if prefix and not _is_key(prefix):
            raise UsageError(f"CATALUNYA_LAKE: {prefix!r} cannot be a prefix: use plain names joined by '/'")
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self.bucket = bucket
        self.prefix = prefix
        self.endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
        self.region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        self._store = self._connect(retries=8)
        self._reach()

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
    def folders(self, prefix: str = "") -> list[str]:
        folder = _folder_key(prefix)
        with self._explained(folder):
            found = obstore.list_with_delimiter(self._store, folder or None)["common_prefixes"]
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in found)

    @override
    def list(self, prefix: str = "") -> list[Entry]:
        folder = _folder_key(prefix)
        with self._explained(folder):
            found = [
                Entry(meta["path"], meta["size"])
                for chunk in obstore.list(self._store, folder or None)
                for meta in chunk
            ]
        return sorted(found, key=lambda entry: entry.key)

    @override
    def put(self, key: str, data: bytes, *, create: bool = False) -> None:
        if not create:
            with self._explained(key):
                obstore.put(self._store, check_key(key), data, use_multipart=False)
            return
        try:
            self._put_if(key, data, "create")
        except Conflict:
            raise KeyExists(f"{self.uri(key)} is there already; it was left as it was") from None

    @override
    def put_file(self, key: str, path: Path) -> None:
        check_key(key)
        with _explained(path):
            part_bytes = max(_PART_BYTES, -(-path.stat().st_size // _MOST_PARTS))
        writer = uuid.uuid4().hex
        try:
            with self._explained(key):
                obstore.put(
                    self._store,
                    key,
                    path,
                    attributes={"writer": writer},
                    chunk_size=part_bytes,
                    max_concurrency=_PARTS_AT_ONCE,
                )
        except MissingKey:
            self._own_write(key, writer)
        path.unlink()

    @override
    def fetch(self, key: str, folder: Path) -> Path:
        target = folder / check_key(key).rsplit("/", 1)[-1]
        partial = folder / f".{target.name}.{uuid.uuid4().hex}"
        try:
            with _explained(target):
                folder.mkdir(parents=True, exist_ok=True)
                with partial.open("xb") as file, self._explained(key):
                    self._download(key, file)
                partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target

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
        with contextlib.suppress(MissingKey), self._explained(key):
            obstore.delete(self._store, check_key(key))

    @override
    def delete_folder(self, prefix: str) -> None:
        doomed = [entry.key for entry in self.list(_deletable(prefix))]
        if doomed:
            with self._explained(prefix):
                obstore.delete(self._store, doomed)

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
        url = obstore.sign(self._store, "HEAD", check_key(key), timedelta(minutes=1))
        # Not httpx: it logs addresses, and a signed one is a credential.
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
                headers: Mapping[str, str] = dict(response.headers.items())
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise CatalunyaError(f"{self.uri(key)} could not be read: HTTP status {error.code}") from None
        except OSError as error:
            raise CatalunyaError(f"{self.uri(key)} could not be read: {error}") from None
        times = {name.lower(): value for name, value in headers.items()}
        now = parsedate_to_datetime(times["date"]) if "date" in times else datetime.now(UTC)
        return (now - parsedate_to_datetime(times["last-modified"])).total_seconds()

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
        writer = uuid.uuid4().hex
        try:
            with self._explained(key):
                done = obstore.put(
                    self._store,
                    check_key(key),
                    data,
                    mode=mode,
                    attributes={"writer": writer},
                    use_multipart=False,
                )
            return Version(done["e_tag"] or "")
        except (Conflict, MissingKey):
            return self._own_write(key, writer)

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
        """Part by part, so that memory is bounded and a slow line needs no long time-out."""
        meta = obstore.head(self._store, check_key(key))
        for start in range(0, meta["size"], _PART_BYTES):
            end = min(start + _PART_BYTES, meta["size"])
            part = obstore.get(
                self._store, key, options={"range": (start, end), "if_match": meta["e_tag"]}
            ).bytes()
            file.write(memoryview(part))

    @contextlib.contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        _refuse_after_fork()
        where = f"{self.url}/{key}"
        try:
            yield
        except (FileNotFoundError, s3_errors.NotFoundError):
            raise MissingKey(f"{where} is not in the lake") from None
        except (s3_errors.AlreadyExistsError, s3_errors.PreconditionError):
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


def _deletable(prefix: str) -> str:
    folder = _folder_key(prefix)
    if not folder:
        raise UsageError("an empty prefix would delete the whole lake; nothing was deleted")
    return folder


def _content_version(data: bytes) -> Version:
    return Version(hashlib.sha256(data).hexdigest())


def _reason(error: Exception) -> str:
    """The first line of obstore's message, with S3's own code and words in place of the XML."""
    text = str(error)
    said = re.search(r"<Code>(.*?)</Code>(?:.*?<Message>(.*?)</Message>)?", text, re.DOTALL)
    first = text.splitlines()[0].partition(": <?xml")[0]
    return f"{first}: {': '.join(filter(None, said.groups()))}" if said else first


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename_or_copy(source: Path, target: Path) -> None:
    """Rename; across file systems (a part of the lake may be mounted) copy beside it, then rename."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        shutil.move(source, beside)
        if beside.is_file():
            _fsync(beside)
        beside.replace(target)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check the folder and the disk")
        raise CatalunyaError(f"{error.filename or path}: {error.strerror or error}; {remedy}") from error


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


_scratch_guard = threading.Lock()
_scratches: dict[tuple[int, Path], tuple[Path, BinaryIO]] = {}


def _own_scratch(base: Path) -> Path:
    """Make or find this process's folder below `base`; a locked file beside it says that it lives.

    A lock and not the process id, since containers that share a lake do not share ids.
    """
    with _scratch_guard:
        known = _scratches.get((os.getpid(), base))
        folder, alive = known or _claim_scratch(base)
        _scratches[(os.getpid(), base)] = folder, alive
        with _explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder


def _claim_scratch(base: Path) -> tuple[Path, BinaryIO]:
    while True:
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        with _explained(base):
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            alive = (base / f"{name}.alive").open("xb")
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (base / f"{name}.alive").exists():
                return base / name, alive
        alive.close()


def _clean_scratch(base: Path) -> int:
    removed = 0
    for marker in base.glob("*.alive"):
        with (
            contextlib.suppress(FileNotFoundError, BlockingIOError, PermissionError),
            marker.open("rb") as alive,
        ):
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(marker.with_suffix(""), ignore_errors=True)
            marker.unlink(missing_ok=True)
            removed += 1
    return removed


@atexit.register
def _drop_own_scratch() -> None:
    for (pid, _), (folder, alive) in _scratches.items():
        if pid == os.getpid():
            shutil.rmtree(folder, ignore_errors=True)
            Path(alive.name).unlink(missing_ok=True)
