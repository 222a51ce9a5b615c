"""The faults between pages: another order in each (`reordered`), and rows that come and go (`shifting`)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from catalunya.demo.data.rng import seeded
from catalunya.demo.data.service import Row
from catalunya.demo.faults.switches import Faults


class PageFaults:
    """Counts the pages of a dataset that were served under `reordered` and `shifting`, and changes the next."""

    def __init__(self) -> None:
        self._reordered = 0
        self.changes = 0
        self._pages = 0

    def count_request(self, faults: Faults, dataset_id: str, *, page: bool) -> None:
        """Count a request; after the first page each page finds one more row changed."""
        if faults.find("reordered", dataset_id) is None:
            self._reordered = 0
        elif page:
            self._reordered += 1
        if faults.find("shifting", dataset_id) is None:
            self._pages = self.changes = 0
        elif page:
            self.changes = self._pages
            self._pages += 1

    def __str__(self) -> str:
        return f"{self._reordered} {self.changes}"

    def applied(self, indexes: Sequence[int]) -> Sequence[int]:
        """Return the rows as this request sees them: without those that vanished, or in another order."""
        if self.changes:
            indexes = [*indexes[self.changes :], *indexes[: self.changes]]
        if self._reordered:
            indexes = list(indexes)
            seeded(f"order {self._reordered}").shuffle(indexes)
        return indexes

    def with_new_rows(self, parts: list[bytes | memoryview], *, last: bool) -> list[bytes | memoryview]:
        """Return the page; the last one ends with the rows that replace those that vanished."""
        if not (self.changes and last):
            return parts
        rows = msgspec.json.decode(b"".join(parts), type=list[dict[str, object]])
        changed = min(self.changes, len(rows))
        rows[len(rows) - changed :] = [_new_row(row, number) for number, row in enumerate(rows[-changed:])]
        return [b"[" + b"\n,".join(msgspec.json.encode(row) for row in rows) + b"]\n"]


def _new_row(row: Row, number: int) -> Row:
    changed = dict(row)
    for field in (":id", "registre", "codi"):
        if field in changed:
            changed[field] = f"{str(changed[field])[:1]}{99_000 + number}"
    return changed
