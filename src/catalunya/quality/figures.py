"""What a snapshot is compared with before it becomes history: the last accepted one, and what earlier ones had.

Works on staged files alone. The bounds are those of the dataset's definition (`tolerance`, `figures`); what must hold
of the first snapshot too is in `expectations`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from catalunya import sql
from catalunya.datasets.model import Dataset
from catalunya.quality import expectations
from catalunya.quality.comparisons import Snapshot, change, compare, folded
from catalunya.quality.findings import Finding
from catalunya.settings import ROOT

if TYPE_CHECKING:
    from catalunya.lake.staged import Staged

_AFTER, _BEFORE = "snapshot_rows", "reference_rows"
_THREADS = 2
_FIGURES = 20
"""So many figures of a snapshot are remembered at most."""
SEEDS = ROOT / "dbt" / "mart" / "seeds"


@dataclass(frozen=True)
class Reference:
    """The last accepted snapshot of the same dataset: its record and its staged file."""

    snapshot_id: str
    staged: Staged
    path: Path


@dataclass(frozen=True)
class Remembered:
    """An earlier accepted snapshot: its rows, and the figures that `snapshot_figures` made of it."""

    snapshot_id: str
    taken_at: datetime
    rows: int
    figures: dict[str, float] = field(default_factory=dict)
    by_hand: bool = False
    """True when a person accepted it: what came before it no longer counts."""


@dataclass(frozen=True)
class Memory:
    """Earlier accepted snapshots of a dataset, in any order."""

    entries: tuple[Remembered, ...] = ()

    def until(self, moment: datetime, days: int) -> tuple[Remembered, ...]:
        """What counts at a moment: the last one accepted by hand and all since, of the last so many days."""
        earlier = sorted((e for e in self.entries if e.taken_at < moment), key=lambda e: e.taken_at)
        by_hand = [index for index, entry in enumerate(earlier) if entry.by_hand]
        since = earlier[by_hand[-1] :] if by_hand else earlier
        return tuple(e for e in since if e.by_hand or e.taken_at >= moment - timedelta(days=days))


def judge_snapshot(
    dataset: Dataset,
    staged: Staged,
    path: Path,
    *,
    reference: Reference | None,
    memory: Memory,
    lifted: frozenset[str] = frozenset(),
    seeds: Path = SEEDS,
) -> list[Finding]:
    """Judge one staged snapshot by the gates `expected`, `rows` and `figures`.

    Args:
        dataset: its definition, with all bounds.
        staged: the record of the snapshot.
        path: its staged Parquet file.
        reference: the last accepted snapshot; None judges a first one.
        memory: what earlier accepted snapshots had.
        lifted: the gates whose refusal of this snapshot somebody lifted: their errors become warnings.
        seeds: folder of the dbt seeds that `figures.seeds` names.
    """
    findings = [*_row_findings(dataset, staged, reference, memory)]
    with duckdb.connect(config={"threads": _THREADS}) as con:
        _create_view(con, dataset, _AFTER, path)
        before = None
        if reference is not None:
            _create_view(con, dataset, _BEFORE, reference.path)
            before = _BEFORE
        findings += expectations.judge(con, dataset, staged.snapshot_id, _AFTER, before)
        if reference is not None:
            after, known = Snapshot(staged.snapshot_id, _AFTER), Snapshot(reference.snapshot_id, _BEFORE)
            findings += compare(con, dataset, after, known, lifted)
        findings += _memory_findings(dataset, staged, memory, _figures(con, dataset, _AFTER))
        findings += _seed_findings(con, dataset, staged.snapshot_id, seeds)
    return [finding.lifted() if finding.gate in lifted else finding for finding in findings]


def snapshot_figures(dataset: Dataset, source: duckdb.DuckDBPyConnection | Path) -> dict[str, float]:
    """Small figures of a staged snapshot for later ones to be compared with: rows, and totals by name.

    Of totals by the period of the key (a year) the newest period counts; other totals by a column are left out.

    Args:
        dataset: the definition of the dataset.
        source: a staged Parquet file, or a connection with the snapshot's typed rows in a relation `staged`.
    """
    if isinstance(source, duckdb.DuckDBPyConnection):
        return _figures(source, dataset, "staged")
    with duckdb.connect(config={"threads": _THREADS}) as con:
        _create_view(con, dataset, _AFTER, source)
        return _figures(con, dataset, _AFTER)


def _figures(con: duckdb.DuckDBPyConnection, dataset: Dataset, rows: str) -> dict[str, float]:
    figures = {"rows": float(_value(con, f"select count(*) from {rows}"))}
    for total in dataset.totals:
        if total.column is None or total.by not in {None, dataset.period} or len(figures) == _FIGURES:
            continue
        newest = f"where {total.by} = (select max({total.by}) from {rows})" if total.by else ""
        found = _value(con, f"select sum({total.column}) from {rows} {newest}")
        figures[total.name] = float(found or 0)
    return figures


def _create_view(con: duckdb.DuckDBPyConnection, dataset: Dataset, name: str, path: Path) -> None:
    """A view of the declared columns; one that the file lacks is null."""
    relation = sql.read_parquet([path])
    present = {row[0] for row in con.execute(f"describe select * from {relation}").fetchall()}
    columns = ", ".join(
        c.name if c.name in present else f"cast(null as {c.kind.sql}) as {c.name}" for c in dataset.columns
    )
    con.execute(f"create temp view {name} as select {columns} from {relation}")


def _value(con: duckdb.DuckDBPyConnection, query: str) -> Any:
    row = con.execute(query).fetchone()
    assert row is not None
    return row[0]


def _row_findings(
    dataset: Dataset, staged: Staged, reference: Reference | None, memory: Memory
) -> Iterator[Finding]:
    rows, limits = staged.rows_staged, dataset.tolerance
    if reference is not None:
        before = reference.staged.rows_staged
        if not _is_tolerated(dataset, before, rows):
            yield Finding(
                gate="rows",
                severity="error",
                message=(
                    f"{dataset.id}: snapshot {staged.snapshot_id} has {rows} rows, the last release {before} "
                    f"({change(before, rows)}); tolerated are -{limits.decrease_ratio:.0%} to "
                    f"+{limits.increase_ratio:.0%}"
                ),
                dataset_id=dataset.id,
                snapshot_id=staged.snapshot_id,
                figures={"rows": rows, "rows_before": before, "tolerated": limits.model_dump()},
            )
            return
    largest = max(memory.until(staged.taken_at, limits.memory_days), key=lambda e: e.rows, default=None)
    if largest is None or largest.rows - rows <= limits.rows:
        return
    if rows < largest.rows * (1 - limits.memory_decrease_ratio):
        yield Finding(
            gate="rows",
            severity="error",
            message=(
                f"{dataset.id}: snapshot {staged.snapshot_id} has {rows} rows, the largest {_since(largest, dataset)} "
                f"{largest.rows} ({_when(largest)}, {change(largest.rows, rows)}); tolerated are "
                f"-{limits.memory_decrease_ratio:.0%} in all"
            ),
            dataset_id=dataset.id,
            snapshot_id=staged.snapshot_id,
            figures={"rows": rows, "rows_before": largest.rows, "tolerated": limits.model_dump()}
            | {"snapshot_before": largest.snapshot_id},
        )


def _is_tolerated(dataset: Dataset, before: int, rows: int) -> bool:
    if rows == 0 and before > 0:
        return False
    limits = dataset.tolerance
    if abs(rows - before) <= limits.rows:
        return True
    return before * (1 - limits.decrease_ratio) <= rows <= before * (1 + limits.increase_ratio)


def _memory_findings(
    dataset: Dataset, staged: Staged, memory: Memory, figures: dict[str, float]
) -> Iterator[Finding]:
    """Totals that many small changes took too far."""
    limits = dataset.tolerance
    entries = memory.until(staged.taken_at, limits.memory_days)
    for name, after in figures.items():
        known = [
            e for e in entries if e.figures.get(name) and e.rows >= dataset.figures.tolerance.minimum_rows
        ]
        if name == "rows" or not known:
            continue
        largest = max(known, key=lambda e: e.figures[name])
        smallest = min(known, key=lambda e: e.figures[name])
        extreme = None
        if after < largest.figures[name] * (1 - limits.memory_decrease_ratio):
            extreme, words = largest, "largest"
        elif after > smallest.figures[name] * (1 + limits.memory_increase_ratio):
            extreme, words = smallest, "smallest"
        if extreme is None:
            continue
        before = extreme.figures[name]
        tolerated = f"-{limits.memory_decrease_ratio:.0%} to +{limits.memory_increase_ratio:.0%}"
        yield Finding(
            gate="figures",
            severity="error",
            message=(
                f"{dataset.id}: snapshot {staged.snapshot_id}: total of {name} is {after:.10g}, the {words} "
                f"{_since(extreme, dataset)} {before:.10g} ({_when(extreme)}, {change(before, after)}); "
                f"tolerated are {tolerated} in all"
            ),
            dataset_id=dataset.id,
            snapshot_id=staged.snapshot_id,
            figures={"figure": f"total of {name}", "before": before, "after": after, "tolerated": tolerated}
            | {"snapshot_before": extreme.snapshot_id},
        )


def _since(entry: Remembered, dataset: Dataset) -> str:
    if entry.by_hand:
        return "since the last one accepted by hand"
    return f"of the last {dataset.tolerance.memory_days} days"


def _when(entry: Remembered) -> str:
    return f"snapshot {entry.snapshot_id} of {entry.taken_at:%Y-%m-%d}"


def _seed_findings(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, snapshot_id: str, seeds: Path
) -> Iterator[Finding]:
    """Warnings of values that no row of a seed covers, such as a new kind of service."""
    for column, seed in dataset.figures.seeds.items():
        file = seeds / f"{seed}.csv"
        listed = f"select {folded(column)} from read_csv({sql.quote_path(file)}, header = true, all_varchar = true)"
        found = con.execute(
            f"""
            select {column}, count(*) from {_AFTER}
            where {column} is not null and {folded(column)} not in ({listed})
            group by 1 order by 2 desc, 1
            """
        ).fetchall()
        if not found:
            continue
        named = ", ".join(f'"{value}" ({rows} rows)' for value, rows in found[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        yield Finding(
            gate="figures",
            severity="warn",
            message=(
                f"{dataset.id}: snapshot {snapshot_id}: {column} that no row of the seed {seed} covers: "
                f"{named}{more}; add it to dbt/mart/seeds/{seed}.csv"
            ),
            dataset_id=dataset.id,
            snapshot_id=snapshot_id,
            figures={"figure": f"{column} not in {seed}", "after": [value for value, _ in found]},
        )
