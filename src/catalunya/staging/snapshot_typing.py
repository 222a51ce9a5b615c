"""One landed snapshot typed: from its pages to a typed Parquet file, a quarantine file and counts.

Rows in = rows staged + rows quarantined + exact duplicates. An invalid value of an optional column is null in the staged
row; `raw` keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path
from typing import Literal

import duckdb
import msgspec

from catalunya import sources, sql
from catalunya.datasets.model import Dataset
from catalunya.errors import CatalunyaError, LakeCorrupt, SnapshotUnreadable
from catalunya.lake import disk, layout
from catalunya.lake.snapshot import LandedFile, Manifest
from catalunya.lake.staged import Control, Staged, StagedFile, index_entry, record_of
from catalunya.lake.storage import Storage
from catalunya.lake.temporary import temporary_folder
from catalunya.log import get_logger
from catalunya.quality.figures import snapshot_figures
from catalunya.staging import row_problems, row_sql
from catalunya.staging.schema_drift import check_columns, missing_columns, refuse_mistyped, refuse_quarantined

log = get_logger(__name__)

_MEMORY = "300MB"
"""Memory of DuckDB's buffers; the process uses some 100 MB more. Rows too large for it are typed without a bound."""
_WORKERS = 2
"""Pages typed at once, each by one thread: faster than two threads on each page, and in half the memory."""
_PAGE_SHIFT = 1 << 32
_OBJECT_BYTES = 1_000_000


