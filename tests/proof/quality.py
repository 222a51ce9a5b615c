"""What came in and what became of it, and the people attended, in plain Python."""

from __future__ import annotations

from collections.abc import Iterator

from .kept import Kept, Row, Snapshot
from .names import Gazetteer
from .territory import comarca_of_today

SUMMED = {"AGE.TOTAL": "people", "AGE.Y_GE065": "people_aged_65_over"}


def data_quality(kept: Kept, places: Gazetteer, *, heeds_postal_code: bool) -> Iterator[Row]:
    """One row per dataset and snapshot, those that another of their day replaced included."""
    for snapshot in kept.snapshots:
        counting = kept.counting(snapshot.dataset_id)
        differing = [_sum(snapshot, *control) != total for control, total in snapshot.totals.items()]
        yield {
            "dataset_id": snapshot.dataset_id,
            "snapshot_id": snapshot.snapshot_id,
            "snapshot_date": snapshot.day,
            "is_last_of_day": snapshot in counting,
            "is_newest": snapshot is counting[-1],
            "rows_in": snapshot.rows_in,
            "rows_staged": len(snapshot.typed.rows),
            "rows_quarantined": snapshot.typed.quarantined,
            "rows_duplicated": snapshot.typed.duplicated,
            "rows_unmatched": _unmatched(kept, snapshot, places, heeds_postal_code),
            "controls": len(differing),
            "controls_differing": sum(differing),
        }


def service_users(kept: Kept) -> Iterator[Row]:
    """One row per comarca and year of the newest snapshot."""
    newest = kept.newest("service_users")
    for row in newest.typed.rows:
        yield {**row, "snapshot_id": newest.snapshot_id}


def _sum(snapshot: Snapshot, source: str, year: int) -> int:
    return sum(row[SUMMED[source]] for row in snapshot.typed.rows if row["year"] == year)


def _unmatched(kept: Kept, snapshot: Snapshot, places: Gazetteer, heeds_postal_code: bool) -> int:
    if snapshot.dataset_id == "social_services":
        stated = [
            (row["municipality_name"], row["comarca_name"], row["postal_code"] if heeds_postal_code else None)
            for row in snapshot.typed.rows
        ]
        lost = {place for place in set(stated) if places.find(*place).municipality_id is None}
        return sum(place in lost for place in stated)
    if snapshot.dataset_id == "boundaries":
        comarca_of = comarca_of_today(kept)
        return sum(
            comarca_of.get(row["area_id"], row["comarca_id"]) != row["comarca_id"]
            for row in snapshot.typed.rows
            if row["level"] == "municipality"
        )
    return 0
