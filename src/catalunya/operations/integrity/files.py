"""Stored files against what is recorded of them: size, SHA-256, the rows of Parquet files."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import duckdb

from catalunya import sql
from catalunya.errors import CatalunyaError
from catalunya.lake import disk, index, layout
from catalunya.lake.index import Index
from catalunya.lake.snapshot import LandedFile, Manifest
from catalunya.lake.staged import StagedFile, staged_record
from catalunya.lake.storage import MissingKey, Storage
from catalunya.operations.integrity.fault import REPAIR, Fault

BACKUP = "restore it from a backup (`catalunya lake copy BACKUP LAKE`)"
RESTAGE = f"it is made again from the landed bytes by {REPAIR}, or by `catalunya run --rebuild`"
_AT_ONCE = 4
_BATCH = 64

T = TypeVar("T")


def side_by_side(tasks: Iterable[Callable[[], T]]) -> list[T]:
    """Do tasks in a few threads, a bounded number of them at a time; returns their results in order."""
    rest = iter(tasks)
    done: list[T] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while batch := list(islice(rest, _BATCH)):
            done += pool.map(lambda task: task(), batch)
    return done


def together(tasks: Iterable[Callable[[], Iterable[Fault]]]) -> Iterator[Fault]:
    """Give the faults that tasks find, which are done in a few threads."""
    for faults in side_by_side(partial(_listed, task) for task in tasks):
        yield from faults


def _listed(task: Callable[[], Iterable[Fault]]) -> list[Fault]:
    return list(task())


@contextmanager
def fetched(storage: Storage, key: str) -> Iterator[Path]:
    """A local path to read a stored file from; raises `MissingKey`, `CatalunyaError` when it cannot be read."""
    work = storage.scratch() / f"check-{uuid.uuid4().hex}"
    try:
        path = storage.fetch(key, work)
        with disk.explained(path, known_only=True):
            yield path
    finally:
        shutil.rmtree(work, ignore_errors=True)


def sha256_of(storage: Storage, key: str, *, read: bool = False) -> str:
    """SHA-256 of a stored file: the one that the storage keeps, where it does and unless all is to be `read`.

    Raises `MissingKey`.
    """
    kept = None if read else storage.stored_sha256(key)
    if kept is not None:
        return kept
    with fetched(storage, key) as path:
        return disk.sha256(path)


def unreadable(storage: Storage, key: str, error: CatalunyaError) -> Fault:
    """The fault of a file or folder that this process may not read."""
    address = storage.uri(key) if key else storage.url
    reason = str(error).removeprefix(f"{address}: ").partition(";")[0]
    return Fault(
        key=key,
        address=address,
        found=f"cannot be read: {reason}",
        hint=f"give this user the right to read it: `chmod -R u+rX '{address}'`, or the policy of the bucket",
    )


def landed_faults(
    storage: Storage, manifest: Manifest, *, read: bool, sizes: dict[str, int] | None = None
) -> list[Fault]:
    """How the landed files of a snapshot differ from its manifest.

    `sizes` are those of a listing, by name: a file that it lacks is missing, and one of another size is not read.
    """
    return [
        Fault(
            key=key,
            address=storage.uri(key),
            found=found,
            hint=f"{BACKUP}; what was released from it stays as it is. Without a backup leave the snapshot out: "
            f"`catalunya refuse {manifest.snapshot_id} --why …`",
            dataset_id=manifest.dataset_id,
            snapshot_id=manifest.snapshot_id,
        )
        for file in manifest.files
        if (key := layout.landing(manifest.dataset_id, manifest.snapshot_id, file.name))
        and (found := _difference(storage, key, file, read=read, sizes=sizes))
    ]


def _difference(
    storage: Storage, key: str, file: LandedFile, *, read: bool, sizes: dict[str, int] | None
) -> str:
    """How a landed file differs from what the manifest says of it; empty when it does not."""
    size = file.size if sizes is None else sizes.get(file.name)
    if size is None:
        return "is missing"
    if size != file.size:
        return f"has {size} bytes, the manifest says {file.size}"
    try:
        sha256 = sha256_of(storage, key, read=read)
    except MissingKey:
        return "is missing"
    except CatalunyaError as error:
        return f"cannot be read: {error}"
    if sha256 == file.sha256:
        return ""
    return f"has the SHA-256 {sha256[:16]}…, the manifest says {file.sha256[:16]}… ({file.size} bytes)"


def staged_faults(
    storage: Storage,
    dataset_id: str,
    snapshot_id: str,
    known: Index | None = None,
    *,
    rows_in: int | None = None,
) -> list[Fault]:
    """How the staged file of a snapshot and its quarantine are not what staging recorded.

    The SHA-256 is compared with the index of the dataset. Where the index does not know the file, what the file says of
    itself must fit its rows: an index that is made again takes it from there. A refused snapshot needs no staged file.
    With `rows_in` the counts must fit the rows of the manifest.
    """
    known = known or index.load(storage, dataset_id)
    entry = known.snapshots.get(snapshot_id)
    staged = entry.staged if entry else None
    key = layout.staged(dataset_id, snapshot_id)
    try:
        with fetched(storage, key) as path:
            found = _staged_file(storage, dataset_id, snapshot_id, staged, path)
        if not found and staged is not None:
            found = _counts(staged, rows_in)
    except MissingKey:
        found = [] if entry is not None and entry.refusal is not None else ["is missing"]
    except CatalunyaError as error:
        return [unreadable(storage, key, error)]
    faults = [_restaged(storage, key, dataset_id, snapshot_id, text) for text in found]
    if not faults and staged is not None and staged.quarantine_size:
        faults = _quarantine_faults(storage, dataset_id, snapshot_id, staged)
    return faults


def _staged_file(
    storage: Storage, dataset_id: str, snapshot_id: str, staged: StagedFile | None, path: Path
) -> list[str]:
    sha256 = disk.sha256(path) if staged else ""
    if staged is None:
        return _record_faults(storage, dataset_id, snapshot_id, path)
    if sha256 == staged.sha256:
        return []
    record = staged_record(storage, dataset_id, snapshot_id)
    if record is not None and (record.dataset_id, record.snapshot_id) != (dataset_id, snapshot_id):
        return [f"is the staged file of snapshot {record.snapshot_id} of {record.dataset_id}"]
    size = path.stat().st_size
    return [
        f"has {size} bytes with SHA-256 {sha256[:16]}…, staging wrote {staged.size} with {staged.sha256[:16]}…"
    ]


def _counts(staged: StagedFile, rows_in: int | None) -> list[str]:
    counted = staged.rows_staged + staged.rows_quarantined + staged.rows_duplicated
    if counted != staged.rows_in:
        return [f"has {counted} rows staged, quarantined and duplicated, of {staged.rows_in} that came in"]
    if rows_in is not None and rows_in != staged.rows_in:
        return [f"was made of {staged.rows_in} rows, the manifest of its snapshot says {rows_in}"]
    return []


def _record_faults(storage: Storage, dataset_id: str, snapshot_id: str, path: Path) -> list[str]:
    """How the rows of a staged file differ from its record; every value is decoded."""
    record = staged_record(storage, dataset_id, snapshot_id)
    if record is None:
        return ["has no record that can be read"]
    if (record.dataset_id, record.snapshot_id) != (dataset_id, snapshot_id):
        return [f"is the staged file of snapshot {record.snapshot_id} of {record.dataset_id}"]
    try:
        with duckdb.connect() as con:
            row = con.execute(
                """
                select count(*), count(*) filter (snapshot_id is distinct from ?), bit_xor(hash(staged))
                from read_parquet(?, hive_partitioning = false) as staged
                """,
                [snapshot_id, str(path)],
            ).fetchone()
    except duckdb.Error as error:
        return [f"cannot be read: {str(error).splitlines()[0]}"]
    assert row is not None
    wrong = []
    if row[0] != record.rows_staged:
        wrong.append(f"has {row[0]} rows, its record says {record.rows_staged}")
    if row[1]:
        wrong.append(f"has {row[1]} rows of other snapshots")
    return wrong


def _quarantine_faults(
    storage: Storage, dataset_id: str, snapshot_id: str, staged: StagedFile
) -> list[Fault]:
    """No SHA-256 of a quarantine file is kept: its size, and the rows of what it holds, must fit."""
    key = layout.quarantined(dataset_id, snapshot_id)
    try:
        with fetched(storage, key) as path:
            size = path.stat().st_size
            rows = parquet_rows(path, read=True) if size == staged.quarantine_size else None
    except MissingKey:
        return [_restaged(storage, key, dataset_id, snapshot_id, "is missing")]
    except CatalunyaError as error:
        return [unreadable(storage, key, error)]
    except duckdb.Error as error:
        found = f"cannot be read: {str(error).splitlines()[0]}"
        return [_restaged(storage, key, dataset_id, snapshot_id, found)]
    if size != staged.quarantine_size:
        found = f"has {size} bytes, staging wrote {staged.quarantine_size}"
    elif rows != staged.rows_quarantined:
        found = f"has {rows} rows, staging quarantined {staged.rows_quarantined}"
    else:
        return []
    return [_restaged(storage, key, dataset_id, snapshot_id, found)]


def _restaged(storage: Storage, key: str, dataset_id: str, snapshot_id: str, found: str) -> Fault:
    return Fault(
        key=key,
        address=storage.uri(key),
        found=found,
        hint=RESTAGE,
        repair="stage",
        dataset_id=dataset_id,
        snapshot_id=snapshot_id,
    )


def parquet_rows(path: Path, *, read: bool = False) -> int:
    """The number of rows that a Parquet file says; with `read` every value is decoded. Raises `duckdb.Error`."""
    with duckdb.connect() as con:
        values = ", bit_xor(hash(rows))" if read else ""
        query = f"select count(*){values} from {sql.read_parquet(path)} as rows"
        row = con.execute(query).fetchone()
    return int(row[0]) if row else 0
