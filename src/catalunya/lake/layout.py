"""How things in the lake are named: every key and every id, and nothing else."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from catalunya.errors import UsageError

CURRENT = "current.json"
LANDING = "landing"
STAGING = "staging"
QUARANTINE = "quarantine"
CANDIDATES = "candidates"
RELEASES = "releases"
LEDGER = "ledger"
RUNS = "runs"
ALERTS = "alerts"
DOCS = "docs"
PUBLISHED = "published"
"""What a distributed engine's readers read: copies of released files, each in a folder of its own."""

_ID = re.compile(r"([0-9]{8}T[0-9]{6}Z)-[0-9a-f]{8}")


def make_id(moment: datetime, digest: str) -> str:
    """`YYYYMMDDTHHMMSSZ-<first 8 hex of digest>`; sorts by time."""
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest[:8]}"


def moment_of(identifier: str) -> datetime:
    """The UTC moment inside a snapshot, release or run id; `UsageError` when it is none."""
    if not is_id(identifier):
        raise UsageError(f"{identifier!r} is no id such as 20260105T000000Z-1a2b3c4d; see `catalunya status`")
    return datetime.strptime(identifier[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def is_id(name: str) -> bool:
    """True for the id of a snapshot, release or run."""
    match = _ID.fullmatch(name)
    if match is None:
        return False
    try:
        datetime.strptime(match[1], "%Y%m%dT%H%M%SZ")
    except ValueError:
        return False
    return True


def landing(dataset_id: str, snapshot_id: str, name: str) -> str:
    """Key of one landed file, `manifest.json` and `refused.json` included."""
    return f"{LANDING}/{dataset_id}/{snapshot_id}/{name}"


def staged(dataset_id: str, snapshot_id: str) -> str:
    """Key of the staged Parquet file of a snapshot."""
    return _by_date(STAGING, dataset_id, snapshot_id)


def quarantined(dataset_id: str, snapshot_id: str) -> str:
    """Key of the Parquet file with the rows of a snapshot that broke its declaration."""
    return _by_date(QUARANTINE, dataset_id, snapshot_id)


def index(dataset_id: str) -> str:
    """Key of what is known of all snapshots of a dataset (`catalunya.lake.index`)."""
    return f"{STAGING}/{dataset_id}/_index.json"


def candidate(candidate_id: str, name: str) -> str:
    """Key of one file of a candidate that is not released yet."""
    return f"{CANDIDATES}/{candidate_id}/{name}"


def release(release_id: str, name: str = "") -> str:
    """Key of one file of a release, or its folder without a name."""
    return f"{RELEASES}/{release_id}/{name}" if name else f"{RELEASES}/{release_id}"


def published(schema: str) -> str:
    """Key of the note that says which release the views of a schema show."""
    return f"{PUBLISHED}/{schema}.json"


def published_file(release_id: str, mart: str) -> str:
    """Key of a released mart as a distributed engine reads it."""
    return f"{PUBLISHED}/files/{release_id}/{mart}/{mart}.parquet"


def ledger(run_id: str) -> str:
    """Key of the record of a run."""
    return f"{LEDGER}/{run_id}.json"


def ledger_archive(month: str) -> str:
    """Key of the older records of the runs of a month, `YYYY-MM`, a line a record."""
    return f"{LEDGER}/archive/{month}.jsonl"


def part(run_id: str, name: str) -> str:
    """Key of what one process leaves for the next of the same run, until that ends."""
    return f"{RUNS}/{run_id}/{name}.json"


def alert(digest: str) -> str:
    """Key of the note that an alert was sent."""
    return f"{ALERTS}/{digest}.json"


def docs(release_id: str, name: str) -> str:
    """Key of one file of dbt's documentation of a release."""
    return f"{DOCS}/{release_id}/{name}"


def _by_date(prefix: str, dataset_id: str, snapshot_id: str) -> str:
    day = moment_of(snapshot_id).date().isoformat()
    return f"{prefix}/{dataset_id}/snapshot_date={day}/{snapshot_id}.parquet"
