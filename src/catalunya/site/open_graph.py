"""The pictures that other sites show beside a link (Open Graph): the map of the comarques and the name of the site."""

from __future__ import annotations

from pathlib import Path

import font_source_sans_pro
import resvg_py

from catalunya.site import maps
from catalunya.site.language import Language
from catalunya.site.maps import State
from catalunya.site.pages import Content

WIDTH, HEIGHT = 1200, 630
_COLOURS = {
    "c0": "#deebf7", "c1": "#b3d0ea", "c2": "#7fb2dc", "c3": "#3f86c2", "c4": "#0d4f8b", "zero": "#f6e3c3",
    "none": "#d0d0d0",
}  # fmt: skip
_LINE = 22
"""Characters of a line of the title, at most."""


def picture_name(code: str) -> str:
    """Return the file of the picture of a language; it does not change with its content, so that pages need not."""
    return f"og/{code}.png"


def draw_picture(content: Content, language: Language) -> bytes:
    """Return the picture of a language as PNG, 1200 × 630."""
    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=_svg(content, language),
            skip_system_fonts=True,
            font_dirs=[str(Path(font_source_sans_pro.__file__).parent / "files")],
            font_family="Source Sans Pro",
        )
    )


def _svg(content: Content, language: Language) -> str:
    state = State()
    breaks = maps.breaks_of(content.facts, state)
    year = content.facts.newest_year
    outlines = content.borders.comarca
    scale = (HEIGHT - 60) / max(outlines.width, outlines.height)
    areas = "".join(
        f'<path d="{path}" fill="{_COLOURS[maps.shade(found.rate, breaks)]}" stroke="#fff" stroke-width="4"/>'
        for code, path in outlines.paths.items()
        if code in content.facts.comarques
        for found in [content.facts.comarques[code].coverage[year, state.group, state.ownership]]
    )
    lines = [
        f'<text x="60" y="{y}" font-size="{size}" font-weight="{weight}" fill="{colour}">{words}</text>'
        for words, y, size, weight, colour in _words(content, language)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="Source Sans Pro">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/><rect width="24" height="{HEIGHT}" fill="#0d4f8b"/>'
        f'<g transform="translate({WIDTH - HEIGHT + 30} 30) scale({scale:.4f})">{areas}</g>{"".join(lines)}</svg>'
    )


def _words(content: Content, language: Language) -> list[tuple[str, int, int, int, str]]:
    """The lines: words, height on the picture, size, weight and colour."""
    title = [""]
    for word in language.text("site").split():
        if len(f"{title[-1]} {word}") > _LINE:
            title.append("")
        title[-1] = f"{title[-1]} {word}".strip()
    found = [(line, 150 + 70 * position, 60, 700, "#1b1f24") for position, line in enumerate(title)]
    if content.release.demo:
        found.append((language.text("demo_mark"), 560, 48, 700, "#b3261e"))
    return found
