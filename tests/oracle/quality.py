"""Row counts of every snapshot by outcome, and the people attended, in plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .kept import Kept, Row, Snapshot
from .names import Gazetteer, Match
from .territory import comarca_of_today

SUMMED = {"AGE.TOTAL": "people", "AGE.Y_GE065": "people_aged_65_over"}


@dataclass(frozen=True)
class Control:
    """A published total beside what the rows sum to."""

    what: str
    published: int
    computed: int
    reason: str | None


def data_quality(
    kept: Kept, places: Gazetteer, residences: Iterable[Row], *, heeds_postal_code: bool
) -> Iterator[Row]:
    """One row per dataset and snapshot, those that another of their day replaced included.

    `residences` are the rows of `residence_places_control`, which judge the newest register.
    """
    register = [_residence_control(row) for row in residences if row["places_computed"] is not None]
    for snapshot in kept.snapshots:
        counting = kept.counting(snapshot.dataset_id)
        is_newest = snapshot is counting[-1]
        controls = [*_own_controls(snapshot)]
        if snapshot.dataset_id == "social_services" and is_newest:
            controls += register
        matches = _matches(snapshot, places, heeds_postal_code)
        contradicting = _contradicting_boundaries(kept, snapshot)
        yield {
            "dataset_id": snapshot.dataset_id,
            "snapshot_id": snapshot.snapshot_id,
            "snapshot_date": snapshot.day,
            "is_last_of_day": snapshot in counting,
            "is_newest": is_newest,
            "rows_in": snapshot.rows_in,
            "rows_staged": len(snapshot.typed.rows),
            "rows_quarantined": snapshot.typed.quarantined,
            "rows_duplicated": snapshot.typed.duplicated,
            "rows_unmatched": sum(m.municipality_id is None for m in matches) + contradicting,
            "rows_comarca_contradicts": sum(m.comarca_contradicts for m in matches),
            "rows_postal_code_contradicts": sum(m.postal_code_contradicts for m in matches),
            "rows_corrected": 0,
            "rows_carried_forward": len(snapshot.remembered),
            "values_invalid": sum(snapshot.typed.invalid.values()),
            "values_invalid_by_column": _by_column(snapshot.typed.invalid),
            **_judged(controls),
        }


def service_users(kept: Kept) -> Iterator[Row]:
    """One row per comarca and year of the newest snapshot."""
    newest = kept.newest("service_users")
    for row, origin in newest.rows_with_origin:
        yield {**row, "snapshot_id": origin}


def _by_column(invalid: dict[str, int]) -> str | None:
    """Such as `latitude: 1, places: 2`; nothing where every value is good."""
    return ", ".join(f"{column}: {invalid[column]}" for column in sorted(invalid)) or None


def _own_controls(snapshot: Snapshot) -> Iterator[Control]:
    """The totals that the source itself publishes beside its rows."""
    for (source, year), published in snapshot.totals.items():
        measure = SUMMED[source]
        computed = sum(row[measure] for row in snapshot.typed.rows if row["year"] == year)
        reason = "rows_quarantined" if snapshot.typed.quarantined else "unexplained"
        yield Control(f"{measure} of Catalonia, {year}", published, computed, reason)


def _residence_control(row: Row) -> Control:
    what = f"residence places of comarca {row['comarca_id']}, {row['ownership']}, {row['year']}"
    return Control(what, row["places_official"], row["places_computed"], row["difference_reason"])


def _judged(controls: list[Control]) -> Row:
    differing = [c for c in controls if c.published != c.computed]
    worst = min(differing, key=lambda c: (-abs(c.computed - c.published), c.what), default=None)
    return {
        "controls": len(controls),
        "controls_differing": len(differing),
        "largest_difference_in": worst and worst.what,
        "largest_difference_published": worst and worst.published,
        "largest_difference_computed": worst and worst.computed,
        "largest_difference": worst and worst.computed - worst.published,
        "largest_difference_reason": worst and worst.reason,
    }


def _matches(snapshot: Snapshot, places: Gazetteer, heeds_postal_code: bool) -> list[Match]:
    if snapshot.dataset_id != "social_services":
        return []
    known: dict[tuple[str | None, ...], Match] = {}
    matches = []
    for row in snapshot.typed.rows:
        postal_code = row["postal_code"] if heeds_postal_code else None
        stated = (row["municipality_name"], row["comarca_name"], postal_code)
        if stated not in known:
            known[stated] = places.find(*stated)
        matches.append(known[stated])
    return matches


def _contradicting_boundaries(kept: Kept, snapshot: Snapshot) -> int:
    if snapshot.dataset_id != "boundaries":
        return 0
    comarca_of = comarca_of_today(kept)
    return sum(
        comarca_of.get(row["area_id"], row["comarca_id"]) != row["comarca_id"]
        for row in snapshot.typed.rows
        if row["level"] == "municipality"
    )
