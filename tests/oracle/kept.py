"""The snapshots that are kept, typed, and which of them count; and the project's seeds as plain rows."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from tests.project import ROOT

from .typed import DEFINITIONS, Typed

Row = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """A kept snapshot: its typed rows, the rows that came, and the totals published beside them.

    A row that came and is unusable is not a row that is gone: where its key was usable in an earlier snapshot, that
    earlier row is still what is known of it.
    """

    dataset_id: str
    snapshot_id: str
    taken_at: datetime
    rows_in: int
    typed: Typed
    totals: dict[tuple[str, int], int]
    updated_on: date | None = None
    """The publisher's own date of the data."""
    remembered: tuple[tuple[Row, str], ...] = ()
    """Rows of earlier snapshots for the keys that are unusable in this one, each with the snapshot that had it."""

    @property
    def day(self) -> date:
        """The day of the snapshot (UTC)."""
        return self.taken_at.date()

    @property
    def rows(self) -> list[Row]:
        """What is known of all that the snapshot has."""
        return [*self.typed.rows, *(row for row, _ in self.remembered)]

    @property
    def rows_with_origin(self) -> list[tuple[Row, str]]:
        """The same, each row with the snapshot whose row it is."""
        return [*((row, self.snapshot_id) for row in self.typed.rows), *self.remembered]


class Kept:
    """Every kept snapshot of every dataset."""

    def __init__(self, snapshots: list[Snapshot]) -> None:
        self.snapshots: list[Snapshot] = []
        memory: dict[tuple[str, tuple[Any, ...]], tuple[Row, str]] = {}
        for snapshot in sorted(snapshots, key=lambda s: (s.dataset_id, s.snapshot_id)):
            asked = [(snapshot.dataset_id, key) for key in sorted(snapshot.typed.unusable)]
            remembered = tuple(memory[key] for key in asked if key in memory)
            self.snapshots.append(replace(snapshot, remembered=remembered))
            for row in snapshot.typed.rows:
                memory[snapshot.dataset_id, key_of(snapshot.dataset_id, row)] = row, snapshot.snapshot_id

    def counting(self, dataset_id: str) -> list[Snapshot]:
        """The last snapshot of each day, oldest first."""
        by_day = {s.day: s for s in self.snapshots if s.dataset_id == dataset_id}
        return [by_day[day] for day in sorted(by_day)]

    def newest(self, dataset_id: str) -> Snapshot:
        """The snapshot that counts today."""
        return self.counting(dataset_id)[-1]


def key_of(dataset_id: str, row: Row) -> tuple[Any, ...]:
    """What tells a row of a dataset from the others."""
    key, columns = DEFINITIONS[dataset_id]
    return tuple(row[column.name] for column in columns if column.name in key)


def seed(name: str) -> list[dict[str, str]]:
    """The rows of a seed."""
    path = ROOT / "dbt" / "mart" / "seeds" / f"{name}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
