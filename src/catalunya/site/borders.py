"""Borders as SVG paths: projected for Catalonia, and simplified so that neighbours still share every point."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from catalunya import sql
from catalunya.errors import CatalunyaError
from catalunya.staging import polygons

WIDTH = 2000
"""Width of the drawing in its own units; its height follows from the land."""
TOLERANCE_M = {"comarca": 500.0, "municipality": 250.0}
"""Tolerance of the simplification by level, in metres: about half a pixel of a map 1,000 pixels wide."""
_PROJECTION = "EPSG:25831"


@dataclass(frozen=True)
class Outlines:
    """The areas of one level."""

    width: int
    height: int
    paths: dict[str, str]
    """Code of the area to the `d` of its path."""
    neighbours: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Code of the area to the codes of those that share a border with it."""
    boxes: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    """Code of the area to its left, top, right and bottom."""
    undrawn: dict[str, str] = field(default_factory=dict)
    """Code of an area of the file that has no path to the reason."""


@dataclass(frozen=True)
class Borders:
    """The areas of both levels; by default none."""

    comarca: Outlines = Outlines(WIDTH, WIDTH, {})
    municipality: Outlines = Outlines(WIDTH, WIDTH, {})


def read_borders(borders: Path) -> Borders:
    """Return the areas of a staged snapshot of the borders."""
    return Borders(outlines(borders, "comarca"), outlines(borders, "municipality"))


def outlines(borders: Path, level: str) -> Outlines:
    """Return the areas of one level (`comarca` or `municipality`) of a staged snapshot of the borders.

    The simplification keeps the topology (a coverage, after Visvalingam and Whyatt): no gap and no overlap appears.
    A border that staging would quarantine today is left out, as is one of which nothing can be made. Raises
    `CatalunyaError` when the others cannot be drawn together.
    """
    with duckdb.connect() as con:
        _load_spatial(con)
        undrawn = _read_areas(con, borders, level)
        try:
            return _drawn(con, level, undrawn)
        except duckdb.Error as error:
            # A ring that crosses itself can be drawn, unless nothing is left of a part of it.
            undrawn |= _without_failing(con, level, str(error).strip())
        try:
            return _drawn(con, level, undrawn)
        except duckdb.Error as error:
            found = str(error).strip()
            raise CatalunyaError(
                f"boundaries: {borders.name}: the borders of level {level} cannot be drawn together: {found}. Take the "
                "snapshot out of use with `catalunya refuse`, or build the site of another release with --release"
            ) from error


def _read_areas(con: duckdb.DuckDBPyConnection, borders: Path, level: str) -> dict[str, str]:
    """Create the table `areas` of projected shapes; returns the areas without one, each with the reason."""
    faults = polygons.faults("coalesce(geometry, '')").items()
    cases = " ".join(f"when {broken} then {sql.quote(reason)}" for reason, broken in faults)
    con.execute(
        f"create table borders as select area_id, geometry, case {cases} end as fault "
        f"from {sql.read_parquet(borders)} where level = ?",
        [level],
    )
    con.execute(
        "create table areas as select area_id, st_transform(st_force2d(st_geomfromgeojson(geometry)), 'EPSG:4326', "
        f"'{_PROJECTION}', always_xy := true) as shape from borders where fault is null"
    )
    return dict(con.execute("select area_id, fault from borders where fault is not null").fetchall())


def _without_failing(con: duckdb.DuckDBPyConnection, level: str, reason: str) -> dict[str, str]:
    """Take the areas out of `areas` that cannot be simplified on their own; returns them, each with the reason."""
    failing = con.execute(
        "delete from areas where try(st_coveragesimplify([shape], ?)) is null returning area_id",
        [TOLERANCE_M[level]],
    ).fetchall()
    return {area_id: f"cannot be simplified ({reason})" for (area_id,) in failing}


def _drawn(con: duckdb.DuckDBPyConnection, level: str, undrawn: dict[str, str]) -> Outlines:
    """Draw the table `areas`."""
    [(west, south, east, north)] = con.execute(
        "select min(st_xmin(shape)), min(st_ymin(shape)), max(st_xmax(shape)), max(st_ymax(shape)) from areas"
    ).fetchall()
    if west is None or east == west or north == south:
        return Outlines(WIDTH, WIDTH, {}, undrawn=undrawn)
    scale = WIDTH / (east - west)
    con.execute(
        """
        create or replace table simplified as
        with coverage as (
            select
                list(area_id order by area_id) as ids,
                st_coveragesimplify(list(shape order by area_id), $tolerance) as shapes
            from areas
        ),
        parts as (
            select ids[part.path[1]] as area_id, part.geom as shape
            from (select ids, unnest(st_dump(shapes)) as part from coverage)
        )
        select area_id, st_affine(
            st_collect(list(shape)), $scale, 0, 0, -$scale, -$west * $scale, $north * $scale
        ) as shape
        from parts group by area_id
        """,
        {"tolerance": TOLERANCE_M[level], "scale": scale, "west": west, "north": north},
    )
    found = con.execute("select area_id, st_asgeojson(shape) from simplified order by area_id").fetchall()
    touching = con.execute(
        "select one.area_id, list(other.area_id order by other.area_id) from simplified as one join simplified as other "
        "on st_intersects(one.shape, other.shape) where one.area_id <> other.area_id group by one.area_id"
    ).fetchall()
    shapes = {area_id: _rings(msgspec.json.decode(shape)) for area_id, shape in found}
    paths = {area_id: path for area_id, rings in shapes.items() if (path := _path(rings))}
    return Outlines(
        WIDTH,
        round((north - south) * scale),
        paths=paths,
        neighbours={area_id: tuple(others) for area_id, others in touching},
        boxes={area_id: _box(shapes[area_id]) for area_id in paths},
        undrawn=undrawn,
    )


def _rings(shape: dict[str, Any]) -> list[list[tuple[int, int]]]:
    """The rings of a shape in whole units; a point that neighbours share is rounded alike."""
    polygons = [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]
    return [[(round(x), round(y)) for x, y in ring] for polygon in polygons for ring in polygon]


def _box(rings: list[list[tuple[int, int]]]) -> tuple[int, int, int, int]:
    across, down = zip(*(point for ring in rings for point in ring), strict=True)
    return min(across), min(down), max(across), max(down)


def _path(rings: list[list[tuple[int, int]]]) -> str:
    """The `d` of a path in relative steps."""
    drawn = []
    for points in rings:
        steps = [(x - a, y - b) for (a, b), (x, y) in pairwise(points) if (x, y) != (a, b)]
        if len(steps) > 2:
            # The last step is back to the first point, which `z` draws.
            drawn.append(
                f"M{points[0][0]} {points[0][1]}l" + " ".join(f"{x} {y}" for x, y in steps[:-1]) + "z"
            )
    return "".join(drawn).replace(" -", "-")


def _load_spatial(con: duckdb.DuckDBPyConnection) -> None:
    from duckdb_extensions import import_extension

    import_extension("spatial", con=con)
    con.execute("load spatial")
