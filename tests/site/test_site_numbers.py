"""Every figure of a page is that of a mart, as the language writes it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import pytest

from catalunya.site.language import CODES, Language, folded, language

GROUPS = ("assisted_residence", "home_residence", "sheltered_housing", "day_centre")
OWNERS = ("public", "social_initiative", "mercantile", "unknown")
RATE = "coalesce(places_per_100_aged_65_over, places_per_100_aged_65_over_latest)"
PAGES = 50
"""Of territories, in each language."""


class Figures(HTMLParser):
    """The cells with numbers of a page, the titles inside of its drawings, and the neighbours that it links to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.titles: list[str] = []
        self.neighbours: list[str] = []
        self.boxes: list[str] = []
        self._open: list[str] = []
        self._section = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag == "section":
            self._section = values.get("aria-labelledby") or ""
        if tag in ("td", "title", "b"):
            self._open = [tag, values.get("class") or ""]
            if self._open == ["td", "number"]:
                self.cells.append("")
            elif tag == "title":
                self.titles.append("")
            elif tag == "b":
                self.boxes.append("")
        if tag == "a" and self._section == "compared":
            found = re.search(r"/(\d+)-[^/]*/$", values.get("href") or "")
            self.neighbours += [found[1]] if found else []

    def handle_endtag(self, tag: str) -> None:
        if self._open and tag == self._open[0]:
            self._open = []

    def handle_data(self, data: str) -> None:
        if self._open == ["td", "number"]:
            self.cells[-1] += data
        elif self._open[:1] == ["title"]:
            self.titles[-1] += data
        elif self._open[:1] == ["b"]:
            self.boxes[-1] += data


class Marts:
    """The figures of the marts as a language writes them."""

    def __init__(self, con: duckdb.DuckDBPyConnection, spoken: Language) -> None:
        self._con = con
        self.spoken = spoken
        self.coverage = cache(self._coverage)
        [(self.year,)] = self.rows("select max(year) from coverage_catalonia")

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._con.execute(sql, list(values)).fetchall()

    def rate(self, value: float | None) -> str:
        return self.spoken.number(value, 1)

    def _coverage(self, code: str, year: int | None = None) -> dict[tuple[str, str], tuple[Any, ...]]:
        """By group and owner: services, places, rate, and the year of the people."""
        mart, column = {
            0: ("coverage_catalonia", "''"), 2: ("coverage_comarca", "comarca_id"),
            6: ("coverage_municipality", "municipality_id"),
        }[len(code)]  # fmt: skip
        found = self.rows(
            f"select service_group, ownership, services, places, {RATE}, "
            f"if(people_aged_65_over is null, population_year_latest, year) from {mart} where {column} = ? and year = ?",
            code,
            year or self.year,
        )
        return {row[:2]: row[2:] for row in found}

    def name(self, code: str) -> str:
        if not code:
            return self.spoken.text("catalonia")
        mart, column, name = (
            ("dim_comarca", "comarca_id", "name")
            if len(code) == 2
            else ("dim_municipality", "municipality_id", "display_name")
        )
        current = " and is_current" if len(code) == 6 else ""
        [(found,)] = self.rows(f"select {name} from {mart} where {column} = ?{current}", code)
        return str(found)

    def places(self, code: str) -> Iterator[str]:
        found = self.coverage(code)
        for group in GROUPS:
            services, places, rate, people_of = found[group, "all"]
            yield from map(self.spoken.number, (services, places))
            yield from (self.spoken.number(found[group, owner][1]) for owner in OWNERS)
            note = f" ({self.spoken.text('territory.population_of', year=people_of)})"
            yield self.rate(rate) + (note if rate is not None and people_of != self.year else "")

    def compared(self, codes: list[str]) -> Iterator[str]:
        for code in codes:
            found = self.coverage(code)
            yield from (self.rate(found[group, "all"][2]) for group in GROUPS)

    def years(self, codes: list[str]) -> Iterator[tuple[int, list[float | None]]]:
        for (year,) in self.rows("select distinct year from coverage_catalonia order by year"):
            yield year, [self.coverage(code, year)["assisted_residence", "all"][2] for code in codes]

    def people(self, code: str) -> list[tuple[int, int]]:
        mart, column = (
            ("coverage_comarca", "comarca_id")
            if len(code) == 2
            else ("coverage_municipality", "municipality_id")
        )
        found = self.rows(
            f"select distinct year, people_aged_65_over from {mart} where {column} = ? "
            "and places_per_100_aged_65_over is not null order by year",
            code,
        )
        return [(year, people) for year, people in found]


