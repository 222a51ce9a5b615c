"""The pages of services, their lists, and the search, with what a hostile source can put into them.

One long module, since its tests share one site after a week of hostile changes.
"""

from __future__ import annotations

import csv
import gzip
import html
import json
import random
import re
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from catalunya.site.facts import GROUPS, OWNERSHIPS
from catalunya.site.language import CODES, language
from catalunya.site.pages import cut
from catalunya.site.service_facts import Period, Service
from tests.oracle.names import place_key
from tests.project import ROOT
from tests.site.changed import HOSTILE, ChangedSite
from tests.warehouse.spelling import ONE_BY_ONE

ROW = re.compile(r'<tr><th scope="row"><a href="([^"]*)">')
MOST_KB = 300
"""Of a page before anything is compressed."""


def folder_of(site: Path, code: str) -> Path:
    return site / code / language(code).text("path.services")


def page_of(site: Path, code: str, service_id: str) -> str:
    [page] = folder_of(site, code).glob(f"{service_id}*/index.html")
    return page.read_text("utf-8")


def shown(page: str) -> dict[str, str]:
    """The facts of a page of a service: what stands beside each word."""
    found = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page)
    return {word: html.unescape(re.sub(r"<br>.*|<[^>]*>", "", value)) for word, value in found}


@pytest.mark.parametrize("code", CODES)
def test_every_service_has_a_page_that_says_what_the_marts_say(
    site: Path, marts: duckdb.DuckDBPyConnection, code: str
) -> None:
    rows = marts.execute(
        """
        with periods as (
            select
                *, first_value(valid_from) over ordered as since, first_value(basis) over ordered as since_basis,
                row_number() over (partition by service_id order by valid_from desc) as from_the_end
            from service_history
            where service_id in (select service_id from service_history where service_group <> 'other')
            window ordered as (partition by service_id order by valid_from)
        )
        select
            service_id, service_group, ownership, owner_name, places, address, display_name, dim_comarca.name,
            registered_on, since, since_basis, periods.name
        from periods
        left join (select * from dim_municipality where is_current) as municipality
            on periods.municipality_id = municipality.municipality_id
        left join dim_comarca on municipality.comarca_id = dim_comarca.comarca_id
        where from_the_end = 1
        order by service_id
        """
    ).fetchall()
    folder, spoken = folder_of(site, code), language(code)
    assert {path.name.split("-")[0] for path in folder.glob("S*")} == {row[0] for row in rows}
    text = spoken.text
    for row in random.Random(code).sample(rows, 50):
        (
            service_id,
            group,
            ownership,
            owner,
            places,
            address,
            municipality,
            comarca,
            registered,
            since,
            basis,
            name,
        ) = row
        page = page_of(site, code, service_id)
        facts = shown(page)
        assert html.unescape(re.findall("<h1>(.*?)</h1>", page)[0]) == name
        assert facts[text("column.group")] == text(f"group.{group}")
        assert facts[text("column.ownership")] == text(f"ownership.{ownership}")
        assert facts[text("column.owner")] == (owner or text("no_data"))
        assert facts[text("column.places")] == spoken.number(places)
        assert facts[text("column.address")] == (address or text("no_data"))
        if municipality:
            assert facts[text("column.municipality")] == municipality
            assert facts[text("column.comarca")] == comarca
        assert facts[text("column.since")] == spoken.day(registered)
        assert facts[text("service.since")] == spoken.day(since)
        assert text(f"basis.{basis}") in html.unescape(page)
        for link in ("method", "data"):
            assert f'href="/{code}/{text(f"path.{link}")}/' in page.partition("<main")[2]


