"""How a page is made: its content, its address in each language, and the parts that all pages have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from catalunya.address import is_loopback_url
from catalunya.datasets.model import Dataset
from catalunya.release import Release
from catalunya.settings import LOOPBACK_SITE
from catalunya.site.borders import Borders
from catalunya.site.downloads import Downloads
from catalunya.site.facts import GROUPS, OWNERSHIPS, Facts, Territory
from catalunya.site.language import CODES, Language, folded, language, slug
from catalunya.site.publisher import Publisher

LONGEST = 120
"""Characters of a text of a source that a page shows."""
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


@dataclass(frozen=True)
class Content:
    """All that the pages are made of."""

    release: Release
    datasets: dict[str, Dataset]
    facts: Facts
    borders: Borders
    downloads: Downloads
    assets: dict[str, str]
    """Name of an asset to its name with a hash of its content."""
    before: Release | None = None
    """The release before this one."""
    dbt_docs: str | None = None
    """Address of dbt's own documentation; None when the release has none."""
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
            signed=language.signed,
            lineage=content.release.lineage,
            url=content.url,
            is_public=not is_loopback_url(content.url),
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
            owners=("all", *OWNERSHIPS),
            year=self.year,
            basis=content.facts.years[self.year],
        )

    def all(self) -> Iterator[tuple[str, str]]:
        """Return the file and HTML of each page."""
        yield self.page("services", self._services())
        yield self.page("changes", {"changes": self.facts.changes, "table": self.changes(self.facts.changes)})

    def page(self, name: str, values: dict[str, Any]) -> tuple[str, str]:
        """Return the file and HTML of the page that has one address in each language."""
        title = self.language.text(f"{name}.title")
        return self.render(f"{name}.html", name, None, title, values)

    def render(
        self, template: str, page: str, territory: Territory | None, title: str, values: dict[str, Any]
    ) -> tuple[str, str]:
        """Return the file and HTML of a page, of a territory or of none."""
        html = self._environment.get_template(template).render(
            page=page,
            title=title,
            description=values.pop("description", title),
            alternates={code: address(code, page, territory) for code in CODES},
            **values,
        )
        # A table that is wider than a phone scrolls by itself, with the keyboard, too.
        html = html.replace("<table", '<div class="scroll" tabindex="0"><table').replace(
            "</table>", "</table></div>"
        )
        return file_of(address(self.language.code, page, territory)), html

    def part(self, template: str, **values: Any) -> Markup:
        """Return a part of a page."""
        return Markup(self._environment.get_template(template).render(values))  # noqa: S704 (autoescaped)

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
            "unmatched": self.part("list.html", services=unmatched) if unmatched else "",
        }

    def changes(self, changes: list[dict[str, Any]]) -> Markup:
        """Return changes of services as a table."""
        return self.part("changes_table.html", changes=changes)


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
