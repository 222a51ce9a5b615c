"""What a dataset definition (`datasets/*.yml`) declares, as frozen models that check themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, Self

import duckdb
from pydantic import Field, field_validator, model_validator

from catalunya.datasets.sources import Model, Source
from catalunya.datasets.staged import ADDED_COLUMNS, REASON, TABLES
from catalunya.datasets.types import TYPES, ColumnType

SNAKE_CASE = re.compile(r"^[a-z][a-z0-9_]*$")
WEB_ADDRESS = r"^https?://\S+$"

DriftAction = Literal["warn", "refuse"]


@lru_cache(maxsize=1)
def _reserved_words() -> frozenset[str]:
    """Words that SQL keeps for itself, as DuckDB lists them."""
    with duckdb.connect() as con:
        found = con.execute(
            "select keyword_name from duckdb_keywords() where keyword_category = 'reserved'"
        ).fetchall()
    return frozenset(name for (name,) in found)


@lru_cache
def _compile_error(pattern: str) -> str | None:
    """Why neither Python nor the engine that types rows takes `pattern`; None when both take it."""
    try:
        re.compile(pattern)
        with duckdb.connect() as con:
            con.execute("select regexp_matches('', ?)", [pattern])
    except (re.error, duckdb.Error) as error:
        return str(error)
    return None


def _require_regular_expression(pattern: str) -> None:
    error = _compile_error(pattern)
    if error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}")


class LocalizedText(Model):
    """One text in the three languages of the site."""

    ca: str
    es: str
    en: str


class Organization(Model):
    """A publisher or a licence: its name and where it is described."""

    name: str
    url: str = Field(pattern=WEB_ADDRESS)


class Constraints(Model):
    """Rules a value must keep (Frictionless Table Schema names, and `not_in_future`).

    A bad value of a required column, or of one of the key, quarantines its row; another is set to null.
    """

    required: bool = False
    pattern: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    not_in_future: bool = False
    """A date is at most the day of the snapshot, a year at most the year after it."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum:g} is above maximum {self.maximum:g}")
        return self

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            _require_regular_expression(pattern)
        return pattern


