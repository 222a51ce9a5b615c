"""The public site of a release: whole, right, linked, and shown at once.

One long module, since its tests share one built site.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from catalunya.settings import LOOPBACK_SITE
from catalunya.site.language import CODES, folded, language, slug
from catalunya.site.pages import cut
from catalunya.site.serve import site_app
from tests.pipeline.command import ReleasedLake

HREF = re.compile(r' (?:href|src)="([^"]*)"')


def test_every_link_and_anchor_of_the_whole_site_leads_somewhere(site: Path) -> None:
    pages = {path: path.read_text("utf-8") for path in site.rglob("*.html")}
    there = {f"/{path.relative_to(site).as_posix()}" for path in site.rglob("*") if path.is_file()}
    broken = set()
    for path, html in pages.items():
        for link in HREF.findall(html):
            address, _, anchor = link.removeprefix(LOOPBACK_SITE).partition("#")
            address = address.partition("?")[0]
            if address.startswith("https://"):
                continue
            wanted = f"{address}index.html" if address.endswith("/") else address
            if address and wanted not in there:
                broken.add(link)
            if anchor and f'id="{anchor}"' not in (pages[path] if not address else pages[site / wanted[1:]]):
                broken.add(link)
    assert not broken
    assert len(pages) > 9500


def test_every_page_says_its_language_its_others_and_that_its_data_are_demo_data(site: Path) -> None:
    for path in site.rglob("*/index.html"):
        html = path.read_text("utf-8")
        code = path.relative_to(site).parts[0]
        assert f'<html lang="{code}">' in html
        assert re.findall(r'<link rel="alternate" hreflang="(..)"', html) == list(CODES)
        assert language(code).text("demo").split(".")[0] in html, path
        assert html.count("<h1>") == 1
        assert 'class="watermark"' in html or "<svg" not in html


def test_every_page_with_a_figure_leads_to_its_method_and_its_sources(site: Path) -> None:
    for code in CODES:
        method, data = (f"/{code}/{language(code).text(f'path.{name}')}/" for name in ("method", "data"))
        for path in (site / code).rglob("index.html"):
            html = path.read_text("utf-8")
            if 'class="number"' not in html:
                continue
            assert f'href="{method}' in html.partition("<main")[2].partition("</main>")[0], path
            assert f'href="{data}#source-' in html or 'id="source-' in html, path


def test_the_files_are_those_of_the_release(site: Path, first_release: ReleasedLake) -> None:
    for path in first_release.folder.glob("*/*.*"):
        copy = site / "data" / path.relative_to(first_release.folder)
        assert copy.read_bytes() == path.read_bytes()


def test_languages_have_the_same_texts_with_the_same_values() -> None:
    def texts(value: Any, name: str = "") -> dict[str, set[str]]:
        if isinstance(value, dict):
            return {k: v for key, inner in value.items() for k, v in texts(inner, f"{name}.{key}").items()}
        return {name: set(re.findall(r"\{(\w+)\}", value))}

    catalan, spanish, english = (texts(language(code).texts) for code in CODES)
    assert catalan == spanish == english


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
    release_id = json.loads((target / "current" / "site.json").read_text())["release_id"]
    kept = client.get(f"/releases/{release_id}/release.json")
    assert (kept.status_code, "immutable" in kept.headers["cache-control"]) == (200, True)
    assert client.get(f"/releases/{release_id}/").headers["cache-control"] == "no-cache"


def test_pages_of_others_may_read_the_api_and_the_files(target: Path) -> None:
    client = TestClient(site_app(target))
    for path in ("/api/v1/index.json", "/data/csv/population.csv"):
        answer = client.get(path, headers={"origin": "https://example.org"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*"), path


def test_the_server_answers_no_path_outside_of_the_site(target: Path) -> None:
    client = TestClient(site_app(target))
    assert client.get("/ca/nothing/").status_code == 404
    assert client.get("/../../etc/passwd").status_code == 404
