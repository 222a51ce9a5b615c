"""Municipalities and comarques, in today's division and in the one before May 2023."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

import msgspec

from catalunya.demo.errors import ReferenceMissing

REFERENCE = Path(__file__).parent / "reference"
SEEDS = Path(__file__).parents[4] / "dbt" / "mart" / "seeds"
LLUCANES_CREATED = date(2023, 5, 1)


@dataclass(frozen=True)
class Municipality:
    """A municipality of today, with its people of 2019 and its name and comarca before May 2023 where they changed."""

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

    @property
    def name_in_front(self) -> str:
        """The name with its article in front, as people write it: `el Prat de Llobregat`."""
        return article_in_front(self.name)


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
    """Return the 947 municipalities in the order of their codes."""
    return msgspec.convert(
        read_table(REFERENCE / "municipalities.csv"), tuple[Municipality, ...], strict=False
    )


@cache
def municipality_by_id() -> dict[str, Municipality]:
    """Return the municipalities by their code of six digits."""
    return {municipality.municipality_id: municipality for municipality in municipalities()}


@cache
def comarques() -> dict[str, str]:
    """Return the names of the 43 comarques by their code of two digits."""
    table = read_table(SEEDS / "comarca_names.csv")
    return {row["comarca_id"]: row["name"] for row in table if row["is_official"] == "true"}


@cache
def service_types() -> dict[str, str]:
    """Return the group of each of the 66 kinds of service, worded as in the register."""
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

    Before May 2023 it has 947 rows, 42 comarques and the former names; from then on 949 rows, of which two are no
    municipalities. UTM coordinates, which no model reads, have no value.
    """
    if day < LLUCANES_CREATED:
        return [
            _row(m, m.former_name or m.name, m.former_comarca_id or m.comarca_id) for m in municipalities()
        ]
    return [
        *(_row(m, m.name, m.comarca_id) for m in municipalities()),
        _list_row("999998", "No consta", "98", "No consta", 0, 0),
        _list_row("999999", "Altres/Diversos", "99", "Altres/Diversos", 0, 0),
    ]


def _row(m: Municipality, name: str, comarca_id: str) -> dict[str, object]:
    return _list_row(m.municipality_id, name, comarca_id, comarques()[comarca_id], m.longitude, m.latitude)


def _list_row(
    code: str, name: str, comarca_id: str, comarca: str, longitude: float, latitude: float
) -> dict[str, object]:
    return {
        "codi": code,
        "nom": name,
        "codi_comarca": comarca_id,
        "nom_comarca": comarca,
        "longitud": f"{longitude:.9f}",
        "latitud": f"{latitude:.8f}",
        "georefer_ncia": {"type": "Point", "coordinates": [longitude, latitude]},
    }
