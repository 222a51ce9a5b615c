"""What must hold of a snapshot in itself, also of the first: the gate `expected`.

A snapshot is refused for being outside of the bounds that its dataset declares, unless the last accepted one was as far
outside already.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb

from catalunya.datasets.model import Dataset, Expectation, FigureTolerance
from catalunya.quality.findings import Finding
from catalunya.sql import quote

_EXAMPLES = 3
_LONGITUDE = r"\[\s*([-+0-9.eE]+)\s*,"
_LATITUDE = r"\[\s*[-+0-9.eE]+\s*,\s*([-+0-9.eE]+)"
"""The numbers of a position in GeoJSON text."""
_GARBLED = "|".join(
    (
        # UTF-8 read as Windows-1252 or Latin-1: `Ã¨` for è, `Â·` for ·, `â€™` for ’; staging folds `Ã` + no-break space.
        "[ÃÂĂ][\\x{0080}-\\x{00bf}€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]",
        "\\p{Ll}[ÃÂĂ]",
        "(^|\\s)Ã\\s\\p{Ll}",
        "â(€|\\x{0080})",
        # UTF-8 read as Mac Roman or as code page 437 or 850: `√®`, `├¿`.
        "\\p{L}√",
        "[├┬]",
        # Bytes that could not be decoded, letters that could not be encoded.
        "\\x{fffd}",
        "\\p{L}\\?\\p{Ll}",
        # Escapes of HTML, JSON and addresses that nobody undid.
        "&(#[0-9]+|#x[0-9a-fA-F]+|[A-Za-z]+(grave|acute|cedil|uml|tilde|circ|middot));",
        "\\\\u00[0-9a-fA-F]{2}",
        "%[cC]3%[0-9a-fA-F]{2}",
    )
)
"""Text in a broken encoding; `SÃO JOÃO` and `Â` alone are not."""


def judge(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, snapshot_id: str, rows: str, reference: str | None
) -> list[Finding]:
    """Every expectation that the relation `rows` breaks; `reference` holds the last accepted snapshot."""
    return [
        *_rows(con, dataset, snapshot_id, rows, reference),
        *(
            finding
            for expectation in dataset.expectations
            for finding in _expectation(con, dataset, snapshot_id, expectation, rows, reference)
        ),
        *_garbled(con, dataset, snapshot_id, rows, reference),
    ]


def _rows(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, snapshot_id: str, rows: str, reference: str | None
) -> Iterator[Finding]:
    expected = dataset.expected_rows
    declared = Expectation(measure="rows", minimum=expected.minimum, maximum=expected.maximum)
    after = _measured(con, dataset, declared, rows)[None]
    if expected.minimum <= after <= expected.maximum:
        return
    before = _measured(con, dataset, declared, reference).get(None) if reference else None
    worse = before is None or _outside(declared, after) > _outside(declared, before)
    yield Finding(
        gate="expected",
        severity="error" if expected.strict and worse else "warn",
        message=f"{dataset.id}: {after:g} rows, expected are {expected.minimum} to {expected.maximum}",
        dataset_id=dataset.id,
        snapshot_id=snapshot_id,
        figures={"figure": "rows", "rows": int(after), "before": before, "after": after}
        | {"tolerated": {"minimum": expected.minimum, "maximum": expected.maximum}},
    )


def _expectation(
    con: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    snapshot_id: str,
    expectation: Expectation,
    rows: str,
    reference: str | None,
) -> Iterator[Finding]:
    """One finding of the group that is farthest outside, with the number of the others."""
    measured = _measured(con, dataset, expectation, rows)
    outside = sorted(
        (group for group in measured if _outside(expectation, measured[group])),
        key=lambda group: (-_outside(expectation, measured[group]), str(group)),
    )
    if not outside:
        return
    known = _measured(con, dataset, expectation, reference) if reference else {}
    worse = [g for g in outside if _outside(expectation, measured[g]) > _outside(expectation, known.get(g))]
    group = (worse or outside)[0]
    figure = expectation.label + (f" in {expectation.per} {group}" if expectation.per else "")
    more = f" (and {len(outside) - 1} more of {expectation.per})" if len(outside) > 1 else ""
    as_before = "" if worse else ", as in the last accepted snapshot"
    yield Finding(
        gate="expected",
        severity="error" if worse and expectation.severity == "error" else "warn",
        message=(
            f"{dataset.id}: snapshot {snapshot_id}: {figure}: {expectation.shown(measured[group])}{more}; "
            f"expected are {expectation.bounds}{as_before}"
        ),
        dataset_id=dataset.id,
        snapshot_id=snapshot_id,
        figures={
            "figure": figure,
            "before": known.get(group),
            "after": measured[group],
            "tolerated": {"minimum": expectation.minimum, "maximum": expectation.maximum},
        },
    )


def _measured(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, expectation: Expectation, rows: str
) -> dict[Any, float]:
    """The measured number by value of `per`, or under None."""
    conditions = [f"{name} = {quote(value)}" for name, value in expectation.where.items()]
    where = f"where {' and '.join(conditions)}" if conditions else ""
    group = expectation.per or "cast(null as varchar)"
    grouped = f"group by {expectation.per}" if expectation.per else ""
    found = con.execute(f"select {group}, {_aggregate(expectation)} from {rows} {where} {grouped}").fetchall()
    return {name: float(value) for name, value in found if value is not None}


def _aggregate(expectation: Expectation) -> str:
    column = expectation.column
    if expectation.measure == "rows":
        return "count(*)"
    if expectation.measure == "values":
        return f"count({column})"
    if expectation.measure == "distinct_values":
        return f"count(distinct {column})"
    if expectation.between is not None:
        low, high = expectation.between
        return _share(f"{column} between {low} and {high}")
    if expectation.pattern is not None:
        return _share(f"regexp_matches(cast({column} as varchar), {quote(expectation.pattern)})")
    assert expectation.box is not None
    west, south, east, north = expectation.box
    xs = f"regexp_extract_all({column}, {quote(_LONGITUDE)}, 1)"
    ys = f"regexp_extract_all({column}, {quote(_LATITUDE)}, 1)"
    return _share(f"{_all_between(xs, west, east)} and {_all_between(ys, south, north)}")


def _share(condition: str) -> str:
    """Null of no rows, so that nothing is measured of them; a missing value does not fulfil the condition."""
    return f"avg(case when {condition} then 1.0 else 0.0 end)"


def _all_between(texts: str, low: float, high: float) -> str:
    numbers = f"list_transform({texts}, lambda x: try_cast(x as double))"
    return f"(list_min({numbers}) >= {low} and list_max({numbers}) <= {high})"


def _outside(expectation: Expectation, value: float | None) -> float:
    """How far a value is outside of the bounds; 0 inside, and of no value."""
    if value is None:
        return 0.0
    below = expectation.minimum - value if expectation.minimum is not None else 0.0
    above = value - expectation.maximum if expectation.maximum is not None else 0.0
    return max(below, above, 0.0)


def _garbled(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, snapshot_id: str, rows: str, reference: str | None
) -> Iterator[Finding]:
    """Text columns with values in a broken encoding, with examples."""
    tolerance = dataset.figures.tolerance
    names = [c.name for c in dataset.columns if c.type == "string" and c.source != ("geometry",)]
    if not names:
        return
    counted = ", ".join(f"count({name}), count(*) filter ({_is_garbled(name)})" for name in names)
    after = _pairs(con, counted, rows)
    before = _pairs(con, counted, reference) if reference and any(n for _, n in after) else None
    for index, name in enumerate(names):
        values, garbled = after[index]
        if not garbled:
            continue
        known = before[index][1] if before else 0
        worse = garbled > known and _too_many(tolerance, garbled, values)
        examples = con.execute(
            f"select distinct {name} from {rows} where {_is_garbled(name)} order by 1 limit {_EXAMPLES}"
        ).fetchall()
        yield Finding(
            gate="expected",
            severity="error" if worse else "warn",
            message=(
                f"{dataset.id}: snapshot {snapshot_id}: {garbled} of {values} values of {name} are garbled: "
                + ", ".join(f'"{str(text)[:60]}"' for (text,) in examples)
                + f"; tolerated are {tolerance.garbled_values} values or {tolerance.garbled_share:.1%}"
            ),
            dataset_id=dataset.id,
            snapshot_id=snapshot_id,
            figures={
                "figure": f"garbled values of {name}",
                "before": known if before else None,
                "after": garbled,
                "tolerated": {"values": tolerance.garbled_values, "share": tolerance.garbled_share},
            },
        )


def _too_many(tolerance: FigureTolerance, garbled: int, values: int) -> bool:
    return garbled > tolerance.garbled_values and garbled > tolerance.garbled_share * values


def _is_garbled(name: str) -> str:
    return f"regexp_matches({name}, {quote(_GARBLED)})"


def _pairs(con: duckdb.DuckDBPyConnection, counted: str, rows: str) -> list[tuple[int, int]]:
    row = con.execute(f"select {counted} from {rows}").fetchone()
    assert row is not None
    return list(zip(row[::2], row[1::2], strict=True))
