"""The pages of changes and their feeds: every change of the marts, in the reader's words."""

from __future__ import annotations

import html
import re
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest
from lxml import etree
from playwright.sync_api import Browser, expect

from catalunya.site.change_pages import LONGEST_PAGE, parts_by_year
from catalunya.site.language import CODES, language
from catalunya.site.pages import cut
from catalunya.site.service_facts import Change
from tests.site.changed import HOSTILE, ChangedSite

ATOM = "{http://www.w3.org/2005/Atom}"
SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).with_name("atom.rng")))


def text_of(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<span class=.heard.>.*?</span>|<[^>]*>", " ", markup)).split())


def changes_page(site: Path, code: str, *inside: str) -> str:
    return Path(site, code, language(code).text("path.changes"), *inside, "index.html").read_text("utf-8")


def items(page: str) -> list[str]:
    return [text_of(item) for item in re.findall(r"<li data-change=.*?</li>", page, re.DOTALL)]


@pytest.fixture(scope="module")
def changes(changed: ChangedSite) -> list[tuple[str, str, str | None, str | None]]:
    """What the marts say happened to services for older people."""
    with duckdb.connect(changed.database, read_only=True) as con:
        return con.execute(
            "select service_id, change, before, after from marts.service_changes where service_group <> 'other'"
        ).fetchall()


@pytest.mark.parametrize("code", CODES)
def test_a_page_has_every_change_under_its_day(
    changed: ChangedSite, changes: list[tuple[str, str, str | None, str | None]], code: str
) -> None:
    assert len(changes) == 14
    for page in (changes_page(changed.site, code), changes_page(changed.site, code, "2026")):
        assert re.findall("<h2>(.*?)</h2>", page) == [language(code).day(date(2026, 1, 12))]
        found = re.findall(r'data-change="(\w+)".*?href="/\w+/\w+/(S\d+)[-/]', page)
        assert sorted(found) == sorted((change, service_id) for service_id, change, _, _ in changes)


def test_a_change_is_told_in_words_of_the_language(changed: ChangedSite) -> None:
    with duckdb.connect(changed.database, read_only=True) as con:
        told = {
            (service_id, change): (before, after)
            for service_id, change, before, after in con.execute(
                "select service_id, change, before, after from marts.service_changes"
            ).fetchall()
        }
        [(group, places)] = con.execute(
            "select service_group, places from marts.service_history where service_id = ? order by valid_from desc limit 1",
            [changed.services["closed"]],
        ).fetchall()
    before, after = told[changed.services["shrunk"], "capacity_changed"]
    owner_before, _ = told[changed.services["owner"], "owner_changed"]
    assert owner_before
    owner, _, kind = owner_before.rpartition(" (")
    for code in CODES:
        spoken = language(code)
        found = items(changes_page(changed.site, code))

        def has(*words: str, found: list[str] = found) -> bool:
            return any(all(word in item for word in words) for item in found)

        assert has(spoken.text("change.capacity_changed").capitalize(), f"{before} → {after} (−1)")
        assert has(spoken.text("change.capacity_changed").capitalize(), "(+5)")
        assert has(
            spoken.text("change.closed").capitalize(),
            f"{spoken.text(f'group.{group}')}, {spoken.places(places)}",
        )
        assert has(
            spoken.text("change.owner_changed").capitalize(),
            f"{owner} ({spoken.text(f'ownership.{kind[:-1]}').lower()}) → </td><script>alert(2)</script> "
            f"({spoken.text('ownership.public').lower()})",
        )
        assert has(spoken.text("change.renamed").capitalize(), HOSTILE["script"], "→")
        assert has(spoken.text("change.moved").capitalize(), "→ javascript:alert(3)")
        assert has(spoken.text("change.opened").capitalize(), "Residència la Bessona")


def test_the_page_of_a_service_and_of_its_municipality_say_the_change(changed: ChangedSite) -> None:
    service_id = changed.services["shrunk"]
    [page] = (changed.site / "en" / "services").glob(f"{service_id}*/index.html")
    [item] = items(page.read_text("utf-8"))
    assert "Places changed" in item
    place = re.findall(r'href="(/en/municipalities/[^"]*)"', page.read_text("utf-8"))[0]
    municipality = (changed.site / f"{place}index.html".strip("/")).read_text("utf-8")
    assert f"/en/services/{service_id}-" in municipality.partition('id="changes"')[2]


def test_a_first_release_has_no_change_and_says_so(site: Path) -> None:
    for code in CODES:
        page = changes_page(site, code)
        assert html.escape(language(code).text("changes.empty")).replace("&#x27;", "&#39;") in page
        assert '<form class="filter"' not in page


@pytest.mark.parametrize("code", CODES)
def test_the_feed_is_valid_and_complete(
    changed: ChangedSite, changes: list[tuple[str, str, str | None, str | None]], code: str
) -> None:
    folder = changed.site / code / language(code).text("path.changes")
    feed = etree.parse(folder / "atom.xml")
    assert SCHEMA.validate(feed), SCHEMA.error_log
    root = feed.getroot()
    links = {
        link.get("rel"): link.get("href")
        for link in root.findall(f"{ATOM}link")
        if link.get("hreflang") in (None, code)
    }
    origin = "http://127.0.0.1:8081"
    assert links == {
        "self": f"{origin}/{code}/{folder.name}/atom.xml",
        "alternate": f"{origin}/{code}/{folder.name}/",
    }
    assert root.findtext(f"{ATOM}updated") == "2026-01-12T00:00:00Z"
    entries = root.findall(f"{ATOM}entry")
    ids = [entry.findtext(f"{ATOM}id") for entry in entries]
    assert sorted(ids) == sorted(
        f"tag:127.0.0.1,2026:{code}/{service_id}/2026-01-12/{change}" for service_id, change, _, _ in changes
    )
    for entry in entries:
        address = entry.find(f"{ATOM}link").get("href").removeprefix(origin)
        assert (changed.site / f"{address}index.html".strip("/")).is_file()
        assert language(code).text("demo_mark") in (entry.findtext(f"{ATOM}title") or "")
    titles = " ".join(entry.findtext(f"{ATOM}title") or "" for entry in entries)
    assert HOSTILE["script"] in titles
    assert cut(HOSTILE["emoji"]) in titles
    for page in (changes_page(changed.site, code), (changed.site / code / "index.html").read_text("utf-8")):
        [found] = re.findall(
            r'<link rel="alternate" type="application/atom\+xml" title="[^"]+" href="([^"]+)">', page
        )
        assert found == f"/{code}/{folder.name}/atom.xml"


def test_a_feed_without_changes_is_valid_and_a_wrong_one_is_not(site: Path) -> None:
    feed = etree.parse(site / "ca" / "canvis" / "atom.xml")
    assert SCHEMA.validate(feed), SCHEMA.error_log
    for name in ("id", "updated", "author", "title"):
        broken = etree.fromstring(etree.tostring(feed))
        broken.remove(broken.find(f"{ATOM}{name}"))
        assert not SCHEMA.validate(broken), name
    broken = etree.fromstring(etree.tostring(feed))
    broken.find(f"{ATOM}updated").text = "12 January 2026"
    assert not SCHEMA.validate(broken)


def change(number: int, day: date) -> Change:
    return Change(f"S{number}", day, "opened", None, "x", None)


def test_a_long_year_has_several_pages_of_which_a_full_one_stays() -> None:
    first = date(2026, 1, 1)
    many = [change(number, first + timedelta(days=number // 10)) for number in range(LONGEST_PAGE * 2 + 5)]
    found = parts_by_year(many[::-1])
    assert [(part.words, len(part.changes)) for part in found] == [
        ("2026 (3/3)", 5), ("2026 (2/3)", LONGEST_PAGE), ("2026 (1/3)", LONGEST_PAGE),
    ]  # fmt: skip
    assert [part.address("en") for part in found] == [
        "/en/changes/2026/3/", "/en/changes/2026/2/", "/en/changes/2026/",
    ]  # fmt: skip
    later = parts_by_year([change(9_999, date(2027, 1, 1)), *many[::-1]])
    assert [part.words for part in later][:2] == ["2027", "2026 (3/3)"]
    assert later[1:] == found
    assert [one.service_id for part in found for one in part.changes] == [
        one.service_id for one in many[::-1]
    ]


def test_changes_are_filtered_and_the_address_says_how(
    browser: Browser, changed: ChangedSite, changed_url: str
) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{changed_url}/es/cambios/")
        shown = page.locator(".changes li:visible")
        expect(shown).to_have_count(14)
        page.select_option("#change", "renamed")
        expect(shown).to_have_count(7)
        assert page.url.endswith("?change=renamed")
        comarca = shown.first.get_attribute("data-comarca")
        assert comarca
        page.select_option("#comarca", comarca)
        here = page.locator(f'.changes li[data-comarca="{comarca}"][data-change="renamed"]').count()
        expect(shown).to_have_count(here)
        expect(page.locator("form.filter [role=status]")).to_have_text(f"Cambios: {here}")
        page.go_back()
        expect(shown).to_have_count(7)
        page.goto(f"{changed_url}/es/cambios/?change=closed")
        expect(shown).to_have_count(1)
        expect(page.locator("#change")).to_have_value("closed")