def expected(marts: Marts, code: str, neighbours: list[str]) -> tuple[list[str], list[str]]:
    """The cells with numbers and the titles of drawings of the page of a territory, in their order."""
    is_comarca = len(code) == 2
    number = marts.spoken.number
    parent = [] if is_comarca else [marts.rows(
        "select comarca_id from dim_municipality where municipality_id = ? and is_current", code
    )[0][0]]  # fmt: skip
    near = [code, *parent, ""]
    cells = [*marts.places(code), *marts.compared([*near, *neighbours])]
    titles = []
    members = marts.rows(
        "select municipality_id from dim_municipality where comarca_id = ? and is_current order by municipality_id",
        code,
    )
    if is_comarca:
        titles += [
            f"{marts.name(one)}: {marts.rate(marts.coverage(one)['assisted_residence', 'all'][2])}"
            for (one,) in members
        ]
    years = list(marts.years(near))
    cells += [marts.rate(value) for _, values in reversed(years) for value in values]
    titles += [
        f"{marts.name(one)}, {year}: {marts.rate(values[position])}"
        for position, one in enumerate(near)
        for year, values in years
        if values[position] is not None
    ]
    people = marts.people(code)
    cells += [number(count) for _, count in reversed(people)]
    titles += [f"{marts.spoken.text('column.people')}, {year}: {number(count)}" for year, count in people]
    if is_comarca:
        for one in sorted((one for (one,) in members), key=lambda one: folded(marts.name(one))):
            services, places, rate, _ = marts.coverage(one)["assisted_residence", "all"]
            cells += [number(services), number(places), marts.rate(rate)]
    else:
        for group in GROUPS:
            [(km, ratio)] = marts.rows(
                "select nearest_km, accessibility_ratio * 100 from access_municipality "
                "where municipality_id = ? and service_group = ?",
                code,
                group,
            )
            cells += [marts.rate(km), marts.rate(None if ratio is None else round(ratio, 4))]
        cells += [
            number(places)
            for (places,) in marts.rows(
                "select places from service_history where municipality_id = ? and is_current and service_group <> 'other' "
                "order by name, service_id",
                code,
            )
        ]
    return cells, titles


@pytest.mark.parametrize("code", CODES)
def test_every_figure_of_fifty_pages_is_that_of_the_marts(
    site: Path, marts: duckdb.DuckDBPyConnection, code: str
) -> None:
    spoken = language(code)
    found = Marts(marts, spoken)
    folders = [
        path
        for name in ("comarques", "municipalities")
        for path in sorted((site / code / spoken.text(f"path.{name}")).iterdir())
        if path.is_dir()
    ]
    seen = 0
    for folder in random.Random(code).sample(folders, PAGES):
        shown = Figures((folder / "index.html").read_text("utf-8"))
        cells, titles = expected(found, folder.name.partition("-")[0], shown.neighbours)
        assert shown.cells == cells, folder
        assert shown.titles[1:] == titles, folder
        seen += len(cells)
    assert seen > PAGES * 50


@pytest.mark.parametrize("code", CODES)
def test_the_figures_of_catalonia_and_the_ranking_are_those_of_the_marts(
    site: Path, marts: duckdb.DuckDBPyConnection, code: str
) -> None:
    found = Marts(marts, language(code))
    shown = Figures((site / code / "index.html").read_text("utf-8"))
    number = found.spoken.number
    whole = found.coverage("")
    [(people,)] = marts.execute(
        "select people_aged_65_over from coverage_catalonia where places_per_100_aged_65_over is not null "
        "order by year desc limit 1"
    ).fetchall()
    assert shown.boxes == [*(number(whole[group, "all"][1]) for group in GROUPS), number(people)]
    ranked = found.rows(
        f"select comarca_id, name, {RATE}, places, services, coalesce(people_aged_65_over, people_aged_65_over_latest), "
        "if(people_aged_65_over is null, population_year_latest, year) from coverage_comarca join dim_comarca "
        "using (comarca_id) where year = ? and service_group = 'assisted_residence' and ownership = 'all'",
        found.year,
    )
    ranked.sort(key=lambda row: (-row[2], folded(row[1])))
    cells = [
        cell
        for _, _, rate, places, services, people, people_of in ranked
        for cell in (
            found.rate(rate),
            number(places),
            number(services),
            f"{number(people)} ({found.spoken.text('territory.population_of', year=people_of)})",
        )
    ]
    assert shown.cells == [*cells, *found.places("")]
    assert shown.titles[1:] == [f"{name}: {found.rate(rate)}" for _, name, rate, *_ in sorted(ranked)]


def test_the_files_of_the_map_have_the_figures_of_the_marts(
    site: Path, marts: duckdb.DuckDBPyConnection
) -> None:
    for path in sorted((site / "map").glob("*/*/*.json")):
        level, group, name = path.parts[-3], path.parts[-2], path.stem
        found = json.loads(path.read_text("utf-8"))
        if name == "access":
            rows = marts.execute(
                "select municipality_id, nearest_km, round(100 * accessibility_ratio, 4) from access_municipality "
                "where service_group = ?",
                [group],
            ).fetchall()
            assert found["values"] == {row[0]: list(row[1:]) for row in rows}
            continue
        rows = marts.execute(
            f"""
            select {level}_id, any_value(coalesce(people_aged_65_over, people_aged_65_over_latest)),
                any_value(if(people_aged_65_over is null, population_year_latest, year)),
                flatten(list([services, places, {RATE}] order by list_position(
                    ['all', 'public', 'social_initiative', 'mercantile', 'unknown'], ownership
                )))
            from coverage_{level} where year = ? and service_group = ? group by 1
            """,
            [int(name), group],
        ).fetchall()
        assert found["values"] == {row[0]: [row[1], row[2], *row[3]] for row in rows}, path
    assert len(list((site / "map").glob("*/*/*.json"))) == 2 * 4 * 12 + 4
