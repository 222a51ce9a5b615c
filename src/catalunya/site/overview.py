"""The first page: figures of Catalonia, the map with its switches, and the ranking; and each level without switches."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from catalunya.lake import layout
from catalunya.release import Release
from catalunya.site import maps
from catalunya.site.borders import Outlines
from catalunya.site.facts import GROUPS, Coverage, Territory
from catalunya.site.language import folded
from catalunya.site.maps import State
from catalunya.site.pages import Pages, address

_FIGURE = re.compile(r"coverage_catalonia\.(services|places)\[(\d{4}), (\w+)\]")


def overview_pages(pages: Pages) -> Iterator[tuple[str, str]]:
    """Return the file and HTML of the first page and of the one of each level, which needs no switch."""
    yield pages.page("overview", _overview(pages))
    for level, page in (("comarca", "comarques"), ("municipality", "municipalities")):
        title = pages.language.text(f"{page}.title")
        yield pages.render("level.html", page, None, title, _level(pages, State(level)))


def _overview(pages: Pages) -> dict[str, Any]:
    content, text = pages.content, pages.language.text
    state = State()
    ranked = ranking(pages, state)
    figures = {group: pages.facts.catalonia.coverage[pages.year, group, "all"] for group in GROUPS}
    registers = content.release.snapshots["social_services"]
    return {
        "figures": figures,
        "before": content.before,
        "changed": _changed(figures, content.before),
        "people": max(pages.facts.catalonia.people.items(), default=None),
        "register_on": layout.moment_of(registers[-1]).date(),
        "table": pages.part("places.html", territory=pages.facts.catalonia),
        "map": draw_map(pages, state, maps.breaks_of(pages.facts, state)),
        "ranked": ranked,
        "years": sorted(pages.facts.years, reverse=True),
        "switches": _switches(pages),
        "caption": caption(pages, state),
        "description": text("overview.description", year=pages.year),
    }


def _level(pages: Pages, state: State) -> dict[str, Any]:
    """Every territory of a level in the newest year, and its rate in each year."""
    return {
        "map": draw_map(pages, state, maps.breaks_of(pages.facts, state)),
        "caption": caption(pages, state),
        "ranked": ranking(pages, state),
        "years": sorted(pages.facts.years),
        "group": state.group,
    }


def _changed(figures: dict[str, Coverage], before: Release | None) -> dict[str, tuple[int, int]]:
    """Services and places of each group, less those of the newest year of the release before."""
    if before is None:
        return {}
    found = {
        match.groups(): value for name, value in before.figures.items() if (match := _FIGURE.fullmatch(name))
    }
    newest = max((year for _, year, _ in found), default="")
    return {
        group: (
            coverage.services - int(found["services", newest, group]),
            coverage.places - int(found["places", newest, group]),
        )
        for group, coverage in figures.items()
        if ("services", newest, group) in found and ("places", newest, group) in found
    }


def ranking(pages: Pages, state: State) -> list[tuple[Territory, Coverage]]:
    """Return the territories of a level with the newest coverage, the highest rate first."""
    found = [
        (one, one.coverage[pages.year, state.group, state.ownership])
        for one in maps.territories(pages.facts, state.level).values()
    ]
    return sorted(found, key=lambda pair: (pair[1].rate is None, -(pair[1].rate or 0), folded(pair[0].name)))


def caption(pages: Pages, state: State) -> str:
    """Return what a map of the newest year shows, in words; `map.js` puts the same together from the switches."""
    text = pages.language.text
    return " · ".join(
        (
            text(f"indicator.{state.indicator}"),
            text(f"group.{state.group}"),
            f"{text('column.ownership')}: {text(f'ownership.{state.ownership}')}",
            str(pages.year),
            text(f"level.{state.level}"),
        )
    )


def draw_map(pages: Pages, state: State, breaks: list[float], within: str | None = None) -> Markup:
    """Return the map of the newest year, or the part of it that has the municipalities of a comarca."""
    facts, text, number = pages.facts, pages.language.text, pages.language.number
    outlines: Outlines = getattr(pages.content.borders, state.level)
    digits = maps.DIGITS[state.indicator]
    page = "comarques" if state.level == "comarca" else "municipalities"
    found = maps.territories(facts, state.level)
    areas = []
    for code, path in outlines.paths.items():
        if code not in found or (within is not None and found[code].comarca_id != within):
            continue
        value = getattr(found[code].coverage[pages.year, state.group, state.ownership], state.indicator)
        areas.append(
            {
                "code": code,
                "path": path,
                "address": address(pages.language.code, page, found[code]),
                "shade": maps.shade(value, breaks, digits),
                "name": found[code].name,
                "value": number(value, digits),
            }
        )
    return pages.part(
        "map.svg",
        box=_box(outlines, [area["code"] for area in areas])
        if within
        else (0, 0, outlines.width, outlines.height),
        fine=state.level == "municipality" and within is None,
        areas=areas,
        legend=_legend(pages, breaks, digits),
        zero=text(f"zero.{state.indicator}"),
        label=caption(pages, state),
    )


def _box(outlines: Outlines, codes: list[str]) -> tuple[int, int, int, int]:
    """Left, top, width and height of some areas."""
    if not codes:
        return 0, 0, outlines.width, outlines.height
    lefts, tops, rights, bottoms = zip(*(outlines.boxes[code] for code in codes), strict=True)
    return min(lefts), min(tops), max(rights) - min(lefts), max(bottoms) - min(tops)


def _legend(pages: Pages, breaks: list[float], digits: int) -> list[tuple[str, str]]:
    """Classes and their bounds in words."""
    text, number = pages.language.text, pages.language.number
    return [
        (
            maps.shade(low, breaks, digits) if low else "c0",
            text("map.to", low=number(low, digits), high=number(high, digits)),
        )
        for low, high in itertools.pairwise(breaks)
    ]


def _switches(pages: Pages) -> dict[str, Any]:
    """What `map.js` needs beside the page: addresses, and words with a place for their values."""
    text = pages.language.text
    return {
        "year": pages.year,
        "words": json.dumps(
            {
                "to": text("map.to", low="{low}", high="{high}"),
                "none": text("no_data"),
                "zero": {name: text(f"zero.{name}") for name in maps.DIGITS},
                "basis": {
                    "observed": text("basis.observed"),
                    "inscription": f"{text('basis.inscription')}. {text('basis.note')}",
                },
                "population": text("territory.population_of", year="{year}"),
                "columns": {
                    name: text(f"column.{name}")
                    for name in (
                        "comarca",
                        "municipality",
                        "rate",
                        "places",
                        "services",
                        "people",
                        "nearest_km",
                        "accessibility",
                    )
                },
            },
            ensure_ascii=False,
        ),
    }
