"""Rows as the definitions declare them, in plain Python: cleaned, typed, judged and counted."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

Row = dict[str, Any]

NO_GLYPH = {0x00AD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFEFF, 0xFFA0}.union(
    range(0x180B, 0x1810),
    range(0x200B, 0x2010),
    range(0x202A, 0x202F),
    range(0x2060, 0x2070),
    range(0xFE00, 0xFE10),
    range(0xFFF0, 0xFFFC),
    range(0x1BCA0, 0x1BCA4),
    range(0x1D173, 0x1D17B),
    range(0xE0000, 0xE1000),
)
"""Code points that are removed: nothing is seen of them."""
BLANK = {"Zs", "Zl", "Zp", "Cc"}
"""Categories that are a space."""
INT32 = 2**31
MUNICIPALITY_CODE = re.compile("(08|17|25|43)[0-9]{4}")
COMARCA_CODE = re.compile("[0-9]{2}")
AREA_CODE = re.compile("[0-9]{2}|[0-9]{6}")


class Bad(ValueError):
    """A value breaks its declaration."""


@dataclass(frozen=True)
class Column:
    """A column of a definition: the source names it may come from, and what it may hold."""

    name: str
    sources: tuple[str, ...]
    kind: type = str
    required: bool = False
    pattern: re.Pattern[str] | None = None
    least: float | None = None
    most: float | None = None
    past: bool = False
    """It may not lie after the snapshot."""


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

DEFINITIONS: dict[str, tuple[tuple[str, ...], list[Column]]] = {
    "social_services": (
        ("service_id",),
        [
            _column("service_id", "registre", required=True),
            _column("name", "nom"),
            _column("service_type", "tipologia", required=True),
            _column("registered_on", "inscripcio", date, past=True),
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
            _column("year", "YEAR", int, required=True, least=1900, past=True),
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
            _column("year", "any", int, required=True, least=1900, past=True),
            _column("comarca_id", "codi", required=True, pattern=COMARCA_CODE),
            _column("comarca_name", "comarca"),
            *(_column(name, source, int, least=0) for name, source in USERS.items()),
        ],
    ),
}


@dataclass(frozen=True)
class Typed:
    """The valid rows of a snapshot, and the counts of the others."""

    rows: list[Row]
    quarantined: int
    duplicated: int
    invalid: dict[str, int]
    """Column to the number of kept rows in which a bad value is null."""
    unusable: frozenset[tuple[Any, ...]] = frozenset()
    """Keys that are whole and of which no row is sound: they are there, but nothing is known of them."""


class _Nested(str):
    """An object or a list that was sent where text is due."""


@dataclass(frozen=True)
class _Judged:
    values: tuple[Any, ...]
    bad: tuple[str, ...]
    """Columns of which the row can do without, and whose values are bad."""


def typed(dataset_id: str, sent: list[Row], taken_on: date, lacking: frozenset[str] = frozenset()) -> Typed:
    """Type the rows of a snapshot of that day, in which the columns `lacking` were not there."""
    key, columns = DEFINITIONS[dataset_id]
    broken: set[tuple[str | None, ...]] = set()
    sound: dict[tuple[Any, ...], _Judged] = {}
    refused: set[tuple[Any, ...]] = set()
    for row in sent:
        texts = tuple(_text(row, column) for column in columns)
        try:
            judged = _checked(texts, columns, key, taken_on, lacking)
        except Bad:
            broken.add(texts)
            refused.update(_whole_key(texts, columns, key, taken_on))
            continue
        known = sound.get(judged.values)
        if known is None or len(judged.bad) < len(known.bad):
            sound[judged.values] = judged
    places = [number for number, column in enumerate(columns) if column.name in key]
    kept: dict[tuple[Any, ...], _Judged] = {}
    for judged in sorted(sound.values(), key=_rank):
        kept.setdefault(tuple(judged.values[place] for place in places), judged)
    names = [column.name for column in columns]
    return Typed(
        [dict(zip(names, judged.values, strict=True)) for judged in kept.values()],
        len(broken) + len(sound) - len(kept),
        len(sent) - len(broken) - len(sound),
        dict(Counter(name for judged in kept.values() for name in judged.bad)),
        frozenset(refused - set(kept)),
    )


def _whole_key(
    texts: tuple[str | None, ...], columns: list[Column], key: tuple[str, ...], taken_on: date
) -> list[tuple[Any, ...]]:
    """The key of a broken row, in the order of its columns; none where a part is missing or bad itself."""
    parts = [(text, column) for text, column in zip(texts, columns, strict=True) if column.name in key]
    try:
        values = tuple(_value(text, column, taken_on) for text, column in parts)
    except Bad:
        return []
    return [] if None in values else [values]


def _rank(judged: _Judged) -> tuple[int, list[tuple[bool, Any]]]:
    """Fewest bad values first, then by the values, nothing after something."""
    return len(judged.bad), [(value is None, 0 if value is None else value) for value in judged.values]


def _checked(
    texts: tuple[str | None, ...],
    columns: list[Column],
    key: tuple[str, ...],
    taken_on: date,
    lacking: frozenset[str],
) -> _Judged:
    values, bad = [], []
    for text, column in zip(texts, columns, strict=True):
        must = column.name in key or (column.required and column.name not in lacking)
        value = None
        try:
            value = _value(text, column, taken_on)
        except Bad:
            if must or column.required:
                raise
            bad.append(column.name)
        if text is None and must:
            raise Bad(column.name)
        values.append(value)
    return _Judged(tuple(values), tuple(bad))


def _text(row: Row, column: Column) -> str | None:
    """The first source that says something, cleaned."""
    for source in column.sources:
        sent = row.get(source)
        if sent is not None:
            text = _clean(sent if isinstance(sent, str) else json.dumps(sent))
            if text and text.lower() != "null":
                return _Nested(text) if isinstance(sent, dict | list) else text
    return None


@cache
def _clean(text: str) -> str:
    """Without what cannot be seen, one space for every run of blanks, none at the ends, NFC."""
    seen = (letter for letter in text if ord(letter) not in NO_GLYPH)
    spaced = "".join(" " if unicodedata.category(c) in BLANK or c == "\u2800" else c for c in seen)
    return " ".join(word for word in unicodedata.normalize("NFC", spaced).split(" ") if word)


def _value(text: str | None, column: Column, taken_on: date) -> Any:
    if text is None:
        return None
    value = _of_kind(text, column.kind)
    limits = (column.least is not None and value < column.least) or (
        column.most is not None and value > column.most
    )
    last = taken_on if column.kind is date else taken_on.year + 1
    if limits or (column.past and value > last) or (column.pattern and not column.pattern.fullmatch(text)):
        raise Bad(column.name)
    return value


def _of_kind(text: str, kind: type) -> Any:
    if kind is int:
        return _integer(text)
    if kind is float:
        return _number(text)
    if kind is date:
        return _date(text)
    if isinstance(text, _Nested):
        raise Bad(text)
    return text


def _integer(text: str) -> int:
    whole, dot, fraction = text.partition(".")
    digits = whole[1:] if whole[:1] in {"+", "-"} else whole
    thousands = len(fraction) == 3 and len(digits) <= 3
    if not _are_digits(digits) or thousands or (dot and (not fraction or fraction.strip("0"))):
        raise Bad(text)
    digits = digits.lstrip("0") or "0"
    value = int(digits[:11]) * (-1 if whole.startswith("-") else 1)
    if not -INT32 <= value < INT32:
        raise Bad(text)
    return value


def _number(text: str) -> float:
    mantissa, e, exponent = text.lower().partition("e")
    if e and not _are_digits(exponent[1:] if exponent[:1] in {"+", "-"} else exponent):
        raise Bad(text)
    whole, dot, fraction = (mantissa[1:] if mantissa[:1] in {"+", "-"} else mantissa).partition(".")
    if (dot and not _are_digits(fraction)) or not (_are_digits(whole) or (dot and not whole)):
        raise Bad(text)
    value = float(text)
    if not math.isfinite(value):
        raise Bad(text)
    return value


def _date(text: str) -> date:
    day, t, time = text[:10], text[10:11], text[11:]
    clock, dot, fraction = time.removesuffix("Z").partition(".")
    parts = clock.split(":")
    in_shape = [len(part) for part in day.split("-")] == [4, 2, 2] and _are_digits(day.replace("-", ""))
    if t:
        in_shape &= t == "T" and len(parts) in {2, 3} and all(len(p) == 2 and _are_digits(p) for p in parts)
        in_shape &= not dot or (len(parts) == 3 and _are_digits(fraction))
    if not in_shape or (t and (int(parts[0]) > 23 or max(map(int, parts[1:])) > 59)):
        raise Bad(text)
    try:
        found = date.fromisoformat(day)
    except ValueError as error:
        raise Bad(text) from error
    if found.year < 1900:
        raise Bad(text)
    return found


def _are_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()
