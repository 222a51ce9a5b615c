"""The snapshots that are kept, typed, and which of them count; and the project's seeds as plain rows."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from tests.conftest import ROOT

from .typed import Typed

Row = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """A kept snapshot: its typed rows, the rows that came, and the totals published beside them."""

    dataset_id: str
    snapshot_id: str
    taken_at: datetime
    rows_in: int
    typed: Typed
    totals: dict[tuple[str, int], int]
    updated_on: date | None = None
    """The publisher's own date of the data."""

    @property
    def day(self) -> date:
        """The day of the snapshot (UTC)."""
        return self.taken_at.date()


class Kept:
    """Every kept snapshot of every dataset."""

    def __init__(self, snapshots: list[Snapshot]) -> None:
        self.snapshots = sorted(snapshots, key=lambda s: (s.dataset_id, s.snapshot_id))

    def counting(self, dataset_id: str) -> list[Snapshot]:
        """The last snapshot of each day, oldest first."""
        by_day = {s.day: s for s in self.snapshots if s.dataset_id == dataset_id}
        return [by_day[day] for day in sorted(by_day)]

    def newest(self, dataset_id: str) -> Snapshot:
        """The snapshot that counts today."""
        return self.counting(dataset_id)[-1]


def seed(name: str) -> list[dict[str, str]]:
    """The rows of a seed."""
    path = ROOT / "dbt" / "mart" / "seeds" / f"{name}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
