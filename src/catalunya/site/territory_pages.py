"""The pages of comarques and municipalities: they change when the territory or those near it do, and not otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from catalunya.site import maps
from catalunya.site.charts import Series, line_chart
from catalunya.site.facts import GROUPS, Access, Territory
from catalunya.site.language import folded
from catalunya.site.maps import State
from catalunya.site.overview import draw_map
from catalunya.site.pages import Pages
from catalunya.site.service_facts import Service

MOST_CHANGES = 50
MOST_NEAREST = 3
"""Services that are named of the nearest municipality with a kind of service."""


def territory_pages(pages: Pages) -> Iterator[tuple[str, str]]:
    """Return the file and HTML of the page of each territory."""
    state = State("municipality")
    breaks = maps.breaks_of(pages.facts, state)
    for comarca in pages.facts.comarques.values():
        members = pages.facts.members(comarca.code)
        local = {"map": draw_map(pages, state, breaks, within=comarca.code), "members": members}
        yield _page(pages, "comarques", comarca, {member.code for member in members}, local)
    for municipality in pages.facts.municipalities.values():
        services = pages.facts.services.get(municipality.code, [])
        local = {"services": services, "list": pages.part("list.html", services=services)}
        yield _page(pages, "municipalities", municipality, {municipality.code}, local)


def _page(
    pages: Pages, page: str, territory: Territory, codes: set[str], local: dict[str, Any]
) -> tuple[str, str]:
    facts, text = pages.facts, pages.language.text
    parent = facts.comarques.get(territory.comarca_id)
    changes = [change for change in facts.changes if change.municipality_id in codes]
    level = "comarca" if page == "comarques" else "municipality"
    outlines = getattr(pages.content.borders, level)
    others = maps.territories(facts, level)
    neighbours = [others[code] for code in outlines.neighbours.get(territory.code, ()) if code in others]
    return pages.render(
        "territory.html",
        page,
        territory,
        territory.name,
        {
            "map": "",
            "members": [],
            "services": [],
            "list": "",
            **local,
            "mart": f"coverage_{level}",
            "territory": territory,
            "parent": parent,
            "compared": [one for one in (territory, parent, facts.catalonia) if one],
            "neighbours": sorted(neighbours, key=lambda one: folded(one.name)),
            "figures": pages.part("places.html", territory=territory),
            "people": _people(pages, territory),
            "coverage": _coverage(pages, territory, parent),
            "nearest": [
                (group, found, *_nearest(pages, group, found)) for group, found in _access(territory)
            ],
            "changes": pages.changes(changes[:MOST_CHANGES]) if changes else "",
            "more_changes": len(changes) > MOST_CHANGES,
            "description": text(f"{page}.description", territory=territory.name),
        },
    )


def _access(territory: Territory) -> list[tuple[str, Access]]:
    return [(group, territory.access[group]) for group in GROUPS if group in territory.access]


def _nearest(pages: Pages, group: str, access: Access) -> tuple[Territory | None, list[Service], int]:
    """The nearest municipality with a service of a group, the first of its services, and how many more it has."""
    near = pages.facts.municipalities.get(access.nearest_id or "")
    services = pages.facts.services.get(near.code, []) if near else []
    found = [service for service in services if service.state.group == group]
    return near, found[:MOST_NEAREST], len(found[MOST_NEAREST:])


def _people(pages: Pages, territory: Territory) -> Any:
    people = pages.language.text("column.people")
    values: dict[int, float | None] = {
        year: territory.people.get(year)
        for year in range(min(territory.people, default=0), max(territory.people, default=0) + 1)
    }
    return line_chart(pages, f"{people}: {territory.name}", [Series(people, values)])


def _coverage(pages: Pages, territory: Territory, parent: Territory | None) -> Any:
    """Places per 100 people by year, of the main group, beside the comarca and Catalonia."""
    text, group = pages.language.text, GROUPS[0]
    series = [
        Series(
            one.name if one.code else text("catalonia"),
            {year: one.coverage[year, group, "all"].rate for year in sorted(pages.facts.years)},
        )
        for one in (territory, parent, pages.facts.catalonia)
        if one
    ]
    label = f"{text('indicator.rate')}, {text(f'group.{group}')}: {territory.name}"
    return line_chart(pages, label, series, digits=1, basis=True)
