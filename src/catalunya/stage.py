"""Staging: from the bytes of a landed snapshot to one typed Parquet file, quarantine and counts.

Rows in = rows staged + rows quarantined + exact duplicates; the four figures travel in the staged
file itself, as Parquet metadata, so that they cannot be separated from the rows. A bad value that its row
does not need is null in the staged row; `raw` keeps it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from hashlib import file_digest
from pathlib import Path
from typing import Literal

import duckdb
import msgspec
import structlog

from catalunya import declaration, sql
from catalunya.datasets import Dataset, IdescatSource, SocrataSource
from catalunya.drift import Drift, check_columns, missing_columns, refuse_mistyped, refuse_quarantined
from catalunya.errors import (
    CatalunyaError,
    HistoryUnreadable,
    LakeCorrupt,
    Refused,
    SnapshotUnreadable,
)
from catalunya.figures import snapshot_figures
from catalunya.lake import disk, index, layout, snapshot
from catalunya.lake.snapshot import LandedFile, Manifest, Refusal
from catalunya.lake.storage import MissingKey, Storage

log = structlog.get_logger(__name__)

_MEMORY = "300MB"
"""What DuckDB's buffers may take; a process peaks some 100 MB above. Rows too large for it are tried without."""
_WORKERS = 2
"""Pages typed at once, each by one thread: faster than two threads on each page, and in half the memory."""
STAGING_GATES = {"schema", "unreadable", "expected", "rows", "figures"}
"""Gates that judge a snapshot by its definition: their refusals hold as long as that is the same."""
_NO_FILE = index.StagedFile("", 0, "", 0, 0, 0, 0)
_NOTES_AT_ONCE = 100
_READS_AT_ONCE = 8
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
    storage: Storage,
    dataset: Dataset,
    *,
    run_id: str,
    now: datetime,
    again: bool = False,
    anew: Collection[str] = (),
    accepted: Collection[str] = (),
) -> list[Staged]:
    """Stage every snapshot of a dataset that is not refused and not staged by today's rules, or with `again` all.

    `anew` are snapshots whose files must not be taken for good, whatever they say of themselves.

    `accepted` are snapshots that a release contains: no gate refuses them any more, whatever their columns are. A
    refusal that another definition made is void, and its snapshot is staged and judged again.

    Returns what was newly staged. Raises, after all were tried: `Refused` when a pending snapshot does not fit its
    definition or cannot be read, `LakeCorrupt` when its landed bytes are not those of its manifest (it is marked
    refused in both cases). Raises `HistoryUnreadable` at once for an accepted snapshot that cannot be staged.
    """
    wanted, judged_with = declaration.digest(dataset), definition_digest(dataset)
    known = _reopened(storage, dataset.id, judged_with)
    if not again:
        known = _with_found_files(storage, dataset.id, known, wanted, anew)
    due = {
        name
        for name in known.usable
        if again or name in anew or (known.staged(name) or _NO_FILE).digest != wanted
    }
    if not due:
        return []
    notes = _Notes(storage, dataset.id)
    notes.drop(due)
    done: list[Staged] = []
    refused: dict[str, str] = {}
    corrupt: dict[str, str] = {}
    previous: str | None = None
    try:
        for snapshot_id in known.usable:
            before, previous = previous, snapshot_id
            if snapshot_id not in due:
                continue
            is_accepted = snapshot_id in accepted
            lenient = is_accepted or "schema" in known.lifts(snapshot_id)
            try:
                manifest = _manifest(storage, dataset.id, snapshot_id)
                earlier = snapshot.read(storage, dataset.id, before) if before and not is_accepted else None
                staged, note = stage_snapshot(
                    storage, dataset, manifest, earlier, lenient=lenient, compare=not is_accepted
                )
            except (Drift, SnapshotUnreadable) as fault:
                if is_accepted:
                    raise _cannot_be_staged(dataset.id, snapshot_id, fault) from fault
                previous = before
                refused[snapshot_id] = _refuse(
                    storage, dataset, snapshot_id, fault, judged_with, run_id=run_id, now=now
                )
            except LakeCorrupt as fault:
                if is_accepted:
                    raise _cannot_be_staged(dataset.id, snapshot_id, fault) from fault
                previous = before
                corrupt[snapshot_id] = _refuse(
                    storage, dataset, snapshot_id, fault, judged_with, run_id=run_id, now=now
                )
            else:
                done.append(staged)
                notes.add(snapshot_id, note)
    finally:
        notes.write()
    if refused:
        raise Refused("; ".join([*refused.values(), *corrupt.values()]), refused | corrupt)
    if corrupt:
        raise LakeCorrupt("; ".join(corrupt.values()))
    return done