def stage_snapshot(
    storage: Storage,
    dataset: Dataset,
    manifest: Manifest,
    previous: Manifest | None = None,
    *,
    lenient: bool = False,
    compare: bool = True,
) -> tuple[Staged, StagedFile]:
    """Stage one complete snapshot: write its quarantine file, then its staged file.

    Args:
        storage: the lake.
        dataset: the definition.
        manifest: the snapshot.
        previous: the snapshot whose columns it is compared with.
        lenient: True when a difference only warns.
        compare: False for a snapshot that a release contains.

    Returns:
        Its counts, and its entry for the index.

    Raises:
        Drift: The snapshot does not fit the definition.
        SnapshotUnreadable: Its bytes cannot be typed.
    """
    warnings = check_columns(dataset, manifest, previous, lenient=lenient) if compare else []
    with temporary_folder(storage, f"stage-{dataset.id}-{manifest.snapshot_id}") as work:
        try:
            pages = _pages(storage, manifest, work)
            try:
                return _stage_pages(
                    storage, dataset, manifest, pages, work, warnings, lenient=lenient, memory=_MEMORY
                )
            except duckdb.OutOfMemoryException as error:
                log.warning("rows too large for the memory bound", dataset=dataset.id, reason=str(error))
                return _stage_pages(storage, dataset, manifest, pages, work, warnings, lenient=lenient)
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            raise CatalunyaError(
                f"{dataset.id}: snapshot {manifest.snapshot_id} could not be typed: {error}. The bytes stay in "
                "landing; give more memory or disk and run again"
            ) from error
        except (duckdb.Error, msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise SnapshotUnreadable(
                f"its landed bytes cannot be typed ({type(error).__name__}: {error})"
            ) from error


def _stage_pages(
    storage: Storage,
    dataset: Dataset,
    manifest: Manifest,
    pages: Sequence[Path],
    work: Path,
    warnings: list[str],
    *,
    lenient: bool,
    memory: str | None = None,
) -> tuple[Staged, StagedFile]:
    bound = {"memory_limit": memory} if memory else {}
    with duckdb.connect(config={"threads": 1, "temp_directory": str(work / "spill"), **bound}) as con:
        _type_pages(con, dataset, manifest, _objects(dataset, manifest, pages, work), work)
        typed = sql.read_parquet(work, "typed-*.parquet")
        counts = row_problems.find(con, dataset, typed)
        reasons = row_problems.reasons(con)
        if not lenient:
            refuse_mistyped(con, dataset, typed)
            refuse_quarantined(dataset, counts, reasons)
        invalid, nulled = row_problems.invalid_values(con, dataset)
        controls = _controls(con, dataset, manifest, pages)
        lost = [] if controls else _without_totals(dataset)
        updated = sources.updated(manifest.protocol, manifest.validators, demo=manifest.demo)
        staged = Staged(
            dataset_id=dataset.id,
            snapshot_id=manifest.snapshot_id,
            taken_at=manifest.taken_at,
            **counts,
            demo=manifest.demo,
            controls=controls,
            warnings=(*warnings, *nulled, *lost),
            reasons=reasons,
            invalid_values=invalid,
            figures=snapshot_figures(con, dataset, row_problems.SOUND),
            digest=row_sql.digest(dataset),
            source_updated_on=updated.date() if updated else None,
        )
        _write_quarantine(con, dataset, staged, typed, work / "quarantine.parquet")
        _write_staged(con, dataset, staged, row_problems.SOUND, work / "staged.parquet")
    note = replace(
        index_entry(staged, work / "staged.parquet"),
        quarantine_size=(work / "quarantine.parquet").stat().st_size,
    )
    storage.put_file(layout.quarantined(dataset.id, manifest.snapshot_id), work / "quarantine.parquet")
    storage.put_file(layout.staged(dataset.id, manifest.snapshot_id), work / "staged.parquet")
    log.info(
        "staged",
        dataset=dataset.id,
        snapshot=manifest.snapshot_id,
        **counts,
        invalid_values=staged.invalid_values,
    )
    return staged, note


def _pages(storage: Storage, manifest: Manifest, work: Path) -> list[Path]:
    """Local paths of the landed files, each checked against the manifest."""

    def checked(file: LandedFile) -> Path:
        key = layout.landing(manifest.dataset_id, manifest.snapshot_id, file.name)
        path = storage.fetch(key, work / "landing")
        found = disk.sha256(path)
        if found != file.sha256:
            raise LakeCorrupt(
                f"{storage.uri(key)}: SHA-256 is {found}, the manifest says {file.sha256}; restore the file "
                "from a backup, or move the snapshot's folder away to read the portal again"
            )
        return path

    with ThreadPoolExecutor(_WORKERS) as pool:
        return list(pool.map(checked, manifest.files))


@dataclass(frozen=True)
class _Objects:
    """Files of JSON objects, one a row."""

    paths: list[Path]
    shape: Literal["array", "newline_delimited"]
    largest: int
    """Bytes that one object may have."""


def _objects(dataset: Dataset, manifest: Manifest, pages: Sequence[Path], work: Path) -> _Objects:
    """The rows of the landed pages as JSON objects: the pages as they are, or converted by the protocol.

    Raises `SnapshotUnreadable` when a page cannot be converted.
    """
    found = sources.rows(dataset.source, manifest.files, pages, manifest.request)
    if found is None:
        return _Objects(list(pages), "array", _OBJECT_BYTES)
    path, largest = work / "rows.ndjson", _OBJECT_BYTES
    with disk.explained(path), path.open("wb") as out:
        for row in found:
            largest = max(largest, 2 * out.write(msgspec.json.encode(row) + b"\n"))
    return _Objects([path], "newline_delimited", largest)


def _type_pages(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, manifest: Manifest, objects: _Objects, work: Path
) -> None:
    """One typed Parquet file a page, pages side by side, each in the portal's order."""
    taken_on = manifest.taken_at.astimezone(UTC).date()
    missing = {column.name for column in missing_columns(dataset, manifest)}

    def type_page(index: int) -> None:
        relation = sql.read_json_objects(objects.paths[index], shape=objects.shape, largest=objects.largest)
        target = sql.quote(str(work / f"typed-{index:05d}.parquet"))
        query = row_sql.typed_query(dataset, relation, taken_on=taken_on, missing=missing)
        with con.cursor() as cursor:
            cursor.execute(
                f"copy (select * replace (n + {index} * {_PAGE_SHIFT}::bigint as n) from ({query})) "
                f"to {target} (format parquet, compression lz4, row_group_size 20000)"
            )

    with ThreadPoolExecutor(_WORKERS) as pool:
        list(pool.map(type_page, range(len(objects.paths))))
    con.execute(f"set threads = {_WORKERS}")


def _controls(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, manifest: Manifest, pages: Sequence[Path]
) -> tuple[Control, ...]:
    """The totals that the source publishes for a period, each with the sum of the staged rows."""
    period = dataset.period
    if period is None:
        return ()
    by_source = {c.source[0]: c.name for c in dataset.columns}
    found = []
    for control in sources.controls(dataset.source, manifest.files, pages):
        column = by_source.get(control.control)
        if column is None:
            continue
        row = con.execute(
            f"select coalesce(sum({column}), 0)::hugeint from {row_problems.SOUND} where {period} = {int(control.period)}"
        ).fetchone()
        computed = int(row[0]) if row else 0
        found.append(Control(column, control.period, int(control.published), computed))
    return tuple(found)


def _without_totals(dataset: Dataset) -> list[str]:
    """Say of a snapshot without controls that its source should publish totals, if it should."""
    if dataset.source.protocol != "idescat" or not dataset.source.total:
        return []
    total = ", ".join(f"{name}={category}" for name, category in dataset.source.total.items())
    return [
        f"{dataset.id}: the source has no total {total} that is a number: the sums of its rows are compared with nothing. "
        f"Look for the category in the table, and correct `total` in datasets/{dataset.id}.yml"
    ]


def _write_quarantine(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, staged: Staged, typed: str, target: Path
) -> None:
    """Write the quarantined rows with their keys, so that they are not counted as absent from the source."""
    con.execute(
        f"""
        copy (
            select problems.reason, typed.raw, {sql.quote(staged.snapshot_id)} as snapshot_id,
                {", ".join(f"typed.{name}" for name in dataset.key)}
            from {typed} as typed inner join problems using (n)
            where problems.kind <> 'duplicate'
            order by n
        ) to {sql.quote(str(target))} (format parquet, compression zstd)
        """
    )


def _write_staged(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, staged: Staged, rows: str, target: Path
) -> None:
    columns = ", ".join(column.name for column in dataset.columns)
    record = sql.quote(record_of(staged))
    con.execute(
        f"""
        copy (
            select {columns}, raw, {sql.quote(staged.snapshot_id)} as snapshot_id
            from {rows}
        ) to {sql.quote(str(target))} (
            format parquet, compression zstd, compression_level 1, row_group_size 25000, kv_metadata {{catalunya: {record}}}
        )
        """
    )
