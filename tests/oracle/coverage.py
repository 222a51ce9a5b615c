"""Services and places by territory and year, in plain Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import product

from .kept import Kept, Row, seed
from .names import Gazetteer, place_key
from .territory import (
    abolished,
    comarca_of_counted,
    comarca_of_today,
    comarca_on,
    counted_in,
    gazetteer,
    left_on,
)

GROUPS = ("assisted_residence", "home_residence", "sheltered_housing", "day_centre")
OWNERSHIPS = ("public", "social_initiative", "mercantile", "unknown")
RESIDENCES = ("assisted_residence", "home_residence")
TOLERATED_PLACES, TOLERATED_RATIO = 10, 0.05
CATALONIA = "catalonia"
UNMATCHED = "unmatched"

Count = list[int]
"""Services and places."""


@dataclass(frozen=True)
class Year:
    """A year that coverage has: how it is known and on which day services are counted."""

    year: int
    basis: str
    day: date


def years(kept: Kept, population: Iterable[Row]) -> list[Year]:
    """From the first year of population or register to the last of either."""
    days = [snapshot.day for snapshot in kept.counting("social_services")]
    known = {row["year"] for row in population} | {day.year for day in days}
    return [
        Year(
            year,
            "inscription" if year < days[0].year else "observed",
            min(date(year, 12, 31), days[-1]),
        )
        for year in range(min(known), max(known) + 1)
    ]


class Coverage:
    """Counts and people of every territory: municipality codes, comarca codes, and Catalonia."""

    def __init__(self, kept: Kept, history: Iterable[Row], population: list[Row]) -> None:
        self._kept = kept
        self._comarca_of = comarca_of_counted(kept)
        newest = kept.newest("municipalities")
        self._division_on = newest.updated_on or newest.day
        self._years = years(kept, population)
        self._history = list(history)
        self._counts = self._count(self._history)
        self._aged, self._missing = self._sum_people(population)

    def municipalities(self) -> Iterator[Row]:
        """`coverage_municipality`."""
        for row in self._rows(self._comarca_of):
            yield {"municipality_id": row["territory"], **row}

    def comarques(self) -> Iterator[Row]:
        """`coverage_comarca`."""
        for row in self._rows({comarca for comarca in self._comarca_of.values() if comarca}):
            yield {"comarca_id": row["territory"], **row}

    def catalonia(self) -> Iterator[Row]:
        """`coverage_catalonia`, with what no municipality could be found for."""
        for row in self._rows([CATALONIA]):
            unmatched = self._counts[UNMATCHED, row["year"], row["service_group"], row["ownership"]]
            yield {**row, "services_unmatched": unmatched[0], "places_unmatched": unmatched[1]}

    def residence_places_control(self) -> Iterator[Row]:
        """Residence places beside the published ones."""
        basis_of = {known.year: known.basis for known in self._years}
        names = gazetteer(self._kept)
        divisions: dict[str, dict[str, str | None]] = {}
        for row in seed("official_residence_places"):
            year, comarca_id, official = int(row["year"]), row["comarca_id"], int(row["places"])
            day = row["division_on"]
            if day not in divisions:
                divisions[day] = comarca_on(self._kept, date.fromisoformat(day))
            members = [code for code, comarca in divisions[day].items() if comarca == comarca_id]
            covered = year in basis_of and bool(members)
            computed = self._residence_places(members, year, row["ownership"]) if covered else None
            difference = None if computed is None else computed - official
            yield {
                "year": year,
                "comarca_id": comarca_id,
                "ownership": row["ownership"],
                "division_on": date.fromisoformat(day),
                "basis": basis_of[year] if covered else None,
                "places_official": official,
                "places_computed": computed,
                "places_difference": difference,
                "is_within_tolerance": _is_within_tolerance(difference, official),
                "difference_reason": _reason(
                    difference,
                    basis_of.get(year),
                    self._residence_places(members, year, "unknown"),
                    self._unmatched_places(names, comarca_id, year, row["ownership"]),
                ),
                "source": row["source"],
            }

    def places_control_catalonia(self) -> Iterator[Row]:
        """Places of all of Catalonia beside the published ones."""
        basis_of = {known.year: known.basis for known in self._years}
        for row in seed("official_places_catalonia"):
            year, official = int(row["year"]), int(row["places"])
            groups = RESIDENCES if row["facility"] == "residence" else ("day_centre",)

            def places(where: str, owner: str, year: int = year, groups: tuple[str, ...] = groups) -> int:
                return sum(self._counts[where, year, group, owner][1] for group in groups)

            computed = places(CATALONIA, row["ownership"]) if year in basis_of else None
            difference = None if computed is None else computed - official
            yield {
                "year": year,
                "facility": row["facility"],
                "ownership": row["ownership"],
                "basis": basis_of.get(year),
                "places_official": official,
                "places_computed": computed,
                "places_difference": difference,
                "is_within_tolerance": _is_within_tolerance(difference, official),
                "difference_reason": _reason(
                    difference,
                    basis_of.get(year),
                    places(CATALONIA, "unknown"),
                    places(UNMATCHED, row["ownership"]),
                ),
                "source": row["source"],
            }

    def _residence_places(self, territories: Iterable[str], year: int, ownership: str) -> int:
        return sum(
            self._counts[territory, year, group, ownership][1]
            for territory in territories
            for group in RESIDENCES
        )

    def _unmatched_places(self, names: Gazetteer, comarca_id: str, year: int, ownership: str) -> int:
        """Places of residences without a municipality that state this comarca, or none that is known."""
        days = [known.day for known in self._years if known.year == year]
        return sum(
            period["places"] or 0
            for period in self._history
            for day in days
            if period["municipality_id"] is None
            and period["service_group"] in RESIDENCES
            and period["ownership"] == ownership
            and period["valid_from"] <= day
            and (period["valid_to"] is None or day < period["valid_to"])
            and _stated(names, period["stated_comarca_name"]) in {comarca_id, None}
        )

    def _count(self, history: list[Row]) -> dict[tuple[str, int, str, str], Count]:
        counts: dict[tuple[str, int, str, str], Count] = defaultdict(lambda: [0, 0])
        for known in self._years:
            for period in history:
                if period["service_group"] == "other" or period["valid_from"] > known.day:
                    continue
                if period["valid_to"] is not None and period["valid_to"] <= known.day:
                    continue
                municipality_id = period["municipality_id"]
                territories = [municipality_id, self._comarca_of.get(municipality_id) or "", CATALONIA]
                for territory, ownership in product(
                    territories if municipality_id else [UNMATCHED], (period["ownership"], "all")
                ):
                    count = counts[territory, known.year, period["service_group"], ownership]
                    count[0] += 1
                    count[1] += period["places"] or 0
        return counts

    def _sum_people(
        self, population: list[Row]
    ) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
        """People of 65 and over by territory and year, and the municipalities that should have a figure and have none.

        A municipality of today always should, one that was merged as long as it existed on 1 January, one that left the
        list without a successor up to its last figure, or without any up to the 1 January before it left.
        """
        today, merged, left = comarca_of_today(self._kept), abolished(self._kept), left_on(self._kept)
        published = {
            (row["municipality_id"], row["year"]): row["people_aged_65_over"]
            for row in population
            if row["people_aged_65_over"] is not None
        }
        last: dict[str, int] = {}
        for code, year in published:
            last[code] = max(year, last.get(code, year))
        aged: dict[tuple[str, int], int] = {}
        missing: dict[tuple[str, int], int] = defaultdict(int)
        for (code, counted), known in product(counted_in(self._kept).items(), self._years):
            people = published.get((code, known.year))
            should = code in today
            if code in left:
                should = known.year <= last[code] if code in last else date(known.year, 1, 1) < left[code]
            if code in merged:
                should = code in last and date(known.year, 1, 1) < merged[code][1]
            for territory in (counted, self._comarca_of[counted] or "", CATALONIA):
                if people is not None:
                    aged[territory, known.year] = aged.get((territory, known.year), 0) + people
                missing[territory, known.year] += should and people is None
        return aged, missing

    def _rows(self, territories: Iterable[str]) -> Iterator[Row]:
        for territory in territories:
            latest = None
            for known in self._years:
                if (territory, known.year) in self._aged and not self._missing[territory, known.year]:
                    latest = known.year
                people = self._people(territory, known.year, latest)
                for group, ownership in product(GROUPS, (*OWNERSHIPS, "all")):
                    services, places = self._counts.get((territory, known.year, group, ownership), (0, 0))
                    yield {
                        "territory": territory,
                        "year": known.year,
                        "service_group": group,
                        "ownership": ownership,
                        "basis": known.basis,
                        "services": services,
                        "places": places,
                        **people,
                        "places_per_100_aged_65_over": None
                        if people["municipalities_without_population"]
                        else per_100(places, people["people_aged_65_over"]),
                        "places_per_100_aged_65_over_latest": per_100(
                            places, people["people_aged_65_over_latest"]
                        ),
                        "division_on": self._division_on,
                    }

    def _people(self, territory: str, year: int, latest: int | None) -> Row:
        return {
            "people_aged_65_over": self._aged.get((territory, year)),
            "municipalities_without_population": self._missing[territory, year],
            "population_year_latest": latest,
            "people_aged_65_over_latest": None if latest is None else self._aged[territory, latest],
        }


def _stated(names: Gazetteer, comarca_name: str | None) -> str | None:
    """The comarca that a service states; None where it states none that is known."""
    found = names.comarca_by_key.get(place_key(comarca_name or ""), set())
    return next(iter(found)) if len(found) == 1 else None


def _reason(difference: int | None, basis: str | None, of_unknown_owners: int, unmatched: int) -> str | None:
    """The first thing known to make a difference from the published figure."""
    if difference is None:
        return "not_covered"
    if difference == 0:
        return None
    if basis == "inscription":
        return "read_back"
    if 0 < -difference <= of_unknown_owners:
        return "unknown_ownership"
    if 0 < -difference <= unmatched:
        return "unmatched_services"
    return "unexplained"


def _is_within_tolerance(difference: int | None, official: int) -> bool | None:
    if difference is None:
        return None
    return abs(difference) <= TOLERATED_PLACES or abs(difference) <= TOLERATED_RATIO * official


def per_100(places: int, people: int | None) -> float | None:
    """Places per 100 people to four decimals, halves upwards, by whole numbers alone; null without people."""
    if not people:
        return None
    return (2 * places * 1_000_000 + people) // (2 * people) / 10_000
