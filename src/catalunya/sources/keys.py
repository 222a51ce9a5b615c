"""Pages of rows looked through in little memory: is it whole, how many rows, which keys came twice."""

from __future__ import annotations

import hashlib
import mmap
import shutil
import threading
from array import array
from collections.abc import Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from catalunya.sources.http import Unfit, not_json, portal_message

_READ_ONLY: dict[str, int] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_POPULATE, "prot": mmap.PROT_READ}
    if hasattr(mmap, "MAP_POPULATE")
    else {"access": mmap.ACCESS_READ}
)
"""Linux maps a whole page file at once, which saves a fault per 4 KiB."""

_KEYS_IN_MEMORY = 100_000
_WAITING = 250_000
_NAMED_ROWS = 10_000
_ABSENT = {hash(None), hash(msgspec.UNSET)}
_Text = str | None | msgspec.UnsetType
"""What keys nearly always are; reading just that takes three quarters of the time."""


class KeyCheck:
    """Counts the keys that came more than once, in memory that does not grow with the rows.

    Keeps 64-bit hashes in bucket files under `folder`, each small enough to be held alone. Two keys that
    share a hash by chance cost a second reading, never a wrong answer.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder = folder
        self._parts = [array("q") for _ in range(1 << (rows // _KEYS_IN_MEMORY).bit_length())]
        self._waiting = 0
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

    def add(self, hashes: Sequence[int]) -> None:
        """Take the hashes of one page's keys."""
        buckets: list[list[int]] = [[] for _ in self._parts]
        append = [bucket.append for bucket in buckets]
        mask = len(buckets) - 1
        for value in hashes:
            append[value & mask](value)
        with self._lock:
            for part, bucket in zip(self._parts, buckets, strict=True):
                part.fromlist(bucket)
            self._doubled = None
            self._waiting += len(hashes)
            if self._waiting > _WAITING:
                self._spill()

    def doubled(self) -> int:
        """How many rows have a key that an earlier row had; rows without a key do not count."""
        if self._doubled is None:
            self._spill()
            self._doubled = sum(_doubled(path) for path in self._folder.iterdir())
        return self._doubled

    def _spill(self) -> None:
        for number, part in enumerate(self._parts):
            with (self._folder / str(number)).open("ab") as file:
                part.tofile(file)
            del part[:]
        self._waiting = 0


def _doubled(bucket: Path) -> int:
    hashes = array("q", bucket.read_bytes())
    distinct = set(hashes)
    absent = sum(hashes.count(value) - 1 for value in _ABSENT & distinct)
    return len(hashes) - len(distinct) - absent


class PageReader:
    """Reads the landed pages of one dataset: rows, keys, field names."""

    def __init__(self, key: tuple[str, ...], check: KeyCheck | None) -> None:
        self._check = check if key else None
        self._one_page = threading.Lock()
        self._fields = [f"k{number}" for number in range(len(key))]
        renamed = dict(zip(self._fields, key, strict=True))
        self._decoder = msgspec.json.Decoder(list[_struct(renamed, _Text)])  # type: ignore[misc]
        self._any = msgspec.json.Decoder(list[_struct(renamed, Any)])  # type: ignore[misc]

    def read(self, path: Path, offset: int) -> int:
        """The number of rows in the page at `path`; `Unfit` when it is not a whole list of objects."""
        if path.stat().st_size == 0:
            raise Unfit("found an empty body")
        with self._one_page:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, **_READ_ONLY) as body:
                rows = self._decode(body)
            if self._check is not None:
                self._check.add(self._hashes(rows))
            return len(rows)

    def field_names(self, path: Path) -> dict[str, None]:
        """The names that rows of the page have, in the order they come; from 10,000 rows spread over it."""
        with path.open("rb") as file:
            rows = msgspec.json.decode(file.read(), type=list[msgspec.Raw])
        names: dict[str, None] = {}
        for row in rows[:: len(rows) // _NAMED_ROWS + 1]:
            names.update(dict.fromkeys(msgspec.json.decode(row)))
        return {name: None for name in names if not name.startswith(":")}

    def _decode(self, body: mmap.mmap) -> list[Any]:
        try:
            try:
                return self._decoder.decode(body)  # type: ignore[no-any-return]
            except msgspec.ValidationError:
                return self._any.decode(body)  # type: ignore[no-any-return]
        except msgspec.ValidationError as error:
            said = portal_message(body[:65536])
            raise Unfit(f"found {said or error} where a JSON list of rows is due") from None
        except msgspec.DecodeError as error:
            raise Unfit(not_json(body[:200], error)) from None

    def _hashes(self, rows: list[Any]) -> list[int]:
        key_of = attrgetter(*self._fields)
        try:
            return list(map(hash, map(key_of, rows)))
        except TypeError:
            return [hash(repr(key_of(row))) for row in rows]


def _struct(renamed: dict[str, str], kind: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct(
        "Row", [(name, kind, msgspec.UNSET) for name in renamed], rename=renamed, gc=False
    )


def fingerprint(pages: Iterable[Path]) -> tuple[int, int]:
    """Rows, and a sum over them that any order gives alike and any other row changes."""
    count = total = 0
    for page in pages:
        with page.open("rb") as file:
            rows = msgspec.json.decode(file.read(), type=list[msgspec.Raw])
        count += len(rows)
        total += sum(int.from_bytes(hashlib.blake2b(row, digest_size=16).digest()) for row in rows)
    return count, total % (1 << 128)
