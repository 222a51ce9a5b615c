"""What a snapshot is judged by before it becomes history: expectations, the last accepted one, earlier ones.

Reads staged files only. The bounds are those of the dataset's definition (`expectations`, `tolerance`, `figures`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from catalunya import sql
from catalunya.datasets.model import Dataset
from catalunya.lake.staged import Staged
from catalunya.quality.comparisons import AFTER, BEFORE, EXAMPLES, Comparison, change, compare, folded
from catalunya.quality.expectations import check_expectations
from catalunya.quality.findings import Finding, snapshot_finding
from catalunya.settings import ROOT

_THREADS = 2
_FIGURES = 20
"""So many figures of a snapshot are stored at most."""
SEEDS = ROOT / "dbt" / "mart" / "seeds"


@dataclass(frozen=True)
class Reference:
    """The last accepted snapshot of the same dataset: its record and its staged file."""

    staged: Staged
    path: Path


@dataclass(frozen=True)
class EarlierSnapshot:
    """An earlier accepted snapshot: its rows, and the figures that `snapshot_figures` made of it."""

    snapshot_id: str
    taken_at: datetime
    rows: int
    figures: dict[str, float] = field(default_factory=dict)
    by_hand: bool = False
    """True when a person accepted it: what came before it no longer counts."""


def _recent(history: tuple[EarlierSnapshot, ...], moment: datetime, days: int) -> list[EarlierSnapshot]:
    """What counts at a moment: the last one accepted by hand and all since, of the last so many days."""
    earlier = sorted((e for e in history if e.taken_at < moment), key=lambda e: e.taken_at)
    by_hand = [index for index, entry in enumerate(earlier) if entry.by_hand]
    since = earlier[by_hand[-1] :] if by_hand else earlier
    return [e for e in since if e.by_hand or e.taken_at >= moment - timedelta(days=days)]


def judge_snapshot(
    dataset: Dataset,
    staged: Staged,
    path: Path,
    *,
    reference: Reference | None,
    history: tuple[EarlierSnapshot, ...] = (),
    lifted: frozenset[str] = frozenset(),
    seeds: Path = SEEDS,
) -> list[Finding]:
    """Judge one staged snapshot by the gates `expected`, `rows` and `figures`.

    Args:
        dataset: its definition, with all bounds.
        staged: the record of the snapshot.
        path: its staged Parquet file.
        reference: the last accepted snapshot; None for the first one.
        history: earlier accepted snapshots, in any order.
        lifted: the gates whose refusal of this snapshot somebody lifted: their errors become warnings.
        seeds: folder of the dbt seeds that `figures.seeds` names.
    """
    recent = _recent(history, staged.taken_at, dataset.tolerance.memory_days)
    findings = [*_row_findings(dataset, staged, reference, recent)]
    with duckdb.connect(config={"threads": _THREADS}) as con:
        pair = Comparison(con, dataset, staged, reference.staged.snapshot_id if reference else None)
        _create_view(con, dataset, AFTER, path)
        if reference is not None:
            _create_view(con, dataset, BEFORE, reference.path)
        findings += check_expectations(pair)
        if reference is not None:
            findings += compare(pair, lifted)
        findings += _drift_findings(dataset, staged, recent, snapshot_figures(con, dataset, AFTER))
        findings += _seed_findings(pair, seeds)
    return [finding.lifted() if finding.gate in lifted else finding for finding in findings]


def snapshot_figures(con: duckdb.DuckDBPyConnection, dataset: Dataset, rows: str) -> dict[str, float]:
    """Return figures of a snapshot for later ones to be compared with: its rows, and totals by name.

    Of totals by the period of the key (a year) the newest period counts; other totals by a column are left out.

    Args:
        con: the connection that has the rows.
        dataset: the definition of the dataset.
        rows: the relation of the typed rows.
    """

    def value(query: str) -> float:
        row = con.execute(query).fetchone()
        return float(row[0] or 0) if row else 0.0

    figures = {"rows": value(f"select count(*) from {rows}")}
    for total in dataset.totals:
        if total.column is None or total.by not in {None, dataset.period} or len(figures) == _FIGURES:
            continue
        newest = f"where {total.by} = (select max({total.by}) from {rows})" if total.by else ""
        figures[total.name] = value(f"select sum({total.column}) from {rows} {newest}")
    return figures


def _create_view(con: duckdb.DuckDBPyConnection, dataset: Dataset, name: str, path: Path) -> None:
    """Create a view of the declared columns; one that the file lacks is null."""
    relation = sql.read_parquet([path])
    present = {row[0] for row in con.execute(f"describe select * from {relation}").fetchall()}
    columns = ", ".join(
        c.name if c.name in present else f"cast(null as {c.kind.sql}) as {c.name}" for c in dataset.columns
    )
    con.execute(f"create temp view {name} as select {columns} from {relation}")


def _row_findings(
    dataset: Dataset, staged: Staged, reference: Reference | None, recent: list[EarlierSnapshot]
) -> Iterator[Finding]:
    """Compare the number of rows with the last accepted snapshot, else with the largest recent one."""
    rows, limits = staged.rows_staged, dataset.tolerance

    def finding(before: int, text: str, **more: Any) -> Finding:
        figures = {"rows": rows, "rows_before": before, "tolerated": limits.model_dump(), **more}
        text = f"snapshot {staged.snapshot_id} has {rows} rows, {text}"
        return snapshot_finding("rows", staged, text, figures)

    if reference is not None:
        before = reference.staged.rows_staged
        if not _is_tolerated(dataset, before, rows):
            yield finding(
                before,
                f"the last release {before} ({change(before, rows)}); tolerated are -{limits.decrease_ratio:.0%} to "
                f"+{limits.increase_ratio:.0%}",
            )
            return
    largest = max(recent, key=lambda e: e.rows, default=None)
    if largest is None or largest.rows - rows <= limits.rows:
        return
    if rows < largest.rows * (1 - limits.memory_decrease_ratio):
        yield finding(
            largest.rows,
            f"the largest {_since(largest, dataset)} {largest.rows} ({_when(largest)}, {change(largest.rows, rows)}); "
            f"tolerated are -{limits.memory_decrease_ratio:.0%} in all",
            snapshot_before=largest.snapshot_id,
        )


def _is_tolerated(dataset: Dataset, before: int, rows: int) -> bool:
    if rows == 0 and before > 0:
        return False
    limits = dataset.tolerance
    if abs(rows - before) <= limits.rows:
        return True
    return before * (1 - limits.decrease_ratio) <= rows <= before * (1 + limits.increase_ratio)


def _drift_findings(
    dataset: Dataset, staged: Staged, recent: list[EarlierSnapshot], totals: dict[str, float]
) -> Iterator[Finding]:
    """Totals that many small changes took too far."""
    limits = dataset.tolerance
    for name, after in totals.items():
        known = [
            e for e in recent if e.figures.get(name) and e.rows >= dataset.figures.tolerance.minimum_rows
        ]
        if name == "rows" or not known:
            continue
        largest = max(known, key=lambda e: e.figures[name])
        smallest = min(known, key=lambda e: e.figures[name])
        if after < largest.figures[name] * (1 - limits.memory_decrease_ratio):
            extreme, which = largest, "largest"
        elif after > smallest.figures[name] * (1 + limits.memory_increase_ratio):
            extreme, which = smallest, "smallest"
        else:
            continue
        before = extreme.figures[name]
        tolerated = f"-{limits.memory_decrease_ratio:.0%} to +{limits.memory_increase_ratio:.0%}"
        text = f"snapshot {staged.snapshot_id}: total of {name} is {after:.10g}, the {which} {_since(extreme, dataset)} "
        text += f"{before:.10g} ({_when(extreme)}, {change(before, after)}); tolerated are {tolerated} in all"
        figures = {"figure": f"total of {name}", "before": before, "after": after, "tolerated": tolerated}
        figures["snapshot_before"] = extreme.snapshot_id
        yield snapshot_finding("figures", staged, text, figures)


def _since(entry: EarlierSnapshot, dataset: Dataset) -> str:
    if entry.by_hand:
        return "since the last one accepted by hand"
    return f"of the last {dataset.tolerance.memory_days} days"


def _when(entry: EarlierSnapshot) -> str:
    return f"snapshot {entry.snapshot_id} of {entry.taken_at:%Y-%m-%d}"


def _seed_findings(pair: Comparison, seeds: Path) -> Iterator[Finding]:
    """Warn of values that no row of a seed has, such as a new kind of service."""
    for column, seed in pair.dataset.figures.seeds.items():
        file = sql.quote_path(seeds / f"{seed}.csv")
        listed = f"select {folded(column)} from read_csv({file}, header = true, all_varchar = true)"
        found = pair.con.execute(
            f"""
            select {column}, count(*) from {AFTER}
            where {column} is not null and {folded(column)} not in ({listed})
            group by 1 order by 2 desc, 1
            """
        ).fetchall()
        if not found:
            continue
        named = ", ".join(f'"{value}" ({rows} rows)' for value, rows in found[:EXAMPLES])
        more = f" and {len(found) - EXAMPLES} more" if len(found) > EXAMPLES else ""
        text = f"snapshot {pair.staged.snapshot_id}: {column} that no row of the seed {seed} has: {named}{more}; add it "
        text += f"to dbt/mart/seeds/{seed}.csv"
        figures = {"figure": f"{column} not in {seed}", "after": [value for value, _ in found]}
        yield snapshot_finding("figures", pair.staged, text, figures, is_error=False)
