"""How a page is made: its content, its address in each language, and the parts that all pages have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from catalunya.site.change_words import told
from catalunya.site.downloads import Downloads
from catalunya.site.facts import GROUPS, OWNERSHIPS, Facts, Territory
from catalunya.site.language import CODES, Language, language, slug
from catalunya.site.publisher import PROJECT, Publisher
from catalunya.site.service_facts import Change, Service

LONGEST = 120
"""Characters of a text of a source that a page shows."""
SEARCH = {"places": "search/places.json", "services": "search/services.json"}
"""The files of the search."""
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff\U000e0000-\U000e007f]"
)
"""Characters that cannot be seen, turn the direction of text, or may not be in XML."""


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
    publisher: Publisher = PROJECT
    names: dict[str, set[str]] = field(default_factory=dict)
    """Code of a municipality or comarca to every name that the matching accepts."""


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
            service_address=partial(service_address, language.code),
            told=partial(told, language, content.facts),
            part=self.part,
            search=SEARCH,
            register=content.facts.register,
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

    def page(self, name: str, values: dict[str, Any]) -> tuple[str, str]:
        """Return the file and HTML of the page that has one address in each language."""
        title = self.language.text(f"{name}.title")
        return self.render(f"{name}.html", name, None, title, values)

    def render(
        self, template: str, page: str, territory: Territory | None, title: str, values: dict[str, Any]
    ) -> tuple[str, str]:
        """Return the file and HTML of a page, of a territory or of none."""
        alternates = {code: address(code, page, territory) for code in CODES}
        return self.render_at(alternates, template, page, title, values)

    def render_at(
        self, alternates: dict[str, str], template: str, page: str, title: str, values: dict[str, Any]
    ) -> tuple[str, str]:
        """Return the file and HTML of a page of the section `page`, by its address in each language."""
        html = self._environment.get_template(template).render(
            page=page,
            title=title,
            description=values.pop("description", title),
            alternates=alternates,
            **values,
        )
        # A table that is wider than a phone scrolls by itself, with the keyboard, too.
        html = html.replace("<table", '<div class="scroll" tabindex="0"><table').replace(
            "</table>", "</table></div>"
        )
        return file_of(alternates[self.language.code]), html

    def part(self, template: str, **values: Any) -> Markup:
        """Return a part of a page, or a file that is none."""
        return Markup(self._environment.get_template(template).render(values))  # noqa: S704 (autoescaped)

    def changes(self, changes: Sequence[Change]) -> Markup:
        """Return changes of services as lists, day by day."""
        return self.part("changes_list.html", changes=changes, level=3)


def address(code: str, page: str, territory: Territory | None = None) -> str:
    """Return the address of a page in a language; `feed` is that of the changes."""
    if page == "overview":
        return f"/{code}/"
    if page == "feed":
        return f"{address(code, 'changes')}atom.xml"
    folder = f"/{code}/{language(code).text(f'path.{page}')}/"
    return folder if territory is None else f"{folder}{territory.code}-{slug(territory.name)}/"


def service_address(code: str, service: Service) -> str:
    """Return the address of the page of a service in a language."""
    return f"{address(code, 'services')}{service.path}/"


def file_of(page: str) -> str:
    """Return the file of the page at an address, within the folder of the site."""
    return f"{page.strip('/')}/index.html"


def cut(value: str, most: int = LONGEST) -> str:
    """Return a text of a source without invisible characters, cut to `most` characters."""
    plain = _INVISIBLE.sub(" ", value)
    return plain if len(plain) <= most else plain[: most - 1].rstrip() + "…"


def _language_name(code: str) -> str:
    return language(code).text("name")
