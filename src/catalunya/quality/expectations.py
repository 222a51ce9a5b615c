"""The gate `expected`: bounds that every snapshot must keep, the first one included.

A snapshot outside of the bounds that its dataset declares is refused, unless the last accepted one was as far outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from catalunya.datasets.gates import Expectation
from catalunya.quality.comparisons import AFTER, BEFORE, EXAMPLES, Comparison
from catalunya.quality.findings import Finding, snapshot_finding
from catalunya.sql import quote

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
        # Escapes of HTML, JSON and addresses that were not decoded.
        "&(#[0-9]+|#x[0-9a-fA-F]+|[A-Za-z]+(grave|acute|cedil|uml|tilde|circ|middot));",
        "\\\\u00[0-9a-fA-F]{2}",
        "%[cC]3%[0-9a-fA-F]{2}",
    )
)
"""Text in a broken encoding; `SÃO JOÃO` and `Â` alone are not."""


def check_expectations(pair: Comparison) -> list[Finding]:
    """Return a finding for each expectation that the snapshot does not meet."""
    findings = [*_rows(pair)]
    for expectation in pair.dataset.expectations:
        findings += _expectation(pair, expectation)
    return [*findings, *_garbled(pair)]


def _rows(pair: Comparison) -> Iterator[Finding]:
    expected = pair.dataset.expected_rows
    declared = Expectation(measure="rows", minimum=expected.minimum, maximum=expected.maximum)
    after = _measured(pair, declared, AFTER)[None]
    if expected.minimum <= after <= expected.maximum:
        return
    before = _measured(pair, declared, BEFORE).get(None) if pair.reference_id else None
    worse = before is None or _outside(declared, after) > _outside(declared, before)
    text = f"{after:g} rows, expected are {expected.minimum} to {expected.maximum}"
    figures = {
        "figure": "rows",
        "rows": int(after),
        "before": before,
        "after": after,
        "tolerated": _bounds(declared),
    }
    yield snapshot_finding("expected", pair.staged, text, figures, is_error=expected.strict and worse)


def _expectation(pair: Comparison, expectation: Expectation) -> Iterator[Finding]:
    """One finding about the group that is farthest outside, with the number of the others."""
    measured = _measured(pair, expectation, AFTER)
    outside = sorted(
        (group for group in measured if _outside(expectation, measured[group])),
        key=lambda group: (-_outside(expectation, measured[group]), str(group)),
    )
    if not outside:
        return
    known = _measured(pair, expectation, BEFORE) if pair.reference_id else {}
    worse = [g for g in outside if _outside(expectation, measured[g]) > _outside(expectation, known.get(g))]
    group = (worse or outside)[0]
    figure = expectation.label + (f" in {expectation.per} {group}" if expectation.per else "")
    more = f" (and {len(outside) - 1} more of {expectation.per})" if len(outside) > 1 else ""
    as_before = "" if worse else ", as in the last accepted snapshot"
    text = f"snapshot {pair.staged.snapshot_id}: {figure}: {expectation.formatted(measured[group])}{more}; expected are "
    text += f"{expectation.bounds}{as_before}"
    figures = {
        "figure": figure,
        "before": known.get(group),
        "after": measured[group],
        "tolerated": _bounds(expectation),
    }
    is_error = bool(worse) and expectation.severity == "error"
    yield snapshot_finding("expected", pair.staged, text, figures, is_error=is_error)


def _bounds(expectation: Expectation) -> dict[str, float | None]:
    return {"minimum": expectation.minimum, "maximum": expectation.maximum}


def _measured(pair: Comparison, expectation: Expectation, rows: str) -> dict[Any, float]:
    """The measured number by value of `per`, or under None."""
    conditions = [f"{name} = {quote(value)}" for name, value in expectation.where.items()]
    where = f"where {' and '.join(conditions)}" if conditions else ""
    group = expectation.per or "cast(null as varchar)"
    grouped = f"group by {expectation.per}" if expectation.per else ""
    query = f"select {group}, {_aggregate(expectation)} from {rows} {where} {grouped}"
    return {name: float(value) for name, value in pair.con.execute(query).fetchall() if value is not None}


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
    """The share of rows, null for no rows; a missing value does not fulfil the condition."""
    return f"avg(case when {condition} then 1.0 else 0.0 end)"


def _all_between(texts: str, low: float, high: float) -> str:
    numbers = f"list_transform({texts}, lambda x: try_cast(x as double))"
    return f"(list_min({numbers}) >= {low} and list_max({numbers}) <= {high})"


def _outside(expectation: Expectation, value: float | None) -> float:
    """How far a value is outside of the bounds; 0 inside, and for no value."""
    if value is None:
        return 0.0
    below = expectation.minimum - value if expectation.minimum is not None else 0.0
    above = value - expectation.maximum if expectation.maximum is not None else 0.0
    return max(below, above, 0.0)


def _garbled(pair: Comparison) -> Iterator[Finding]:
    """Text columns with values in a broken encoding, with examples."""
    tolerance = pair.dataset.figures.tolerance
    names = [c.name for c in pair.dataset.columns if c.type == "string" and not c.is_geometry]
    if not names:
        return
    counts = ", ".join(f"count({name}), count(*) filter ({_is_garbled(name)})" for name in names)
    after = pair.row(f"select {counts} from {AFTER}")
    before = pair.row(f"select {counts} from {BEFORE}") if pair.reference_id and any(after[1::2]) else None
    for index, name in enumerate(names):
        values, garbled = after[2 * index : 2 * index + 2]
        if not garbled:
            continue
        known = before[2 * index + 1] if before else 0
        examples = pair.con.execute(
            f"select distinct {name} from {AFTER} where {_is_garbled(name)} order by 1 limit {EXAMPLES}"
        ).fetchall()
        named = ", ".join(f'"{str(text)[:60]}"' for (text,) in examples)
        text = f"snapshot {pair.staged.snapshot_id}: {garbled} of {values} values of {name} are garbled: {named}; "
        text += f"tolerated are {tolerance.garbled_values} values or {tolerance.garbled_share:.1%}"
        figures = {
            "figure": f"garbled values of {name}",
            "before": known if before else None,
            "after": garbled,
        }
        figures["tolerated"] = {"values": tolerance.garbled_values, "share": tolerance.garbled_share}
        is_error = garbled > max(known, tolerance.garbled_values, tolerance.garbled_share * values)
        yield snapshot_finding("expected", pair.staged, text, figures, is_error=is_error)


def _is_garbled(name: str) -> str:
    return f"regexp_matches({name}, {quote(_GARBLED)})"
