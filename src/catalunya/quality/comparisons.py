"""The gate `figures`: the figures of a snapshot compared with those of the last accepted one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from catalunya.datasets.gates import Total
from catalunya.datasets.model import Column, Dataset
from catalunya.lake.staged import Staged
from catalunya.quality.findings import Finding, snapshot_finding

AFTER, BEFORE = "snapshot_rows", "reference_rows"
"""The relations with the rows of the snapshot and of the last accepted one."""
EXAMPLES = 3
_FEW_VALUES = 2000
_FEW_SHARE = 0.1
"""A text column is compared by its values when it has at most so many, and at most so many per row."""


@dataclass(frozen=True)
class Comparison:
    """A snapshot and the last accepted one, whose rows are in `AFTER` and `BEFORE`."""

    con: duckdb.DuckDBPyConnection
    dataset: Dataset
    staged: Staged
    """The record of the snapshot."""
    reference_id: str | None
    """None for the first snapshot: there is no relation `BEFORE` then."""

    def row(self, query: str) -> tuple[Any, ...]:
        """Return the only row of a query."""
        row = self.con.execute(query).fetchone()
        assert row is not None
        return row

    def rows(self, query: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return the only row of a query on `{rows}`: of the snapshot, and of the last accepted one."""
        return self.row(query.format(rows=AFTER)), self.row(query.format(rows=BEFORE))

    def finding(self, figure: str, before: float, after: float, tolerated: float, text: str) -> Finding:
        """Return a finding about a figure; `text` continues the sentence that begins with its name."""
        figures: dict[str, Any] = {"figure": figure, "before": before, "after": after, "tolerated": tolerated}
        figures["snapshot_before"] = self.reference_id
        text = f"snapshot {self.staged.snapshot_id}: {figure} {text}"
        return snapshot_finding("figures", self.staged, text, figures)

    def share(self, figure: str, part: float, whole: float, tolerated: float, text: str) -> Finding:
        """Return a finding about a share that is 0 when nothing changes, as `finding` does."""
        return self.finding(figure, 0.0, round(part / whole, 6), tolerated, text)

    def rise(self, figure: str, then: float, now: float, tolerated: float, example: str = "") -> Finding:
        """Return a finding about a share that rose too far."""
        text = f"{example}is {now:.1%}, in the last accepted snapshot {then:.1%}; tolerated is a rise of "
        return self.finding(
            figure, round(then, 6), round(now, 6), tolerated, f"{text}{100 * tolerated:g} points"
        )


def compare(pair: Comparison, lifted: frozenset[str] = frozenset()) -> list[Finding]:
    """Return a finding for each figure that is too far from that of the last accepted snapshot.

    With the gate `schema` lifted somebody accepted that columns are missing or of another type: the figures of
    columns that are wholly null then only warn.
    """
    columns = pair.dataset.columns
    counts = ", ".join(f"count({column.name})" for column in columns)
    [rows_after, *values_after], [rows_before, *values_before] = pair.rows(
        f"select count(*), {counts} from {{rows}}"
    )
    if not rows_before:
        return []
    by_column: list[tuple[str | None, Finding]] = []
    for column, after, before in zip(columns, values_after, values_before, strict=True):
        found = [*_null_share(pair, column, after, before, rows_after, rows_before), *_spread(pair, column)]
        by_column += [(column.name, finding) for finding in found]
    for total in pair.dataset.totals:
        by_column += [(total.column, finding) for finding in _total(pair, total)]
    empty = {column.name for column, after in zip(columns, values_after, strict=True) if after == 0}
    return [
        *_missing_keys(pair),
        *(f.lifted() if name in empty and "schema" in lifted else f for name, f in by_column),
        *_changed(pair),
    ]


def _null_share(
    pair: Comparison, column: Column, after: int, before: int, rows_after: int, rows_before: int
) -> Iterator[Finding]:
    """A column that lost many of its values, or all."""
    tolerance = pair.dataset.figures.tolerance
    if not rows_after:
        return
    now, then = 1 - after / rows_after, 1 - before / rows_before
    is_empty = before >= tolerance.minimum_rows and now == 1
    lost = (now - then) * rows_after
    if is_empty or (now - then > tolerance.null_share and lost > pair.dataset.tolerance.rows):
        yield pair.rise(f"share of rows without {column.name}", then, now, tolerance.null_share)