@pytest.mark.parametrize("code", CODES)
def test_the_lists_by_comarca_have_every_service_without_javascript(
    site: Path, marts: duckdb.DuckDBPyConnection, code: str
) -> None:
    of_now = marts.execute(
        "select service_id from service_history where is_current and service_group <> 'other'"
    ).fetchall()
    folder = folder_of(site, code)
    pages = [folder / "index.html", *folder.glob("[0-9][0-9]-*/index.html")]
    listed = [
        link.split("/")[3].split("-")[0] for path in pages for link in ROW.findall(path.read_text("utf-8"))
    ]
    assert sorted(listed) == sorted(row[0] for row in of_now)
    assert len(listed) > 2_000
    assert max(path.stat().st_size for path in pages) < MOST_KB * 1000


def test_the_parts_of_the_search_are_small(site: Path) -> None:
    sizes = {path.name: len(gzip.compress(path.read_bytes())) for path in (site / "search").iterdir()}
    assert sizes.keys() == {"places.json", "services.json"}
    assert sizes["places.json"] < 20_000
    assert sizes["services.json"] < 40_000


@pytest.mark.parametrize("code", CODES)
def test_a_closed_service_keeps_its_page_and_is_in_no_list(changed: ChangedSite, code: str) -> None:
    closed = changed.services["closed"]
    page = page_of(changed.site, code, closed)
    spoken = language(code)
    assert spoken.text("service.closed", day=spoken.day(date(2026, 1, 12))) in page
    assert "/S" in page.partition('id="changes"')[2]
    for path in [*folder_of(changed.site, code).glob("[0-9][0-9]-*/index.html")]:
        assert f"/{closed}-" not in path.read_text("utf-8")
    assert f'"{closed}-' not in (changed.site / "search" / "services.json").read_text("utf-8")


def test_two_services_of_one_name_have_two_pages(changed: ChangedSite) -> None:
    for code in CODES:
        names = {path.name for path in folder_of(changed.site, code).glob("*-residencia-la-bessona")}
        assert names == {f"{changed.services[one]}-residencia-la-bessona" for one in ("twin", "other twin")}


def service(service_id: str = "S1", *names: str) -> Service:
    days = [date(2026, 1, number) for number in range(1, len(names) + 2)]
    periods = [
        Period(
            name,
            "k",
            "day_centre",
            "public",
            None,
            None,
            None,
            None,
            None,
            None,
            None,
            "observed",
            begin,
            end,
        )
        for name, begin, end in zip(names or ("Casa",), days, [*days[1 : len(names)], None], strict=False)
    ]
    return Service(service_id, tuple(periods))


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (service("S00462", "Centre de dia l'Estel"), "S00462-centre-de-dia-l-estel"),
        (service("S1", "Nom vell", "Nom nou"), "S1-nom-vell"),
        (service("S1", "אבג"), "S1"),
        (service("S1", "S1"), "S1"),
        (service("S1", "a" * 10_000), "S1-" + "a" * 60),
    ],
)
def test_an_address_has_the_number_and_the_first_name(given: Service, path: str) -> None:
    assert given.path == path


def test_an_odd_number_of_the_register_cannot_lead_elsewhere() -> None:
    odd = [
        "../../../etc",
        "13",
        "13-barcelones",
        "a b",
        "a/b",
        "A/B",
        ".",
        "",
        "S" * 300,
        "<b>",
        "S1-2",
        "s1",
        "ñ",
    ]
    paths = [service(number, "barcelones").path for number in odd]
    assert len(set(paths)) == len(odd)
    for path in paths:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", path), path
        assert not re.match(r"\d\d-barcelones$", path)


