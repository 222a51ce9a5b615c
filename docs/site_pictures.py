"""Draw the pictures of the public site in the README, from a site that was built.

.venv/bin/python -m docs.site_pictures FOLDER_OF_THE_SITE [docs]
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser import OPTIONS, find_chromium
from tests.site.serving import serving

PICTURES = {
    "site-map": ("/en/?level=municipality", "#map", (1100, 860), "light"),
    "site-municipality": ("/en/municipalities/081691-el-prat-de-llobregat/", ".brand", (1100, 900), "light"),
    "site-phone": ("/ca/comarques/24-osona/", "#map", (390, 844), "dark"),
}
"""Name to address, what is at the top of the picture, width and height, and colours."""


def draw(target: Path, folder: Path) -> None:
    """Write the pictures into a folder."""
    with serving(target) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(OPTIONS))
        for name, (address, top, (width, height), scheme) in PICTURES.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(url + address, wait_until="networkidle")
            page.locator(top).evaluate("(top) => top.scrollIntoView()")
            page.screenshot(path=folder / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "docs"))
