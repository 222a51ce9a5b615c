"""Parts of pages by themselves: classes and colours, changes since the last release, pictures, what a page may depend on."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from datetime import timedelta
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest

from catalunya.lake import layout
from catalunya.lake.opening import open_lake
from catalunya.release import Release, release_before
from catalunya.runs import dbt_docs
from catalunya.site import build as site_build
from catalunya.site.charts import Series, line_chart
from catalunya.site.facts import GROUPS
from catalunya.site.folder import SiteFolder
from catalunya.site.language import CODES, language
from catalunya.site.maps import class_breaks, shade
from catalunya.site.method_pages import method_pages
from catalunya.site.open_graph import draw_picture
from catalunya.site.overview import overview_pages
from catalunya.site.pages import Content, Pages
from catalunya.site.territory_pages import territory_pages
from tests.pipeline.command import ReleasedLake
from tests.project import ROOT

STYLES = (ROOT / "src" / "catalunya" / "site" / "assets" / "site.css").read_text("utf-8")
# Machado, Oliveira, Fernandes: A Physiologically-based Model for Simulation of Color Vision Deficiency, 2009; severity 1.0.
DEFICIENCIES = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}  # fmt: skip
CLASSES = ("c0", "c1", "c2", "c3", "c4")
LEAST_DIFFERENCE = 10.0
"""Of CIE76: several times what is just noticeable."""


def html_of(content: Content, code: str = "en") -> dict[str, str]:
    pages = Pages(content, language(code))
    return {**dict(overview_pages(pages)), **dict(territory_pages(pages))}


def test_classes_tell_no_data_zero_and_the_rest_apart() -> None:
    values = [0.44, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.9]
    breaks = class_breaks(values)
    assert [shade(value, breaks) for value in (None, 0.0)] == ["none", "zero"]
    shades = [shade(value, breaks) for value in values]
    assert shades == sorted(shades)
    assert {shades.count(f"c{number}") for number in range(5)} == {2}
    assert (breaks[0], breaks[-1]) == (0.4, 10.0)
    assert class_breaks([]) == []


def test_a_value_is_in_the_class_of_the_number_that_is_shown() -> None:
    breaks = class_breaks([1.0, 2.0, 3.0, 4.96, 6.0])
    assert breaks == [1.0, 2.0, 3.0, 5.0, 6.0, 6.1]
    assert shade(4.96, breaks) == shade(5.0, breaks) == "c3"
    assert shade(0.01, breaks) == "c0"


def test_fewer_values_than_classes_have_colours_that_are_far_apart() -> None:
    breaks = class_breaks([1, 1, 1, 2, 2], digits=0)
    assert breaks == [1, 2, 3]
    assert [shade(value, breaks, 0) for value in (1, 2)] == ["c0", "c4"]
    assert shade(7, class_breaks([7], digits=0), 0) == "c0"


def colours(scheme: str) -> dict[str, str]:
    """The colours of the map in the light or the dark scheme."""
    light, dark = STYLES.partition("@media")[0], STYLES.partition("@media")[2].partition("\n*")[0]
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", {"light": light, "dark": dark}[scheme]))


def lab(colour: str, deficiency: str) -> tuple[float, float, float]:
    """CIE L*a*b* of a colour as a person with a deficiency sees it."""
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    ]
    red, green, blue = (
        min(1.0, max(0.0, sum(weight * value for weight, value in zip(row, linear, strict=True))))
        for row in DEFICIENCIES[deficiency]
    )
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089
    fx, fy, fz = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_of_the_map_are_told_apart_by_colour_blind_readers(scheme: str, deficiency: str) -> None:
    seen = {
        name: lab(value, deficiency) for name, value in colours(scheme).items() if name in (*CLASSES, "zero")
    }
    assert len(seen) == 6
    lightness = [seen[name][0] for name in CLASSES]
    steps = [b - a for a, b in pairwise(lightness)]
    assert all(step < -LEAST_DIFFERENCE / 2 for step in steps) or all(
        step > LEAST_DIFFERENCE / 2 for step in steps
    )
    for one, other in combinations(seen, 2):
        difference = sum((a - b) ** 2 for a, b in zip(seen[one], seen[other], strict=True)) ** 0.5
        assert difference > LEAST_DIFFERENCE, (one, other)


def test_changes_since_the_last_release_are_on_the_first_page(content: Content) -> None:
    assert "first release" in html_of(content)["en/index.html"]
    newest = content.facts.newest_year
    figures = dict(content.release.figures)
    figures[f"coverage_catalonia.places[{newest}, assisted_residence]"] -= 1234
    figures[f"coverage_catalonia.services[{newest}, assisted_residence]"] += 7
    before = content.release.model_copy(
        update={"figures": figures, "released_at": content.release.released_at - timedelta(days=14)}
    )
    html = html_of(replace(content, before=before))["en/index.html"]
    assert "Changes are since the release of December 22, 2025" in html
    assert re.findall(r'<dd class="change">(.*?)</dd>', html) == [
        "+1,234 places, −7 services",
        *["±0 places, ±0 services"] * (len(GROUPS) - 1),
    ]


def test_a_release_of_another_year_is_compared_by_its_own_newest_year(content: Content) -> None:
    newest = content.facts.newest_year
    figures = {
        name.replace(f"[{newest},", f"[{newest - 1},"): value - 1
        for name, value in content.release.figures.items()
        if f"[{newest}," in name
    }
    before = content.release.model_copy(update={"figures": figures})
    html = html_of(replace(content, before=before))["en/index.html"]
    assert set(re.findall(r'<dd class="change">(.*?)</dd>', html)) == {"+1 places, +1 services"}


def test_the_release_before_is_the_newest_older_one(second_release: ReleasedLake) -> None:
    storage = open_lake(str(second_release.lake))
    release = Release.model_validate_json((second_release.folder / "release.json").read_bytes())
    before = release_before(storage, release)
    assert before is not None
    assert before.release_id < release.release_id
    assert release_before(storage, before) is None


def test_the_page_of_a_territory_is_the_same_in_a_release_of_the_same_data(content: Content) -> None:
    later = content.release.model_copy(
        update={
            "release_id": "20990105T060000Z-00000000",
            "released_at": content.release.released_at + timedelta(days=900),
            "warnings": ("another",),
        }
    )
    pages = [html_of(one, "ca") for one in (content, replace(content, release=later, before=content.release))]
    differing = {name for name in pages[0] if pages[0][name] != pages[1][name]}
    assert differing == {"ca/index.html"}


def test_a_comarca_without_data_is_hatched_on_the_map_of_the_server(content: Content) -> None:
    assert 'fill="url(#hatch)"' not in html_of(content)["en/index.html"]
    year = content.facts.newest_year
    comarca = content.facts.comarques["13"]
    unknown = {
        key: replace(found, rate=None) if key[0] == year else found for key, found in comarca.coverage.items()
    }
    facts = replace(content.facts, comarques={"13": replace(comarca, coverage=unknown)})
    html = html_of(replace(content, facts=facts))["en/index.html"]
    assert re.search(
        r'<path class="none" fill="url\(#hatch\)" d="[^"]*"><title>Barcelonès: no data</title>', html
    )
    assert '<pattern id="hatch"' in html


def test_a_neighbour_is_on_the_page_with_its_coverage(content: Content) -> None:
    html = html_of(content)["en/municipalities/080193-barcelona/index.html"]
    compared = html.partition('id="compared"')[2].partition("</table>")[0]
    assert "Santa Coloma de Gramenet" in compared
    assert "Catalonia" in compared
    assert (
        "Neighbouring"
        not in html_of(content)["en/municipalities/081017-l-hospitalet-de-llobregat/index.html"]
    )


def test_a_year_without_a_value_breaks_the_line_and_is_named_in_the_table(content: Content) -> None:
    pages = Pages(content, language("en"))
    values: dict[int, float | None] = {2020: 1.0, 2021: 2.0, 2022: None, 2023: 3.0, 2024: 4.0}
    chart = str(line_chart(pages, "label", [Series("one", values)], digits=1))
    assert chart.count("<polyline") == 2
    assert chart.count("<circle") == 4
    assert "no data" in chart
    assert line_chart(pages, "label", [Series("one", {2020: 1.0})]) == ""


@pytest.mark.parametrize("code", CODES)
def test_the_picture_of_a_link_is_a_png_that_marks_demo_data(content: Content, code: str) -> None:
    picture = draw_picture(content, language(code))
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (1200, 630)
    real = replace(content, release=content.release.model_copy(update={"demo": False}))
    assert draw_picture(real, language(code)) != picture


def test_pages_of_a_site_with_an_address_name_it(content: Content) -> None:
    public = html_of(replace(content, url="https://data.example.cat"), "ca")
    name = "ca/municipis/080193-barcelona/index.html"
    whole = "https://data.example.cat/ca/municipis/080193-barcelona/"
    for wanted in (
        f'<link rel="canonical" href="{whole}">',
        f'<meta property="og:url" content="{whole}">',
        '<meta property="og:image" content="https://data.example.cat/og/ca.png">',
        '<link rel="alternate" hreflang="en" href="https://data.example.cat/en/municipalities/080193-barcelona/">',
    ):
        assert wanted in public[name]
    assert "canonical" not in html_of(content, "ca")[name]


def test_dbt_docs_of_the_release_are_copied_where_the_lake_has_them(content: Content, tmp_path: Path) -> None:
    storage = open_lake(str(tmp_path / "lake"))
    files = SiteFolder(tmp_path / "site", tmp_path / "none")
    assert site_build._copy_dbt_docs(storage, content.release, files) is None
    storage.put(layout.docs(content.release.release_id, dbt_docs.INDEX), b"<html>dbt")
    assert site_build._copy_dbt_docs(storage, content.release, files) == f"/{site_build.DBT_DOCS}"
    assert (tmp_path / "site" / site_build.DBT_DOCS).read_bytes() == b"<html>dbt"
    downloaded = dict(
        method_pages(Pages(replace(content, dbt_docs=f"/{site_build.DBT_DOCS}"), language("en")))
    )
    assert f'<a href="/{site_build.DBT_DOCS}" download>' in downloaded["en/lineage/index.html"]


def test_every_anchor_of_the_method_that_pages_name_is_in_each_language() -> None:
    templates = ROOT / "src" / "catalunya" / "site" / "templates"
    named = {
        anchor
        for path in templates.glob("*.html")
        for anchor in re.findall(r"source\('([\w-]+)'", path.read_text("utf-8"))
    }
    assert len(named) > 5
    for code in CODES:
        sections: dict[str, Any] = language(code).texts["method"]["sections"]
        assert named <= set(sections)
