"""The maps: the classes of their colours, and the files from which a page draws another level, year, group or owner."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from catalunya.site.borders import Outlines
from catalunya.site.facts import GROUPS, OWNERSHIPS, Facts, Territory
from catalunya.site.language import slug

COVERAGE = ("rate", "places", "services")
"""Indicators by year and owner, at each level."""
ACCESS = ("nearest_km", "accessibility")
"""Indicators of the newest register, by municipality alone."""
DIGITS = {"rate": 1, "places": 0, "services": 0, "nearest_km": 1, "accessibility": 1}
"""Decimals that are shown of an indicator."""
LEVELS = ("comarca", "municipality")
OWNERS = ("all", *OWNERSHIPS)
CLASSES = 5


@dataclass(frozen=True)
class State:
    """What a map shows."""

    level: str = "comarca"
    indicator: str = "rate"
    group: str = GROUPS[0]
    ownership: str = "all"


def rounded(value: float, digits: int) -> float:
    """Return a value as it is shown: rounded by its decimal digits, halves to even."""
    return float(round(Decimal(str(value)), digits))


def class_breaks(values: Iterable[float], digits: int = 1) -> list[float]:
    """Return the bounds of five classes of about as many values each, zeros left out; empty without values.

    A value is in a class from its lower bound to below its upper one, both rounded to `digits` as the values that are shown.
    """
    ordered = sorted(rounded(value, digits) for value in values if value)
    if not ordered:
        return []
    lows = {ordered[len(ordered) * part // CLASSES] for part in range(CLASSES)}
    return [*sorted(lows), round(ordered[-1] + 10.0**-digits, digits)]


def shade(value: float | None, breaks: list[float], digits: int = 1) -> str:
    """Return the class of an area: `none` without data, `zero`, or `c0` to `c4`."""
    if value is None:
        return "none"
    if not value:
        return "zero"
    position = max(0, sum(rounded(value, digits) >= low for low in breaks[:-1]) - 1)
    # With fewer classes than five the colours stay apart.
    return f"c{position * (CLASSES - 1) // max(1, len(breaks) - 2)}"


def territories(facts: Facts, level: str) -> dict[str, Territory]:
    """Return the territories of a level by their codes."""
    return facts.comarques if level == "comarca" else facts.municipalities


def breaks_of(facts: Facts, state: State) -> list[float]:
    """Return the bounds of the classes of an indicator: over all years, so that a colour means the same in each."""
    found = territories(facts, state.level).values()
    values: Iterator[float | None]
    if state.indicator in ACCESS:
        values = (_access(one, state.group)[ACCESS.index(state.indicator)] for one in found)
    else:
        values = (
            getattr(one.coverage[year, state.group, state.ownership], state.indicator)
            for one in found
            for year in facts.years
        )
    return class_breaks((value for value in values if value), DIGITS[state.indicator])


def map_files(facts: Facts, municipalities: Outlines) -> Iterator[tuple[str, str]]:
    """Return the files that the map fetches when a reader asks for more than the page has: their names and texts.

    `map/municipality.json` has the areas; `map/<level>/<group>/<year>.json` has for each territory its people, the year of
    these, and services, places and rate by owner; `map/municipality/<group>/access.json` the two indicators of access.
    """
    yield (
        "map/municipality.json",
        _json(
            {
                "height": municipalities.height,
                "areas": [
                    [code, facts.municipalities[code].name, slug(facts.municipalities[code].name), path]
                    for code, path in municipalities.paths.items()
                    if code in facts.municipalities
                ],
            }
        ),
    )
    for level, group in itertools.product(LEVELS, GROUPS):
        breaks = {
            indicator: {owner: breaks_of(facts, State(level, indicator, group, owner)) for owner in OWNERS}
            for indicator in COVERAGE
        }
        for year, basis in facts.years.items():
            values = {code: _coverage(one, year, group) for code, one in territories(facts, level).items()}
            answer = {"basis": basis, "breaks": breaks, "values": values}
            yield f"map/{level}/{group}/{year}.json", _json(answer)
    for group in GROUPS:
        values = {code: _access(one, group) for code, one in facts.municipalities.items()}
        breaks = {
            indicator: {"all": breaks_of(facts, State("municipality", indicator, group))}
            for indicator in ACCESS
        }
        yield f"map/municipality/{group}/access.json", _json({"breaks": breaks, "values": values})


def _coverage(territory: Territory, year: int, group: str) -> list[float | None]:
    total = territory.coverage[year, group, "all"]
    found: list[float | None] = [total.people, total.population_year]
    for owner in OWNERS:
        coverage = territory.coverage[year, group, owner]
        found += [coverage.services, coverage.places, coverage.rate]
    return found


def _access(territory: Territory, group: str) -> list[float | None]:
    """Distance in km, and places within reach per 100 people."""
    access = territory.access.get(group)
    if access is None:
        return [None, None]
    return [access.nearest_km, access.places_per_100]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
