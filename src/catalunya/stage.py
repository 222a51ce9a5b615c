"""Staging: from the bytes of a landed snapshot to one typed Parquet file, quarantine and counts.

Rows in = rows staged + rows quarantined + exact duplicates; the four figures travel in the staged
file itself, as Parquet metadata, so that they cannot be separated from the rows.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import file_digest
from pathlib import Path
from typing import Literal

import duckdb
import msgspec
import structlog

from catalunya import declaration
from catalunya.datasets import Dataset, IdescatSource, SocrataSource
from catalunya.drift import Drift, check_columns, refuse_mistyped
from catalunya.errors import CatalunyaError, LakeCorrupt, Refused
from catalunya.lake import layout, snapshot
from catalunya.lake.snapshot import LandedFile, Manifest, Refusal
from catalunya.lake.storage import Storage

log = structlog.get_logger(__name__)

_MEMORY = "300MB"
"""What DuckDB's buffers may take; a process peaks some 100 MB above. Rows too large for it are tried without."""
_WORKERS = 2
"""Pages typed at once, each by one thread: faster than two threads on each page, and in half the memory."""
_PAGE_SHIFT = 1 << 32
_OBJECT_BYTES = 1_000_000


@dataclass(frozen=True)
class Control:
    """A total that the source publishes beside its rows, and the sum of the rows."""

    control: str
    period: str
    published: int
    computed: int


@dataclass(frozen=True)
class Staged:
    """What staging made of a snapshot."""

    dataset_id: str
    snapshot_id: str
    taken_at: datetime
    rows_in: int
    rows_staged: int
    rows_quarantined: int
    rows_duplicated: int
    demo: bool
    controls: tuple[Control, ...] = ()
    warnings: tuple[str, ...] = ()
    reasons: dict[str, int] = field(default_factory=dict)
    """Kind of mistake to the number of quarantined rows that have it."""
    invalid_values: dict[str, int] = field(default_factory=dict)
    """Column to the number of staged rows whose optional value broke its declaration and was set to null."""
    figures: dict[str, float] = field(default_factory=dict)
    """Small figures of the staged rows that later snapshots are compared with, by name."""
    digest: str = ""
    """Digest of the typing rules and of the definition that staged it (`declaration.digest`)."""
    source_updated_on: date | None = None
    """Day on which the publisher last changed the data, as far as the source says so."""


def stage(
    storage: Storage, dataset: Dataset, *, run_id: str, now: datetime, again: bool = False
) -> list[Staged]:
    """Stage every accepted snapshot of a dataset that is not staged yet, or with `again` every one.

    The newly staged are returned.

    Raises `Refused` when the newest one has drifted (it is marked refused), `LakeCorrupt` when landed bytes
    are not those of the manifest.
    """
    note = layout.declaration(dataset.id)
    wanted = declaration.digest(dataset)
    current = storage.exists(note) and json.loads(storage.read(note)).get("digest") == wanted and not again
    present = {entry.key for entry in storage.list(f"{layout.STAGING}/{dataset.id}")} if current else set()
    done: list[Staged] = []
    for snapshot_id in snapshot.accepted(storage, dataset.id):
        if layout.staged(dataset.id, snapshot_id) in present:
            continue
        manifest = snapshot.read(storage, dataset.id, snapshot_id)
        if manifest is None:
            continue
        try:
            done.append(stage_snapshot(storage, dataset, manifest))
        except Drift as drift:
            refusal = Refusal(
                gate="schema", reason=str(drift), figures=drift.figures, refused_at=now, run_id=run_id
            )
            snapshot.refuse(storage, dataset.id, snapshot_id, refusal)
            raise Refused(
                f"{dataset.id}: snapshot {snapshot_id} is refused: {drift}. The last release stays. Mend "
                f"datasets/{dataset.id}.yml if the change is real, or lift it with "
                f"`catalunya accept {snapshot_id} --why …`"
            ) from None
    if not current:
        storage.put(note, json.dumps({"digest": wanted}).encode())
    return done


