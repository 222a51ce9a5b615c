"""The history of services by stepping through the snapshots one service at a time, in plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .kept import Kept, Row, Snapshot, seed
from .names import Gazetteer, kind_id, plain

OWNERS = {
    "entitat d'iniciativa publica": "public",
    "entitat privada d'iniciativa social": "social_initiative",
    "entitat privada d'iniciativa mercantil": "mercantile",
}
COPIED = ("service_id", "name", "registered_on", "places", "address", "district", "postal_code", "owner_name")
WATCHED = (
    "name", "service_type_id", "registered_on", "places", "address", "district", "postal_code", "place",
    "owner_name", "ownership",
)  # fmt: skip
"""A change of any of these ends a period; `place` is the municipality, or what is stated where none was found."""


def dim_service_type(kept: Kept) -> Iterator[Row]:
    """One row per kind of service: those of the seed as it spells them, then those that only the register has."""
    kinds: dict[str, Row] = {}
    for row in seed("service_types"):
        kinds[kind_id(row["service_type"])] = {
            "name": " ".join(row["service_type"].split()),
            "service_group": row["service_group"],
            "is_listed": True,
        }
    stated = {row["service_type"] for s in kept.counting("social_services") for row in s.rows}
    for name in sorted(stated):
        kinds.setdefault(kind_id(name), {"name": name, "service_group": "other", "is_listed": False})
    for service_type_id, kind in kinds.items():
        yield {"service_type_id": service_type_id, **kind}


class Histories:
    """The observed periods of each service, oldest first."""

    def __init__(self, kept: Kept, places: Gazetteer, *, heeds_postal_code: bool) -> None:
        self._places = places
        self._heeds_postal_code = heeds_postal_code
        self._kinds = {row["service_type_id"]: row for row in dim_service_type(kept)}
        self._days = kept.counting("social_services")
        self._cache: dict[tuple[str | None, ...], Row] = {}
        self.periods: dict[str, list[Row]] = {}
        for number, snapshot in enumerate(self._days):
            for row in snapshot.rows:
                self._observe(number, self._state(row))

    def service_history(self) -> Iterator[Row]:
        """One row per service and period; before the first snapshot, back to the day of inscription."""
        first_day = self._days[0].day
        for periods in self.periods.values():
            first = periods[0]
            inscribed = first["registered_on"]
            if self._is_from_the_start(first) and inscribed is not None and inscribed < first_day:
                read_in = self._days[first["first"]].snapshot_id
                yield {
                    **first,
                    "basis": "inscription",
                    "valid_from": inscribed,
                    "valid_to": first_day,
                    "is_current": False,
                    "first_snapshot_id": read_in,
                    "last_snapshot_id": read_in,
                }
            for period in periods:
                end = self._end(period)
                yield {
                    **period,
                    "basis": "observed",
                    "valid_from": self._days[period["first"]].day,
                    "valid_to": end.day if end else None,
                    "is_current": end is None,
                    "first_snapshot_id": self._days[period["first"]].snapshot_id,
                    "last_snapshot_id": self._days[period["last"]].snapshot_id,
                }

    def service_changes(self) -> Iterator[Row]:
        """One row per change between successive snapshots; the first snapshot opens nothing."""
        for periods in self.periods.values():
            for earlier, later in zip([None, *periods], [*periods, None], strict=True):
                if later is not None and (earlier is None or earlier["last"] + 1 < later["first"]):
                    yield from self._appeared(earlier, later)
                if earlier is not None and (later is None or earlier["last"] + 1 < later["first"]):
                    yield from self._vanished(earlier)
                if earlier is not None and later is not None and earlier["last"] + 1 == later["first"]:
                    for change, before, after in _differences(earlier, later):
                        yield self._change(later, later["first"], change, before, after)

    def _state(self, row: Row) -> Row:
        state = {name: row[name] for name in COPIED}
        stated = row["municipality_name"], row["comarca_name"], row["postal_code"]
        if stated not in self._cache:
            self._cache[stated] = self._place(*stated)
        kind = self._kinds[kind_id(row["service_type"])]
        return {
            **state,
            **self._cache[stated],
            "service_type_id": kind["service_type_id"],
            "service_group": kind["service_group"],
            "kind": kind["name"],
            "ownership": OWNERS.get(plain(row["ownership_name"] or ""), "unknown"),
        }

    def _place(self, municipality: str | None, comarca: str | None, postal_code: str | None) -> Row:
        match = self._places.find(municipality, comarca, postal_code if self._heeds_postal_code else None)
        return {
            "stated_municipality_name": municipality,
            "stated_comarca_name": comarca,
            "municipality_id": match.municipality_id,
            "municipality_match": match.municipality_match,
            "unmatched_reason": match.unmatched_reason,
            "comarca_contradicts": match.comarca_contradicts,
            "postal_code_contradicts": match.postal_code_contradicts,
            "comarca_id": self._places.comarca_of.get(match.municipality_id or ""),
            "place": match.municipality_id or municipality,
        }

    def _observe(self, number: int, state: Row) -> None:
        periods = self.periods.setdefault(state["service_id"], [])
        last = periods[-1] if periods else None
        if last and last["last"] == number - 1 and all(last[name] == state[name] for name in WATCHED):
            last["last"] = number
        else:
            periods.append({**state, "first": number, "last": number})

    def _is_from_the_start(self, period: Row) -> bool:
        """Whether every snapshot before the period has the service with a row that says nothing usable."""
        key = (period["service_id"],)
        return all(key in day.typed.unusable for day in self._days[: period["first"]])

    def _end(self, period: Row) -> Snapshot | None:
        following = period["last"] + 1
        return self._days[following] if following < len(self._days) else None

    def _appeared(self, earlier: Row | None, later: Row) -> Iterable[Row]:
        if earlier is not None:
            yield self._change(later, later["first"], "reopened", earlier["name"], later["name"])
        elif not self._is_from_the_start(later):
            yield self._change(later, later["first"], "opened", None, later["name"])

    def _vanished(self, earlier: Row) -> Iterable[Row]:
        if self._end(earlier) is not None:
            yield self._change(earlier, earlier["last"] + 1, "closed", earlier["name"], None)

    def _change(self, state: Row, number: int, change: str, before: object, after: object) -> Row:
        return {
            "service_id": state["service_id"],
            "changed_on": self._days[number].day,
            "change": change,
            "before": None if before is None else str(before),
            "after": None if after is None else str(after),
            "municipality_id": state["municipality_id"],
            "service_group": state["service_group"],
            "snapshot_id": self._days[number].snapshot_id,
        }


def _differences(earlier: Row, later: Row) -> Iterator[tuple[str, object, object]]:
    """Kind of change, and the state before and after in its terms."""
    both = (earlier, later)
    if earlier["places"] != later["places"]:
        yield "capacity_changed", earlier["places"], later["places"]
    if any(earlier[name] != later[name] for name in ("place", "address")):
        yield "moved", *(f"{s['address'] or '?'}, {s['stated_municipality_name'] or '?'}" for s in both)
    if any(earlier[name] != later[name] for name in ("owner_name", "ownership")):
        yield "owner_changed", *(f"{s['owner_name'] or '?'} ({s['ownership']})" for s in both)
    if earlier["service_type_id"] != later["service_type_id"]:
        yield "type_changed", earlier["kind"], later["kind"]
    if earlier["name"] != later["name"]:
        yield "renamed", earlier["name"], later["name"]