def _missing_keys(pair: Comparison) -> Iterator[Finding]:
    """Rows of the last accepted snapshot whose key the snapshot lacks, even if as many others were added.

    A period that the snapshot no longer covers is no loss.
    """
    limits, key, period = pair.dataset.tolerance, pair.dataset.key, pair.dataset.period
    columns = ", ".join(key)
    known, missing = pair.row(
        f"""
        select count(*), count(*) filter (after.{key[0]} is null)
        from {BEFORE} as before
        left join (select distinct {columns} from {AFTER}) as after using ({columns})
        where {f"before.{period} in (select {period} from {AFTER})" if period else "true"}
        """
    )
    if missing > limits.rows and missing > limits.decrease_ratio * known:
        text = f"is {missing / known:.1%} ({missing} of the {known} rows of the last accepted snapshot); tolerated are "
        text += f"{limits.decrease_ratio:.0%}"
        yield pair.share(
            f"share of known {columns} that are gone", missing, known, limits.decrease_ratio, text
        )


def _changed(pair: Comparison) -> Iterator[Finding]:
    """Columns whose value differs in many rows of the same key, even if totals and distributions stay."""
    dataset = pair.dataset
    key, tolerance = dataset.key, dataset.figures.tolerance
    columns = [c for c in dataset.columns if c.name not in key and not c.is_geometry]
    if not columns:
        return
    counts = ", ".join(
        f"count(*) filter (before.{c.name} is not null and after.{c.name} is not null), "
        f"count(*) filter ({_differs(c, tolerance.total_ratio)})"
        for c in columns
    )
    row = pair.row(
        f"select {counts} from {BEFORE} as before inner join {AFTER} as after using ({', '.join(key)})"
    )
    for column, compared, changed in zip(columns, row[::2], row[1::2], strict=True):
        if changed > dataset.tolerance.rows and changed > tolerance.changed_share * compared:
            text = (
                f"than in the last accepted snapshot is {changed / compared:.1%} ({changed} of {compared}); "
            )
            text += f"tolerated are {100 * tolerance.changed_share:g} %"
            figure = f"share of rows with another {column.name}"
            yield pair.share(figure, changed, compared, tolerance.changed_share, text)


def _differs(column: Column, ratio: float) -> str:
    """SQL condition that two values of a column, both known, are not the same; numbers by more than `ratio`."""
    before, after = f"before.{column.name}", f"after.{column.name}"
    if column.type == "string":
        return f"case when {before} <> {after} then {folded(before)} <> {folded(after)} else false end"
    if column.kind.is_number:
        return f"abs({after} - {before}) > {ratio} * abs({before})"
    return f"{before} <> {after}"


def _spread(pair: Comparison, column: Column) -> Iterator[Finding]:
    """The values of a column and how often each occurs."""
    vocabulary = pair.dataset.figures.vocabulary
    if column.name in pair.dataset.key and column.name not in vocabulary:
        return
    if column.type != "string":
        yield from _most_frequent(pair, column)
    elif column.name in vocabulary or _has_few_values(pair, column):
        yield from _vocabulary(pair, column)


def _has_few_values(pair: Comparison, column: Column) -> bool:
    distinct, rows = pair.row(f"select approx_count_distinct({column.name}), count(*) from {BEFORE}")
    return bool(distinct <= min(_FEW_VALUES, max(EXAMPLES, _FEW_SHARE * rows)))


def _most_frequent(pair: Comparison, column: Column) -> Iterator[Finding]:
    """A number or date that became the same in many rows."""
    tolerance = pair.dataset.figures.tolerance
    counted = f"select {column.name} as value, count(*) as n from {{rows}} where {column.name} is not null group by 1"
    after, before = pair.rows(f"select max(n), sum(n), arg_max(value, n) from ({counted})")
    if not after[1] or not before[1]:
        return
    now, then = float(after[0] / after[1]), float(before[0] / before[1])
    moved = (now - then) * float(after[1])
    if now - then > tolerance.distribution_share and moved > pair.dataset.tolerance.rows:
        figure = f"share of the most frequent {column.name}"
        yield pair.rise(figure, then, now, tolerance.distribution_share, f"({after[2]}) ")


