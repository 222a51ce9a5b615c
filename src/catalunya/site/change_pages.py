"""The pages of changes, the newest and those of each year, and their feed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from catalunya.site.change_words import told
from catalunya.site.language import CODES
from catalunya.site.pages import Pages, address, cut, service_address
from catalunya.site.service_facts import CHANGES, Change

NEWEST = 100
"""Changes on the first page and in the feed."""
LONGEST_PAGE = 800
"""Changes on a page of a year; a year that has more has several pages, the oldest changes on the first one."""


@dataclass(frozen=True)
class Part:
    """The changes of a page: a year, or a part of it."""

    year: int
    number: int
    parts: int
    changes: tuple[Change, ...]
    """The newest first."""

    @property
    def words(self) -> str:
        """Its name."""
        return str(self.year) if self.parts == 1 else f"{self.year} ({self.number}/{self.parts})"

    def address(self, code: str) -> str:
        """Return its address in a language."""
        part = "" if self.number == 1 else f"{self.number}/"
        return f"{address(code, 'changes')}{self.year}/{part}"


def change_pages(pages: Pages) -> Iterator[tuple[str, str]]:
    """Return the file and text of each page of changes, and of the feed."""
    changes, code = pages.facts.changes, pages.language.code
    parts = parts_by_year(changes)
    newest = {code: address(code, "changes") for code in CODES}
    lead = pages.language.text("changes.newest", count=pages.language.number(min(NEWEST, len(changes))))
    yield _page(pages, newest, changes[:NEWEST], lead, parts, None)
    for part in parts:
        alternates = {code: part.address(code) for code in CODES}
        yield _page(
            pages, alternates, part.changes, pages.language.text("changes.of", when=part.words), parts, part
        )
    yield address(code, "feed").strip("/"), _feed(pages, newest)


def parts_by_year(changes: Sequence[Change]) -> list[Part]:
    """Return the pages of all years, the newest first; a change that comes later changes no full page."""
    years: dict[int, list[Change]] = defaultdict(list)
    for change in reversed(changes):
        years[change.changed_on.year].append(change)
    found = []
    for year, of_year in years.items():
        pieces = [of_year[first : first + LONGEST_PAGE] for first in range(0, len(of_year), LONGEST_PAGE)]
        found += [
            Part(year, number, len(pieces), tuple(reversed(piece)))
            for number, piece in enumerate(pieces, start=1)
        ]
    return found[::-1]


def _page(
    pages: Pages,
    alternates: dict[str, str],
    changes: Sequence[Change],
    lead: str,
    parts: list[Part],
    shown: Part | None,
) -> tuple[str, str]:
    code, text = pages.language.code, pages.language.text
    others = [(text("changes.first"), address(code, "changes"), shown is None)]
    others += [(part.words, part.address(code), part is shown) for part in parts]
    municipalities = pages.facts.municipalities
    there = {
        municipalities[one.municipality_id].comarca_id
        for one in changes
        if one.municipality_id in municipalities
    }
    return pages.render_at(
        alternates,
        "changes.html",
        "changes",
        text("changes.title") if shown is None else f"{text('changes.title')}, {shown.words}",
        {
            "lead": lead,
            "changes": changes,
            "others": others if parts else [],
            "kinds": [kind for kind in CHANGES if any(change.change == kind for change in changes)],
            "comarques": [comarca for comarca in pages.facts.sorted_comarques() if comarca.code in there],
        },
    )


def _feed(pages: Pages, alternates: dict[str, str]) -> str:
    """The newest changes as an Atom feed (RFC 4287); ids stay when the site is built again at the same address."""
    content, text = pages.content, pages.language.text
    changes = pages.facts.changes[:NEWEST]
    authority = urlsplit(content.url).hostname
    newest = (
        f"{changes[0].changed_on}T00:00:00Z"
        if changes
        else f"{content.release.released_at:%Y-%m-%dT%H:%M:%SZ}"
    )
    return pages.part(
        "atom.xml",
        alternates=alternates,
        url=content.url,
        feed_id=f"tag:{authority},2026:{pages.language.code}/changes",
        mark=f"{text('demo_mark')}: " if content.release.demo else "",
        updated=newest,
        entries=[_entry(pages, change, f"tag:{authority},2026:{pages.language.code}") for change in changes],
    )


def _entry(pages: Pages, change: Change, authority: str) -> dict[str, Any]:
    service, language = pages.facts.register[change.service_id], pages.language
    place = pages.facts.municipalities.get(change.municipality_id or "")
    words = told(language, pages.facts, change)
    before_after = " → ".join(cut(one) for one in (words.before, words.after) if one)
    kind = language.text(f"change.{change.change}")
    what = f"{kind}: {before_after}" + (f" ({words.difference})" if words.difference else "")
    return {
        "id": f"{authority}/{service.path.partition('-')[0]}/{change.changed_on}/{change.change}",
        "title": f"{cut(service.state.name)}{f' ({place.name})' if place else ''}: {kind}",
        "updated": f"{change.changed_on}T00:00:00Z",
        "address": service_address(language.code, service),
        "change": change.change,
        "summary": f"{language.day(change.changed_on)}. {what}",
    }