def stage_snapshot(storage: Storage, dataset: Dataset, manifest: Manifest) -> Staged:
    """Stage one complete snapshot, quarantine first and the staged file last."""
    lifted = snapshot.acceptance(storage, dataset.id, manifest.snapshot_id)
    lenient = lifted is not None and "schema" in {
        lifted.refusal.gate,
        *lifted.refusal.figures.get("lifts", []),
    }
    previous = _previous(storage, dataset, manifest.snapshot_id)
    warnings = check_columns(dataset, manifest, previous, lenient=lenient)
    work = storage.scratch() / f"stage-{dataset.id}-{manifest.snapshot_id}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        pages = _pages(storage, manifest, work)

        def attempt(bounded: bool) -> Staged:
            with duckdb.connect(config=_config(work, bounded=bounded)) as con:
                return _stage_pages(con, storage, dataset, manifest, pages, work, warnings, lenient=lenient)

        try:
            return attempt(bounded=True)
        except duckdb.OutOfMemoryException as error:
            log.warning("rows too large for the memory bound", dataset=dataset.id, reason=str(error))
            return attempt(bounded=False)
    except duckdb.Error as error:
        raise CatalunyaError(
            f"{dataset.id}: snapshot {manifest.snapshot_id} could not be typed: {error}. The bytes stay in landing; "
            "if memory or disk ran out, give more and run again"
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
) -> Staged:
    _type_pages(con, dataset, _objects(dataset, manifest, pages, work), work)
    typed = f"read_parquet({declaration.quote(str(work / 'typed-*.parquet'))})"
    counts = _judge(con, dataset, typed)
    if not lenient:
        refuse_mistyped(con, dataset, typed)
    controls = _controls(con, dataset, manifest, typed, pages)
    differing = [
        f"{dataset.id}: the portal's {c.control} of {c.period} is {c.published}, the rows sum to {c.computed}"
        for c in controls
        if c.published != c.computed
    ]
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
        warnings=(*warnings, *differing),
        reasons=_reasons(con),
        digest=declaration.digest(dataset),
        source_updated_on=updated.date() if (updated := snapshot.source_updated(manifest)) else None,
    )
    _write_quarantine(con, staged, typed, work / "quarantine.parquet")
    _write_staged(con, dataset, staged, typed, work / "staged.parquet")
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
    )
    return staged


def _pages(storage: Storage, manifest: Manifest, work: Path) -> list[Path]:
    """Local paths of the landed files, each checked against the manifest."""

    def checked(file: LandedFile) -> Path:
        key = layout.landing(manifest.dataset_id, manifest.snapshot_id, file.name)
        path = storage.fetch(key, work / "landing")
        with path.open("rb") as stream:
            found = file_digest(stream, "sha256").hexdigest()
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
    """The rows of the landed pages as JSON objects: as they are for Socrata, unfolded for the others.

    Raises `SnapshotUnreadable` when a page cannot be unfolded.
    """
    from catalunya import sources

    if isinstance(dataset.source, SocrataSource):
        return _Objects(list(pages), "array", _OBJECT_BYTES)
    path, largest = work / "rows.ndjson", _OBJECT_BYTES
    with path.open("wb") as out:
        for row in sources.rows(dataset.source, manifest.files, pages, manifest.request):
            largest = max(largest, 2 * out.write(msgspec.json.encode(row) + b"\n"))
    return _Objects([path], "newline_delimited", largest)


def _type_pages(con: duckdb.DuckDBPyConnection, dataset: Dataset, objects: _Objects, work: Path) -> None:
    """One typed Parquet file a page, pages side by side, each in the portal's order."""

    def type_page(index: int) -> None:
        page = declaration.quote(str(objects.paths[index]))
        relation = (
            f"read_json_objects({page}, format='{objects.shape}', maximum_object_size={objects.largest})"
        )
        target = declaration.quote(str(work / f"typed-{index:05d}.parquet"))
        query = declaration.typed_query(dataset, relation)
        with con.cursor() as cursor:
            cursor.execute(
                f"copy (select * replace (n + {index} * {_PAGE_SHIFT}::bigint as n) from ({query})) "
                f"to {target} (format parquet, compression lz4, row_group_size 20000)"
            )

    with ThreadPoolExecutor(_WORKERS) as pool:
        list(pool.map(type_page, range(len(objects.paths))))
    con.execute(f"set threads = {_WORKERS}")