def _vocabulary(pair: Comparison, column: Column) -> Iterator[Finding]:
    """Values that the last accepted snapshot does not have, else a distribution that differs."""
    tolerance = pair.dataset.figures.tolerance

    def counted(rows: str) -> str:
        return (
            f"select {folded('value')} as folded, min(value) as value, sum(n) as n from ("
            f"select {column.name} as value, count(*) as n from {rows} where {column.name} is not null group by 1"
            ") group by 1"
        )

    n_after, n_before, unseen, moved, examples = pair.row(
        f"""
        with after as ({counted(AFTER)}),
        before as ({counted(BEFORE)}),
        sums as (select (select sum(n) from after) as n_after, (select sum(n) from before) as n_before)
        select any_value(n_after)::double, any_value(n_before)::double,
            coalesce(sum(after.n) filter (before.n is null), 0)::double,
            (0.5 * sum(abs(coalesce(after.n, 0) / n_after - coalesce(before.n, 0) / n_before)))::double,
            list(after.value order by after.n desc, after.value)
                filter (before.n is null and after.n is not null)
        from after full join before using (folded) cross join sums
        """
    )
    if not n_after or not n_before:
        return
    share = unseen / n_after
    if share > tolerance.unseen_share and unseen > pair.dataset.tolerance.rows:
        named = ", ".join(f'"{value}"' for value in examples[:EXAMPLES])
        text = f"is {share:.1%} ({unseen:g} of {n_after:g} rows, such as {named}); tolerated are "
        text += f"{100 * tolerance.unseen_share:g} %"
        yield pair.share(
            f"share of {column.name} not seen before", unseen, n_after, tolerance.unseen_share, text
        )
    elif moved > tolerance.distribution_share and moved * n_after > pair.dataset.tolerance.rows:
        text = f"differs from that of the last accepted snapshot in {moved:.1%} of the rows; tolerated are "
        text += f"{100 * tolerance.distribution_share:g} %"
        yield pair.share(f"distribution of {column.name}", moved, 1, tolerance.distribution_share, text)


@dataclass(frozen=True)
class _Sum:
    """A total, and the number of rows that it sums."""

    value: float
    rows: int


def _total(pair: Comparison, total: Total) -> Iterator[Finding]:
    """A total, or those of a column's values, that changed too much; of several the farthest is named."""
    ratio = pair.dataset.figures.tolerance.total_ratio
    after, before = _sums(pair, total, AFTER), _sums(pair, total, BEFORE)
    if total.by is not None and total.by == pair.dataset.period:
        before |= _of_newest_period(before, after)
    changes = [
        (abs(after.get(group, _Sum(0, 0)).value / known.value - 1), group)
        for group, known in before.items()
        if known.value and _is_compared(pair, total, known, before)
    ]
    beyond = sorted(((by, group) for by, group in changes if by > ratio), key=lambda b: (-b[0], str(b[1])))
    if not beyond:
        return
    worst = beyond[0][1]
    then, now = before[worst].value, after.get(worst, _Sum(0, 0)).value
    of = f" of {total.by} {worst}" if total.by else ""
    more = f"; {len(beyond) - 1} more of {total.by} are beyond it" if len(beyond) > 1 else ""
    text = f"is {now:.10g}, in the last accepted snapshot {then:.10g} ({change(then, now)}); tolerated are "
    text += f"-{ratio:.0%} to +{ratio:.0%}{more}"
    yield pair.finding(f"total of {total.column or 'rows'}{of}", then, now, ratio, text)


def _sums(pair: Comparison, total: Total, rows: str) -> dict[Any, _Sum]:
    """The sum of each value of `total.by`, or one under None."""
    value, count = (f"sum({total.column})", f"count({total.column})") if total.column else ("count(*)",) * 2
    group = "null"
    if total.by is not None:
        group = folded(total.by) if pair.dataset.column(total.by).type == "string" else total.by
    where = f"where {total.by} is not null group by 1" if total.by else ""
    found = pair.con.execute(f"select {group}, {value}::double, {count} from {rows} {where}").fetchall()
    return {name: _Sum(total_of or 0.0, count) for name, total_of, count in found}


def _of_newest_period(before: dict[Any, _Sum], after: dict[Any, _Sum]) -> dict[Any, _Sum]:
    """What a period that the last accepted snapshot lacks is compared with: the newest period before it."""
    return {
        period: before[max(earlier)]
        for period in after
        if period not in before and (earlier := [known for known in before if known < period])
    }


def _is_compared(pair: Comparison, total: Total, known: _Sum, before: dict[Any, _Sum]) -> bool:
    """Whether a total is of enough rows, and large enough beside the others, to be compared."""
    tolerance = pair.dataset.figures.tolerance
    if known.rows < tolerance.minimum_rows:
        return False
    if total.by is None or total.by == pair.dataset.period:
        return True
    whole = sum(abs(s.value) for s in before.values())
    share = tolerance.minimum_share if total.minimum_share is None else total.minimum_share
    return abs(known.value) >= share * whole


def change(before: float, after: float) -> str:
    """Return the change as `+3.2 %`, or `from none`."""
    return f"{100 * (after - before) / before:+.1f} %" if before else "from none"


def folded(text: str) -> str:
    """Return SQL of a text without case, accents, punctuation and spaces, which do not count in comparisons."""
    return f"trim(regexp_replace(lower(strip_accents({text})), '[^\\p{{L}}\\p{{N}}]+', ' ', 'g'))"
