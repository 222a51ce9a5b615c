"""The figures of a snapshot beside those of the last accepted one: the gate `figures`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from catalunya.datasets.model import Column, Dataset, Total
from catalunya.quality.findings import Finding

_EXAMPLES = 3
_FEW_VALUES = 2000
_FEW_SHARE = 0.1
"""A text column is compared by its values when it has at most so many, and at most so many per row."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot whose rows are in a relation of the connection."""

    snapshot_id: str
    rows: str


@dataclass(frozen=True)
class _Pair:
    """What is compared, and on which connection."""

    con: duckdb.DuckDBPyConnection
    dataset: Dataset
    after: Snapshot
    before: Snapshot

    def both(self, query: str) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """The rows of a query with `{rows}` in it: of the snapshot, and of the last accepted one."""
        after = self.con.execute(query.format(rows=self.after.rows)).fetchall()
        return after, self.con.execute(query.format(rows=self.before.rows)).fetchall()

    def finding(self, figure: str, before: Any, after: Any, tolerated: Any, *, words: str) -> Finding:
        return Finding(
            gate="figures",
            severity="error",
            message=f"{self.dataset.id}: snapshot {self.after.snapshot_id}: {figure} {words}",
            dataset_id=self.dataset.id,
            snapshot_id=self.after.snapshot_id,
            figures={"figure": figure, "before": before, "after": after, "tolerated": tolerated}
            | {"snapshot_before": self.before.snapshot_id},
        )


def compare(
    con: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    after: Snapshot,
    before: Snapshot,
    lifted: frozenset[str] = frozenset(),
) -> list[Finding]:
    """Every figure of `after` that is too far from that of `before`.

    With the gate `schema` lifted somebody accepted that columns are missing or of another type: the figures of
    columns that are wholly null then only warn.
    """
    pair = _Pair(con, dataset, after, before)
    filled_after, filled_before = _filled(pair)
    if not filled_before.rows:
        return []
    findings = [*_keys_gone(pair)]
    for column in dataset.columns:
        found = [*_null_share(pair, column, filled_after, filled_before), *_spread(pair, column)]
        is_gone = filled_after.values[column.name] == 0
        findings += [f.lifted() if is_gone and "schema" in lifted else f for f in found]
    for total in dataset.totals:
        is_gone = total.column is not None and filled_after.values[total.column] == 0
        findings += [f.lifted() if is_gone and "schema" in lifted else f for f in _total(pair, total)]
    return [*findings, *_changed(pair)]


@dataclass(frozen=True)
class _Filled:
    """Rows of a snapshot, and the values of each column."""

    rows: int
    values: dict[str, int]


def _filled(pair: _Pair) -> tuple[_Filled, _Filled]:
    names = [column.name for column in pair.dataset.columns]
    counts = ", ".join(f"count({name})" for name in names)
    [after], [before] = pair.both(f"select count(*), {counts} from {{rows}}")
    return (
        _Filled(after[0], dict(zip(names, after[1:], strict=True))),
        _Filled(before[0], dict(zip(names, before[1:], strict=True))),
    )


def _null_share(pair: _Pair, column: Column, after: _Filled, before: _Filled) -> Iterator[Finding]:
    """A column that lost many of its values, or all."""
    tolerance = pair.dataset.figures.tolerance
    if not after.rows:
        return
    now = 1 - after.values[column.name] / after.rows
    then = 1 - before.values[column.name] / before.rows
    is_gone = before.values[column.name] >= tolerance.minimum_rows and now == 1
    lost = (now - then) * after.rows
    if is_gone or (now - then > tolerance.null_share and lost > pair.dataset.tolerance.rows):
        yield pair.finding(
            f"share of rows without {column.name}",
            round(then, 6),
            round(now, 6),
            tolerance.null_share,
            words=f"is {now:.1%}, in the last accepted snapshot {then:.1%}; tolerated is a rise of "
            f"{100 * tolerance.null_share:g} points",
        )


def _rows_of_both_periods(pair: _Pair) -> str:
    """SQL condition on the rows `before` of the last accepted snapshot: a period that the snapshot dropped is no loss."""
    period = pair.dataset.period
    return f"before.{period} in (select {period} from {pair.after.rows})" if period else "true"


def _keys_gone(pair: _Pair) -> Iterator[Finding]:
    """Rows of the last accepted snapshot whose key the snapshot lacks, also when as many others came."""
    limits, key = pair.dataset.tolerance, pair.dataset.key
    row = pair.con.execute(
        f"""
        select count(*), count(*) filter (after.{key[0]} is null)
        from {pair.before.rows} as before
        left join (select distinct {", ".join(key)} from {pair.after.rows}) as after using ({", ".join(key)})
        where {_rows_of_both_periods(pair)}
        """
    ).fetchone()
    assert row is not None
    known, gone = row
    if gone > limits.rows and gone > limits.decrease_ratio * known:
        yield pair.finding(
            f"share of known {', '.join(key)} that are gone",
            0.0,
            round(gone / known, 6),
            limits.decrease_ratio,
            words=f"is {gone / known:.1%} ({gone} of the {known} rows of the last accepted snapshot); tolerated are "
            f"{limits.decrease_ratio:.0%}",
        )


