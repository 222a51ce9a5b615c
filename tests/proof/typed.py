"""Rows as the cards declare them, in plain Python: cleaned, typed, judged and counted."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

Row = dict[str, Any]

SPACES = re.compile("[\\s\x00-\x1f\u00a0\u2000-\u200b\u3000\ufeff]+")
MUNICIPALITY_CODE = re.compile("(08|17|25|43)[0-9]{4}")
COMARCA_CODE = re.compile("[0-9]{2}")
AREA_CODE = re.compile("[0-9]{2}|[0-9]{6}")


class Broken(ValueError):
    """A value breaks its declaration."""


@dataclass(frozen=True)
class Column:
    """A column of a card: the source names it may come from, and what it may hold."""

    name: str
    sources: tuple[str, ...]
    kind: type = str
    required: bool = False
    pattern: re.Pattern[str] | None = None
    least: float | None = None
    most: float | None = None


def _column(name: str, source: str, kind: type = str, **rules: Any) -> Column:
    return Column(name, tuple(source.split()), kind, **rules)


USERS = {
    "women_in_day_centres": "dones_centre_de_dia_gent",
    "men_in_day_centres": "homes_centre_de_dia_gent",
    "people_in_day_centres": "total_centre_de_dia_gent",
    "women_in_residences": "dones_resid_ncia_gent_gran",
    "men_in_residences": "homes_resid_ncia_gent_gran",
    "people_in_residences": "total_resid_ncia_gent_gran",
    "women": "dones_total",
    "men": "homes_total",
    "people": "total",
}

CARDS: dict[str, tuple[tuple[str, ...], list[Column]]] = {
    "social_services": (
        ("service_id",),
        [
            _column("service_id", "registre", required=True),
            _column("name", "nom"),
            _column("service_type", "tipologia", required=True),
            _column("registered_on", "inscripcio", date),
            _column("places", "capacitat", int, least=0, most=100_000),
            _column("address", "adreca"),
            _column("municipality_name", "municipi"),
            _column("district", "districte"),
            _column("postal_code", "cp"),
            _column("comarca_name", "comarca"),
            _column("phone", "telefon"),
            _column("owner_name", "entitat_titular"),
            _column("ownership_name", "qualificacio"),
            _column("owner_tax_id", "nif"),
        ],
    ),
    "municipalities": (
        ("municipality_id",),
        [
            _column("municipality_id", "codi", required=True, pattern=MUNICIPALITY_CODE),
            _column("name", "nom", required=True),
            _column("comarca_id", "codi_comarca", required=True, pattern=COMARCA_CODE),
            _column("comarca_name", "nom_comarca", required=True),
            _column("longitude", "longitud", float, least=0, most=4),
            _column("latitude", "latitud", float, least=40, most=43),
        ],
    ),
    "population": (
        ("municipality_id", "year"),
        [
            _column("municipality_id", "MUN", required=True, pattern=MUNICIPALITY_CODE),
            _column("name", "MUN.label"),
            _column("year", "YEAR", int, required=True, least=1900, most=2200),
            _column("people", "AGE.TOTAL", int, required=True, least=0),
            _column("people_aged_65_over", "AGE.Y_GE065", int, required=True, least=0),
        ],
    ),
    "boundaries": (
        ("level", "area_id"),
        [
            _column("level", "level", required=True, pattern=re.compile("comarca|municipality")),
            _column("area_id", "CODIMUNI CODICOMAR", required=True, pattern=AREA_CODE),
            _column("name", "NOMMUNI NOMCOMAR", required=True),
            _column("comarca_id", "CODICOMAR", required=True, pattern=COMARCA_CODE),
            _column("comarca_name", "NOMCOMAR"),
        ],
    ),
    "service_users": (
        ("year", "comarca_id"),
        [
            _column("year", "any", int, required=True, least=1900, most=2200),
            _column("comarca_id", "codi", required=True, pattern=COMARCA_CODE),
            _column("comarca_name", "comarca"),
            *(_column(name, source, int, least=0) for name, source in USERS.items()),
        ],
    ),
}


@dataclass(frozen=True)
class Typed:
    """The sound rows of a snapshot, and what became of the others."""

    rows: list[Row]
    quarantined: int
    duplicated: int


def typed(dataset_id: str, sent: list[Row]) -> Typed:
    """Type the rows: an exact duplicate is counted, a broken row or a key used before is set aside."""
    key, columns = CARDS[dataset_id]
    seen: set[tuple[Any, ...]] = set()
    sound: dict[tuple[Any, ...], Row] = {}
    quarantined = 0
    for row in sent:
        texts = {column.name: _text(row, column) for column in columns}
        content = tuple(texts.values())
        if content in seen:
            continue
        seen.add(content)
        try:
            values = {column.name: _value(texts[column.name], column) for column in columns}
        except Broken:
            quarantined += 1
            continue
        identity = tuple(values[name] for name in key)
        quarantined += identity in sound
        sound.setdefault(identity, values)
    return Typed(list(sound.values()), quarantined, len(sent) - len(seen))


def _text(row: Row, column: Column) -> str | None:
    """The first source that is present, NFC, with single spaces; nothing where it says `null` or is empty."""
    for source in column.sources:
        if row.get(source) is not None:
            text = _clean(str(row[source]))
            if text and text.lower() != "null":
                return text
    return None


@cache
def _clean(text: str) -> str:
    return SPACES.sub(" ", unicodedata.normalize("NFC", text)).strip()


def _value(text: str | None, column: Column) -> Any:
    if text is None:
        if column.required:
            raise Broken(column.name)
        return None
    value = _of_kind(text, column.kind)
    too_low = column.least is not None and value < column.least
    too_high = column.most is not None and value > column.most
    if too_low or too_high or (column.pattern and not column.pattern.fullmatch(text)):
        raise Broken(column.name)
    return value


def _of_kind(text: str, kind: type) -> Any:
    try:
        if kind is int:
            whole, _, rest = text.partition(".")
            if rest.strip("0"):
                raise Broken(text)
            return int(whole)
        if kind is date:
            return date.fromisoformat(text.partition("T")[0])
        return kind(text)
    except ValueError as error:
        raise Broken(text) from error
