"""Line charts over years, drawn as SVG, each with its figures as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from catalunya.site.pages import Pages

WIDTH, HEIGHT = 360, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 340, 12, 172
_LABELS = 5
"""Years that are named below the axis, at most."""


@dataclass(frozen=True)
class Series:
    """One line of a chart: years to values; a year without a value breaks the line."""

    name: str
    values: dict[int, float | None]


def line_chart(
    pages: Pages, label: str, series: list[Series], digits: int = 0, basis: bool = False
) -> Markup | str:
    """Return a chart whose axis begins at zero, or nothing with fewer than two values.

    With `basis` the years that are read back from inscriptions have hollow dots.
    """
    found = [value for one in series for value in one.values.values() if value is not None]
    if len(found) < 2:
        return ""
    years = sorted(series[0].values)
    top = _round_up(max(found))
    number = pages.language.number

    def across(year: int) -> int:
        return round(_LEFT + (year - years[0]) * (_RIGHT - _LEFT) / max(1, years[-1] - years[0]))

    def down(value: float) -> float:
        # As precise as the words: what does not change them moves nothing.
        return round(_BOTTOM - (_BOTTOM - _TOP) * round(value, digits) / top, 1)

    lines = []
    for one in series:
        points = [(year, value) for year, value in sorted(one.values.items())]
        dots = [
            {
                "x": across(year),
                "y": down(value),
                "title": f"{one.name}, {year}: {number(value, digits)}",
                "hollow": basis and pages.facts.years.get(year) == "inscription",
            }
            for year, value in points
            if value is not None
        ]
        paths = _runs([(across(year), None if value is None else down(value)) for year, value in points])
        lines.append({"name": one.name, "paths": paths, "dots": dots})
    every = math.ceil(len(years) / _LABELS)
    return pages.part(
        "line.svg",
        width=WIDTH,
        height=HEIGHT,
        left=_LEFT,
        right=_RIGHT,
        label=label,
        lines=lines,
        series=series,
        all_years=years,
        digits=digits,
        hollow=basis and "inscription" in pages.facts.years.values(),
        ticks=[(down(top * share), number(top * share, digits if top < 10 else 0)) for share in (0, 0.5, 1)],
        labels=[(across(year), year) for year in years[::-1][::every]],
    )


def _round_up(value: float) -> float:
    """Return the next higher of 1, 2, 4, 6, 8 or 10 times a power of ten, so that half of it is a short number, too."""
    if value <= 0:
        return 1
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value * 0.999999)


def _runs(points: list[tuple[int, float | None]]) -> list[str]:
    """Return the points of each part of a line between missing values."""
    runs: list[list[str]] = [[]]
    for x, y in points:
        if y is None:
            runs.append([])
        else:
            runs[-1].append(f"{x},{y:g}")
    return [" ".join(run) for run in runs if len(run) > 1]
