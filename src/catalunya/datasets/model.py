"""What a dataset definition (`datasets/*.yml`) declares, as frozen models that validate themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Literal, Self

import duckdb
from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from catalunya.datasets.gates import (
    Expectation,
    ExpectedRows,
    Figures,
    RegularExpression,
    Tolerance,
    Total,
    bounds_in_order,
)
from catalunya.datasets.sources import Model, Source
from catalunya.datasets.staged import ADDED_COLUMNS, REASON, TABLES
from catalunya.datasets.types import TYPES, ColumnType

DriftAction = Literal["warn", "refuse"]
WebAddress = Annotated[str, Field(pattern=r"^https?://\S+$")]


@lru_cache(maxsize=1)
def _reserved_words() -> frozenset[str]:
    """Words that SQL reserves, as DuckDB lists them."""
    with duckdb.connect() as con:
        found = con.execute(
            "select keyword_name from duckdb_keywords() where keyword_category = 'reserved'"
        ).fetchall()
    return frozenset(name for (name,) in found)


def _snake_case(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"{name!r} is not snake_case; use lower-case letters, digits and _")
    if name in _reserved_words():
        raise ValueError(f"{name!r} is a reserved word of SQL; take another, such as {name}_name")
    return name


SnakeCase = Annotated[str, AfterValidator(_snake_case)]


class LocalizedText(Model):
    """One text in the three languages of the site."""

    ca: str
    es: str
    en: str


class Organization(Model):
    """A publisher or a licence: its name and where it is described."""

    name: str
    url: WebAddress


class Constraints(Model):
    """Rules for a value (names of the Frictionless Table Schema, and `not_in_future`).

    A row with an invalid value in a required column or in the key is quarantined; another invalid value becomes null.
    """

    required: bool = False
    pattern: RegularExpression | None = None
    minimum: float | None = None
    maximum: float | None = None
    not_in_future: bool = False
    """A date is at most the day of the snapshot, a year at most the year after it."""
    _bounds = model_validator(mode="after")(bounds_in_order)


class Column(Model):
    """A declared column: its names in the source and here, and which values it may have."""

    name: SnakeCase
    source: Annotated[
        tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
    ]
    """Names in the source; the first that is present counts."""
    type: str
    """A name in `datasets/types.py`."""
    description: str
    unit: str | None = None
    constraints: Constraints = Constraints()

    @field_validator("type")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in TYPES:
            raise ValueError(f"{value!r} is no type; there are: {', '.join(TYPES)}")
        return value

    @property
    def kind(self) -> ColumnType:
        """The entry of its type in `TYPES`."""
        return TYPES[self.type]

    @property
    def is_geometry(self) -> bool:
        """True for the column with the geometry of a GeoJSON feature, as JSON text."""
        return self.source == ("geometry",)

    @model_validator(mode="after")
    def _constraints_suit_the_type(self) -> Self:
        limits = self.constraints
        if not self.kind.is_number and (limits.minimum, limits.maximum) != (None, None):
            raise ValueError(
                f"constraints: minimum and maximum are for numbers, {self.name} is a {self.type}"
            )
        if limits.not_in_future and self.kind.latest is None:
            timed = " or ".join(name for name, kind in TYPES.items() if kind.latest)
            raise ValueError(
                f"constraints: not_in_future is for dates and years ({timed}), {self.name} is a {self.type}"
            )
        return self


class DriftPolicy(Model):
    """What to do when the source's columns are not those declared."""

    new_column: DriftAction = "warn"
    missing_column: DriftAction = "refuse"
    retyped_column: DriftAction = "refuse"


class Dataset(Model):
    """The definition of one dataset."""

    id: SnakeCase
    title: LocalizedText
    description: str
    grain: str
    publisher: Organization
    licence: Organization
    citation: str
    homepage: WebAddress
    cadence_days: int = Field(gt=0)
    """After this many days without a change the source counts as silent."""
    source: Source
    key: tuple[str, ...] = Field(min_length=1)
    expected_rows: ExpectedRows
    tolerance: Tolerance
    expectations: tuple[Expectation, ...] = ()
    """Bounds that every snapshot must keep, the first one included."""
    figures: Figures = Figures()
    """What is compared with the last accepted snapshot, beside the number of rows."""
    drift: DriftPolicy = DriftPolicy()
    ignored: tuple[str, ...] = ()
    """Source columns known and not wanted: no warning is given for them."""
    columns: tuple[Column, ...] = Field(min_length=1)

    @field_validator("id")
    @classmethod
    def _is_free(cls, value: str) -> str:
        if value in TABLES:
            raise ValueError(f"{value!r} is a table of the pipeline; take another name")
        return value

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = [column.name for column in self.columns]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(f"columns: {', '.join(duplicates)} declared twice; keep one")
        reserved = sorted({REASON, *(column.name for column in ADDED_COLUMNS)} & set(names))
        if reserved:
            raise ValueError(f"columns: {', '.join(reserved)} is added by staging; choose another name")
        self._require_declared("key", self.key)
        optional = [name for name in self.key if not self.column(name).constraints.required]
        if optional:
            raise ValueError(
                f"key: {', '.join(optional)} may be null; give it constraints: {{required: true}}"
            )
        self._require_declared("expectations", [name for e in self.expectations for name in e.columns()])
        self._require_declared("figures", self.figures.columns())
        for total in self.figures.totals or ():
            if total.column and not self.column(total.column).kind.is_number:
                raise ValueError(f"figures: totals: {total.column} is no number; sum another column")
        return self

    def _require_declared(self, field: str, names: Iterable[str]) -> None:
        unknown = sorted(set(names) - {column.name for column in self.columns})
        if unknown:
            raise ValueError(
                f"{field}: {', '.join(unknown)} is no declared column; declare it or correct {field}"
            )

    @property
    def period(self) -> str | None:
        """The integer column of the key, such as a year; None when there is none."""
        return next((name for name in self.key if self.column(name).type == "integer"), None)

    @property
    def totals(self) -> tuple[Total, ...]:
        """The totals that are compared: those declared, or every number that is not in the key."""
        if self.figures.totals is not None:
            return self.figures.totals
        numbers = [c.name for c in self.columns if c.kind.is_number and c.name not in self.key]
        return tuple(Total(column=name, by=self.period) for name in numbers)

    def column(self, name: str) -> Column:
        """Return the declared column `name`; StopIteration when there is none."""
        return next(column for column in self.columns if column.name == name)