def test_hostile_text_is_escaped_and_cut(changed: ChangedSite) -> None:
    for code in CODES:
        for path in (changed.site / code).rglob("*.*"):
            if path.suffix in {".html", ".xml"}:
                written = path.read_text("utf-8")
                assert "<script>document" not in written, path
                assert "<img" not in written, path
                assert "</td><script" not in written, path
                assert "\u202e" not in written, path
                assert "ó" * 130 not in written, path
                assert 'href="javascript:' not in written, path
        page = page_of(changed.site, code, changed.services["script"])
        assert f"<h1>{html.escape(HOSTILE['script']).replace('&#x27;', '&#39;')}</h1>" in page
        for name in ("spaces", "marks"):
            assert f"<h1>{changed.services[name]}</h1>" in page_of(changed.site, code, changed.services[name])
    index = json.loads((changed.site / "search" / "services.json").read_text("utf-8"))
    names = {row[0].split("-")[0]: row[1] for row in index["services"]}
    assert names[changed.services["script"]] == HOSTILE["script"]
    assert names[changed.services["long"]] == cut(HOSTILE["long"])
    assert "\u202e" not in names[changed.services["direction"]]


@pytest.fixture
def watched(browser: Browser) -> Any:
    """A page of the browser; fails at its end when a script was run or refused, or a dialog opened."""
    faults: list[str] = []
    with browser.new_context() as context:
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        yield page
    assert faults == []


def test_hostile_text_is_never_executed(watched: Page, changed: ChangedSite, changed_url: str) -> None:
    for name in [*HOSTILE, "owner", "moved", "closed"]:
        [folder] = folder_of(changed.site, "ca").glob(f"{changed.services[name]}*")
        watched.goto(f"{changed_url}/ca/serveis/{folder.name}/")
        expect(watched.locator("h1")).not_to_be_empty()
        assert "hacked" not in watched.title().partition("<")[0]
        assert watched.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
    watched.goto(f"{changed_url}/ca/canvis/")
    expect(watched.locator(".changes li").first).to_be_visible()
    watched.goto(f"{changed_url}/ca/serveis/?q=script")
    expect(watched.locator("#results tbody th")).to_contain_text([HOSTILE["script"]])
    watched.fill("#search", "<script>document")
    expect(watched.locator("#found li").first).to_contain_text(HOSTILE["script"])
    assert watched.locator("main img, #found img, #found script").count() == 0


def test_the_list_is_filtered_and_the_address_says_how(watched: Page, site: Path, url: str) -> None:
    index = json.loads((site / "search" / "services.json").read_text("utf-8"))
    places = {
        row[0].split("-")[0]: row for row in json.loads((site / "search" / "places.json").read_text("utf-8"))
    }
    kind, owner = GROUPS.index("day_centre"), OWNERSHIPS.index("public")

    def count(comarca: str, *, public: bool) -> int:
        return sum(
            row[3] == kind
            and (not public or row[4] == owner)
            and bool(row[2])
            and places[row[2]][2] == comarca
            for row in index["services"]
        )

    rows = watched.locator("#results tbody tr")
    asked: list[str] = []
    watched.on("request", lambda request: asked.append(request.url))
    watched.goto(f"{url}/en/services/")
    expect(watched.locator("#by-comarca")).to_be_visible()
    expect(watched.locator("#results")).to_be_hidden()
    assert [address for address in asked if address.endswith(".json")] == []
    watched.select_option("#kind", "day_centre")
    watched.select_option("#comarca", "21")
    expect(rows).to_have_count(count("21", public=False))
    assert watched.url.endswith("?kind=day_centre&comarca=21")
    watched.select_option("#ownership", "public")
    expect(rows).to_have_count(count("21", public=True))
    watched.go_back()
    expect(watched.locator("#ownership")).to_have_value("")
    expect(rows).to_have_count(count("21", public=False))
    watched.goto(f"{url}/en/services/?kind=day_centre&comarca=21&ownership=public&other=1")
    expect(rows).to_have_count(count("21", public=True))
    watched.goto(f"{url}/en/services/?kind=%3Cscript%3E&comarca=99")
    expect(watched.locator("#by-comarca")).to_be_visible()
    watched.goto(f"{url}/en/services/?q=residencia+barcelona")
    expect(rows).to_have_count(100)
    watched.click("#more")
    expect(watched.locator("#more")).to_be_hidden()
    assert rows.count() > 100
    address = watched.locator("#results tbody a").first.get_attribute("href")
    assert (site / f"{address}index.html".strip("/")).is_file()


