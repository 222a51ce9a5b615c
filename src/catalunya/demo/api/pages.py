"""Rows rendered once into a file, so that a page of 50,000 is a slice of it and not work."""

from __future__ import annotations

import hashlib
import mmap
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache

import msgspec

from catalunya.demo.data.datasets import Dataset
from catalunya.demo.data.rng import seeded
from catalunya.demo.data.service import Row

ALPHABET = "23456789abcdefghijkmnpqrstuvwxyz"
PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
ID_LENGTH = 18
SHUFFLED_UP_TO = 100_000
CHUNK = 1 << 20
SEPARATOR = b"\n,"
_decoder = msgspec.json.Decoder(dict[str, object])


def row_id(seed: bytes) -> str:
    """Return a row identifier like `row-b7gk-wcry-jv3b` that depends on the row alone."""
    return _id_of(int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest()) & ((1 << 60) - 1))


def _id_of(number: int) -> str:
    high, middle, low = number >> 40, number >> 20 & 0xFFFFF, number & 0xFFFFF
    return f"row-{_letters(high)}-{_letters(middle)}-{_letters(low)}"


def _letters(number: int) -> str:
    return PAIRS[number >> 10] + PAIRS[number & 1023]


@lru_cache(maxsize=8)
def _rendered(dataset: Dataset) -> Table:
    seen: dict[bytes, int] = {}
    rendered: list[tuple[str, bytes]] = []
    first = dataset.columns[0].field
    for row in dataset.rows():
        if ":id" in row:
            data = {name: value for name, value in row.items() if not name.startswith(":") or "@" in name}
            rendered.append((str(row[":id"])[:ID_LENGTH].ljust(ID_LENGTH), msgspec.json.encode(data)))
            continue
        key = f"{dataset.id} {row.get(first)} {row.get('any', '')} {row.get('codi', '')}".encode()
        copy = seen[key] = seen.get(key, 0) + 1
        rendered.append((row_id(b"%b %d" % (key, copy)), msgspec.json.encode(row)))
    return Table(_stamp(dataset), sorted(rendered))


def _stamp(dataset: Dataset) -> str:
    return dataset.updated.strftime("%Y-%m-%dT%H:%M:%S.000Z")


class Table:
    """The rows of a dataset in `:id` order as JSON objects in a file, and where each one begins.

    The order without `$order` is another one: complete, but not that of `:id`, as on the real portal.
    """

    def __init__(self, stamp: str, lines: Iterable[tuple[str, bytes]]) -> None:
        self._stamp = stamp
        self._offsets = array("Q", [0])
        identifiers = bytearray()
        with tempfile.TemporaryFile(prefix="catalunya-demo-", buffering=CHUNK) as file:
            for identifier, line in lines:
                identifiers += identifier.encode()
                file.write(line + SEPARATOR)
                self._offsets.append(self._offsets[-1] + len(line) + len(SEPARATOR))
            file.flush()
            written = self._offsets[-1]
            self._bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if written else b"")
        self._ids = bytes(identifiers)

    @classmethod
    def of(cls, dataset: Dataset) -> Table:
        """Render the rows of a dataset, once for all that show it; a row that comes twice gets two identifiers."""
        if dataset.lines is None:
            return _rendered(dataset)
        return cls(_stamp(dataset), ((_id_of(number), line) for number, line in enumerate(dataset.lines())))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def identifier(self, index: int) -> str:
        """Return the `:id` of the row at that place of the `:id` order."""
        return self._ids[index * ID_LENGTH : (index + 1) * ID_LENGTH].decode().strip()

    def line(self, index: int) -> bytes:
        """Return the JSON object of a row."""
        return bytes(self._bytes[self._offsets[index] : self._offsets[index + 1] - len(SEPARATOR)])

    def row(self, index: int) -> Row:
        """Return a row without its system fields."""
        return _decoder.decode(self._bytes[self._offsets[index] : self._offsets[index + 1] - len(SEPARATOR)])

    def system_fields(self, index: int) -> Row:
        """Return the system fields of a row."""
        identifier = self.identifier(index)
        return {
            ":id": identifier,
            ":version": _version(identifier),
            ":created_at": self._stamp,
            ":updated_at": self._stamp,
        }

    def page(self, indexes: Sequence[int]) -> list[bytes | memoryview]:
        """Return the body of a page as pieces: one slice of the file where the rows lie side by side."""
        if not indexes:
            return [b"[]\n"]
        pieces: list[bytes | memoryview] = [b"["]
        for first, last in _runs(indexes):
            pieces.append(self._bytes[self._offsets[first] : self._offsets[last + 1]])
        pieces[-1] = pieces[-1][: -len(SEPARATOR)]
        pieces.append(b"]\n")
        return [b"".join(pieces)] if len(pieces) > 8 else pieces

    @cached_property
    def default_order(self) -> Sequence[int]:
        """The order of the rows when nobody asks for one: shuffled, or rotated where there are very many."""
        count = len(self)
        if count > SHUFFLED_UP_TO:
            return array("L", [*range(count // 3, count), *range(count // 3)])
        order = array("L", range(count))
        seeded(f"order of {count}").shuffle(order)
        return order

    @cached_property
    def with_system_fields(self) -> Table:
        """The same rows with their system fields in front."""
        end = f'",":created_at":"{self._stamp}",":updated_at":"{self._stamp}",'.encode()
        identifiers = map(self.identifier, range(len(self)))
        return Table(
            self._stamp,
            (
                (
                    identifier,
                    b'{":id":"%b",":version":"%b%b%b'
                    % (identifier.encode(), _version(identifier).encode(), end, self.line(index)[1:]),
                )
                for index, identifier in enumerate(identifiers)
            ),
        )


def _version(identifier: str) -> str:
    return "rv-" + identifier[:3:-1]


def _runs(indexes: Sequence[int]) -> list[tuple[int, int]]:
    if isinstance(indexes, range) and indexes.step == 1:
        return [(indexes[0], indexes[-1])]
    runs: list[tuple[int, int]] = []
    first = last = indexes[0]
    for index in indexes[1:]:
        if index == last + 1:
            last = index
            continue
        runs.append((first, last))
        first = last = index
    return [*runs, (first, last)]
