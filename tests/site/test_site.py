"""The public site of a release: whole, right, linked, and shown at once.

One long module, since its tests share one built site.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from starlette.testclient import TestClient

from catalunya.errors import UsageError
from catalunya.release import Release
from catalunya.settings import LOOPBACK_SITE
from catalunya.site import build as site_build
from catalunya.site.borders import Borders
from catalunya.site.downloads import Downloads
from catalunya.site.facts import Facts, Service, read_facts
from catalunya.site.language import CODES, folded, language, slug
from catalunya.site.pages import Content, Pages, cut
from catalunya.site.serve import site_app
from catalunya.site.territory_pages import territory_pages
from tests.pipeline.command import ReleasedLake
from tests.project import ROOT
from tests.site.conftest import DATASETS, build

HREF = re.compile(r' (?:href|src)="([^"]*)"')


def test_every_link_and_anchor_of_the_whole_site_leads_somewhere(site: Path) -> None:
    pages = {path: path.read_text("utf-8") for path in site.rglob("*.html")}
    there = {f"/{path.relative_to(site).as_posix()}" for path in site.rglob("*") if path.is_file()}
    broken = set()
    for path, html in pages.items():
        for link in HREF.findall(html):
            address, _, anchor = link.removeprefix(LOOPBACK_SITE).partition("#")
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
    assert {path.name for path in target.iterdir()} == {"current", built.folder.name}


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
    assert len(list((tmp_path / "site").iterdir())) == 2


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
    barcelona = {"080193": facts.municipalities["080193"]}
    facts = replace(facts, services={"080193": [service]}, municipalities=barcelona, comarques={})
    [(_, html)] = territory_pages(Pages(_content(facts), language("en")))
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
    assets = {name: name for name in ("icon.svg", "site.css", "search.js", "map.js")}
    return Content(release, DATASETS, facts, Borders(), Downloads(), assets)


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
    assert client.get("/ca/nothing/").status_code == 404
    assert client.get("/../../etc/passwd").status_code == 404


def test_a_folder_without_a_site_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="catalunya site build"):
        site_app(tmp_path)