def _changed(pair: _Pair) -> Iterator[Finding]:
    """Columns whose value differs in many rows of the same key, also when totals and distributions stay."""
    dataset = pair.dataset
    key, tolerance = dataset.key, dataset.figures.tolerance
    columns = [c for c in dataset.columns if c.name not in key and c.source != ("geometry",)]
    if not columns:
        return
    counts = ", ".join(
        f"count(*) filter (before.{c.name} is not null and after.{c.name} is not null), "
        f"count(*) filter ({_differs(c, tolerance.total_ratio)})"
        for c in columns
    )
    row = pair.con.execute(
        f"select {counts} from {pair.before.rows} as before "
        f"inner join {pair.after.rows} as after using ({', '.join(key)})"
    ).fetchone()
    assert row is not None
    for column, compared, changed in zip(columns, row[::2], row[1::2], strict=True):
        if changed > dataset.tolerance.rows and changed > tolerance.changed_share * compared:
            yield pair.finding(
                f"share of rows with another {column.name}",
                0.0,
                round(changed / compared, 6),
                tolerance.changed_share,
                words=f"than in the last accepted snapshot is {changed / compared:.1%} ({changed} of {compared}); "
                f"tolerated are {100 * tolerance.changed_share:g} %",
            )


def _differs(column: Column, ratio: float) -> str:
    """SQL condition that two values of a column, both known, are not the same; numbers by more than `ratio`."""
    before, after = f"before.{column.name}", f"after.{column.name}"
    if column.type == "string":
        return f"case when {before} <> {after} then {folded(before)} <> {folded(after)} else false end"
    if column.kind.is_number:
        return f"abs({after} - {before}) > {ratio} * abs({before})"
    return f"{before} <> {after}"


def _spread(pair: _Pair, column: Column) -> Iterator[Finding]:
    if column.name in pair.dataset.key and column.name not in pair.dataset.figures.vocabulary:
        return
    if column.type != "string":
        yield from _most_frequent(pair, column)
    elif column.name in pair.dataset.figures.vocabulary or _has_few_values(pair, column):
        yield from _vocabulary(pair, column)


def _has_few_values(pair: _Pair, column: Column) -> bool:
    row = pair.con.execute(
        f"select approx_count_distinct({column.name}), count(*) from {pair.before.rows}"
    ).fetchone()
    assert row is not None
    return bool(row[0] <= min(_FEW_VALUES, max(_EXAMPLES, _FEW_SHARE * row[1])))


def _most_frequent(pair: _Pair, column: Column) -> Iterator[Finding]:
    """A number or date that became the same in many rows."""
    tolerance = pair.dataset.figures.tolerance
    counted = f"select {column.name} as value, count(*) as n from {{rows}} where {column.name} is not null group by 1"
    [after], [before] = pair.both(f"select max(n), sum(n), arg_max(value, n) from ({counted})")
    if not after[1] or not before[1]:
        return
    now, then = after[0] / after[1], before[0] / before[1]
    moved = (now - then) * float(after[1])
    if now - then > tolerance.distribution_share and moved > pair.dataset.tolerance.rows:
        yield pair.finding(
            f"share of the most frequent {column.name}",
            round(float(then), 6),
            round(float(now), 6),
            tolerance.distribution_share,
            words=f"({after[2]}) is {now:.1%}, in the last accepted snapshot {then:.1%}; tolerated is a rise of "
            f"{100 * tolerance.distribution_share:g} points",
        )