class Column(Model):
    """A declared column: how the source calls it, how we call it, and what it may hold."""

    name: str
    source: tuple[str, ...]
    """Names in the source; of several the first that is present counts."""
    type: str
    """A name in `datasets/types.py`."""
    description: str
    unit: str | None = None
    constraints: Constraints = Constraints()

    @field_validator("source", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _snake(cls, name: str) -> str:
        if not SNAKE_CASE.match(name):
            raise ValueError(f"{name!r} is not snake_case; use lower-case letters, digits and _")
        if name in _reserved_words():
            raise ValueError(f"{name!r} is a reserved word of SQL; take another, such as {name}_name")
        return name

    @field_validator("type")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in TYPES:
            raise ValueError(f"{value!r} is no type; there are: {', '.join(TYPES)}")
        return value

    @property
    def kind(self) -> ColumnType:
        """The type's names elsewhere, cast and limits."""
        return TYPES[self.type]

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


class Drift(Model):
    """What to do when the source's columns are not those declared."""

    new_column: DriftAction = "warn"
    missing_column: DriftAction = "refuse"
    retyped_column: DriftAction = "refuse"


class ExpectedRows(Model):
    """Rows the real source is known to have; outside of it the audit warns."""

    minimum: int = Field(ge=0)
    maximum: int = Field(ge=0)
    strict: bool = False
    """Refuse a snapshot outside of it, the first one included, instead of warning."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self


class Tolerance(Model):
    """How far the rows of a snapshot may be from the last accepted one's before it is refused."""

    decrease_ratio: float = Field(ge=0, le=1)
    increase_ratio: float = Field(ge=0)
    rows: int = Field(5, ge=0)
    """A change of up to this many rows is always tolerated, so that small portals can be served."""
    memory_days: int = Field(365, gt=0)
    """How far back the largest snapshot is looked for, so that many small losses are seen as one."""
    memory_decrease_ratio: float = Field(0.25, ge=0, le=1)
    """How far rows and totals may be below their largest value of those days."""
    memory_increase_ratio: float = Field(1.0, ge=0)
    """How far totals may be above their smallest value of those days."""
    quarantine_ratio: float = Field(0.5, ge=0, le=1)
    """A snapshot with a larger share of its rows in quarantine, or of a column's values invalid, is refused."""


Measure = Literal["rows", "values", "distinct_values", "share_within", "share_matching", "share_in_box"]


class Expectation(Model):
    """What must hold of every snapshot, also of the first: one measured number between two bounds.

    A snapshot is refused outside of the bounds, unless the last accepted one was as far outside already.
    """

    measure: Measure
    """`rows`, non-null `values` or `distinct_values` of a column; the share (0 to 1) of rows whose value lies
    `between` two numbers, or matches a `pattern`, or whose GeoJSON geometry lies wholly in a `box`."""
    column: str | None = None
    where: dict[str, str] = Field({})
    """Column to the value that rows must have to be measured."""
    per: str | None = None
    """Column each value of which is measured on its own."""
    between: tuple[float, float] | None = None
    pattern: str | None = None
    box: tuple[float, float, float, float] | None = None
    """West, south, east and north in degrees."""
    minimum: float | None = None
    maximum: float | None = None
    severity: Literal["error", "warn"] = "error"

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        needs = {"share_within": "between", "share_matching": "pattern", "share_in_box": "box"}
        if self.measure != "rows" and self.column is None:
            raise ValueError(f"{self.measure} needs a column")
        for measure, name in needs.items():
            if (self.measure == measure) != (getattr(self, name) is not None):
                raise ValueError(f"{name} goes with measure {measure} and with no other")
        if self.minimum is None and self.maximum is None:
            raise ValueError("give a minimum, a maximum or both")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum:g} is above maximum {self.maximum:g}")
        if self.pattern is not None:
            _require_regular_expression(self.pattern)
        return self

    def columns(self) -> tuple[str, ...]:
        """Every column that it reads."""
        return tuple(name for name in (self.column, self.per, *self.where) if name is not None)

    @property
    def label(self) -> str:
        """What is measured: `distinct values of comarca_id`, `rows of level comarca`."""
        low, high = self.between or (0, 0)
        words = {
            "rows": "rows",
            "values": f"values of {self.column}",
            "distinct_values": f"distinct values of {self.column}",
            "share_within": f"share of rows with {self.column} between {low:g} and {high:g}",
            "share_matching": f"share of rows with {self.column} like {self.pattern}",
            "share_in_box": f"share of rows with {self.column} within {self.box}",
        }[self.measure]
        return words + "".join(f" of {name} {value}" for name, value in self.where.items())

    @property
    def bounds(self) -> str:
        """`940 to 960`, `43`, `99.0% or more`."""
        if self.minimum is not None and self.maximum is not None:
            low, high = self.shown(self.minimum), self.shown(self.maximum)
            return low if low == high else f"{low} to {high}"
        if self.minimum is not None:
            return f"{self.shown(self.minimum)} or more"
        return f"{self.shown(self.maximum or 0)} or less"

    def shown(self, value: float) -> str:
        """A measured number in words: a share as a percentage."""
        return f"{value:.1%}" if self.measure.startswith("share") else f"{value:g}"


class Total(Model):
    """A sum over the rows that is compared with that of the last accepted snapshot."""

    column: str | None = None
    """The column that is summed; without it rows are counted."""
    by: str | None = None
    """Column each value of which has a total of its own."""
    minimum_share: float | None = Field(None, ge=0, le=1)
    """In place of the tolerance's `minimum_share`, for this total."""

    @property
    def name(self) -> str:
        """`places by service_type`, `rows by ownership_name`."""
        return f"{self.column or 'rows'} by {self.by}" if self.by else self.column or "rows"


class FigureTolerance(Model):
    """How far the figures of a snapshot may be from those of the last accepted one before it is refused."""

    null_share: float = Field(0.2, ge=0, le=1)
    """Rise of the share of missing values of a column (0.2: from 10 % to 30 %)."""
    unseen_share: float = Field(0.2, ge=0, le=1)
    """Share of values of a column that the last accepted snapshot does not have at all. Case, accents and
    punctuation do not count."""
    distribution_share: float = Field(0.25, ge=0, le=1)
    """Share of the rows that would have to change their value to turn one distribution into the other; of
    numbers and dates the rise of the share of the most frequent value."""
    changed_share: float = Field(0.25, ge=0, le=1)
    """Share of the rows with a value of a column in both snapshots whose value differs, row by row of the same key.
    Case, accents and punctuation do not count, nor does a change of a number within `total_ratio`."""
    total_ratio: float = Field(0.25, ge=0)
    """Change of a total up or down."""
    minimum_rows: int = Field(20, ge=1)
    """Totals of fewer rows are not compared: one row would change them too much."""
    minimum_share: float = Field(0.02, ge=0, le=1)
    """Of totals by a column those below this share of the whole are not compared."""
    garbled_share: float = Field(0.01, ge=0, le=1)
    """Share of a text column's values whose encoding is broken (`BrÃ fim`, `?` within a word)."""
    garbled_values: int = Field(2, ge=0)
    """So many garbled values are always tolerated."""


