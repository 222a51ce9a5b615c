"""Pages of rows looked through in little memory: is it whole, how many rows, which keys came twice."""

from __future__ import annotations

import hashlib
import mmap
import shutil
import threading
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt

from catalunya.sources.http import UNDECODABLE, InvalidResponse, decode, not_json, portal_message

_READ_ONLY: dict[str, int] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_POPULATE, "prot": mmap.PROT_READ}
    if hasattr(mmap, "MAP_POPULATE")
    else {"access": mmap.ACCESS_READ}
)
"""Linux maps a whole page file at once, which saves a fault per 4 KiB."""

_ROW_BORDER = b"\n,{"
"""How Socrata parts one row from the next. A line break cannot stand inside a JSON text."""

_LONGEST_ROW = 1 << 23
_KEYS_IN_MEMORY = 500_000
_WAITING = 250_000
_NAMED_ROWS = 10_000
Hashes = npt.NDArray[np.int64]
_NONE: Hashes = np.empty(0, dtype=np.int64)
_ABSENT: Hashes = np.array([hash(None), hash(msgspec.UNSET)], dtype=np.int64)
_Text = str | None | msgspec.UnsetType
"""What keys nearly always are; reading just that takes three quarters of the time."""


class KeyCheck:
    """Counts the keys that came more than once, in memory that does not grow with the rows.

    Keeps 64-bit hashes in bucket files under `folder`, each small enough to be held alone. Two keys that
    share a hash by chance cost a second reading, never a wrong answer.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder = folder
        self._buckets = 1 + rows // _KEYS_IN_MEMORY
        self._waiting: list[Hashes] = []
        self._lock = threading.Lock()
        self._doubled: int | None = None

    def __enter__(self) -> Self:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, hashes: Hashes) -> None:
        """Take the hashes of one page's keys."""
        with self._lock:
            self._doubled = None
            self._waiting.append(hashes)
            if sum(map(len, self._waiting)) > _WAITING:
                self._spill()

    def doubled(self) -> int:
        """How many rows have a key that an earlier row had; rows without a key do not count."""
        if self._doubled is None:
            self._spill()
            self._doubled = sum(_doubled(path) for path in self._folder.iterdir())
        return self._doubled

    def _spill(self) -> None:
        hashes = np.concatenate([_NONE, *self._waiting])
        self._waiting = []
        bucket = hashes % self._buckets
        for number in range(self._buckets):
            with (self._folder / str(number)).open("ab") as file:
                hashes[bucket == number].tofile(file)


def _doubled(bucket: Path) -> int:
    hashes = np.fromfile(bucket, dtype=np.int64)
    hashes.sort()
    again = hashes[1:][hashes[1:] == hashes[:-1]]
    return int(np.isin(again, _ABSENT, invert=True).sum())


