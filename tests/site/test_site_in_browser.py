"""The site as readers meet it: no error, no request elsewhere, switches, back, no JavaScript, large text, search."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from catalunya.site.facts import read_facts
from catalunya.site.language import CODES, language
from catalunya.site.maps import DIGITS, State, breaks_of, shade
from tests.project import ROOT
from tests.site.conftest import kinds

SCREENSHOTS = ROOT / ".artefacts" / "site"
LOOKS = {"ca": "light", "es": "dark", "en": "light"}
FITS = "document.documentElement.scrollWidth <= window.innerWidth"


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[tuple[Page, list[str]]]:
    """A page, and its console errors and requests to elsewhere."""
    faults: list[str] = []
    with browser.new_context(**options) as context:
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request", lambda request: None if request.url.startswith(url) else faults.append(request.url)
        )
        yield page, faults


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("code", CODES)
def test_each_kind_of_page_opens_without_an_error_or_a_request_elsewhere(
    browser: Browser, site: Path, url: str, code: str, width: int
) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    viewport = {"width": width, "height": 900}
    with opened(browser, url, viewport=viewport, color_scheme=LOOKS[code]) as (page, faults):
        for path in kinds(site, code):
            page.goto(url + path)
            expect(page.locator("h1")).to_be_visible()
            assert page.evaluate(FITS), path
            if (code, width) != ("en", 390):
                page.screenshot(path=SCREENSHOTS / f"{width}{path.rstrip('/').replace('/', '-')}.png")
        assert faults == []


@pytest.mark.parametrize("code", CODES)
def test_all_content_is_there_without_javascript(browser: Browser, site: Path, url: str, code: str) -> None:
    with opened(browser, url, java_script_enabled=False) as (page, faults):
        for path in kinds(site, code):
            page.goto(url + path)
            expect(page.locator("h1")).to_be_visible()
            for control in page.locator("select, button, input").all():
                expect(control).to_be_hidden()
        page.goto(f"{url}/{code}/")
        expect(page.locator(".map .areas path")).to_have_count(43)
        expect(page.locator("#ranking tbody tr")).to_have_count(43)
        page.get_by_role("link", name=language(code).text("municipalities.title")).click()
        expect(page.locator(".map .areas path")).to_have_count(947)
        expect(page.locator("section[aria-labelledby=ranked] tbody tr")).to_have_count(947)
        assert faults == []


def test_text_of_twice_the_size_stays_within_the_page(browser: Browser, site: Path, url: str) -> None:
    with opened(browser, url, viewport={"width": 1280, "height": 900}) as (page, _):
        for path in kinds(site, "ca"):
            page.goto(url + path)
            page.evaluate("document.documentElement.style.fontSize = '200%'")
            assert page.evaluate(FITS), path
            # No text is cut off by a box that hides what does not fit.
            assert not page.evaluate(
                "[...document.querySelectorAll('main *')].some((one) => one.scrollHeight > one.clientHeight + 1"
                " && getComputedStyle(one).overflowY === 'hidden')"
            ), path


@pytest.mark.parametrize("path", ["/ca/", "/ca/municipis/080193-barcelona/", "/ca/dades/"])
def test_the_first_view_is_small_and_fetches_no_figures_that_nobody_asked_for(
    browser: Browser, url: str, path: str
) -> None:
    with opened(browser, url) as (page, _):
        sizes: dict[str, int] = {}
        page.on("response", lambda answer: sizes.update({answer.url: len(answer.body())}))
        page.goto(url + path, wait_until="networkidle")
    assert 0 < sum(sizes.values()) < 300_000, sizes
    assert not [name for name in sizes if "/map/" in name or name.endswith("/search.json")]


def test_switches_change_the_map_the_ranking_and_the_address(
    browser: Browser, url: str, marts: duckdb.DuckDBPyConnection
) -> None:
    facts = read_facts(marts)
    with opened(browser, url) as (page, faults):
        page.goto(f"{url}/en/")
        caption = page.locator("#caption")
        page.select_option("[name=level]", "municipality")
        page.select_option("[name=group]", "day_centre")
        page.select_option("[name=ownership]", "public")
        page.select_option("[name=indicator]", "places")
        page.select_option("[name=year]", "2020")
        expect(caption).to_have_text("Places · Day centres · Ownership: Public · 2020 · by municipality")
        assert set(page.url.partition("?")[2].split("&")) == {
            "level=municipality", "group=day_centre", "ownership=public", "indicator=places", "year=2020",
        }  # fmt: skip
        expect(page.locator("#basis")).to_contain_text("read back")
        state = State("municipality", "places", "day_centre", "public")
        breaks = breaks_of(facts, state)
        expected = {
            code: shade(one.coverage[2020, "day_centre", "public"].places, breaks, 0)
            for code, one in facts.municipalities.items()
        }
        assert shades(page) == expected
        most = max(one.coverage[2020, "day_centre", "public"].places for one in facts.municipalities.values())
        expect(page.locator("#ranking tbody tr")).to_have_count(100)
        expect(page.locator("#ranking tbody tr:first-child td").nth(1)).to_have_text(
            language("en").number(most)
        )
        page.click("#more")
        expect(page.locator("#ranking tbody tr")).to_have_count(947)
        # A link with a state opens with it, in another language, too.
        link = page.locator(".languages a[lang=ca]").get_attribute("href")
        assert link
        with opened(browser, url) as (other, _):
            other.goto(url + link if link.startswith("/") else link)
            expect(other.locator("#caption")).to_contain_text("Centres de dia · Titularitat: Pública · 2020")
            assert shades(other) == expected
        # Back goes through the states, and out of them.
        page.go_back()
        expect(caption).to_have_text("Places · Day centres · Ownership: Public · 2026 · by municipality")
        expect(page.locator("[name=year]")).to_have_value("2026")
        for _ in range(4):
            page.go_back()
        expect(caption).to_contain_text("Nursing homes · Ownership: All · 2026 · by comarca")
        assert page.url == f"{url}/en/"
        expect(page.locator(".map .areas path")).to_have_count(43)
        page.go_forward()
        expect(page.locator(".map .areas path")).to_have_count(947)
        assert faults == []


@pytest.mark.parametrize("indicator", ["nearest_km", "accessibility"])
def test_access_is_shown_by_municipality_of_the_newest_register(
    browser: Browser, url: str, marts: duckdb.DuckDBPyConnection, indicator: str
) -> None:
    facts = read_facts(marts)
    state = State("municipality", indicator, "home_residence")
    breaks = breaks_of(facts, state)
    with opened(browser, url) as (page, faults):
        page.goto(f"{url}/en/?year=2018&ownership=public&group=home_residence&indicator={indicator}")
        expect(page.locator("#caption")).to_contain_text("Residential homes · by municipality")
        for name in ("level", "year", "ownership"):
            expect(page.locator(f"[name={name}]")).to_be_disabled()
        attribute = "nearest_km" if indicator == "nearest_km" else "places_per_100"
        assert shades(page) == {
            code: shade(getattr(one.access["home_residence"], attribute), breaks, DIGITS[indicator])
            for code, one in facts.municipalities.items()
        }
        page.select_option("[name=indicator]", "rate")
        expect(page.locator("#caption")).to_contain_text("2026 · by municipality")
        assert faults == []


def test_words_of_an_address_that_no_switch_offers_are_ignored(browser: Browser, url: str) -> None:
    with opened(browser, url) as (page, faults):
        page.goto(f"{url}/en/?year=1714&level=<script>&group=day_centre")
        expect(page.locator("#caption")).to_contain_text("Day centres · Ownership: All · 2026 · by comarca")
        assert faults == []


def test_figures_that_cannot_be_fetched_leave_those_of_before_and_a_sentence(
    browser: Browser, url: str
) -> None:
    with opened(browser, url) as (page, _):
        page.goto(f"{url}/en/")
        before = shades(page)
        page.route("**/map/**", lambda route: route.abort())
        page.select_option("[name=group]", "day_centre")
        expect(page.locator("#failed")).to_be_visible()
        assert shades(page) == before
        page.unroute("**/map/**")
        page.select_option("[name=group]", "home_residence")
        expect(page.locator("#caption")).to_contain_text("Residential homes")
        expect(page.locator("#failed")).to_be_hidden()


def test_paper_is_white_and_has_no_switches(browser: Browser, url: str) -> None:
    with opened(browser, url, color_scheme="dark") as (page, _):
        page.goto(f"{url}/ca/")
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        expect(page.locator("#switches")).to_be_hidden()
        expect(page.locator("#ranking")).to_be_visible()


def test_a_territory_without_data_is_hatched_and_named(browser: Browser, url: str) -> None:
    def without_osona(route: Route) -> None:
        figures = route.fetch().json()
        figures["values"]["24"] = [None, None, *[3, 30, None] * 5]
        route.fulfill(json=figures)

    with opened(browser, url) as (page, faults):
        page.route("**/map/comarca/day_centre/*.json", without_osona)
        page.goto(f"{url}/ca/?group=day_centre")
        area = page.locator('.areas a[data-code="24"] path')
        expect(area).to_have_class("none")
        assert "#hatch" in area.evaluate("(path) => getComputedStyle(path).fill")
        expect(area.locator("title")).to_have_text("Osona: sense dades")
        # It is the last of the ranking, and its services are still there.
        expect(page.locator("#ranking tbody tr").last).to_contain_text(
            re.compile("Osona.*sense dades.*30.*3")
        )
        page.select_option("[name=indicator]", "places")
        expect(area).to_have_class(re.compile("^c[0-4]$"))
        assert faults == []


def shades(page: Page) -> dict[str, str]:
    """Code of each area of the map to the class of its colour."""
    found: dict[str, str] = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.areas a')].map("
        "(area) => [area.dataset.code, area.firstElementChild.getAttribute('class')]))"
    )
    return found


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("prat", "el Prat de Llobregat"),
        ("L'Hospitalet", "l'Hospitalet de Llobregat"),
        ("hospitalet", "l'Hospitalet de Llobregat"),
        ("aran", "Aran"),
        ("sant boi", "Sant Boi de Llobregat"),
    ],
)
def test_the_search_finds_a_place_by_any_spelling_with_the_keyboard(
    browser: Browser, url: str, typed: str, found: str
) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{url}/ca/")
        page.fill("#search", typed)
        option = page.locator(
            "#found [role=option]", has_text=re.compile(f"^{re.escape(found)}$", re.IGNORECASE)
        )
        expect(option).to_be_visible()
        names = page.locator("#found [role=option]").all_inner_texts()
        for _ in range([name.lower() for name in names].index(found.lower()) + 1):
            page.press("#search", "ArrowDown")
        page.press("#search", "Enter")
        expect(page.locator("h1")).to_have_text(re.compile(f"^{re.escape(found)}$", re.IGNORECASE))
