"""Services and places by territory and year, in plain Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import product

from .kept import Kept, Row, seed
from .territory import comarca_of_today

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
        self._comarca_of = comarca_of_today(kept)
        self._division_on = kept.newest("municipalities").day
        self._years = years(kept, population)
        self._counts = self._count(list(history))
        self._aged = self._sum_people(population)
        self._members: dict[str, int] = defaultdict(int)
        for municipality_id, comarca_id in self._comarca_of.items():
            for territory in (municipality_id, comarca_id, CATALONIA):
                self._members[territory] += 1

    def municipalities(self) -> Iterator[Row]:
        """`coverage_municipality`."""
        for row in self._rows(self._comarca_of):
            yield {"municipality_id": row["territory"], **row}

    def comarques(self) -> Iterator[Row]:
        """`coverage_comarca`."""
        for row in self._rows(set(self._comarca_of.values())):
            yield {"comarca_id": row["territory"], **row}

    def catalonia(self) -> Iterator[Row]:
        """`coverage_catalonia`, with what no municipality could be found for."""
        for row in self._rows([CATALONIA]):
            unmatched = self._counts[UNMATCHED, row["year"], row["service_group"], row["ownership"]]
            yield {**row, "services_unmatched": unmatched[0], "places_unmatched": unmatched[1]}

    def residence_places_control(self) -> Iterator[Row]:
        """Residence places beside the published ones."""
        basis_of = {known.year: known.basis for known in self._years}
        for row in seed("official_residence_places"):
            year, comarca_id, official = int(row["year"]), row["comarca_id"], int(row["places"])
            covered = year in basis_of and self._members[comarca_id] > 0
            computed = self._residence_places(comarca_id, year, row["ownership"]) if covered else None
            difference = None if computed is None else computed - official
            yield {
                "year": year,
                "comarca_id": comarca_id,
                "ownership": row["ownership"],
                "basis": basis_of[year] if covered else None,
                "places_official": official,
                "places_computed": computed,
                "places_difference": difference,
                "is_within_tolerance": _is_within_tolerance(difference, official),
                "difference_reason": self._reason(
                    difference, basis_of.get(year), comarca_id, year, row["ownership"]
                ),
                "source": row["source"],
            }

    def _residence_places(self, territory: str, year: int, ownership: str) -> int:
        return sum(self._counts[territory, year, group, ownership][1] for group in RESIDENCES)

    def _reason(
        self, difference: int | None, basis: str | None, comarca_id: str, year: int, ownership: str
    ) -> str | None:
        """The first thing known to make a difference from the published figure."""
        if difference is None:
            return "not_covered"
        if difference == 0:
            return None
        if basis == "inscription":
            return "read_back"
        if 0 < -difference <= self._residence_places(comarca_id, year, "unknown"):
            return "unknown_ownership"
        if 0 < -difference <= self._residence_places(UNMATCHED, year, ownership):
            return "unmatched_services"
        return "unexplained"

    def _count(self, history: list[Row]) -> dict[tuple[str, int, str, str], Count]:
        counts: dict[tuple[str, int, str, str], Count] = defaultdict(lambda: [0, 0])
        for known in self._years:
            for period in history:
                if period["service_group"] == "other" or period["valid_from"] > known.day:
                    continue
                if period["valid_to"] is not None and period["valid_to"] <= known.day:
                    continue
                municipality_id = period["municipality_id"]
                territories = [municipality_id, self._comarca_of.get(municipality_id, ""), CATALONIA]
                for territory, ownership in product(
                    territories if municipality_id else [UNMATCHED], (period["ownership"], "all")
                ):
                    count = counts[territory, known.year, period["service_group"], ownership]
                    count[0] += 1
                    count[1] += period["places"] or 0
        return counts

    def _sum_people(self, population: list[Row]) -> dict[tuple[str, int], Count]:
        """People of 65 and over, and the municipalities of today that have a figure, by territory and year."""
        aged: dict[tuple[str, int], Count] = defaultdict(lambda: [0, 0])
        for row in population:
            municipality_id = row["municipality_id"]
            if municipality_id in self._comarca_of and row["people_aged_65_over"] is not None:
                for territory in (municipality_id, self._comarca_of[municipality_id], CATALONIA):
                    aged[territory, row["year"]][0] += row["people_aged_65_over"]
                    aged[territory, row["year"]][1] += 1
        return dict(aged)

    def _rows(self, territories: Iterable[str]) -> Iterator[Row]:
        for territory in territories:
            latest = None
            for known in self._years:
                if (territory, known.year) in self._aged:
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
                        "places_per_100_aged_65_over": per_100(places, people["people_aged_65_over"]),
                        "places_per_100_aged_65_over_latest": per_100(
                            places, people["people_aged_65_over_latest"]
                        ),
                        "division_on": self._division_on,
                    }

    def _people(self, territory: str, year: int, latest: int | None) -> Row:
        aged, published = self._aged.get((territory, year), (None, 0))
        return {
            "people_aged_65_over": aged,
            "municipalities_without_population": self._members[territory] - published,
            "population_year_latest": latest,
            "people_aged_65_over_latest": None if latest is None else self._aged[territory, latest][0],
        }


def _is_within_tolerance(difference: int | None, official: int) -> bool | None:
    if difference is None:
        return None
    return abs(difference) <= TOLERATED_PLACES or abs(difference) <= TOLERATED_RATIO * official


def per_100(places: int, people: int | None) -> float | None:
    """Places per 100 people to four decimals, halves upwards, by whole numbers alone; null without people."""
    if not people:
        return None
    return (2 * places * 1_000_000 + people) // (2 * people) / 10_000