def test_lists_fit_a_phone_and_work_without_javascript(browser: Browser, url: str) -> None:
    with browser.new_context(viewport={"width": 360, "height": 740}, java_script_enabled=False) as context:
        page = context.new_page()
        for path in ("serveis/", "serveis/13-barcelones/", "canvis/"):
            page.goto(f"{url}/ca/{path}")
            expect(page.locator("h1")).to_be_visible()
            expect(page.locator("form.filter")).to_have_count(0) if path.endswith("barcelones/") else None
            assert all(form.is_hidden() for form in page.locator("form.filter").all())
        page.goto(f"{url}/ca/serveis/13-barcelones/")
        table = page.locator("table.services")
        assert page.locator("table.services tbody tr").count() > 300
        box = table.bounding_box()
        assert box and box["width"] <= 360
        page.click("table.services tbody a >> nth=0")
        expect(page.locator("dl.facts")).to_be_visible()
    with browser.new_context(viewport={"width": 360, "height": 740}) as context:
        page = context.new_page()
        page.goto(f"{url}/ca/serveis/13-barcelones/")
        assert page.evaluate("document.querySelector('table.services').scrollWidth <= window.innerWidth")


FIND = """
async ([typed, wanted]) => {
    const { find, places } = await import(document.querySelector('script[src*="/assets/search."]').src);
    const entries = await places();
    return typed.filter((name, at) => !find(name, entries).slice(0, 8).some((entry) => entry.code === wanted[at]));
}
"""


def seed(name: str) -> list[dict[str, str]]:
    with (ROOT / "dbt" / "mart" / "seeds" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_search_finds_all_spellings_that_the_matching_accepts(
    watched: Page, url: str, marts: duckdb.DuckDBPyConnection
) -> None:
    """As the macros `place_key` and `without_article` accept them (tests/warehouse/spelling.py has the classes)."""
    current = dict(
        marts.execute(
            "select municipality_id, name from dim_municipality where is_current order by 1"
        ).fetchall()
    )
    with_article = [code for code, name in current.items() if ", " in name]
    odd = [code for code, name in current.items() if "·" in name or "-" in name or "'" in name]
    dice = random.Random("spellings")
    chosen = {*dice.sample(with_article, 20), *dice.sample(odd, 15), *dice.sample(sorted(current), 25)}
    names = [(code, current[code]) for code in sorted(chosen)]
    names += [(row["municipality_id"], row["former_name"]) for row in seed("municipality_former_names")]
    names += [(row["successor_id"], row["name"]) for row in seed("municipality_successions")]
    names += [(row["comarca_id"], row["name"]) for row in seed("comarca_names")]
    spelled = [(spelling.of(name), code) for code, name in names for spelling in ONE_BY_ONE]
    # Without its article, which stands behind in the list.
    spelled += [(name.rpartition(", ")[0] or name, code) for code, name in names]
    assert len({code for _, code in spelled}) > 50 + 43
    watched.goto(f"{url}/ca/")
    missed = watched.evaluate(FIND, [[typed for typed, _ in spelled], [code for _, code in spelled]])
    assert missed == []


def test_the_key_of_the_search_is_that_of_the_matching(
    watched: Page, url: str, marts: duckdb.DuckDBPyConnection
) -> None:
    names = [
        row[0] for row in marts.execute("select distinct name from dim_municipality order by 1").fetchall()
    ]
    typed = [*names, "  L ' Hospitalet ", "Cel.la", "Vall d’en Bas (la)", "À,É", "", "x, sa", "s'Agaró"]
    watched.goto(f"{url}/ca/")
    keys = watched.evaluate(
        """async (names) => {
            const { key } = await import(document.querySelector('script[src*="/assets/search."]').src);
            return names.map(key);
        }""",
        typed,
    )
    assert keys == [place_key(name) for name in typed]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("prat", "el Prat de Llobregat"),
        ("L'Hospitalet", "l'Hospitalet de Llobregat"),
        ("hospitalet", "l'Hospitalet de Llobregat"),
        ("aran", "Aran"),
        ("sant boi", "Sant Boi de Llobregat"),
        ("Vall d'Aran", "Aran"),
        ("el bages", "Bages"),
        ("castell platja", "Castell d'Aro, Platja d'Aro i s'Agaró"),
    ],
)
def test_the_search_finds_a_place_with_the_keyboard(watched: Page, url: str, typed: str, found: str) -> None:
    watched.goto(f"{url}/es/")
    watched.fill("#search", typed)
    options = watched.locator("#found [role=option]")
    expect(options.filter(has_text=re.compile(f"^{re.escape(found)}", re.IGNORECASE)).first).to_be_visible()
    chosen = watched.locator("#found [aria-selected=true]")
    for _ in range(options.count()):
        watched.press("#search", "ArrowDown")
        expect(chosen).to_have_count(1)
        if chosen.inner_text().lower().startswith(found.lower()):
            break
    watched.press("#search", "Enter")
    expect(watched.locator("h1")).to_have_text(re.compile(f"^{re.escape(found)}$", re.IGNORECASE))