class _Notes:
    """Writes what was staged into the index, some at a time: an index of thousands is too long to write for each.

    The entries of what is to be staged are dropped first, so that the index never describes a file that was replaced.
    """

    def __init__(self, storage: Storage, dataset_id: str) -> None:
        self._storage = storage
        self._dataset_id = dataset_id
        self._waiting: dict[str, index.StagedFile | None] = {}

    def drop(self, snapshot_ids: Collection[str]) -> None:
        """Say of these snapshots that they are not staged."""
        self._waiting = dict.fromkeys(snapshot_ids)
        self.write()

    def add(self, snapshot_id: str, note: index.StagedFile) -> None:
        """Remember a staged file, to be written with others."""
        self._waiting[snapshot_id] = note
        if len(self._waiting) >= _NOTES_AT_ONCE:
            self.write()

    def write(self) -> None:
        """Write what is remembered."""
        notes, self._waiting = self._waiting, {}
        if not notes:
            return

        def change(snapshots: dict[str, index.Entry]) -> None:
            for name, note in notes.items():
                if name in snapshots:
                    snapshots[name] = msgspec.structs.replace(snapshots[name], staged=note)

        index.update(self._storage, self._dataset_id, change)


def _manifest(storage: Storage, dataset_id: str, snapshot_id: str) -> Manifest:
    manifest = snapshot.read(storage, dataset_id, snapshot_id)
    if manifest is None:
        key = layout.landing(dataset_id, snapshot_id, index.MANIFEST)
        raise LakeCorrupt(
            f"{storage.uri(key)} is missing; restore the snapshot's folder, or leave it out of the history: "
            f"`catalunya refuse {snapshot_id} --why …`"
        )
    return manifest


def _cannot_be_staged(dataset_id: str, snapshot_id: str, fault: Exception) -> HistoryUnreadable:
    return HistoryUnreadable(
        f"{dataset_id}: snapshot {snapshot_id} is part of the release and can no longer be staged: {fault}. Correct "
        "the definition or the code, restore its files, or leave it out of the history: "
        f"`catalunya refuse {snapshot_id} --why …`"
    )


def forget_lost_files(storage: Storage, dataset_id: str) -> list[str]:
    """Snapshots whose staged or quarantine file is missing or has another size than the index says.

    They are due to be staged again. Two listings. Call it only while holding the dataset's lock.
    """
    lost = _lost_files(storage, dataset_id, index.load(storage, dataset_id))
    if lost:
        _Notes(storage, dataset_id).drop(lost)
    return lost


def not_staged(storage: Storage, dataset: Dataset) -> list[str]:
    """Snapshots in use that today's rules did not stage, or whose staged file is lost; changes nothing."""
    known = index.load(storage, dataset.id)
    lost, wanted = set(_lost_files(storage, dataset.id, known)), declaration.digest(dataset)
    return [
        name for name in known.usable if name in lost or (known.staged(name) or _NO_FILE).digest != wanted
    ]


def _lost_files(storage: Storage, dataset_id: str, known: index.Index) -> list[str]:
    prefixes = (layout.STAGING, layout.QUARANTINE)
    present = {e.key: e.size for prefix in prefixes for e in storage.list(f"{prefix}/{dataset_id}")}
    return [
        name
        for name in known.usable
        if (note := known.staged(name))
        and (
            present.get(layout.staged(dataset_id, name)) != note.size
            or (
                note.quarantine_size
                and present.get(layout.quarantined(dataset_id, name)) != note.quarantine_size
            )
        )
    ]


def definition_digest(dataset: Dataset) -> str:
    """16 hex digits over all of a definition and the typing rules; a gate's refusal holds as long as they are equal."""
    content = dataset.model_dump_json() + declaration.digest(dataset)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _reopened(storage: Storage, dataset_id: str, judged_with: str) -> index.Index:
    """The index, after lifting refusals that another definition made."""
    known = index.load(storage, dataset_id)
    for snapshot_id, refusal in snapshot.refusals(known).items():
        if refusal.gate in STAGING_GATES and refusal.is_void(judged_with):
            log.info("refusal is void: the definition changed", dataset=dataset_id, snapshot=snapshot_id)
            snapshot.lift(storage, dataset_id, snapshot_id)
    return index.load(storage, dataset_id)


def _with_found_files(
    storage: Storage, dataset_id: str, known: index.Index, wanted: str, anew: Collection[str]
) -> index.Index:
    """The index, with staged files that it does not know: it was made again, or its writer was killed before it wrote."""
    unknown = [
        name
        for name in known.usable
        if name not in anew and (known.staged(name) or _NO_FILE).digest != wanted
    ]
    if not unknown:
        return known
    present = {entry.key for entry in storage.list(f"{layout.STAGING}/{dataset_id}")}
    found = {
        name: note
        for name in unknown
        if layout.staged(dataset_id, name) in present
        and (note := _note_of_file(storage, dataset_id, name, wanted))
    }
    if not found:
        return known

    def change(snapshots: dict[str, index.Entry]) -> None:
        for name, note in found.items():
            snapshots[name] = msgspec.structs.replace(snapshots.get(name, index.Entry()), staged=note)

    return index.update(storage, dataset_id, change)


