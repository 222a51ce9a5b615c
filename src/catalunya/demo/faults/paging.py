"""The two faults that show only between pages: another order each time, and rows that come and go."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from catalunya.demo.data.rng import seeded
from catalunya.demo.data.service import Row
from catalunya.demo.faults.switches import Faults


class PageDisorder:
    """How many pages of a dataset were served under `reordered` and `shifting`, and what follows from it."""

    def __init__(self) -> None:
        self._reordered = 0
        self.changes = 0
        self._pages = 0

    def look(self, faults: Faults, dataset_id: str, *, page: bool) -> None:
        """Take note of a request; after the first page each further one finds one change more."""
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

    def newcomers(self, pieces: list[bytes | memoryview], *, last: bool) -> list[bytes | memoryview]:
        """Return the page with the rows that appeared in the place of those that vanished, at the very end."""
        if not (self.changes and last):
            return pieces
        rows = msgspec.json.decode(b"".join(pieces), type=list[dict[str, object]])
        changed = min(self.changes, len(rows))
        rows[len(rows) - changed :] = [_newcomer(row, number) for number, row in enumerate(rows[-changed:])]
        return [b"[" + b"\n,".join(msgspec.json.encode(row) for row in rows) + b"]\n"]


def _newcomer(row: Row, number: int) -> Row:
    changed = dict(row)
    for field in (":id", "registre", "codi"):
        if field in changed:
            changed[field] = f"{str(changed[field])[:1]}{99_000 + number}"
    return changed
