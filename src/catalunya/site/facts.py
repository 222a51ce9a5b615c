"""What the pages say: rows of a release as plain records. Nothing is computed here that a mart has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import duckdb

from catalunya.site.language import folded
from catalunya.site.service_facts import (
    Change,
    Service,
    current_by_municipality,
    newest_changes,
    read_services,
)

GROUPS = ("assisted_residence", "home_residence", "sheltered_housing", "day_centre")
OWNERSHIPS = ("public", "social_initiative", "mercantile", "unknown")
CATALONIA = ""
"""Code of the whole territory."""


@dataclass(frozen=True)
class Coverage:
    """Places of one group and ownership in a territory and year."""

    basis: str
    services: int
    places: int
    rate: float | None
    """Places per 100 people aged 65 and over, of `population_year`."""
    people: int | None
    population_year: int | None


@dataclass(frozen=True)
class Access:
    """How near the services of a group are to a municipality."""

    nearest_km: float | None
    nearest_id: str | None
    ratio: float | None
    """Places per person aged 65 and over within `catchment_km`."""
    catchment_km: int

    @property
    def places_per_100(self) -> float | None:
        """The ratio as it is shown: places within reach per 100 people aged 65 and over."""
        return None if self.ratio is None else round(100 * self.ratio, 4)


@dataclass
class Territory:
    """A municipality, a comarca, or Catalonia."""

    code: str
    name: str
    comarca_id: str = ""
    """Of a municipality; empty for the others."""
    coverage: dict[tuple[int, str, str], Coverage] = field(default_factory=dict)
    """By year, service group and ownership (`all` is the sum)."""
    people: dict[int, int] = field(default_factory=dict)
    """People aged 65 and over by year; a year that is not complete is left out."""
    access: dict[str, Access] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """All that the pages say of a release."""

    years: dict[int, str]
    """Year to its basis, `observed` or `inscription`."""
    catalonia: Territory
    comarques: dict[str, Territory]
    municipalities: dict[str, Territory]
    register: dict[str, Service]
    """Every service that is or was for older people, by its number in the register."""
    services: dict[str | None, list[Service]]
    """Those of the register of now, by municipality; those without one under None."""
    changes: list[Change]
    """Of all services, the newest first."""

    @property
    def newest_year(self) -> int:
        """The newest year of the coverage."""
        return max(self.years)

    def sorted_comarques(self) -> list[Territory]:
        """The comarques, by name."""
        return sorted(self.comarques.values(), key=lambda one: folded(one.name))

    def members(self, comarca_id: str) -> list[Territory]:
        """The municipalities of a comarca, by name."""
        found = (one for one in self.municipalities.values() if one.comarca_id == comarca_id)
        return sorted(found, key=lambda one: folded(one.name))


def read_facts(con: duckdb.DuckDBPyConnection) -> Facts:
    """Read the marts; `con` has the database of a release, whose marts it names without a schema."""
    comarques = {
        code: Territory(code, name) for code, name in _rows(con, "comarca_id, name from dim_comarca")
    }
    municipalities = {
        code: Territory(code, name, comarca_id)
        for code, name, comarca_id in _rows(
            con, "municipality_id, display_name, comarca_id from dim_municipality where is_current"
        )
    }
    catalonia = Territory(CATALONIA, "Catalunya")
    for mart, code, territories in (
        ("coverage_catalonia", "''", {CATALONIA: catalonia}),
        ("coverage_comarca", "comarca_id", comarques),
        ("coverage_municipality", "municipality_id", municipalities),
    ):
        _read_coverage(con, mart, code, territories)
    for code, group, nearest_km, nearest_id, ratio, catchment_km in _rows(
        con,
        "municipality_id, service_group, nearest_km, nearest_municipality_id, accessibility_ratio, catchment_km "
        "from access_municipality",
    ):
        if code in municipalities:
            municipalities[code].access[group] = Access(nearest_km, nearest_id, ratio, catchment_km)
    register = read_services(con)
    return Facts(
        years=dict(_rows(con, "distinct year, basis from coverage_catalonia order by year")),
        catalonia=catalonia,
        comarques=comarques,
        municipalities=municipalities,
        register=register,
        services=current_by_municipality(register),
        changes=newest_changes(register),
    )


def _read_coverage(
    con: duckdb.DuckDBPyConnection, mart: str, code: str, territories: dict[str, Territory]
) -> None:
    """Read the coverage; where the people of a year are unknown, the rate is that of the newest year that has them."""
    for row in _rows(
        con,
        f"{code}, year, service_group, ownership, basis, services, places, people_aged_65_over, "
        "coalesce(places_per_100_aged_65_over, places_per_100_aged_65_over_latest), "
        "coalesce(people_aged_65_over, people_aged_65_over_latest), "
        f"if(people_aged_65_over is not null, year, population_year_latest) from {mart}",
    ):
        territory, year, group, ownership, basis, services, places, people, rate, divisor, population_year = (
            row
        )
        if territory not in territories:
            # It left the list of municipalities without a known successor.
            continue
        found = territories[territory]
        found.coverage[year, group, ownership] = Coverage(
            basis, services, places, rate, divisor, population_year
        )
        if people is not None:
            found.people[year] = people


def _rows(con: duckdb.DuckDBPyConnection, selected: str) -> list[tuple[Any, ...]]:
    return con.execute(f"select {selected}").fetchall()
