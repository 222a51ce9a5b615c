"""People by municipality, year, sex and age group: those of 2019 scaled to other years."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from itertools import pairwise

from catalunya.demo.data.territory import municipalities

FIRST_YEAR, LAST_YEAR = 2015, 2025
PEOPLE_OF_CATALONIA = {2015: 7_508_106, 2019: 7_675_217, 2025: 8_124_126}
"""Published totals (Idescat); the years between are interpolated."""
YEARLY_GROWTH_OF_AGED = 1.017
WOMEN_RATIO = 0.508
YOUNGEST, MIDDLE, OLDEST, TOTAL = "Y_LT016", "Y016_064", "Y_GE065", "TOTAL"
AGES = {TOTAL: "Total", YOUNGEST: "De 0 a 15 anys", MIDDLE: "De 16 a 64 anys", OLDEST: "65 anys i més"}
SEXES = {TOTAL: "Total", "F": "Dones", "M": "Homes"}
ABOLISHED = ("171220", "Palmerola")


@dataclass(frozen=True)
class PopulationTable:
    """An Idescat table: years, municipalities with their labels, and the value of each cell.

    `value` takes year, municipality and age (all sexes) and returns people, None where there is no figure.
    """

    label: str
    updated: date
    years: tuple[int, ...]
    territories: Mapping[str, str]
    value: Callable[[int, str, str], int | None]


def population_table(day: date) -> PopulationTable:
    """Return the demo table as of that day: from 2015 to the year before, 2025 at most."""
    last = max(FIRST_YEAR, min(LAST_YEAR, day.year - 1))
    territories = {TOTAL: "Catalunya"} | dict(
        sorted({m.municipality_id: m.name for m in municipalities()}.items() | {ABOLISHED})
    )
    return PopulationTable(
        label="Població. Per sexe i edat en grans grups. Municipis (dades de demostració)",
        updated=date(last + 1, 1, 1),
        years=tuple(range(FIRST_YEAR, last + 1)),
        territories=territories,
        value=lambda year, territory, age: people_of(year).get(territory, {}).get(age),
    )


@cache
def people_of(year: int) -> dict[str, dict[str, int]]:
    """Return people by municipality code (and `TOTAL`, their sum) and age group of one year."""
    everyone = apportion([m.people for m in municipalities()], _people_of_catalonia(year))
    people = {}
    for municipality, total in zip(municipalities(), everyone, strict=True):
        growth = YEARLY_GROWTH_OF_AGED ** (year - 2019)
        aged = min(total, round(municipality.people_aged_65_over * growth))
        young = min(total - aged, round(municipality.people_aged_under_15 * 16 / 15))
        people[municipality.municipality_id] = {
            TOTAL: total,
            YOUNGEST: young,
            MIDDLE: total - aged - young,
            OLDEST: aged,
        }
    people[TOTAL] = {age: sum(of_age[age] for of_age in people.values()) for age in AGES}
    return people


def of_sex(people: int | None, sex: str) -> int | None:
    """Return the people of one sex, by the same ratio everywhere."""
    if people is None or sex == TOTAL:
        return people
    women = round(people * WOMEN_RATIO)
    return women if sex == "F" else people - women


def apportion(weights: Sequence[int], total: int) -> list[int]:
    """Return whole shares of `total` in proportion to the weights (largest remainder)."""
    whole = sum(weights)
    shares = [weight * total // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(weights[i] * total % whole), i))
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    return shares


def _people_of_catalonia(year: int) -> int:
    known = sorted(PEOPLE_OF_CATALONIA)
    before, after = next((a, b) for a, b in pairwise(known) if a <= year <= b)
    start, end = PEOPLE_OF_CATALONIA[before], PEOPLE_OF_CATALONIA[after]
    return start + (end - start) * (year - before) // (after - before)
