"""One small interface over a local folder or `s3://bucket/prefix`.

Keys are relative POSIX paths of plain ASCII names (`landing/population/<id>/manifest.json`). Every write is
atomic: a reader sees the whole or nothing. `folder.py` and `bucket.py` are its two kinds.
"""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import structlog

from catalunya.errors import CatalunyaError, UsageError
from catalunya.lake.scratch import clean_scratch, own_scratch

if TYPE_CHECKING:
    from catalunya.lake.lock import Lock

log = structlog.get_logger(__name__)

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]*")


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


# Inside a class with a method `list` that name is no type.
Entries = list[Entry]
Names = list[str]


@dataclass(frozen=True)
class Version:
    """What a compare-and-set compares: the content's SHA-256 on a local lake, the ETag on S3."""

    token: str


def check_key(key: str) -> str:
    """Return `key`; raises `UsageError` unless it is a relative path of plain names that stays inside."""
    if is_key(key):
        return key
    raise UsageError(
        f"{key!r} is not a key of the lake: use names of letters, digits and '._=-' joined by '/', "
        "none empty or starting with a dot"
    )


def is_key(text: str) -> bool:
    """True for a relative path of plain names that stays inside the lake."""
    return all(_SEGMENT.fullmatch(segment) for segment in text.split("/"))


def folder_key(prefix: str) -> str:
    """A folder's key without its closing slash; empty for the whole lake."""
    prefix = prefix.removesuffix("/")
    return check_key(prefix) if prefix else ""


def deletable(prefix: str) -> str:
    """The key of a folder that may be deleted: never the whole lake."""
    folder = folder_key(prefix)
    if not folder:
        raise UsageError("an empty prefix would delete the whole lake; nothing was deleted")
    return folder


class Storage(ABC):
    """The lake's bytes. Make one with `open_lake(url)`."""

    url: str
    """Absolute: `/folder` or `s3://bucket/prefix`."""
    is_local: bool
    strays: dict[str, str]
    """What was met in the lake and passed over, and why; each was warned of once."""
    _guard: Callable[[], None]
    """Called right before every request that changes something; raises when it must not."""

    def __init__(self) -> None:
        self.strays = {}
        self._guard = _unguarded

    def guarded(self, lock: Lock) -> Self:
        """The same lake, where each single write and deletion first checks that `lock` is still held.

        Use it for whatever only the holder of a lock may change or remove: each request (of a large deletion
        each 1,000 objects) comes right after a check, and `LockLost` ends the work with nothing more removed. A
        process that is suspended between a check and its request, for longer than the lease has left, can still
        send that one request.
        """
        held = copy.copy(self)
        held._guard = lock.check
        return held

    def stray(self, keys: Iterable[str], why: str) -> None:
        """Warn once, in one line, of things in the lake that are passed over."""
        new = sorted(key for key in set(keys) if key not in self.strays)
        if new:
            self.strays.update(dict.fromkeys(new, why))
            log.warning("passed over in the lake", lake=self.url, what=", ".join(new), why=why)

    @abstractmethod
    def read(self, key: str) -> bytes:
        """The content under `key`; raises `MissingKey`."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """True when something is stored under exactly this key."""

    @abstractmethod
    def folders(self, prefix: str = "") -> Names:
        """Names of the direct sub-folders of `prefix`, sorted."""

    @abstractmethod
    def list(self, prefix: str = "") -> Entries:
        """Everything below the folder `prefix` (all folders deep; "" is the whole lake), sorted by key.

        What is not the lake's (links to folders, dangling links, names that are no keys) is passed over with
        one warning.
        """

    @abstractmethod
    def list_after(self, prefix: str, name: str) -> Entries:
        """As `list`, of what has a name directly below `prefix` that sorts after `name`: one request if little is."""

    @abstractmethod
    def files(self, prefix: str = "") -> Names:
        """The names of what lies directly below `prefix` and is no folder, sorted."""

    @abstractmethod
    def folders_after(self, prefix: str, name: str) -> Names:
        """As `folders`, of the names that sort after `name`: one request if little is."""

    @abstractmethod
    def put(self, key: str, data: bytes, *, create: bool = False) -> None:
        """Write atomically and durably; with `create` raises `KeyExists` rather than overwrite."""

    @abstractmethod
    def put_file(self, key: str, path: Path, *, size: int | None = None) -> None:
        """Move a local file into the lake atomically; `path` is gone afterwards, and stays on failure.

        Raises when the file does not have `size` bytes, where that is known, and when not all of them arrived.
        """

    @abstractmethod
    def fetch(self, key: str, folder: Path) -> Path:
        """A local path to read from: the stored file itself (local) or a download into `folder` (S3).

        Read it only. A download keeps the last part of the key as its name. Raises `MissingKey`.
        """

    @abstractmethod
    def read_tail(self, key: str, count: int) -> tuple[int, bytes]:
        """The size of the content under `key`, and its last `count` bytes at most; raises `MissingKey`."""

    @abstractmethod
    def copy(self, source: str, target: str) -> None:
        """Store the content of `source` under `target` too, on the storage's own side; raises `MissingKey`."""

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
        return own_scratch(self._scratch_base())

    def clean_scratch(self) -> int:
        """Remove the temporary files of processes that are gone; returns how many processes that were."""
        return clean_scratch(self._scratch_base())


def _unguarded() -> None:
    """Nothing is held: every write may go on."""


def expect_size(path: Path, found: int, expected: int | None) -> None:
    """Raise unless a file that is about to be stored is as long as its record says."""
    if expected is not None and found != expected:
        raise CatalunyaError(
            f"{path}: it has {found} bytes, {expected} were written to it; nothing was stored: check the disk and its "
            "free space, then run again"
        )
