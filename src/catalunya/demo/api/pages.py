"""The rows of a dataset, rendered once into a file: a page of 50,000 rows is a slice of it."""

from __future__ import annotations

import hashlib
import mmap
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache

import msgspec

from catalunya.demo.api.soql import SYSTEM_FIELDS
from catalunya.demo.data.datasets import PortalDataset
from catalunya.demo.data.rng import seeded
from catalunya.demo.data.service import Row

ALPHABET = "23456789abcdefghijkmnpqrstuvwxyz"
ID_LENGTH = 18
SHUFFLED_UP_TO = 100_000
CHUNK = 1 << 20
SEPARATOR = b"\n,"
_decoder = msgspec.json.Decoder(dict[str, object])


def _id_of(number: int) -> str:
    """Return a row identifier like `row-b7gk-wcry-jv3b` for a number below 2**60."""
    letters = "".join(ALPHABET[number >> shift & 31] for shift in range(55, -1, -5))
    return f"row-{letters[:4]}-{letters[4:8]}-{letters[8:]}"


@lru_cache(maxsize=8)
def _rendered(dataset: PortalDataset) -> RenderedTable:
    """Identifiers depend on the row alone; a row that comes twice gets two of them."""
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
        digest = hashlib.blake2b(b"%b %d" % (key, copy), digest_size=8).digest()
        rendered.append((_id_of(int.from_bytes(digest) & ((1 << 60) - 1)), msgspec.json.encode(row)))
    return RenderedTable(dataset, sorted(rendered))


class RenderedTable:
    """The rows of a dataset in `:id` order as JSON objects in a file, and where each one begins.

    The order without `$order` is another one: complete, but not that of `:id`, as on the real portal.
    """

    def __init__(self, dataset: PortalDataset, lines: Iterable[tuple[str, bytes]]) -> None:
        self._dataset = dataset
        self._stamp = dataset.updated.strftime("%Y-%m-%dT%H:%M:%S.000Z")
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
    def of(cls, dataset: PortalDataset) -> RenderedTable:
        """Render the rows of a dataset, once for all portals that show it."""
        if dataset.lines is None:
            return _rendered(dataset)
        return cls(dataset, ((_id_of(number), line) for number, line in enumerate(dataset.lines())))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def _id(self, index: int) -> str:
        return self._ids[index * ID_LENGTH : (index + 1) * ID_LENGTH].decode().strip()

    def _line(self, index: int) -> bytes:
        return bytes(self._bytes[self._offsets[index] : self._offsets[index + 1] - len(SEPARATOR)])

    def row(self, index: int) -> Row:
        """Return the row at that place of the `:id` order, with its system fields."""
        row_id = self._id(index)
        system_fields = (row_id, "rv-" + row_id[:3:-1], self._stamp, self._stamp)
        return dict(zip(SYSTEM_FIELDS, system_fields, strict=True)) | _decoder.decode(self._line(index))

    def page(self, indexes: Sequence[int]) -> list[bytes | memoryview]:
        """Return the body of a page in parts: one slice of the file where the rows lie side by side."""
        if isinstance(indexes, range) and indexes.step == 1 and indexes:
            rows = self._bytes[self._offsets[indexes[0]] : self._offsets[indexes[-1] + 1] - len(SEPARATOR)]
            return [b"[", rows, b"]\n"]
        return [b"[" + SEPARATOR.join(map(self._line, indexes)) + b"]\n"]

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
    def with_system_fields(self) -> RenderedTable:
        """The same rows with their system fields in front."""
        rows = ((self._id(index), msgspec.json.encode(self.row(index))) for index in range(len(self)))
        return RenderedTable(self._dataset, rows)
