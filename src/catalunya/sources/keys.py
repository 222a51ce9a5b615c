"""Checks on pages of rows in little memory: whether a page is complete, its rows, and keys that occur twice."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt

from catalunya.sources.responses import InvalidResponse, decode

_KEYS_IN_MEMORY = 500_000
_NAMED_ROWS = 10_000
_ROW_BORDER = b"\n,{"
"""How Socrata separates rows. A line break cannot stand inside a JSON text."""
Hashes = npt.NDArray[np.int64]
_ABSENT: Hashes = np.array([hash(None), hash(msgspec.UNSET)], dtype=np.int64)


class KeyCheck:
    """Counts the keys that occur more than once, in memory that does not grow with the rows.

    Keeps 64-bit hashes in bucket files under `folder`, each small enough for memory. Two keys that
    share a hash by chance cost a second reading, never a wrong answer.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder = folder
        self._buckets = 1 + rows // _KEYS_IN_MEMORY
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, hashes: Hashes) -> None:
        """Add the hashes of one page's keys."""
        bucket = hashes % self._buckets
        with self._lock:
            for number in range(self._buckets):
                with (self._folder / str(number)).open("ab") as file:
                    hashes[bucket == number].tofile(file)

    def duplicates(self) -> int:
        """Return how many rows have a key that an earlier row had; rows without a key do not count."""
        return sum(_duplicates(path) for path in self._folder.iterdir())


def _duplicates(bucket: Path) -> int:
    hashes = np.fromfile(bucket, dtype=np.int64)
    hashes.sort()
    repeated = hashes[1:][hashes[1:] == hashes[:-1]]
    return int(np.isin(repeated, _ABSENT, invert=True).sum())


class PageReader:
    """Reads pages of one dataset, and adds their keys to `check`; without `key` there is nothing to add."""

    def __init__(self, key: tuple[str, ...], check: KeyCheck | None) -> None:
        self._check = check if key else None
        self._fields = [f"k{number}" for number in range(len(key))]
        self._row = msgspec.defstruct(
            "Row",
            [(name, Any, msgspec.UNSET) for name in self._fields],
            rename=dict(zip(self._fields, key, strict=True)),
            gc=False,
        )

    def page(self) -> PageRows:
        """Return a reader of one page."""
        return PageRows(self)

    def count(self, hashes: list[Hashes]) -> int:
        """Add the hashes of a whole page's keys to the check; returns its rows."""
        if self._check is not None:
            self._check.add(np.concatenate(hashes))
        return sum(map(len, hashes))

    def rows(self, body: bytes | memoryview) -> list[Any]:
        """Decode a list of rows; raise `InvalidResponse` for anything but a list of objects."""
        rows: list[Any] = decode(body, list[self._row], "a JSON list of rows")  # type: ignore[name-defined]
        return rows

    def field_names(self, path: Path) -> dict[str, None]:
        """Return the names of fields in the page, in their order, from up to 10,000 rows spread over it."""
        names: dict[str, None] = {}
        rows = decode(path.read_bytes(), list[msgspec.Raw])
        for row in rows[:: len(rows) // _NAMED_ROWS + 1]:
            names.update(dict.fromkeys(decode(row, dict[str, msgspec.Raw])))
        return {name: None for name in names if not name.startswith(":")}

    def hashes(self, rows: list[Any]) -> Hashes:
        """Return the hashes of the keys of rows; zeros when there is no key."""
        if self._check is None:
            return np.zeros(len(rows), dtype=np.int64)
        key_of = attrgetter(*self._fields)
        try:
            return np.fromiter(map(hash, map(key_of, rows)), np.int64, len(rows))
        except TypeError:
            return np.fromiter(map(_hash, map(key_of, rows)), np.int64, len(rows))


class PageRows:
    """Reads one page while it is received, in parts cut between lines."""

    def __init__(self, reader: PageReader) -> None:
        self._reader = reader
        self._rest = bytearray()
        self._hashes: list[Hashes] | None = []

    def feed(self, offset: int, chunk: bytes) -> None:
        """Read the next chunk of the page; one at offset 0 begins a page."""
        if offset == 0:
            self._rest, self._hashes = bytearray(), []
        if self._hashes is None:
            return
        body = self._rest
        body += chunk
        border = body.rfind(_ROW_BORDER)
        if border >= 0:
            self._rest = body[border + 1 :]
            self._rest[0] = ord("[")
            body[border] = ord("]")
            self._add(memoryview(body)[: border + 1])

    def count(self, path: Path) -> int:
        """Return the rows of the page, which is stored at `path`.

        Raises `InvalidResponse` for anything but a list of objects.
        """
        if self._hashes is not None:
            self._add(memoryview(self._rest))
        if self._hashes is None:
            # Not in Socrata's form of one row a line, or not a page at all.
            self._hashes = [self._reader.hashes(self._reader.rows(path.read_bytes()))]
        return self._reader.count(self._hashes)

    def _add(self, part: memoryview) -> None:
        """Add the hashes of a part's rows; of none from now on when it is no list of rows."""
        assert self._hashes is not None
        try:
            rows = self._reader.rows(part)
        except InvalidResponse:
            rows = []
        if rows:
            self._hashes.append(self._reader.hashes(rows))
        else:
            self._hashes = None


def _hash(key: object) -> int:
    try:
        return hash(key)
    except TypeError:
        return hash(repr(key))


def fingerprint(pages: Iterable[Path]) -> tuple[int, int]:
    """Return the rows and a sum over them, which is the same in any order and differs when any row differs."""
    count = total = 0
    for page in pages:
        rows = decode(page.read_bytes(), list[msgspec.Raw])
        count += len(rows)
        total += sum(int.from_bytes(hashlib.blake2b(row, digest_size=16).digest()) for row in rows)
    return count, total % (1 << 128)