class Figures(Model):
    """Which figures of a snapshot are compared with those of the last accepted one, and how closely.

    Compared without a declaration: keys that are gone, the share of rows whose value changed and missing values of
    every column, values not seen before and the distribution of text columns of few values, totals of every number
    that is no key.
    """

    totals: tuple[Total, ...] | None = None
    """None: every integer and number that is no key, by the integer column of the key (a year), if it has one."""
    vocabulary: tuple[str, ...] = ()
    """Text columns whose values are compared however many they have."""
    seeds: dict[str, str] = Field({})
    """Column to the dbt seed with a column of that name: a value that the seed lacks is warned of."""
    tolerance: FigureTolerance = FigureTolerance()

    def columns(self) -> tuple[str, ...]:
        """Every column that it reads."""
        totals = [name for t in self.totals or () for name in (t.column, t.by) if name is not None]
        return (*totals, *self.vocabulary, *self.seeds)


class Dataset(Model):
    """The definition of one dataset."""

    id: str
    title: LocalizedText
    description: str
    grain: str
    publisher: Organization
    licence: Organization
    citation: str
    homepage: str = Field(pattern=WEB_ADDRESS)
    cadence_days: int = Field(gt=0)
    """After this many days without a change the source counts as silent."""
    source: Source
    key: tuple[str, ...] = Field(min_length=1)
    expected_rows: ExpectedRows
    tolerance: Tolerance
    expectations: tuple[Expectation, ...] = ()
    """What must hold of every snapshot, also of the first."""
    figures: Figures = Figures()
    """What is compared with the last accepted snapshot, beside the number of rows."""
    drift: Drift = Drift()
    ignored: tuple[str, ...] = ()
    """Source columns known and not wanted: no warning is given for them."""
    columns: tuple[Column, ...] = Field(min_length=1)

    @field_validator("id")
    @classmethod
    def _snake(cls, value: str) -> str:
        if not SNAKE_CASE.match(value):
            raise ValueError(f"{value!r} is not snake_case; it is a table name too")
        if value in TABLES or value in _reserved_words():
            raise ValueError(f"{value!r} is taken by a table of the pipeline or by SQL itself; take another")
        return value

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = [column.name for column in self.columns]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"columns: {', '.join(doubled)} declared twice; keep one")
        reserved = sorted({REASON, *(column.name for column in ADDED_COLUMNS)} & set(names))
        if reserved:
            raise ValueError(f"columns: {', '.join(reserved)} is added by staging; choose another name")
        unknown = [name for name in self.key if name not in names]
        if unknown:
            raise ValueError(
                f"key: {', '.join(unknown)} is no declared column; declare it or correct the key"
            )
        loose = [name for name in self.key if not self.column(name).constraints.required]
        if loose:
            raise ValueError(f"key: {', '.join(loose)} may be null; give it constraints: {{required: true}}")
        self._require_declared("expectations", [name for e in self.expectations for name in e.columns()])
        self._require_declared("figures", self.figures.columns())
        for total in self.figures.totals or ():
            if total.column and not self.column(total.column).kind.is_number:
                raise ValueError(f"figures: totals: {total.column} is no number; sum another column")
        return self

    def _require_declared(self, field: str, names: Iterable[str]) -> None:
        unknown = sorted({name for name in names if all(name != column.name for column in self.columns)})
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
        """The totals that are compared: those declared, or every number that is no key."""
        if self.figures.totals is not None:
            return self.figures.totals
        numbers = [c.name for c in self.columns if c.kind.is_number and c.name not in self.key]
        return tuple(Total(column=name, by=self.period) for name in numbers)

    def column(self, name: str) -> Column:
        """The declared column `name`; KeyError when there is none."""
        return next(column for column in self.columns if column.name == name)
