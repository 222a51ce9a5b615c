"""Hostile texts of a source change no page but its text: no element, no attribute, no script."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from pathlib import PurePosixPath

from catalunya.site.build import Content
from catalunya.site.language import language
from catalunya.site.pages import Pages
from catalunya.site.service_facts import Period, Service
from catalunya.site.service_pages import service_pages
from tests import hostile


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


class Assets(dict[str, str]):
    """Files of the site under their own names."""

    def __missing__(self, name: str) -> str:
        return name


def service(number: int, text: str) -> Service:
    period = Period(
        text, text, "day_centre", "public", text, 3, text, text, None, "080193", text, "observed", date(2026, 1, 5), None,
    )  # fmt: skip
    return Service(f"S{number:05}", (period,))


def pages(content: Content, texts: list[str]) -> list[tuple[str, str]]:
    services = {one.service_id: one for one in (service(n, text) for n, text in enumerate(texts))}
    facts = replace(content.facts, register=services, services={"080193": list(services.values())})
    changed = replace(content, facts=facts, assets=Assets())
    return list(service_pages(Pages(changed, language("en"))))


def test_hostile_texts_add_no_element_and_no_attribute_to_a_page(content: Content) -> None:
    hostile_pages = pages(content, hostile.TEXTS)
    plain_pages = pages(content, ["x"] * len(hostile.TEXTS))
    assert len(hostile_pages) == len(plain_pages) > len(hostile.TEXTS)
    said = ""
    for (path, page), (_, plain) in zip(hostile_pages, plain_pages, strict=True):
        assert path.isascii() and ".." not in PurePosixPath(path).parts and len(path) < 200
        structure = Structure(page)
        assert structure.elements == Structure(plain).elements, path
        said += "".join(structure.text)
    assert "<script>alert(1)</script>" in said and "{{ 7 * 7 }}" in said
    assert not any(control in said for control in ("\u202e", "\x1b", "\x00"))
