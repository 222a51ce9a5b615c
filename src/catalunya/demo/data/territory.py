"""Municipalities and comarques, in today's division and in the one before May 2023."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

from catalunya.demo.errors import ReferenceMissing

REFERENCE = Path(__file__).parent / "reference"
SEEDS = Path(__file__).parents[4] / "dbt" / "mart" / "seeds"
LLUCANES_CREATED = date(2023, 5, 1)
PROVINCES = {"08": "Barcelona", "17": "Girona", "25": "Lleida", "43": "Tarragona"}


@dataclass(frozen=True)
class Municipality:
    """A municipality of today, with what it was called and belonged to before May 2023."""

    municipality_id: str
    name: str
    former_name: str
    comarca_id: str
    former_comarca_id: str
    latitude: float
    longitude: float
    people: int
    people_aged_65_over: int
    people_aged_under_15: int
    vegueria_id: str

    @property
    def name_in_front(self) -> str:
        """The name with its article in front, as people write it: `el Prat de Llobregat`."""
        return article_in_front(self.name)


@dataclass(frozen=True)
class Comarca:
    """A comarca of today and its capital."""

    comarca_id: str
    name: str
    capital: str


def article_in_front(name: str) -> str:
    """Return a list name (`Prat de Llobregat, el`) with its article in front."""
    stem, comma, article = name.rpartition(", ")
    if not comma or article not in {"el", "la", "els", "les", "l'", "es", "sa", "ses"}:
        return name
    return f"{article}{stem}" if article.endswith("'") else f"{article} {stem}"


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV table of the repository; raises ReferenceMissing where there is none."""
    if not path.is_file():
        raise ReferenceMissing(
            f"the demo data need {path.name}, expected at {path}; run the demo from a checkout of the repository"
        )
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def municipalities() -> tuple[Municipality, ...]:
    """Return the 947 municipalities in the order of their codes, with their people of 2019."""
    return tuple(
        Municipality(
            municipality_id=row["municipality_id"],
            name=row["name"],
            former_name=row["name_before_2023"],
            comarca_id=row["comarca_id"],
            former_comarca_id=row["comarca_id_before_2023"],
            latitude=float(row["latitude"]),
            longitude=float(row["longitude"]),
            people=int(row["people"]),
            people_aged_65_over=int(row["people_aged_65_over"]),
            people_aged_under_15=int(row["people_aged_under_15"]),
            vegueria_id=row["vegueria_id"],
        )
        for row in read_table(REFERENCE / "municipalities.csv")
    )


@cache
def municipality_by_id() -> dict[str, Municipality]:
    """Return the municipalities by their code of six digits."""
    return {municipality.municipality_id: municipality for municipality in municipalities()}


@cache
def comarques() -> dict[str, Comarca]:
    """Return the 43 comarques by their code of two digits."""
    return {row["comarca_id"]: Comarca(**row) for row in read_table(REFERENCE / "comarques.csv")}


@cache
def service_types() -> dict[str, str]:
    """Return the group of each of the 66 kinds of service, worded as the register words them."""
    return {row["service_type"]: row["service_group"] for row in read_table(SEEDS / "service_types.csv")}


@cache
def official_residence_places() -> dict[tuple[str, str], int]:
    """Return the published residence places of 2024 by comarca and ownership."""
    return {
        (row["comarca_id"], row["ownership"]): int(row["places"])
        for row in read_table(SEEDS / "official_residence_places.csv")
        if row["year"] == "2024"
    }


def municipality_rows_at(day: date) -> list[dict[str, object]]:
    """Return the municipality list as the portal publishes it on that day.

    Before May 2023 it has 947 rows, 42 comarques and the former names; from then on 949 rows, of which
    two (999998 and 999999) are no municipalities.
    """
    before = day < LLUCANES_CREATED
    rows = [_list_row(municipality, before=before) for municipality in municipalities()]
    if not before:
        rows += [
            _special_row("999998", "98", "No consta"),
            _special_row("999999", "99", "Altres/Diversos"),
        ]
    return rows


def _list_row(municipality: Municipality, *, before: bool) -> dict[str, object]:
    comarca_id = municipality.comarca_id
    name = municipality.name
    if before:
        comarca_id = municipality.former_comarca_id or comarca_id
        name = municipality.former_name or name
    x, y = utm31(municipality.latitude, municipality.longitude)
    return {
        "codi": municipality.municipality_id,
        "nom": name,
        "codi_comarca": comarca_id,
        "nom_comarca": comarques()[comarca_id].name,
        "utm_x": f"{x:.4f}",
        "utm_y": f"{y:.4f}",
        "longitud": f"{municipality.longitude:.9f}",
        "latitud": f"{municipality.latitude:.8f}",
        "georefer_ncia": {"type": "Point", "coordinates": [municipality.longitude, municipality.latitude]},
    }


def _special_row(code: str, comarca_id: str, name: str) -> dict[str, object]:
    return {
        "codi": code,
        "nom": name,
        "codi_comarca": comarca_id,
        "nom_comarca": name,
        "utm_x": "0.0000",
        "utm_y": "0.0000",
        "longitud": "0.000000000",
        "latitud": "0.00000000",
        "georefer_ncia": {"type": "Point", "coordinates": [0, 0]},
    }


def utm31(latitude: float, longitude: float) -> tuple[float, float]:
    """Return ETRS89 / UTM zone 31N coordinates in metres (series of Snyder 1987, about 1 m here)."""
    a, e2, k0 = 6378137.0, 0.00669438, 0.9996
    phi, lam = math.radians(latitude), math.radians(longitude - 3)
    ep2 = e2 / (1 - e2)
    n = a / math.sqrt(1 - e2 * math.sin(phi) ** 2)
    t, c, big_a = math.tan(phi) ** 2, ep2 * math.cos(phi) ** 2, math.cos(phi) * lam
    m = a * (
        (1 - e2 / 4 - 3 * e2**2 / 64) * phi
        - (3 * e2 / 8 + 3 * e2**2 / 32) * math.sin(2 * phi)
        + (15 * e2**2 / 256) * math.sin(4 * phi)
    )
    x = 500000 + k0 * n * (big_a + (1 - t + c) * big_a**3 / 6)
    y = k0 * (m + n * math.tan(phi) * (big_a**2 / 2 + (5 - t + 9 * c + 4 * c**2) * big_a**4 / 24))
    return x, y
