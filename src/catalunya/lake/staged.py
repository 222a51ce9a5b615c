"""What staging made of a snapshot: the record in its Parquet file's metadata, and its entry in the index."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import date, datetime
from pathlib import Path

import duckdb
import msgspec

from catalunya import sql
from catalunya.lake import disk, layout
from catalunya.lake.storage import MissingKey, Storage
from catalunya.log import get_logger

log = get_logger(__name__)

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a damaged record of the lake may raise."""


@dataclass(frozen=True)
class Control:
    """A total that the source publishes beside its rows, and the sum of the rows."""

    control: str
    period: str
    published: int
    computed: int


@dataclass(frozen=True, kw_only=True)
class StagedCounts:
    """What staging counted in a snapshot, and by which rules."""

    digest: str = ""
    """Digest of the typing rules and of the definition that staged it (`row_sql.digest`)."""
    rows_in: int
    rows_staged: int
    rows_quarantined: int
    rows_duplicated: int
    reasons: dict[str, int] = field(default_factory=dict)
    """Kind of issue to the number of quarantined rows that have it."""
    invalid_values: dict[str, int] = field(default_factory=dict)
    """Column to the number of staged rows whose optional value broke its declaration and was set to null."""
    figures: dict[str, float] = field(default_factory=dict)
    """Small figures of the staged rows that later snapshots are compared with, by name."""


@dataclass(frozen=True, kw_only=True)
class Staged(StagedCounts):
    """The record that a staged Parquet file carries in its metadata."""

    dataset_id: str
    snapshot_id: str
    taken_at: datetime
    demo: bool
    controls: tuple[Control, ...] = ()
    warnings: tuple[str, ...] = ()
    source_updated_on: date | None = None
    """Day on which the publisher last changed the data, as far as the source says so."""


@dataclass(frozen=True, kw_only=True)
class StagedFile(StagedCounts):
    """The entry of the index for a staged file."""

    size: int
    sha256: str
    quarantine_size: int = 0
    """Bytes of the file with the quarantined rows; 0 when that is not known."""


def index_entry(staged: Staged, path: Path) -> StagedFile:
    """The entry of the index for a staged file that lies at `path`."""
    counts = {f.name: getattr(staged, f.name) for f in fields(StagedCounts)}
    return StagedFile(**counts, size=path.stat().st_size, sha256=disk.sha256(path))


def record_of(staged: Staged) -> str:
    """The record as one JSON text, kept in the Parquet file's metadata."""
    return msgspec.json.encode(staged).decode()


def read_record(text: bytes | str) -> Staged:
    """The record that `record_of` wrote."""
    return msgspec.json.decode(text, type=Staged)


def staged_record(storage: Storage, dataset_id: str, snapshot_id: str) -> Staged | None:
    """The record of a staged file; None when there is none, or none that can be read."""
    key = layout.staged(dataset_id, snapshot_id)
    try:
        path = storage.fetch(key, storage.scratch() / "records")
        with duckdb.connect() as con:
            row = con.execute(
                f"select decode(value) from parquet_kv_metadata({sql.quote_path(path)}) "
                "where decode(key) = 'catalunya'"
            ).fetchone()
        return read_record(row[0]) if row else None
    except MissingKey:
        return None
    except (duckdb.Error, *UNDECODABLE) as error:
        log.warning("damaged staged file is staged again", key=storage.uri(key), reason=str(error))
        return None
