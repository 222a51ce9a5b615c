"""The public site of a release: whole, right, linked, and shown at once.

One long module, since its tests share one built site.
"""

from __future__ import annotations

import random
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
import uvicorn
from playwright.sync_api import Browser, expect
from starlette.testclient import TestClient

from catalunya.errors import UsageError
from catalunya.release import Release
from catalunya.site import build as site_build
from catalunya.site.borders import Outlines
from catalunya.site.downloads import Downloads
from catalunya.site.facts import Facts, Service, read_facts
from catalunya.site.language import CODES, folded, language, slug
from catalunya.site.pages import Content, Pages, class_breaks, cut, shade
from catalunya.site.serve import site_app
from tests.pipeline.command import ReleasedLake
from tests.project import ROOT
from tests.site.conftest import DATASETS, build

HREF = re.compile(r' (?:href|src)="([^"]*)"')
NUMBER = re.compile(r'<td class="number">([^<]*?)\s*(?:<small>.*?</small>)?</td>')


def test_every_link_and_anchor_of_the_whole_site_leads_somewhere(site: Path) -> None:
    pages = {path: path.read_text("utf-8") for path in site.rglob("*.html")}
    there = {f"/{path.relative_to(site).as_posix()}" for path in site.rglob("*") if path.is_file()}
    broken = set()
    for path, html in pages.items():
        for link in HREF.findall(html):
            address, _, anchor = link.partition("#")
            if address.startswith("https://"):
                continue
            wanted = f"{address}index.html" if address.endswith("/") else address
            if address and wanted not in there:
                broken.add(link)
            if anchor and f'id="{anchor}"' not in (pages[path] if not address else pages[site / wanted[1:]]):
                broken.add(link)
    assert not broken
    assert len(pages) > 2900


def test_every_page_says_its_language_its_others_and_that_its_data_are_demo_data(site: Path) -> None:
    for path in site.rglob("*/index.html"):
        html = path.read_text("utf-8")
        code = path.relative_to(site).parts[0]
        assert f'<html lang="{code}">' in html
        assert re.findall(r'<link rel="alternate" hreflang="(..)"', html) == list(CODES)
        assert language(code).text("demo").split(".")[0] in html, path
        assert html.count("<h1>") == 1
        assert 'class="watermark"' in html or "<svg" not in html


@pytest.mark.parametrize("code", CODES)
def test_the_figures_of_a_territory_are_those_of_the_marts(
    site: Path, marts: duckdb.DuckDBPyConnection, code: str
) -> None:
    ids = [
        row[0]
        for row in marts.execute("select municipality_id from dim_municipality where is_current").fetchall()
    ]
    spoken = language(code)
    for municipality_id in random.Random(code).sample(sorted(ids), 20):
        [page] = (site / code / spoken.text("path.municipalities")).glob(f"{municipality_id}-*/index.html")
        shown = NUMBER.findall(page.read_text("utf-8").partition('id="compared"')[0])
        rows = marts.execute(
            """
            select
                any_value(services) filter (ownership = 'all'), any_value(places) filter (ownership = 'all'),
                any_value(places) filter (ownership = 'public'), any_value(places) filter (ownership = 'social_initiative'),
                any_value(places) filter (ownership = 'mercantile'), any_value(places) filter (ownership = 'unknown'),
                any_value(coalesce(places_per_100_aged_65_over, places_per_100_aged_65_over_latest))
                    filter (ownership = 'all')
            from coverage_municipality
            where municipality_id = ? and year = (select max(year) from coverage_municipality)
            group by service_group
            order by list_position(
                ['assisted_residence', 'home_residence', 'sheltered_housing', 'day_centre'], service_group
            )
            """,
            [municipality_id],
        ).fetchall()
        expected = [
            spoken.number(value, 1 if position == 6 else 0)
            for row in rows
            for position, value in enumerate(row)
        ]
        assert shown == expected, municipality_id


