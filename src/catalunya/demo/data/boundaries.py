"""Boundaries of the demo: schematic areas around the seats of the municipalities. No model reads the shapes."""

from __future__ import annotations

from catalunya.demo.data.cells import Cell, cells, polygons
from catalunya.demo.data.territory import Municipality, article_in_front, comarques, municipalities

DISAGREEING_COMARCA = {"080142": "24"}
"""The real boundaries put Aiguafreda in Osona, the municipality list puts it in Vallès Oriental."""
DISAGREEING_NAME = {"431055": "Piles de Gaià, les"}
UNREAD = {
    "comarques": ("CAPCOMAR", "CAPCOMIND", "AREAC5000"),
    "municipis": (
        "NOMMUNIIND", "CAPMUNI", "CAPMUNIIND", "AREAM5000", "CAPCOMAR", "CAPCOMIND",
        "CODIVEGUE", "NOMVEGUE", "CAPVEGUE", "CODIPROV", "NOMPROV", "CAPPROV",
    ),
}  # fmt: skip
"""Properties of the real files that the definition of the dataset ignores; they have no value here."""


def boundaries(level: str, scale: str) -> dict[str, object]:
    """Return the GeoJSON of `comarques` or `municipis` (EPSG:4326); the scale shows in the name only."""
    if level == "comarques":
        members = {id_: [m for m in municipalities() if _comarca_id(m) == id_] for id_ in comarques()}
        features = [_feature(level, _comarca(id_), found) for id_, found in members.items()]
    else:
        features = [_feature(level, _municipality(m), [m]) for m in municipalities()]
    return {
        "type": "FeatureCollection",
        "name": f"divisions-administratives-v2r2-{level}-{scale}-20240101-demo",
        "features": features,
    }


def _municipality(municipality: Municipality) -> dict[str, str]:
    name = DISAGREEING_NAME.get(municipality.municipality_id, municipality.name)
    return {
        "CODIMUNI": municipality.municipality_id,
        "NOMMUNI": article_in_front(name),
        **_comarca(_comarca_id(municipality)),
    }


def _comarca(comarca_id: str) -> dict[str, str]:
    name = "Val d'Aran" if comarca_id == "39" else comarques()[comarca_id]
    return {"CODICOMAR": comarca_id, "NOMCOMAR": name}


def _comarca_id(municipality: Municipality) -> str:
    return DISAGREEING_COMARCA.get(municipality.municipality_id, municipality.comarca_id)


def _feature(level: str, properties: dict[str, str], members: list[Municipality]) -> dict[str, object]:
    squares: frozenset[Cell] = frozenset().union(*(cells()[member.municipality_id] for member in members))
    return {
        "type": "Feature",
        "geometry": {"type": "MultiPolygon", "coordinates": polygons(squares)},
        "properties": {**properties, **dict.fromkeys(UNREAD[level])},
    }
