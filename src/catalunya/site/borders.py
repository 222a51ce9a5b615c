"""Borders as SVG paths: projected for Catalonia, and simplified so that neighbours still share every point."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from catalunya import sql

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
    """
    with duckdb.connect() as con:
        _load_spatial(con)
        con.execute(
            "create table areas as select area_id, st_transform(st_geomfromgeojson(geometry), 'EPSG:4326', "
            f"'{_PROJECTION}', always_xy := true) as shape from {sql.read_parquet(borders)} where level = ?",
            [level],
        )
        [(west, south, east, north)] = con.execute(
            "select min(st_xmin(shape)), min(st_ymin(shape)), max(st_xmax(shape)), max(st_ymax(shape)) from areas"
        ).fetchall()
        scale = WIDTH / (east - west)
        con.execute(
            """
            create table simplified as
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
    return Outlines(
        WIDTH,
        round((north - south) * scale),
        paths={area_id: _path(rings) for area_id, rings in shapes.items()},
        neighbours={area_id: tuple(others) for area_id, others in touching},
        boxes={area_id: _box(rings) for area_id, rings in shapes.items()},
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
