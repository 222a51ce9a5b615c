"""One interface over a local folder or `s3://bucket/prefix`.

Keys are relative POSIX paths of plain ASCII names (`landing/population/<id>/manifest.json`). Every write is
atomic: a reader sees the whole object or nothing. `local.py` and `s3.py` implement it.
"""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NewType, Self

from catalunya.errors import CatalunyaError, UsageError
from catalunya.lake.scratch import abandoned, clean_scratch, own_scratch
from catalunya.log import get_logger

if TYPE_CHECKING:
    from catalunya.lake.lock import Lock

log = get_logger(__name__)

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]*")
INVALID_NAME = "a name that the lake never gives"


class MissingKey(CatalunyaError, LookupError):
    """Nothing is stored under this key."""


class KeyExists(CatalunyaError):
    """A create-only write found something under its key and changed nothing."""


class Conflict(CatalunyaError):
    """A compare-and-set found other content than expected and changed nothing."""


@dataclass(frozen=True, order=True)
class Entry:
    """A stored object and its size in bytes."""

    key: str
    size: int


# Inside a class with a method `list` that name is no type.
Entries = list[Entry]
Names = list[str]

Version = NewType("Version", str)
"""What a compare-and-set compares: the content's SHA-256 on a local lake, the ETag on S3."""


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
    _scratch_base: Path

    def __init__(self) -> None:
        self.ignored: dict[str, str] = {}
        """Keys that were found in the lake and ignored, and why; each was warned of once."""
        self._guard: Callable[[], None] = lambda: None
        """Called right before every request that changes something; raises when it must not."""

    def guarded(self, lock: Lock) -> Self:
        """Return the same lake, where each single write and deletion first checks that `lock` is still held.

        Use it for whatever only the holder of a lock may change or remove: each request (of a large deletion
        each 1,000 objects) comes right after a check, and `LockLost` ends the work with nothing more removed. A
        process that is suspended between a check and its request, for longer than the lease has left, can still
        send that one request.
        """
        guarded = copy.copy(self)
        guarded._guard = lock.check
        return guarded

    def ignore(self, keys: Iterable[str], reason: str) -> None:
        """Warn once, in one line, of keys in the lake that are ignored."""
        new = sorted(set(keys) - self.ignored.keys())
        if new:
            self.ignored.update(dict.fromkeys(new, reason))
            log.warning("ignored in the lake", lake=self.url, keys=", ".join(new), reason=reason)

    def read(self, key: str) -> bytes:
        """The content under `key`; raises `MissingKey`."""
        found = self.read_versioned(key)
        if found is None:
            raise MissingKey(f"{self.uri(key)} is not in the lake")
        return found[0]

    @abstractmethod
    def read_versioned(self, key: str) -> tuple[bytes, Version] | None:
        """Content and version for a later `replace`; None when nothing is stored."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """True when something is stored under exactly this key."""

    @abstractmethod
    def list(self, prefix: str = "", *, after: str = "") -> Entries:
        """List all objects below the folder `prefix` (all folders deep; "" is the whole lake), sorted by key.

        With `after` only those whose name directly below `prefix` sorts after it: one request when they are few.
        What is not the lake's (links to folders, dangling links, invalid names) is ignored with one warning.
        """

    @abstractmethod
    def folders(self, prefix: str = "", *, after: str = "") -> Names:
        """Names of the direct sub-folders of `prefix` that sort after `after`, sorted."""

    @abstractmethod
    def files(self, prefix: str = "") -> Names:
        """Names of the objects directly below `prefix`, sorted."""

    def put(self, key: str, data: bytes, *, create: bool = False) -> None:
        """Write atomically and durably; with `create` raises `KeyExists` rather than overwrite."""
        if not create:
            self._overwrite(key, data)
            return
        try:
            self.replace(key, data, None)
        except Conflict:
            raise KeyExists(f"{self.uri(key)} is there already; it was left as it was") from None

    @abstractmethod
    def _overwrite(self, key: str, data: bytes) -> None: ...

    @abstractmethod
    def put_file(self, key: str, path: Path) -> None:
        """Move a local file into the lake atomically; `path` is gone afterwards, and stays on failure."""

    @abstractmethod
    def copy(self, source: str, target: str) -> None:
        """Store the content of `source` under `target` too, on the storage's own side; raises `MissingKey`."""

    @abstractmethod
    def replace(self, key: str, data: bytes, expected: Version | None) -> Version:
        """Compare-and-set: write only if the stored version is `expected` (None: nothing is stored).

        Returns the new version; raises `Conflict` and leaves the content as it was.
        """

    @abstractmethod
    def fetch(self, key: str, folder: Path) -> Path:
        """A local path to read from: the stored file itself (local) or a download into `folder` (S3).

        Read it only. A download keeps the last part of the key as its name. Raises `MissingKey`.
        """

    @abstractmethod
    def read_tail(self, key: str, count: int) -> tuple[int, bytes]:
        """The size of the content under `key`, and its last `count` bytes at most; raises `MissingKey`."""

    def stored_sha256(self, key: str) -> str | None:
        """The SHA-256 in hex that the storage itself keeps of the content under `key`, without reading it.

        None where it keeps none, so that the content has to be read. Raises `MissingKey` where it can tell.
        """
        check_key(key)
        return None

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove one object; nothing happens when it is not there."""

    @abstractmethod
    def delete_folder(self, prefix: str) -> None:
        """Remove everything below the folder `prefix`, nothing else; refuses the lake's root."""

    def uri(self, key: str) -> str:
        """The absolute path or the address of an object, as the engines read it."""
        return f"{self.url}/{check_key(key)}"

    def scratch(self) -> Path:
        """This process's own folder for temporary files; removed when the process ends.

        On a local lake it is on the lake's own file system, so that `put_file` is a rename.
        """
        return own_scratch(self._scratch_base)

    def abandoned_scratch(self) -> Iterable[Path]:
        """Return the temporary files of processes that are gone."""
        return abandoned(self._scratch_base)

    def clean_scratch(self) -> int:
        """Remove the temporary files of processes that are gone; returns how many processes that were."""
        return clean_scratch(self._scratch_base)
