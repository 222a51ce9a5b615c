"""What staging made of a snapshot: the record that every staged Parquet file carries in its metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import file_digest
from pathlib import Path

import duckdb
import msgspec
import structlog

from catalunya import sql
from catalunya.lake import index, layout
from catalunya.lake.storage import MissingKey, Storage

log = structlog.get_logger(__name__)


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


def index_entry(staged: Staged, path: Path) -> index.StagedFile:
    """The entry of the index for a staged file that lies at `path`."""
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
