"""Borders of the maps, from the real files and from those of the demo."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import duckdb
import pytest
import structlog.testing

from catalunya.demo.data.boundaries import boundaries
from catalunya.errors import CatalunyaError
from catalunya.site.borders import Borders, outlines
from catalunya.site.build import warn_of_missing_outlines
from catalunya.site.facts import Facts, Territory

LEVELS = {"comarca": ("comarques", "CODICOMAR", 43), "municipality": ("municipis", "CODIMUNI", 947)}


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {
        name: json.loads((shared / "boundaries" / f"{name}_500000_2026-01.geojson").read_text())
        for name, *_ in LEVELS.values()
    }
    return staged(files, tmp_path_factory.mktemp("real") / "real.parquet")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {name: boundaries(name, "500000") for name, *_ in LEVELS.values()}
    return staged(files, tmp_path_factory.mktemp("demo") / "demo.parquet")


def staged(files: dict, path: Path) -> Path:
    with duckdb.connect() as con:
        con.execute("create table staged (level varchar, area_id varchar, geometry varchar)")
        for level, (name, code, _) in LEVELS.items():
            features = files[name]["features"]
            rows = [(level, f["properties"][code], json.dumps(f["geometry"])) for f in features]
            con.executemany("insert into staged values (?, ?, ?)", rows)
        con.execute(f"copy staged to '{path}'")
    return path


def rings(path: str) -> list[list[tuple[int, int]]]:
    """The closed rings of the `d` of a path."""
    found = []
    for start, steps in re.findall(r"M([^l]*)l([^z]*)z", path):
        x, y = map(int, re.findall(r"-?\d+", start))
        ring = [(x, y)]
        numbers = [int(text) for text in re.findall(r"-?\d+", steps)]
        for dx, dy in zip(numbers[::2], numbers[1::2], strict=True):
            x, y = x + dx, y + dy
            ring.append((x, y))
        found.append([*ring, ring[0]])
    return found


def sides(path: str) -> set[frozenset[tuple[int, int]]]:
    return {frozenset(side) for ring in rings(path) for side in pairwise(ring)}


def area(path: str) -> float:
    return sum(abs(sum(x * b - a * y for (x, y), (a, b) in pairwise(ring))) / 2 for ring in rings(path))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("source", ["real", "demo"])
def test_every_area_is_drawn_inside_the_box(level: str, source: str, request: pytest.FixtureRequest) -> None:
    drawn = outlines(request.getfixturevalue(source), level)
    assert len(drawn.paths) == LEVELS[level][2]
    for path in drawn.paths.values():
        corners = {corner for ring in rings(path) for corner in ring}
        assert len(corners) > 2
        assert all(0 <= x <= drawn.width and 0 <= y <= drawn.height for x, y in corners)


def test_neighbours_share_their_sides_after_the_simplification(real: Path) -> None:
    drawn = {code: sides(path) for code, path in outlines(real, "comarca").paths.items()}
    barcelones, maresme, aran = (drawn[code] for code in ("13", "21", "39"))
    assert barcelones & maresme
    assert not barcelones & aran
    owners: dict[frozenset[tuple[int, int]], int] = {}
    for one in drawn.values():
        for side in one:
            owners[side] = owners.get(side, 0) + 1
    assert set(owners.values()) == {1, 2}


def test_the_north_is_above_and_the_east_to_the_right(real: Path) -> None:
    paths = outlines(real, "comarca").paths
    centre = {
        code: [sum(values) / len(values) for values in zip(*rings(paths[code])[0], strict=True)]
        for code in ("39", "22", "02")
    }
    aran, montsia, alt_emporda = centre["39"], centre["22"], centre["02"]
    assert aran[1] < montsia[1]
    assert alt_emporda[0] > montsia[0]


@pytest.mark.parametrize("source", ["real", "demo"])
def test_comarques_and_municipalities_cover_the_same_land(
    source: str, request: pytest.FixtureRequest
) -> None:
    borders = request.getfixturevalue(source)
    comarques, municipalities = (
        sum(area(path) for path in outlines(borders, level).paths.values()) for level in LEVELS
    )
    assert municipalities == pytest.approx(comarques, rel=0.02)


def test_neighbours_are_those_that_share_a_border(real: Path) -> None:
    comarques, municipalities = (outlines(real, level) for level in LEVELS)
    # Barcelonès: Baix Llobregat, Maresme, Vallès Occidental and Vallès Oriental.
    assert comarques.neighbours["13"] == ("11", "21", "40", "41")
    # Barcelona and Badalona do not touch: Sant Adrià de Besòs and Santa Coloma de Gramenet lie between them.
    assert {"081944", "082457", "081017"} <= set(municipalities.neighbours["080193"])
    assert "080155" not in municipalities.neighbours["080193"]
    # Llívia is surrounded by France.
    assert "170942" not in municipalities.neighbours
    for code, others in municipalities.neighbours.items():
        assert all(code in municipalities.neighbours[other] for other in others)


def test_the_box_of_an_area_holds_its_path(real: Path) -> None:
    drawn = outlines(real, "comarca")
    for code, path in drawn.paths.items():
        left, top, right, bottom = drawn.boxes[code]
        assert all(left <= x <= right and top <= y <= bottom for ring in rings(path) for x, y in ring)


SQUARE = [[2, 41], [2.2, 41], [2.2, 41.2], [2, 41.2], [2, 41]]
UNDRAWABLE = {
    "unclosed": {"type": "Polygon", "coordinates": [SQUARE[:-1]]},
    "short": {"type": "Polygon", "coordinates": [[SQUARE[0], SQUARE[1], SQUARE[0]]]},
    "point": {"type": "Point", "coordinates": [2, 41]},
    "line": {"type": "LineString", "coordinates": SQUARE},
    "collection": {
        "type": "GeometryCollection",
        "geometries": [{"type": "Polygon", "coordinates": [SQUARE]}],
    },
    "no type": {"coordinates": [SQUARE]},
    "lower case": {"type": "polygon", "coordinates": [SQUARE]},
    "too deep": {"type": "Polygon", "coordinates": [[SQUARE]]},
    "too flat": {"type": "MultiPolygon", "coordinates": [SQUARE]},
    "boolean": {"type": "Polygon", "coordinates": [[[True, 41], *SQUARE[1:-1], [True, 41]]]},
    "empty position": {"type": "Polygon", "coordinates": [[SQUARE[0], [], *SQUARE[1:]]]},
    "no ring": {"type": "Polygon", "coordinates": []},
    "crosses itself": {
        "type": "Polygon",
        "coordinates": [[[1.5, 41], [2, 43], [0, 41.5], [2.2, 41], [2, 41.5], [2, 43], [1.5, 41]]],
    },
}


def municipalities(path: Path, geometries: dict[str, object]) -> Path:
    with duckdb.connect() as con:
        con.execute("create table staged (level varchar, area_id varchar, geometry varchar)")
        rows = [(code, json.dumps(geometry)) for code, geometry in geometries.items()]
        con.executemany("insert into staged values ('municipality', ?, ?)", rows)
        con.execute(f"copy staged to '{path}' (format parquet)")
    return path


def test_heights_change_no_outline(tmp_path: Path) -> None:
    flat = municipalities(tmp_path / "2d", {"a": {"type": "Polygon", "coordinates": [SQUARE]}})
    raised = {"type": "Polygon", "coordinates": [[[*position, 300] for position in SQUARE]]}
    assert outlines(municipalities(tmp_path / "3d", {"a": raised}), "municipality") == outlines(
        flat, "municipality"
    )


def test_a_border_that_cannot_be_drawn_is_left_out_with_a_reason(tmp_path: Path) -> None:
    square = {"type": "Polygon", "coordinates": [SQUARE]}
    alone = outlines(municipalities(tmp_path / "a", {"square": square}), "municipality")
    found = outlines(municipalities(tmp_path / "b", {"square": square, **UNDRAWABLE}), "municipality")
    assert found.paths == alone.paths
    assert found.undrawn.keys() == UNDRAWABLE.keys()
    assert all(found.undrawn.values())
    nothing = outlines(municipalities(tmp_path / "c", UNDRAWABLE), "municipality")
    assert (nothing.paths, nothing.undrawn.keys()) == ({}, UNDRAWABLE.keys())


def test_borders_that_cannot_be_drawn_together_are_an_explained_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = municipalities(tmp_path / "a", {"loop": UNDRAWABLE["crosses itself"]})
    monkeypatch.setattr("catalunya.site.borders._without_failing", lambda *_: {})
    with pytest.raises(CatalunyaError, match=r"boundaries: a: .*level municipality.*catalunya refuse"):
        outlines(path, "municipality")


def test_a_territory_without_an_outline_is_named_in_a_warning(tmp_path: Path) -> None:
    square, line = {"type": "Polygon", "coordinates": [SQUARE]}, UNDRAWABLE["line"]
    borders = Borders(
        municipality=outlines(municipalities(tmp_path / "a", {"1": square, "2": line}), "municipality")
    )
    names = {code: Territory(code, name) for code, name in (("1", "Abrera"), ("2", "Gavà"), ("3", "Begues"))}
    facts = Facts({}, Territory("", "Catalunya"), {}, names, {}, {}, [])
    with structlog.testing.capture_logs() as events:
        warn_of_missing_outlines(facts, borders)
    assert [(event["log_level"], event["area"]) for event in events] == [
        ("warning", "2 Gavà"),
        ("warning", "3 Begues"),
    ]
    assert "is not a Polygon" in events[0]["reason"]
