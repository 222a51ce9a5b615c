"""What search engines read: robots.txt, and the list of pages with their translations.

The list says what the pages themselves say: their `rel="alternate"` links.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.sax.saxutils import quoteattr

MOST_ADDRESSES = 50_000
"""Addresses that a file may have (https://www.sitemaps.org/protocol.html)."""
_ALTERNATE = re.compile(r'<link rel="alternate" hreflang="([a-z-]+)" href="([^"]*)">')
_HEAD = 6_000
"""Characters of a page in which its head ends."""
_NAMESPACES = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:xhtml="http://www.w3.org/1999/xhtml"'


class Sitemap:
    """Collects the pages of a site."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._entries: list[str] = []

    def add(self, name: str, html: str) -> None:
        """Take a page, by its file within the site; one without translations is none to be found."""
        alternates = _ALTERNATE.findall(html, 0, _HEAD)
        if not alternates:
            return
        links = "".join(
            f'<xhtml:link rel="alternate" hreflang={quoteattr(code)} href="{self._whole(href)}"/>'
            for code, href in alternates
        )
        address = self._whole(f"/{name.removesuffix('index.html')}")
        self._entries.append(f"<url><loc>{address}</loc>{links}</url>\n")

    def take(self, other: Sitemap) -> None:
        """Take the pages that another one collected."""
        self._entries += other._entries

    def _whole(self, href: str) -> str:
        """The whole address of a link, which is escaped already."""
        return f"{self._url}{href}" if href.startswith("/") else href

    def files(self) -> Iterator[tuple[str, str]]:
        """Return file and text of `robots.txt` and of the list; a list that is too long is an index of several."""
        yield "robots.txt", f"User-agent: *\nAllow: /\n\nSitemap: {self._url}/sitemap.xml\n"
        parts = [
            self._entries[begin : begin + MOST_ADDRESSES]
            for begin in range(0, len(self._entries) or 1, MOST_ADDRESSES)
        ]
        names = [f"sitemap-{number}.xml" for number in range(1, len(parts) + 1)]
        if len(parts) == 1:
            names = ["sitemap.xml"]
        else:
            listed = "".join(f"<sitemap><loc>{self._url}/{name}</loc></sitemap>\n" for name in names)
            yield "sitemap.xml", _document("sitemapindex", listed)
        for name, part in zip(names, parts, strict=True):
            yield name, _document("urlset", "".join(part))


def _document(root: str, content: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} {_NAMESPACES}>\n{content}</{root}>\n'