class PageReader:
    """Reads the landed pages of one dataset: rows, keys, field names."""

    def __init__(self, key: tuple[str, ...], check: KeyCheck | None) -> None:
        self._check = check if key else None
        self._one_page = threading.Lock()
        self._fields = [f"k{number}" for number in range(len(key))]
        renamed = dict(zip(self._fields, key, strict=True))
        self._decoder = msgspec.json.Decoder(list[_struct(renamed, _Text)])  # type: ignore[misc]
        self._any = msgspec.json.Decoder(list[_struct(renamed, Any)])  # type: ignore[misc]

    def scan(self) -> PageScan:
        """A look at one page while it arrives."""
        return PageScan(self)

    def read(self, path: Path) -> int:
        """The number of rows in the page at `path`; `InvalidResponse` when it is not a whole list of objects."""
        with self._one_page:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, **_READ_ONLY) as body:
                rows = self._decode(body)
            self.keep([self.hashes(rows)])
            return len(rows)

    def rows(self, body: memoryview) -> list[Any]:
        """The keys of the rows in a JSON list; msgspec's error when it is none, or a key is no text."""
        return self._decoder.decode(body)  # type: ignore[no-any-return]

    def hashes(self, rows: list[Any]) -> Hashes:
        """A hash per row of its key; nothing when keys are not looked at."""
        if self._check is None:
            return _NONE
        key_of = attrgetter(*self._fields)
        try:
            return np.fromiter(map(hash, map(key_of, rows)), np.int64, len(rows))
        except TypeError:
            return np.fromiter((hash(repr(key_of(row))) for row in rows), np.int64, len(rows))

    def keep(self, hashes: list[Hashes]) -> None:
        """Take the hashes of a whole page into the check."""
        if self._check is not None:
            self._check.add(np.concatenate([_NONE, *hashes]))

    def field_names(self, path: Path) -> dict[str, None]:
        """The names that rows of the page have, in the order they come; from 10,000 rows spread over it."""
        rows = decode(path.read_bytes(), list[msgspec.Raw])
        names: dict[str, None] = {}
        for row in rows[:: len(rows) // _NAMED_ROWS + 1]:
            names.update(dict.fromkeys(decode(row, dict[str, msgspec.Raw])))
        return {name: None for name in names if not name.startswith(":")}

    def _decode(self, body: mmap.mmap) -> list[Any]:
        try:
            try:
                return self._decoder.decode(body)  # type: ignore[no-any-return]
            except msgspec.ValidationError:
                return self._any.decode(body)  # type: ignore[no-any-return]
        except msgspec.ValidationError as error:
            said = portal_message(body[:65536])
            raise InvalidResponse(f"found {said or error} where a JSON list of rows is due") from None
        except UNDECODABLE as error:
            raise InvalidResponse(not_json(body[:200], error)) from None


class PageScan:
    """Reads one page while it arrives, as the rows between two borders; gives up what has no borders.

    Rows are read while they are still in the processor's cache, and other threads wait for the
    interpreter's lock no longer than one piece takes. A page that does not fall into rows this way is
    read whole by `PageReader.read` once it is stored; the result is the same.
    """

    def __init__(self, reader: PageReader) -> None:
        self._reader = reader
        self._left = b""
        self._first = True
        self._borders = True
        self._rows = 0
        self._hashes: list[Hashes] = []

    def feed(self, piece: memoryview | bytes) -> None:
        """Take the next bytes of the page."""
        if not self._borders:
            return
        body = bytearray(self._left)
        body += piece
        border = body.rfind(_ROW_BORDER)
        if border >= 0:
            self._left = bytes(memoryview(body)[border + 1 :])
            body[border] = ord("]")
            self._take(body, border + 1)
        elif len(body) <= _LONGEST_ROW:
            self._left = bytes(body)
        else:
            self._give_up()

    def finish(self, path: Path) -> int:
        """The number of rows in the page, now stored at `path`; `InvalidResponse` when it is not a whole list."""
        if self._borders and not self._first:
            self._take(bytearray(self._left), len(self._left))
        if not self._borders or self._first:
            return self._reader.read(path)
        self._reader.keep(self._hashes)
        return self._rows

    def _take(self, body: bytearray, end: int) -> None:
        """Read `[…]` or `,…]`, a part of the page that holds at least one row, for a list in itself."""
        if body[0] == ord("[" if self._first else ","):
            body[0] = ord("[")
            try:
                rows = self._reader.rows(memoryview(body)[:end])
            except UNDECODABLE:
                rows = []
            if rows:
                self._first = False
                self._rows += len(rows)
                self._hashes.append(self._reader.hashes(rows))
                return
        self._give_up()

    def _give_up(self) -> None:
        self._borders = False
        self._left = b""
        self._hashes = []


def _struct(renamed: dict[str, str], kind: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct(
        "Row", [(name, kind, msgspec.UNSET) for name in renamed], rename=renamed, gc=False
    )


def fingerprint(pages: Iterable[Path]) -> tuple[int, int]:
    """Rows, and a sum over them that any order gives alike and any other row changes."""
    count = total = 0
    for page in pages:
        rows = decode(page.read_bytes(), list[msgspec.Raw])
        count += len(rows)
        total += sum(int.from_bytes(hashlib.blake2b(row, digest_size=16).digest()) for row in rows)
    return count, total % (1 << 128)
