"""The two pages that are no page of a release: an address that leads nowhere, and no site yet."""

from __future__ import annotations

import html

from catalunya.site.language import CODES, language


def not_found(assets: dict[str, str]) -> str:
    """Return `404.html`, which every server of the site shows for an address that it does not have."""
    links = "".join(
        f'<link rel="{kind}" href="/assets/{assets[name]}">'
        for kind, name in (("icon", "icon.svg"), ("stylesheet", "site.css"))
    )
    return _page("not_found", links, linked=True)


def not_yet() -> str:
    """Return the page that is shown before there is a site."""
    return _page("not_yet")


def _page(name: str, head: str = "", *, linked: bool = False) -> str:
    first = language(CODES[0])
    parts = []
    for code in CODES:
        spoken = language(code)
        text = html.escape(spoken.text(f"{name}.text"))
        link = f' <a href="/{code}/">{html.escape(spoken.text("site"))}</a>' if linked else ""
        heading = "h1" if code == first.code else "h2"
        title = html.escape(spoken.text(f"{name}.title"))
        parts.append(f'<section lang="{code}"><{heading}>{title}</{heading}><p>{text}{link}</p></section>')
    return (
        f'<!doctype html><html lang="{first.code}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">'
        f"<title>{html.escape(first.text(f'{name}.title'))} – {html.escape(first.text('site'))}</title>{head}"
        f"</head><body><main>{''.join(parts)}</main></body></html>\n"
    )