def test_an_entry_that_is_chosen_stays_chosen_when_the_services_arrive(watched: Page, url: str) -> None:
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        waiting.append(route)

    watched.route(re.compile(r"/search/services\.json"), hold)
    watched.goto(f"{url}/es/")
    watched.fill("#search", "prat")
    expect(watched.locator("#found [role=option]").first).to_be_visible()
    watched.press("#search", "ArrowDown")
    chosen = watched.locator("#found [aria-selected=true]")
    before = chosen.inner_text()
    while not waiting:
        watched.wait_for_timeout(10)
    waiting[0].continue_()
    watched.evaluate(
        """async () => {
            const { services } = await import(document.querySelector('script[src*="/assets/search."]').src);
            await services();
        }"""
    )
    assert chosen.inner_text() == before
    watched.fill("#search", "residencia prat")
    expect(watched.locator("#found [role=option]").first).to_contain_text("Prat")


def test_the_search_finds_a_service_and_says_when_there_is_nothing(
    watched: Page, url: str, marts: duckdb.DuckDBPyConnection
) -> None:
    [(service_id, name, place)] = marts.execute(
        "select service_id, service_history.name, display_name from service_history join dim_municipality "
        "using (municipality_id) where service_history.is_current and dim_municipality.is_current "
        "and service_group = 'day_centre' order by service_id limit 1"
    ).fetchall()
    watched.goto(f"{url}/en/")
    watched.fill("#search", f"{name.upper()} {place}")
    expect(watched.locator("#found [role=option]").first).to_contain_text(name)
    watched.fill("#search", service_id.lower())
    expect(watched.locator("#found [role=option]")).to_have_count(1)
    watched.click("#found [role=option]")
    expect(watched.locator("h1")).to_have_text(name)
    for nothing in ("---", " "):
        watched.fill("#search", nothing)
        expect(watched.locator("#found")).to_be_hidden()
    watched.fill("#search", "qwertz")
    expect(watched.locator("#not-found")).to_have_text(language("en").text("search.none"))
    expect(watched.locator("#found")).to_be_hidden()
    watched.fill("#search", "farigola")
    expect(watched.locator("#found [role=option]").first).to_be_visible()
    watched.press("#search", "Escape")
    expect(watched.locator("#found")).to_be_hidden()
    # With nothing chosen the words lead to the list.
    watched.press("#search", "Enter")
    watched.wait_for_url("**/en/services/?q=farigola")
    expect(watched.locator("#results tbody tr").first).to_be_visible()
