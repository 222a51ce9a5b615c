"""The column types of a dataset definition: their names in other systems, their cast and their limits.

To add a type, add an entry to `TYPES`: the definitions, staging, dbt, Glue and the data package use it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

_SIGN = "[+-]?"
_INTEGER = rf"{_SIGN}[0-9]+([.](0|00|0000+))?|{_SIGN}[0-9]{{4,}}[.]000"
"""Digits, and a fraction of zeros; `1.000` may mean a thousand."""
_NUMBER = rf"{_SIGN}([0-9]+([.][0-9]+)?|[.][0-9]+)([eE][+-]?[0-9]+)?"
_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = "T([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]+)?)?Z?"
_FIRST_YEAR = 1900
"""Dates before this year are invalid."""


@dataclass(frozen=True)
class Bound:
    """A limit of every value of a type: the SQL literal, and the reason that is given for a value beyond it."""

    sql: str
    reason: str


@dataclass(frozen=True)
class ColumnType:
    """A type that a column may be declared as."""

    sql: str
    """Its name in DuckDB, Trino and dbt."""
    hive: str
    """Its name in Hive and Glue."""
    frictionless: str
    """Its name in a Frictionless Table Schema."""
    socrata: frozenset[str]
    """Socrata types whose values can be read as it."""
    label: str
    """What a value is called in a reason: `is not an integer`."""
    cast: Callable[[str], str]
    """Returns SQL that converts a text column, with null for text of another type."""
    is_number: bool = False
    """Whether `minimum` and `maximum` may be declared, and sums are compared."""
    earliest: Bound | None = None
    latest: Callable[[date], Bound] | None = None
    """Returns the limit of `not_in_future` on the day of a snapshot; None: the type does not have the constraint."""


def _text(text: str) -> str:
    return text


def _integer(text: str) -> str:
    whole = f"case when regexp_full_match({text}, '{_INTEGER}') then split_part({text}, '.', 1) end"
    return f"try_cast({whole} as integer)"


def _number(text: str) -> str:
    number = f"try_cast(case when regexp_full_match({text}, '{_NUMBER}') then {text} end as double)"
    return f"case when isfinite({number}) then {number} end"


def _date(text: str) -> str:
    day = f"case when regexp_full_match({text}, '{_DAY}({_TIME})?') then left({text}, 10) end"
    return f"try_cast({day} as date)"


def _year_after(taken_on: date) -> Bound:
    return Bound(str(taken_on.year + 1), f"is after {taken_on.year + 1}, the year after the snapshot's")


def _same_day(taken_on: date) -> Bound:
    return Bound(f"date '{taken_on}'", f"is after the day of the snapshot, {taken_on}")


TYPES = {
    "string": ColumnType(
        sql="varchar",
        hive="string",
        frictionless="string",
        socrata=frozenset(
            {"text", "url", "email", "phone", "html", "number", "calendar_date", "drop_down_list"}
        ),
        label="text",
        cast=_text,
    ),
    "integer": ColumnType(
        sql="integer",
        hive="int",
        frictionless="integer",
        socrata=frozenset({"number", "text", "double", "money"}),
        label="an integer",
        cast=_integer,
        is_number=True,
        latest=_year_after,
    ),
    "number": ColumnType(
        sql="double",
        hive="double",
        frictionless="number",
        socrata=frozenset({"number", "text", "double", "money", "percent"}),
        label="a number",
        cast=_number,
        is_number=True,
    ),
    "date": ColumnType(
        sql="date",
        hive="date",
        frictionless="date",
        socrata=frozenset({"calendar_date", "floating_timestamp", "fixed_timestamp", "date", "text"}),
        label="a date (YYYY-MM-DD)",
        cast=_date,
        earliest=Bound(f"date '{_FIRST_YEAR}-01-01'", f"is before {_FIRST_YEAR}"),
        latest=_same_day,
    ),
}
_MART_TYPES = {
    "bigint": "integer", "hugeint": "integer", "smallint": "integer", "decimal": "number", "timestamp": "datetime",
    "boolean": "boolean",
}  # fmt: skip
"""Types of columns of the marts that are not in `TYPES`."""


def hive_type(sql_type: str) -> str:
    """Return the Hive and Glue name of a DuckDB type."""
    return {kind.sql: kind.hive for kind in TYPES.values()}.get(sql_type, sql_type)


def frictionless_type(sql_type: str) -> str:
    """Return the Frictionless Table Schema type of a DuckDB type; `string` for one that has no counterpart."""
    name = sql_type.lower().split("(")[0]
    known = _MART_TYPES | {kind.sql: kind.frictionless for kind in TYPES.values()}
    return known.get(name, "string")