def _note_of_file(
    storage: Storage, dataset_id: str, snapshot_id: str, wanted: str
) -> index.StagedFile | None:
    """What a staged file says of itself; None when it is damaged or was staged by other rules."""
    staged = staged_record(storage, dataset_id, snapshot_id)
    if staged is None or staged.digest != wanted:
        return None
    path = storage.fetch(layout.staged(dataset_id, snapshot_id), storage.scratch() / "records")
    return _note(staged, path)


def _note(staged: Staged, path: Path) -> index.StagedFile:
    with path.open("rb") as stream:
        sha256 = file_digest(stream, "sha256").hexdigest()
    return index.StagedFile(
        digest=staged.digest,
        size=path.stat().st_size,
        sha256=sha256,
        rows_in=staged.rows_in,
        rows_staged=staged.rows_staged,
        rows_quarantined=staged.rows_quarantined,
        rows_duplicated=staged.rows_duplicated,
        figures=staged.figures,
        reasons=staged.reasons,
        invalid_values=staged.invalid_values,
    )


def _refuse(
    storage: Storage,
    dataset: Dataset,
    snapshot_id: str,
    fault: Drift | SnapshotUnreadable | LakeCorrupt,
    judged_with: str,
    *,
    run_id: str,
    now: datetime,
) -> str:
    """Refuse a pending snapshot; returns the sentence that says so and what to do."""
    unreadable = not isinstance(fault, Drift)
    refusal = Refusal(
        gate=snapshot.UNREADABLE if unreadable else "schema",
        reason=str(fault),
        figures=fault.figures if isinstance(fault, Drift) else {},
        refused_at=now,
        run_id=run_id,
        judged_with=judged_with,
    )
    snapshot.refuse(storage, dataset.id, snapshot_id, refusal)
    remedy = (
        "The next good answer of the portal takes its place; `catalunya accept` makes the next run try it again"
        if unreadable
        else f"Change datasets/{dataset.id}.yml if the change is real, or lift the refusal with "
        f"`catalunya accept {snapshot_id} --why …`"
    )
    return f"{dataset.id}: snapshot {snapshot_id} is refused: {fault}. The last release stays. {remedy}"


def stage_snapshot(
    storage: Storage,
    dataset: Dataset,
    manifest: Manifest,
    previous: Manifest | None = None,
    *,
    lenient: bool = False,
    compare: bool = True,
) -> tuple[Staged, index.StagedFile]:
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

        def attempt(bounded: bool) -> tuple[Staged, index.StagedFile]:
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
) -> tuple[Staged, index.StagedFile]:
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
        digest=declaration.digest(dataset),
        source_updated_on=updated.date() if (updated := snapshot.source_updated(manifest)) else None,
    )
    _write_quarantine(con, dataset, staged, typed, work / "quarantine.parquet")
    _write_staged(con, dataset, staged, typed, work / "staged.parquet")
    note = msgspec.structs.replace(
        _note(staged, work / "staged.parquet"), quarantine_size=(work / "quarantine.parquet").stat().st_size
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
    with disk.explained(path), path.open("wb") as out:
        for row in sources.rows(dataset.source, manifest.files, pages, manifest.request):
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
        target = declaration.quote(str(work / f"typed-{index:05d}.parquet"))
        query = declaration.typed_query(dataset, relation, taken_on=taken_on, missing=missing)
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
            select problems.reason, typed.raw, {declaration.quote(staged.snapshot_id)} as snapshot_id,
                {", ".join(f"typed.{name}" for name in dataset.key)}
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


def staged_record(storage: Storage, dataset_id: str, snapshot_id: str) -> Staged | None:
    """What a staged file says of itself; None when there is none, or none that can be read."""
    key = layout.staged(dataset_id, snapshot_id)
    try:
        path = storage.fetch(key, storage.scratch() / "records")
    except MissingKey:
        return None
    try:
        with duckdb.connect() as con:
            row = con.execute(
                f"select decode(value) from parquet_kv_metadata({sql.quote_path(path)}) "
                "where decode(key) = 'catalunya'"
            ).fetchone()
        return read_record(row[0]) if row else None
    except (duckdb.Error, *index.UNDECODABLE) as error:
        log.warning("damaged staged file is staged again", key=storage.uri(key), reason=str(error))
        return None