def _judge(con: duckdb.DuckDBPyConnection, dataset: Dataset, typed: str) -> dict[str, int]:
    """Make the table `problems` (n, kind, reason): duplicates, broken rules, keys used twice."""
    key = " || ' and ' || ".join(f"'{name} = ' || typed.{name}" for name in dataset.key)
    same_key = " and ".join(f"typed.{name} = kept.{name}" for name in dataset.key)
    same_row = " and ".join(f"typed.{c.name} is not distinct from kept.{c.name}" for c in dataset.columns)
    con.execute("create temp table problems (n bigint, kind varchar, reason varchar)")
    con.execute(
        f"""
        insert into problems
        select typed.n, 'duplicate', null
        from {typed} as typed
        inner join (
            select content, min(n) as n from {typed} group by content having count(*) > 1
        ) as doubled on typed.content = doubled.content and typed.n > doubled.n
        inner join {typed} as kept on doubled.n = kept.n and {same_row}
        """
    )
    con.execute(
        f"""
        insert into problems
        select n, 'broken', array_to_string(reasons, '; ')
        from {typed} as typed
        where len(reasons) > 0 and n not in (select n from problems)
        """
    )
    con.execute(
        f"""
        insert into problems
        with sound as (select n, identity from {typed} where n not in (select n from problems)),
        doubled as (select identity, min(n) as n from sound group by identity having count(*) > 1)
        select typed.n, 'key', 'key used twice: another row with ' || {key} || ' came first and was kept'
        from {typed} as typed
        inner join sound using (n)
        inner join doubled on typed.identity = doubled.identity and typed.n > doubled.n
        inner join {typed} as kept on doubled.n = kept.n and {same_key}
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


def _controls(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, manifest: Manifest, typed: str, pages: Sequence[Path]
) -> tuple[Control, ...]:
    from catalunya import sources

    source = dataset.source
    if not isinstance(source, IdescatSource):
        return ()
    period = next((c.name for c in dataset.columns if c.type == "integer" and c.name in dataset.key), None)
    if period is None:
        return ()
    by_source = {c.source[0]: c.name for c in dataset.columns}
    found = []
    for control in sources.controls(source, manifest.files, pages):
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


def _reasons(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    rows = con.execute(
        r"""
        select regexp_replace(reason, '"[^"]*"|key used twice.*', '…', 'g') as kind, count(*)
        from problems where kind <> 'duplicate' group by 1 order by 2 desc, 1 limit 20
        """
    ).fetchall()
    return {str(kind): int(count) for kind, count in rows}


def _write_quarantine(con: duckdb.DuckDBPyConnection, staged: Staged, typed: str, target: Path) -> None:
    con.execute(
        f"""
        copy (
            select problems.reason, typed.raw, {declaration.quote(staged.snapshot_id)} as snapshot_id
            from {typed} as typed inner join problems using (n)
            where problems.kind <> 'duplicate'
            order by n
        ) to {declaration.quote(str(target))} (format parquet, compression zstd)
        """
    )


def _write_staged(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, staged: Staged, typed: str, target: Path
) -> None:
    columns = ", ".join(column.name for column in dataset.columns)
    sound = "" if staged.rows_staged == staged.rows_in else "where n not in (select n from problems)"
    record = declaration.quote(record_of(staged))
    con.execute(
        f"""
        copy (
            select {columns}, raw, {declaration.quote(staged.snapshot_id)} as snapshot_id
            from {typed} {sound}
        ) to {declaration.quote(str(target))} (
            format parquet, compression zstd, compression_level 1, row_group_size 25000, kv_metadata {{catalunya: {record}}}
        )
        """
    )


def record_of(staged: Staged) -> str:
    """The counts of a staged snapshot as one JSON text, kept in the Parquet file's metadata."""
    return msgspec.json.encode(staged).decode()


def read_record(text: bytes | str) -> Staged:
    """The counts that `record_of` wrote."""
    return msgspec.json.decode(text, type=Staged)


def _previous(storage: Storage, dataset: Dataset, snapshot_id: str) -> Manifest | None:
    earlier = [name for name in snapshot.accepted(storage, dataset.id) if name < snapshot_id]
    return snapshot.read(storage, dataset.id, earlier[-1]) if earlier else None


def staged_record(storage: Storage, dataset_id: str, snapshot_id: str) -> Staged | None:
    """The counts of a staged snapshot; None when it is not staged."""
    key = layout.staged(dataset_id, snapshot_id)
    if not storage.exists(key):
        return None
    path = storage.fetch(key, storage.scratch() / "records")
    row = duckdb.execute(
        "select decode(value) from parquet_kv_metadata(?) where decode(key) = 'catalunya'", [str(path)]
    ).fetchone()
    return read_record(row[0]) if row else None
