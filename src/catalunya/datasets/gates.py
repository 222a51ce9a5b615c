"""What a dataset definition declares about the gates: expected rows, expectations, tolerances, compared figures."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

import duckdb
from pydantic import AfterValidator, Field, model_validator

from catalunya.datasets.sources import Model
from catalunya.sql import quote


@lru_cache
def _compiled(pattern: str) -> str:
    """The pattern, when Python and the engine that types rows accept it."""
    try:
        re.compile(pattern)
        with duckdb.connect() as con:
            con.execute(f"select regexp_matches('', {quote(pattern)})")
    except (re.error, duckdb.Error) as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return pattern


RegularExpression = Annotated[str, AfterValidator(_compiled)]


def bounds_in_order(model: Any) -> Any:
    """Validate that the `minimum` of a model, where it has one, is not above its `maximum`."""
    low, high = model.minimum, model.maximum
    if low is not None and high is not None and low > high:
        raise ValueError(f"minimum {low:g} is above maximum {high:g}")
    return model


class ExpectedRows(Model):
    """The number of rows that the real source is known to have; the audit warns of another one."""

    minimum: int = Field(ge=0)
    maximum: int = Field(ge=0)
    strict: bool = False
    """Refuse a snapshot with another one instead of warning, the first one included."""
    _bounds = model_validator(mode="after")(bounds_in_order)


class Tolerance(Model):
    """How far the rows of a snapshot may be from the last accepted one's before it is refused."""

    decrease_ratio: float = Field(ge=0, le=1)
    increase_ratio: float = Field(ge=0)
    rows: int = Field(5, ge=0)
    """A change of up to this many rows is always tolerated, so that small portals can be served."""
    memory_days: int = Field(365, gt=0)
    """How many days the largest snapshot counts, so that many small losses add up."""
    memory_decrease_ratio: float = Field(0.25, ge=0, le=1)
    """How far rows and totals may be below their largest value of those days."""
    memory_increase_ratio: float = Field(1.0, ge=0)
    """How far totals may be above their smallest value of those days."""
    quarantine_ratio: float = Field(0.5, ge=0, le=1)
    """A snapshot with a larger share of its rows in quarantine, or of a column's values invalid, is refused."""


Measure = Literal["rows", "values", "distinct_values", "share_within", "share_matching", "share_in_box"]


class Expectation(Model):
    """One measured number of a snapshot, and its bounds.

    A snapshot outside of the bounds is refused, unless the last accepted one was as far outside.
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
    pattern: RegularExpression | None = None
    box: tuple[float, float, float, float] | None = None
    """West, south, east and north in degrees."""
    minimum: float | None = None
    maximum: float | None = None
    severity: Literal["error", "warn"] = "error"
    _bounds = model_validator(mode="after")(bounds_in_order)

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
        return self

    def columns(self) -> tuple[str, ...]:
        """Return every column that it reads."""
        return tuple(name for name in (self.column, self.per, *self.where) if name is not None)

    @property
    def label(self) -> str:
        """What is measured: `distinct values of comarca_id`, `rows of level comarca`."""
        low, high = self.between or (0, 0)
        measure = {
            "rows": "rows",
            "values": f"values of {self.column}",
            "distinct_values": f"distinct values of {self.column}",
            "share_within": f"share of rows with {self.column} between {low:g} and {high:g}",
            "share_matching": f"share of rows with {self.column} like {self.pattern}",
            "share_in_box": f"share of rows with {self.column} within {self.box}",
        }[self.measure]
        return measure + "".join(f" of {name} {value}" for name, value in self.where.items())

    @property
    def bounds(self) -> str:
        """`940 to 960`, `43`, `99.0% or more`."""
        if self.minimum is not None and self.maximum is not None:
            low, high = self.formatted(self.minimum), self.formatted(self.maximum)
            return low if low == high else f"{low} to {high}"
        if self.minimum is not None:
            return f"{self.formatted(self.minimum)} or more"
        return f"{self.formatted(self.maximum or 0)} or less"

    def formatted(self, value: float) -> str:
        """Return a measured number as text: a share as a percentage."""
        return f"{value:.1%}" if self.measure.startswith("share") else f"{value:g}"


class Total(Model):
    """A sum over the rows that is compared with that of the last accepted snapshot."""

    column: str | None = None
    """The column that is summed; without it rows are counted."""
    by: str | None = None
    """Column each value of which has a total of its own."""
    minimum_share: float | None = Field(None, ge=0, le=1)
    """For this total, instead of the tolerance's `minimum_share`."""

    @property
    def name(self) -> str:
        """`places by service_type`, `rows by ownership_name`."""
        return f"{self.column or 'rows'} by {self.by}" if self.by else self.column or "rows"


class FigureTolerance(Model):
    """How far the figures of a snapshot may be from those of the last accepted one before it is refused."""

    null_share: float = Field(0.2, ge=0, le=1)
    """Rise of the share of missing values of a column (0.2: from 10 % to 30 %)."""
    unseen_share: float = Field(0.2, ge=0, le=1)
    """Share of values of a column that the last accepted snapshot does not have. Case, accents and punctuation do not
    count."""
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
    """Which figures of a snapshot are compared with those of the last accepted one, and what is tolerated.

    Always compared: keys that are gone, the share of rows whose value changed and missing values of every column,
    values not seen before and the distribution of text columns of few values, totals of every number that is no key.
    """

    totals: tuple[Total, ...] | None = None
    """None: each integer and number that is not in the key, by the integer column of the key (a year) if it has one."""
    vocabulary: tuple[str, ...] = ()
    """Text columns whose values are compared however many they have."""
    seeds: dict[str, str] = Field({})
    """Column to the dbt seed with a column of that name: values that the seed lacks are a warning."""
    tolerance: FigureTolerance = FigureTolerance()

    def columns(self) -> tuple[str, ...]:
        """Return every column that it reads."""
        totals = [name for t in self.totals or () for name in (t.column, t.by) if name is not None]
        return (*totals, *self.vocabulary, *self.seeds)