def test_every_service_for_older_people_is_on_one_page(site: Path, marts: duckdb.DuckDBPyConnection) -> None:
    [(services,)] = marts.execute(
        "select count(*) from service_history where is_current and service_group <> 'other'"
    ).fetchall()
    listed = sum(
        path.read_text("utf-8").partition('<table class="services">')[2].count('<th scope="row">')
        for path in [*site.glob("en/municipalities/*/index.html"), site / "en" / "services" / "index.html"]
    )
    assert listed == services > 2000


def test_the_files_are_those_of_the_release(site: Path, first_release: ReleasedLake) -> None:
    for path in first_release.folder.glob("*/*.*"):
        copy = site / "data" / path.relative_to(first_release.folder)
        assert copy.read_bytes() == path.read_bytes()


def test_a_release_gives_the_same_site_again(
    first_release: ReleasedLake, target: Path, tmp_path: Path
) -> None:
    again = build(first_release.lake, tmp_path / "site")
    assert again.folder.name == (target / "current").resolve().name


def test_a_build_that_stops_leaves_the_old_site_and_nothing_else(
    first_release: ReleasedLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "site"
    target.mkdir()
    old = target / "20260101T000000Z-00000000-0123456789ab"
    old.mkdir()
    (old / "index.html").write_text("old")
    (target / "current").symlink_to(old.name)
    for name in ("write_downloads", "_swap"):
        with monkeypatch.context() as patch:
            patch.setattr(site_build, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                build(first_release.lake, target)
        assert (target / "current" / "index.html").read_text() == "old"
        assert not [path for path in target.iterdir() if path.name.startswith(".")]
    built = build(first_release.lake, target)
    assert (target / "current").resolve() == built.folder.resolve()
    assert {path.name for path in target.iterdir()} == {"current", built.folder.name, old.name}


KILLED = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from catalunya.site import build

def write(storage, datasets, release, folder, *_):
    for name in ("ca/index.html", "index.html"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(release.release_id)
    return 2

changes = int(sys.argv[2])

def die_before_a_change(event, arguments):
    global changes
    writes = event == "open" and isinstance(arguments[1], str) and "w" in arguments[1]
    if writes or event in ("os.mkdir", "os.rename", "os.symlink", "os.remove", "os.rmdir", "shutil.rmtree"):
        changes -= 1
        if changes < 0:
            os._exit(9)

build._write = write
sys.addaudithook(die_before_a_change)
build.build_site(None, {}, SimpleNamespace(release_id=sys.argv[3]), Path(sys.argv[1]))
"""


def test_a_kill_before_any_change_leaves_one_whole_site(tmp_path: Path) -> None:
    def run(changes: int, release_id: str) -> int:
        command = [sys.executable, "-B", "-c", KILLED, str(tmp_path / "site"), str(changes), release_id]
        return subprocess.run(command, check=False, cwd=ROOT).returncode

    def shown() -> set[str]:
        return {path.read_text() for path in (tmp_path / "site" / "current").rglob("*.html")}

    old, new = "20260101T000000Z-00000000", "20260102T000000Z-11111111"
    seen = []
    for changes in range(40):
        assert run(99, old) == 0
        code = run(changes, new)
        seen.append(shown())
        assert seen[-1] in ({old}, {new})
        if code == 0:
            break
        assert code == 9
    assert code == 0
    assert seen[0] == {old}
    assert seen.index({new}) > 4
    assert len(list((tmp_path / "site").iterdir())) == 3, "the link, the site, and the one before"


def test_a_folder_of_something_else_is_left_alone(first_release: ReleasedLake, tmp_path: Path) -> None:
    (tmp_path / "thesis.odt").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.odt"):
        build(first_release.lake, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.odt"]


def test_hostile_text_of_a_source_is_escaped_and_cut(site: Path, marts: duckdb.DuckDBPyConnection) -> None:
    hostile = "<script>alert('x')</script>\u202e\"'&" + "ó" * 10_000
    service = Service(
        "S1", hostile, "k", "day_centre", "public", hostile, 3, hostile, hostile, None, "080193"
    )
    facts = read_facts(marts)
    facts = replace(facts, services={**facts.services, "080193": [service]})
    html = dict(Pages(_content(facts), language("en")).all())["en/municipalities/080193-barcelona/index.html"]
    assert "<script>alert" not in html
    assert "&lt;script&gt;" in html
    assert "\u202e" not in html
    assert "ó" * 130 not in html


def _content(facts: Facts) -> Content:
    release: Any = Release(
        release_id="20260105T060000Z-00000000", run_id="r", released_at="2026-01-05T06:00:00Z", demo=False,
        engine="duckdb", inputs_sha256="", snapshots={}, datasets={}, stale=(), rows={}, warnings=(), tests=1,
        versions={}, code_revision=None,
    )  # fmt: skip
    assets = {name: name for name in ("icon.svg", "site.css", "search.js")}
    return Content(release, DATASETS, facts, Outlines(10, 10, {}), Downloads(), assets)


def test_languages_have_the_same_texts_with_the_same_values() -> None:
    def texts(value: Any, name: str = "") -> dict[str, set[str]]:
        if isinstance(value, dict):
            return {k: v for key, inner in value.items() for k, v in texts(inner, f"{name}.{key}").items()}
        return {name: set(re.findall(r"\{(\w+)\}", value))}

    catalan, spanish, english = (texts(language(code).texts) for code in CODES)
    assert catalan == spanish == english


def test_classes_tell_no_data_zero_and_the_rest_apart() -> None:
    values = [0.4, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.9]
    breaks = class_breaks(values)
    assert [shade(value, breaks) for value in (None, 0.0)] == ["none", "zero"]
    shades = [shade(value, breaks) for value in values]
    assert shades == sorted(shades)
    assert {shades.count(f"c{number}") for number in range(5)} == {2}
    assert class_breaks([]) == []


@pytest.mark.parametrize(
    ("name", "expected", "without_article"),
    [
        ("L'Hospitalet de Llobregat", "l-hospitalet-de-llobregat", "hospitalet-de-llobregat"),
        ("el Prat de Llobregat", "el-prat-de-llobregat", "prat-de-llobregat"),
        ("Vilanova i la Geltrú", "vilanova-i-la-geltru", "vilanova-i-la-geltru"),
        ("Sant Sadurní d'Anoia", "sant-sadurni-d-anoia", "sant-sadurni-d-anoia"),
        ("la Vall d'en Bas", "la-vall-d-en-bas", "vall-d-en-bas"),
        ("Vila-sana · x·l", "vila-sana-xl", "vila-sana-xl"),
    ],
)
def test_names_become_addresses(name: str, expected: str, without_article: str) -> None:
    assert (slug(name), folded(name)) == (expected, without_article)


def test_a_long_text_is_cut_at_its_end() -> None:
    assert cut("a" * 300) == "a" * 119 + "…"
    assert cut("short\u200b text") == "short  text"


def test_the_server_forbids_what_the_site_does_not_need(target: Path) -> None:
    client = TestClient(site_app(target))
    page = client.get("/ca/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-cache"
    [style] = re.findall(r'href="(/assets/site\.[^"]*)"', page.text)
    assert "immutable" in client.get(style).headers["cache-control"]
    assert client.get("/ca/nothing/").status_code == 404
    assert client.get("/../../etc/passwd").status_code == 404


@pytest.fixture(scope="module")
def url(target: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(site_app(target), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(60)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("code", CODES)
def test_pages_open_in_a_browser_without_an_error_or_a_request_elsewhere(
    browser: Browser, url: str, code: str, width: int
) -> None:
    faults: list[str] = []
    with browser.new_context(viewport={"width": width, "height": 900}) as context:
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on(
            "request", lambda request: None if request.url.startswith(url) else faults.append(request.url)
        )
        municipality = f"{language(code).text('path.municipalities')}/080193-barcelona/"
        for path in (
            "",
            municipality,
            *(f"{language(code).text(f'path.{name}')}/" for name in ("data", "status")),
        ):
            page.goto(f"{url}/{code}/{path}")
            expect(page.locator("h1")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
    assert faults == []


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
