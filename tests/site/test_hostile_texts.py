"""Hostile texts of a source change no page but its text: no element, no attribute, no script."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import duckdb

from catalunya.site.facts import Service, read_facts
from catalunya.site.language import language
from catalunya.site.pages import Pages
from catalunya.site.territory_pages import territory_pages
from tests import hostile
from tests.site.test_site import _content


class Structure(HTMLParser):
    """The elements of a page with the names of their attributes, in order, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page(marts: duckdb.DuckDBPyConnection, texts: list[str]) -> Structure:
    """The page of a municipality with one service for each text, which is its name, owner and address."""
    facts = read_facts(marts)
    services = [
        Service(f"S{n}", text, "k", "day_centre", "public", text, 3, text, text, None, "080193")
        for n, text in enumerate(texts)
    ]
    barcelona = {"080193": facts.municipalities["080193"]}
    facts = replace(facts, services={"080193": services}, municipalities=barcelona, comarques={})
    [(_, html)] = territory_pages(Pages(_content(facts), language("en")))
    return Structure(html)


def test_hostile_texts_add_no_element_and_no_attribute_to_a_page(marts: duckdb.DuckDBPyConnection) -> None:
    hostile_page, plain = page(marts, hostile.TEXTS), page(marts, ["x"] * len(hostile.TEXTS))
    assert hostile_page.elements == plain.elements
    text = "".join(hostile_page.text)
    assert "<script>alert(1)</script>" in text and "{{ 7 * 7 }}" in text
    assert not any(control in text for control in ("\u202e", "\x1b", "\x00"))
    assert max(len(part) for part in hostile_page.text) < 2000
