"""The documentation site as `make docs` builds it, in a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.project import ROOT

SOURCES = (
    "docs",
    "README.md",
    "orchestration/README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "mkdocs.yml",
)


def build(repository: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(target)]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=repository, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the built site, served on loopback."""
    target = tmp_path_factory.mktemp("site")
    built = build(ROOT, target)
    assert built.returncode == 0, built.stderr
    handler = partial(SimpleHTTPRequestHandler, directory=str(target))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    found = browser.new_page(viewport={"width": 1400, "height": 900})
    yield found
    found.close()


def test_every_page_opens_and_asks_nobody_else_for_anything(site, page):
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda answer: faults.append(answer.url) if answer.status >= 400 else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{site}/index.html")
    pages = set(
        page.locator("nav.md-nav--primary a.md-nav__link").evaluate_all(
            "links => links.map(a => a.href.split('#')[0])"
        )
    )
    assert len(pages) > 15
    for address in sorted(pages):
        page.goto(address)
        expect(page.locator("article h1").first).to_be_visible()
        assert page.locator("article img").evaluate_all(
            "all => all.every(i => i.complete && i.naturalWidth > 0)"
        )
    assert [url for url in asked if not url.startswith((site, "data:", "blob:"))] == []
    assert faults == []


def test_the_search_finds_a_column_of_a_mart(site, page):
    page.goto(f"{site}/index.html")
    page.locator("input.md-search__input").click()
    # Until its index is loaded, the page does not look at what is typed.
    expect(page.locator(".md-search-result__meta")).to_have_text("Type to start searching")
    page.locator("input.md-search__input").press_sequentially("accessibility_ratio")
    expect(page.locator(".md-search-result__item", has_text="accessibility_ratio").first).to_be_visible()


def test_a_link_of_one_page_leads_to_another_page(site, page):
    page.goto(f"{site}/index.html")
    page.locator("article a", has_text="docs/architecture.md").click()
    expect(page.locator("article h1")).to_contain_text("Architecture")


@pytest.mark.parametrize("link", ["nowhere.md", "method.md#no-such-heading", "../src/nowhere.py"])
def test_a_broken_link_fails_the_build(link, tmp_path):
    for name in SOURCES:
        source, copy = ROOT / name, tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
    for path in subprocess.check_output(
        ["git", "ls-files", "src", "tests", "datasets"], cwd=ROOT, text=True
    ).split():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    page = tmp_path / "docs" / "scale.md"
    page.write_text(page.read_text("utf-8") + f"\n[a link]({link})\n", "utf-8")
    built = build(tmp_path, tmp_path / "site")
    assert built.returncode != 0
    assert link.split("#")[0] in built.stderr
