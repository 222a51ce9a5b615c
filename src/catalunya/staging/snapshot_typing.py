"""One landed snapshot typed: pages to a typed Parquet file, quarantine and counts.

Rows in = rows staged + rows quarantined + exact duplicates. A bad value that its row does not need is null in the
staged row; `raw` keeps it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path
from typing import Literal

import duckdb
import msgspec
import structlog

from catalunya import sources, sql
from catalunya.datasets.model import Dataset
from catalunya.errors import CatalunyaError, LakeCorrupt, SnapshotUnreadable
from catalunya.lake import disk, layout
from catalunya.lake.snapshot import LandedFile, Manifest
from catalunya.lake.staged import Control, Staged, StagedFile, index_entry, record_of
from catalunya.lake.storage import Storage
from catalunya.quality.figures import snapshot_figures
from catalunya.staging import row_sql
from catalunya.staging.schema_drift import check_columns, missing_columns, refuse_mistyped, refuse_quarantined

log = structlog.get_logger(__name__)

_MEMORY = "300MB"
"""What DuckDB's buffers may take; a process peaks some 100 MB above. Rows too large for it are tried without."""
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
    """Stage one complete snapshot, quarantine first and the staged file last; its counts, and its entry for the index.

    `previous` is the snapshot whose columns it is compared with; `compare` is False for one that a release contains;
    with `lenient` a difference only warns. Raises `Drift`, and `SnapshotUnreadable` when its bytes cannot be typed.
    """
    warnings = check_columns(dataset, manifest, previous, lenient=lenient) if compare else []
    work = storage.scratch() / f"stage-{dataset.id}-{manifest.snapshot_id}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        pages = _pages(storage, manifest, work)

        def attempt(bounded: bool) -> tuple[Staged, StagedFile]:
            with duckdb.connect(config=_config(work, bounded=bounded)) as con:
                return _stage_pages(con, storage, dataset, manifest, pages, work, warnings, lenient=lenient)

        try:
            return attempt(bounded=True)
        except duckdb.OutOfMemoryException as error:
            log.warning("rows too large for the memory bound", dataset=dataset.id, reason=str(error))
            return attempt(bounded=False)
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        raise CatalunyaError(
            f"{dataset.id}: snapshot {manifest.snapshot_id} could not be typed: {error}. The bytes stay in landing; "
            "give more memory or disk and run again"
        ) from error
    except (duckdb.Error, msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise SnapshotUnreadable(
            f"its landed bytes cannot be typed ({type(error).__name__}: {error})"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _config(work: Path, *, bounded: bool) -> dict[str, str | bool | int | float | list[str]]:
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "temp_directory": str(work / "spill"),
    }
    return {**config, "memory_limit": _MEMORY} if bounded else config


def _stage_pages(
    con: duckdb.DuckDBPyConnection,
    storage: Storage,
    dataset: Dataset,
    manifest: Manifest,
    pages: Sequence[Path],
    work: Path,
    warnings: list[str],
    *,
    lenient: bool,
) -> tuple[Staged, StagedFile]:
    _type_pages(con, dataset, manifest, _objects(dataset, manifest, pages, work), work)
    typed = sql.read_parquet(work, "typed-*.parquet")
    counts = _judge(con, dataset, typed)
    reasons = _reasons(con)
    if not lenient:
        refuse_mistyped(con, dataset, typed)
        refuse_quarantined(
            dataset,
            rows_in=counts["rows_in"],
            rows_quarantined=counts["quarantined"],
            rows_duplicated=counts["duplicated"],
            reasons=reasons,
        )
    invalid, nulled = _invalid_values(con, dataset, typed)
    controls = _controls(con, dataset, manifest, typed, pages)
    updated = sources.updated(manifest.protocol, manifest.validators, demo=manifest.demo)
    staged = Staged(
        dataset_id=dataset.id,
        snapshot_id=manifest.snapshot_id,
        taken_at=manifest.taken_at,
        rows_in=counts["rows_in"],
        rows_staged=counts["rows_in"] - counts["quarantined"] - counts["duplicated"],
        rows_quarantined=counts["quarantined"],
        rows_duplicated=counts["duplicated"],
        demo=manifest.demo,
        controls=controls,
        warnings=(*warnings, *nulled),
        reasons=reasons,
        invalid_values=invalid,
        figures=_figures(con, dataset, typed),
        digest=row_sql.digest(dataset),
        source_updated_on=updated.date() if updated else None,
    )
    _write_quarantine(con, dataset, staged, typed, work / "quarantine.parquet")
    _write_staged(con, dataset, staged, typed, work / "staged.parquet")
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
        rows_in=staged.rows_in,
        rows_staged=staged.rows_staged,
        rows_quarantined=staged.rows_quarantined,
        rows_duplicated=staged.rows_duplicated,
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
    """The rows of the landed pages as JSON objects: as they are where the protocol lands such, else unfolded.

    Raises `SnapshotUnreadable` when a page cannot be unfolded.
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


def _judge(con: duckdb.DuckDBPyConnection, dataset: Dataset, typed: str) -> dict[str, int]:
    """Make the table `problems` (n, kind, reason, cause): duplicates, broken rules, keys used twice.

    `cause` is the reason without the values. Which row of several is kept depends on what is in them, never on
    their order.
    """
    columns = [column.name for column in dataset.columns]
    key = " || ' and ' || ".join(f"'{name} = ' || {name}" for name in dataset.key)
    smallest = ", ".join(f"{name} nulls last" for name in columns)
    missing = "case when x.value is null then x.name || ' is missing' else x.name || ': ' ||"
    con.execute("create temp table problems (n bigint, kind varchar, reason varchar, cause varchar)")
    con.execute(
        f"""
        insert into problems
        select n, 'duplicate', null, null from (
            select n, row_number() over (
                partition by content, len(reasons) > 0, {", ".join(columns)} order by len(invalid), n
            ) as place
            from {typed}
            where content in (select content from {typed} group by content having count(*) > 1)
        ) where place > 1
        """
    )
    con.execute(
        f"""
        insert into problems
        select n, 'broken',
            array_to_string(list_transform(
                reasons, lambda x: {missing} chr(34) || x.value || chr(34) || ' ' || x.words end
            ), '; '),
            array_to_string(list_transform(reasons, lambda x: {missing} '… ' || x.words end), '; ')
        from {typed}
        where len(reasons) > 0 and n not in (select n from problems)
        """
    )
    con.execute(
        f"""
        insert into problems
        with sound as (select n, identity from {typed} where n not in (select n from problems)),
        doubled as (
            select n from sound
            where identity in (select identity from sound group by identity having count(*) > 1)
        )
        select n, 'key', 'key used twice: another row with ' || {key} || ' was kept', 'key used twice'
        from (
            select n, {", ".join(dataset.key)}, row_number() over (
                partition by {", ".join(dataset.key)} order by len(invalid), {smallest}, n
            ) as place
            from {typed} where n in (select n from doubled)
        ) where place > 1
        """
    )
    row = con.execute(
        f"""
        select (select count(*) from {typed}),
            count(*) filter (kind = 'duplicate'), count(*) filter (kind <> 'duplicate')
        from problems
        """
    ).fetchone()
    assert row is not None
    return {"rows_in": row[0], "duplicated": row[1], "quarantined": row[2]}


def _invalid_values(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, typed: str
) -> tuple[dict[str, int], list[str]]:
    """How many staged rows have each column set to null for a bad value, and a sentence on each column."""
    found = con.execute(
        f"""
        select fault.name, fault.words, count(*), arg_min(fault.value, n), min(n)
        from (select n, unnest(invalid) as fault from {typed} where len(invalid) > 0)
        where n not in (select n from problems)
        group by all order by count(*) desc, fault.words
        """
    ).fetchall()
    counts: dict[str, int] = {}
    sentences = []
    for column in dataset.columns:
        rows = [row[1:] for row in found if row[0] == column.name]
        if not rows:
            continue
        counts[column.name] = count = sum(row[1] for row in rows)
        _, example = min((row[3], row[2]) for row in rows)
        words = " or ".join(words if count == 1 else _plural(words) for words, *_ in rows)
        values, were = ("value", "was") if count == 1 else ("values", "were")
        sentences.append(
            f'{dataset.id}: {count} {values} of {column.name} {words} and {were} set to null, such as "{example}"'
        )
    return counts, sentences


def _plural(words: str) -> str:
    return words.replace("is ", "are ", 1).replace("does ", "do ", 1)


def _controls(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, manifest: Manifest, typed: str, pages: Sequence[Path]
) -> tuple[Control, ...]:
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
            f"""
            select coalesce(sum({column}), 0)::hugeint from {typed}
            where {period} = ? and n not in (select n from problems)
            """,
            [int(control.period)],
        ).fetchone()
        computed = int(row[0]) if row else 0
        found.append(Control(column, control.period, int(control.published), computed))
    return tuple(found)


def _figures(con: duckdb.DuckDBPyConnection, dataset: Dataset, typed: str) -> dict[str, float]:
    """Small figures of the rows that are staged, for later snapshots to be compared with."""
    columns = ", ".join(column.name for column in dataset.columns)
    con.execute(
        f"create temp view staged as select {columns} from {typed} where n not in (select n from problems)"
    )
    return snapshot_figures(dataset, con)


def _reasons(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    rows = con.execute(
        """
        select cause, count(*) from problems
        where kind <> 'duplicate' group by 1 order by 2 desc, 1 limit 20
        """
    ).fetchall()
    return {str(cause): int(count) for cause, count in rows}


def _write_quarantine(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, staged: Staged, typed: str, target: Path
) -> None:
    """The quarantined rows with their keys, so that a row that is present but unusable is not taken for absent."""
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
    con: duckdb.DuckDBPyConnection, dataset: Dataset, staged: Staged, typed: str, target: Path
) -> None:
    columns = ", ".join(column.name for column in dataset.columns)
    sound = "" if staged.rows_staged == staged.rows_in else "where n not in (select n from problems)"
    record = sql.quote(record_of(staged))
    con.execute(
        f"""
        copy (
            select {columns}, raw, {sql.quote(staged.snapshot_id)} as snapshot_id
            from {typed} {sound}
        ) to {sql.quote(str(target))} (
            format parquet, compression zstd, compression_level 1, row_group_size 25000, kv_metadata {{catalunya: {record}}}
        )
        """
    )