def _vocabulary(pair: _Pair, column: Column) -> Iterator[Finding]:
    """Values that the last accepted snapshot does not have, else a distribution that is another one."""
    tolerance = pair.dataset.figures.tolerance

    def counted(rows: str) -> str:
        return (
            f"select {folded('value')} as folded, min(value) as value, sum(n) as n from ("
            f"select {column.name} as value, count(*) as n from {rows} where {column.name} is not null group by 1"
            ") group by 1"
        )

    row = pair.con.execute(
        f"""
        with after as ({counted(pair.after.rows)}),
        before as ({counted(pair.before.rows)}),
        sums as (select (select sum(n) from after) as n_after, (select sum(n) from before) as n_before)
        select any_value(n_after)::double, any_value(n_before)::double,
            coalesce(sum(after.n) filter (before.n is null), 0)::double,
            (0.5 * sum(abs(coalesce(after.n, 0) / n_after - coalesce(before.n, 0) / n_before)))::double,
            list({{'value': after.value, 'n': after.n}} order by after.n desc, after.value)
                filter (before.n is null and after.n is not null)
        from after full join before using (folded) cross join sums
        """
    ).fetchone()
    assert row is not None
    n_after, n_before, unseen, moved, examples = row
    if not n_after or not n_before:
        return
    share = unseen / n_after
    if share > tolerance.unseen_share and unseen > pair.dataset.tolerance.rows:
        named = ", ".join(f'"{example["value"]}"' for example in examples[:_EXAMPLES])
        yield pair.finding(
            f"share of {column.name} not seen before",
            0.0,
            round(share, 6),
            tolerance.unseen_share,
            words=f"is {share:.1%} ({unseen:g} of {n_after:g} rows, such as {named}); tolerated are "
            f"{100 * tolerance.unseen_share:g} %",
        )
    elif moved > tolerance.distribution_share and moved * n_after > pair.dataset.tolerance.rows:
        yield pair.finding(
            f"distribution of {column.name}",
            0.0,
            round(moved, 6),
            tolerance.distribution_share,
            words=f"differs from that of the last accepted snapshot in {moved:.1%} of the rows; tolerated are "
            f"{100 * tolerance.distribution_share:g} %",
        )


@dataclass(frozen=True)
class _Sum:
    """A total, and the rows it sums."""

    value: float
    rows: int


def _total(pair: _Pair, total: Total) -> Iterator[Finding]:
    """A total, or those of a column's values, that changed too much; of several the farthest is named first."""
    ratio = pair.dataset.figures.tolerance.total_ratio
    after, before = (_sums(pair, total, snapshot) for snapshot in (pair.after, pair.before))
    if total.by is not None and total.by == pair.dataset.period:
        before |= _periods_before(before, after)
    beyond = [
        (abs(after.get(group, _Sum(0, 0)).value / known.value - 1), group)
        for group, known in before.items()
        if known.value and _is_compared(pair, total, known, before)
    ]
    beyond = sorted(((by, group) for by, group in beyond if by > ratio), key=lambda b: (-b[0], str(b[1])))
    if not beyond:
        return
    worst = beyond[0][1]
    then, now = before[worst].value, after.get(worst, _Sum(0, 0)).value
    of = f" of {total.by} {worst}" if total.by else ""
    more = f"; {len(beyond) - 1} more of {total.by} are beyond it" if len(beyond) > 1 else ""
    yield pair.finding(
        f"total of {total.column or 'rows'}{of}",
        then,
        now,
        ratio,
        words=f"is {now:.10g}, in the last accepted snapshot {then:.10g} ({change(then, now)}); tolerated are "
        f"-{ratio:.0%} to +{ratio:.0%}{more}",
    )


def _sums(pair: _Pair, total: Total, snapshot: Snapshot) -> dict[Any, _Sum]:
    value, rows = (f"sum({total.column})", f"count({total.column})") if total.column else ("count(*)",) * 2
    group = "null"
    if total.by is not None:
        group = folded(total.by) if pair.dataset.column(total.by).type == "string" else total.by
    where = f"where {total.by} is not null group by 1" if total.by else ""
    found = pair.con.execute(
        f"select {group}, {value}::double, {rows} from {snapshot.rows} {where}"
    ).fetchall()
    return {name: _Sum(total_of or 0.0, count) for name, total_of, count in found}


def _periods_before(before: dict[Any, _Sum], after: dict[Any, _Sum]) -> dict[Any, _Sum]:
    """Of a period that the last accepted snapshot lacks, the newest period before it stands in."""
    return {
        period: before[max(earlier)]
        for period in after
        if period not in before and (earlier := [known for known in before if known < period])
    }


def _is_compared(pair: _Pair, total: Total, known: _Sum, before: dict[Any, _Sum]) -> bool:
    tolerance = pair.dataset.figures.tolerance
    if known.rows < tolerance.minimum_rows:
        return False
    if total.by is None or total.by == pair.dataset.period:
        return True
    whole = sum(abs(s.value) for s in before.values())
    share = tolerance.minimum_share if total.minimum_share is None else total.minimum_share
    return abs(known.value) >= share * whole


def change(before: float, after: float) -> str:
    """`+3.2 %`, or `from none`."""
    return f"{100 * (after - before) / before:+.1f} %" if before else "from none"


def folded(text: str) -> str:
    """SQL of a text without what does not count when values are compared: case, accents, punctuation, spaces."""
    return f"trim(regexp_replace(lower(strip_accents({text})), '[^\\p{{L}}\\p{{N}}]+', ' ', 'g'))"
