"""The pages: every address of the site with its content."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from catalunya.datasets.model import Dataset
from catalunya.release import Release
from catalunya.settings import LOOPBACK_SITE
from catalunya.site.borders import Outlines
from catalunya.site.downloads import Downloads
from catalunya.site.facts import GROUPS, OWNERSHIPS, Coverage, Facts, Territory
from catalunya.site.language import CODES, Language, folded, language, slug
from catalunya.site.publisher import Publisher

MAIN_GROUP = "assisted_residence"
"""The group that maps and ranks show."""
LONGEST = 120
"""Characters of a text of a source that a page shows."""
_SHADES = 5
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


@dataclass(frozen=True)
class Content:
    """All that the pages are made of."""

    release: Release
    datasets: dict[str, Dataset]
    facts: Facts
    outlines: Outlines
    """Of the comarques."""
    downloads: Downloads
    assets: dict[str, str]
    """Name of an asset to its name with a hash of its content."""
    url: str = LOOPBACK_SITE
    """Origin at which the site is served, for what needs a whole address: `content.url + address(…)`."""
    publisher: Publisher = Publisher()  # noqa: RUF009 (frozen)


class Pages:
    """Renders the pages of one language."""

    def __init__(self, content: Content, language: Language) -> None:
        self.content = content
        self.facts = content.facts
        self.language = language
        self.year = content.facts.newest_year
        self._environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["cut"] = cut
        self._environment.globals.update(
            language=language,
            text=language.text,
            number=language.number,
            day=language.day,
            address=partial(address, language.code),
            names={code: _language_name(code) for code in CODES},
            assets=content.assets,
            release=content.release,
            released_on=content.release.released_at.date(),
            demo=content.release.demo,
            datasets=content.datasets,
            municipalities=content.facts.municipalities,
            groups=GROUPS,
            ownerships=OWNERSHIPS,
            year=self.year,
            basis=content.facts.years[self.year],
        )

    def all(self) -> Iterator[tuple[str, str]]:
        """Return the file and HTML of each page."""
        yield self._page("overview", self._overview())
        yield self._page("services", self._services())
        yield self._page(
            "changes", {"changes": self.facts.changes, "table": self._changes(self.facts.changes)}
        )
        for comarca in self.facts.comarques.values():
            yield self._territory("comarques", comarca)
        for municipality in self.facts.municipalities.values():
            yield self._territory("municipalities", municipality)

    def _page(self, name: str, values: dict[str, Any]) -> tuple[str, str]:
        title = self.language.text(f"{name}.title")
        html = self._render(f"{name}.html", name, None, title, values)
        return file_of(address(self.language.code, name)), html

    def _render(
        self, template: str, page: str, territory: Territory | None, title: str, values: dict[str, Any]
    ) -> str:
        return self._environment.get_template(template).render(
            page=page,
            title=title,
            description=values.pop("description", title),
            alternates={code: address(code, page, territory) for code in CODES},
            **values,
        )

    def _part(self, template: str, **values: Any) -> Markup:
        return Markup(self._environment.get_template(template).render(values))  # noqa: S704 (autoescaped)

    def _overview(self) -> dict[str, Any]:
        ranked = [(one, one.coverage[self.year, MAIN_GROUP, "all"]) for one in self.facts.comarques.values()]
        ranked.sort(key=lambda pair: (pair[1].rate is None, -(pair[1].rate or 0), pair[0].name))
        return {
            "map": self._map({one.code: found for one, found in ranked}),
            "figures": self._part("places.html", territory=self.facts.catalonia),
            "ranked": ranked,
            "description": self.language.text("overview.lead", year=self.year),
        }

    def _map(self, found: dict[str, Coverage]) -> Markup:
        breaks = class_breaks([one.rate for one in found.values() if one.rate])
        text, number = self.language.text, self.language.number
        areas = [
            {
                "path": path,
                "address": address(self.language.code, "comarques", self.facts.comarques[code]),
                "shade": shade(found[code].rate, breaks),
                "title": f"{self.facts.comarques[code].name}: {number(found[code].rate, 1)}",
            }
            for code, path in self.content.outlines.paths.items()
            if code in found
        ]
        bounds = [
            text("overview.to", low=number(low, 1), high=number(high, 1))
            for low, high in itertools.pairwise(breaks)
        ]
        legend = [(f"c{position}", words) for position, words in enumerate(bounds)]
        legend += [("zero", text("overview.zero")), ("none", text("no_data"))]
        label = text("overview.lead", year=self.year)
        return self._part("map.svg", outlines=self.content.outlines, areas=areas, legend=legend, label=label)

    def _territory(self, page: str, territory: Territory) -> tuple[str, str]:
        parent = self.facts.comarques.get(territory.comarca_id)
        is_comarca = page == "comarques"
        members = self.facts.members(territory.code) if is_comarca else []
        codes = {member.code for member in members} or {territory.code}
        changes = [change for change in self.facts.changes if change["municipality_id"] in codes]
        services = self.facts.services.get(territory.code, [])
        values = {
            "territory": territory,
            "parent": parent,
            "members": members,
            "compared": [one for one in (territory, parent, self.facts.catalonia) if one],
            "figures": self._part("places.html", territory=territory),
            "line": self._line(territory),
            "services": services,
            "list": self._part("list.html", services=services),
            "changes": self._changes(changes) if changes else "",
            "description": f"{territory.name}. {self.language.text('overview.title')}",
        }
        html = self._render("territory.html", page, territory, territory.name, values)
        return file_of(address(self.language.code, page, territory)), html

    def _line(self, territory: Territory) -> Markup | str:
        """People aged 65 and over by year; the axis begins at zero."""
        people = sorted(territory.people.items())
        if len(people) < 2:
            return ""
        most = max(count for _, count in people) or 1
        step = 560 / (people[-1][0] - people[0][0])
        number = self.language.number
        dots = [
            {
                "x": round(70 + (year - people[0][0]) * step),
                "y": round(190 - 170 * count / most),
                "year": year,
                "title": f"{year}: {number(count)}",
            }
            for year, count in people
        ]
        ticks = [{"y": round(190 - 170 * share), "words": number(most * share)} for share in (0, 0.5, 1)]
        points = " ".join(f"{dot['x']},{dot['y']}" for dot in dots)
        label = f"{self.language.text('territory.people')}: {territory.name}"
        return self._part("line.svg", dots=dots, ticks=ticks, points=points, label=label)

    def _services(self) -> dict[str, Any]:
        services = self.facts.services
        comarques = []
        for comarca in self.facts.comarques.values():
            found = [
                (one, len(services[one.code]))
                for one in self.facts.members(comarca.code)
                if one.code in services
            ]
            if found:
                comarques.append((comarca, found))
        unmatched = services.get(None, [])
        return {
            "comarques": comarques,
            "count": sum(map(len, services.values())),
            "unmatched": self._part("list.html", services=unmatched) if unmatched else "",
        }

    def _changes(self, changes: list[dict[str, Any]]) -> Markup:
        return self._part("changes_table.html", changes=changes)


def address(code: str, page: str, territory: Territory | None = None) -> str:
    """Return the address of a page in a language; `search` is the index of the search."""
    if page == "overview":
        return f"/{code}/"
    if page == "search":
        return f"/{code}/search.json"
    folder = f"/{code}/{language(code).text(f'path.{page}')}/"
    return folder if territory is None else f"{folder}{territory.code}-{slug(territory.name)}/"


def file_of(page: str) -> str:
    """Return the file of the page at an address, within the folder of the site."""
    return f"{page.strip('/')}/index.html"


def cut(value: str, most: int = LONGEST) -> str:
    """Return a text of a source without invisible characters, cut to `most` characters."""
    plain = _INVISIBLE.sub(" ", value)
    return plain if len(plain) <= most else plain[: most - 1].rstrip() + "…"


def class_breaks(values: list[float]) -> list[float]:
    """Return the bounds of five classes of about as many values each, rounded to one decimal; empty without values."""
    ordered = sorted(values)
    if not ordered:
        return []
    found = [ordered[min(len(ordered) - 1, len(ordered) * part // _SHADES)] for part in range(_SHADES)]
    rounded = [round(value - 0.05, 1) for value in found] + [round(ordered[-1] + 0.05, 1)]
    return sorted(set(rounded))


def shade(value: float | None, breaks: list[float]) -> str:
    """Return the class of an area: `none` without data, `zero`, or `c0` to `c4`."""
    if value is None:
        return "none"
    if not value:
        return "zero"
    return f"c{max(0, sum(value >= low for low in breaks[:-1]) - 1)}"


def _language_name(code: str) -> str:
    return language(code).text("name")


def search_index(facts: Facts, code: str) -> tuple[str, str]:
    """Return the file of what the search finds in a language: name, its folded spelling, and the address of each."""
    entries = [
        [one.name, f"{folded(one.name)} {slug(one.name)}", address(code, page, one)]
        for page, territories in (("comarques", facts.comarques), ("municipalities", facts.municipalities))
        for one in territories.values()
    ]
    return address(code, "search").strip("/"), json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
