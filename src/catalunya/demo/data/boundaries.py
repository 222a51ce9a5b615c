"""Borders of our own making: one cell around each municipality's centre. They are no real borders."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

from catalunya.demo.data.territory import PROVINCES, Municipality, article_in_front, comarques, municipalities

SCALES = ("5000", "50000", "100000", "250000", "500000", "1000000")
REACH_KM = 9.0
GAP = 0.985
KM_PER_DEGREE = 111.32
DISAGREEING_COMARCA = {"080142": "24"}
"""The borders put Aiguafreda in Osona, the municipality list in Vallès Oriental; the demo keeps that."""
DISAGREEING_NAME = {"431055": "Piles de Gaià, les"}
VEGUERIES = {
    "00": "Val d'Aran (entitat territorial singular)",
    "01": "Barcelona",
    "02": "Girona",
    "03": "Lleida",
    "04": "Camp de Tarragona",
    "05": "Terres de l'Ebre",
    "06": "Alt Pirineu",
    "07": "Catalunya Central",
    "08": "Penedès",
}
VEGUERIA_CAPITALS = {
    "00": "Vielha",
    "01": "Barcelona",
    "02": "Girona",
    "03": "Lleida",
    "04": "Tarragona",
    "05": "Tortosa",
}
Point = tuple[float, float]
Ring = list[Point]


def boundaries(level: str, scale: str) -> dict[str, object]:
    """Return the GeoJSON of `comarques` or `municipis` (EPSG:4326); the scale shows in the name only."""
    features = _municipality_features() if level == "municipis" else _comarca_features()
    return {
        "type": "FeatureCollection",
        "name": f"divisions-administratives-v2r2-{level}-{scale}-20240101-demo",
        "features": features,
    }


def _municipality_features() -> list[dict[str, object]]:
    features = []
    for municipality in municipalities():
        comarca = comarques()[_comarca_id(municipality)]
        name = DISAGREEING_NAME.get(municipality.municipality_id, municipality.name)
        ring = cells()[municipality.municipality_id]
        properties = {
            "CODIMUNI": municipality.municipality_id,
            "NOMMUNI": article_in_front(name),
            "NOMMUNIIND": name,
            "CAPMUNI": article_in_front(name),
            "CAPMUNIIND": name,
            "AREAM5000": round(area_km2(ring), 4),
            "CODICOMAR": comarca.comarca_id,
            "NOMCOMAR": _comarca_name(comarca.comarca_id),
            "CAPCOMAR": comarca.capital,
            "CAPCOMIND": comarca.capital,
            "CODIVEGUE": municipality.vegueria_id,
            "NOMVEGUE": VEGUERIES[municipality.vegueria_id],
            "CAPVEGUE": VEGUERIA_CAPITALS.get(municipality.vegueria_id, "*"),
            "CODIPROV": municipality.municipality_id[:2],
            "NOMPROV": PROVINCES[municipality.municipality_id[:2]],
            "CAPPROV": PROVINCES[municipality.municipality_id[:2]],
        }
        features.append(_feature(properties, [ring]))
    return features


def _comarca_features() -> list[dict[str, object]]:
    features = []
    for comarca in comarques().values():
        rings = [cells()[m.municipality_id] for m in municipalities() if _comarca_id(m) == comarca.comarca_id]
        properties = {
            "CODICOMAR": comarca.comarca_id,
            "NOMCOMAR": _comarca_name(comarca.comarca_id),
            "CAPCOMAR": comarca.capital,
            "CAPCOMIND": comarca.capital,
            "AREAC5000": round(sum(map(area_km2, rings)), 4),
        }
        features.append(_feature(properties, rings))
    return features


def _feature(properties: dict[str, object], rings: list[Ring]) -> dict[str, object]:
    coordinates = [[[list(point) for point in ring]] for ring in rings]
    return {
        "type": "Feature",
        "geometry": {"type": "MultiPolygon", "coordinates": coordinates},
        "properties": properties,
    }


def _comarca_id(municipality: Municipality) -> str:
    return DISAGREEING_COMARCA.get(municipality.municipality_id, municipality.comarca_id)


def _comarca_name(comarca_id: str) -> str:
    return "Val d'Aran" if comarca_id == "39" else comarques()[comarca_id].name


@cache
def cells() -> dict[str, Ring]:
    """Return a closed ring around each centre: nearer to it than to any other, and at most 9 km away.

    Cells are drawn in a little, so that those of neighbours do not touch and a comarca is a valid shape.
    """
    grid: dict[tuple[int, int], list[Municipality]] = {}
    for municipality in municipalities():
        grid.setdefault(_square(municipality), []).append(municipality)
    rings = {}
    for municipality in municipalities():
        x, y = _square(municipality)
        near = [m for dx in (-1, 0, 1) for dy in (-1, 0, 1) for m in grid.get((x + dx, y + dy), ())]
        rings[municipality.municipality_id] = _cell(municipality, near)
    return rings


def area_km2(ring: Ring) -> float:
    """Return the area of a closed ring in square kilometres (shoelace on a local plane)."""
    kx, ky = KM_PER_DEGREE * math.cos(math.radians(ring[0][1])), KM_PER_DEGREE
    doubled = sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairwise(ring))
    return abs(doubled) / 2 * kx * ky


def _square(municipality: Municipality) -> tuple[int, int]:
    size = 2 * REACH_KM / KM_PER_DEGREE
    return int(municipality.longitude / (size * 1.4)), int(municipality.latitude / size)


def _cell(municipality: Municipality, near: list[Municipality]) -> Ring:
    kx, ky = KM_PER_DEGREE * math.cos(math.radians(41.8)), KM_PER_DEGREE
    polygon = [
        (REACH_KM * math.cos(math.radians(angle)), REACH_KM * math.sin(math.radians(angle)))
        for angle in range(0, 360, 30)
    ]
    for other in near:
        if other is not municipality:
            dx = (other.longitude - municipality.longitude) * kx
            dy = (other.latitude - municipality.latitude) * ky
            if dx * dx + dy * dy < (2 * REACH_KM) ** 2:
                polygon = _nearer(polygon, dx, dy)
    ring = [
        (round(municipality.longitude + GAP * x / kx, 5), round(municipality.latitude + GAP * y / ky, 5))
        for x, y in polygon
    ]
    return [*ring, ring[0]]


def _nearer(polygon: list[Point], dx: float, dy: float) -> list[Point]:
    """Return the part of a polygon that is nearer to the origin than to (dx, dy)."""
    half = (dx * dx + dy * dy) / 2
    kept: list[Point] = []
    for (x1, y1), (x2, y2) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        inside1, inside2 = x1 * dx + y1 * dy <= half, x2 * dx + y2 * dy <= half
        if inside1:
            kept.append((x1, y1))
        if inside1 != inside2:
            share = (half - x1 * dx - y1 * dy) / ((x2 - x1) * dx + (y2 - y1) * dy)
            kept.append((x1 + share * (x2 - x1), y1 + share * (y2 - y1)))
    return kept
