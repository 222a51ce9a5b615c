"""The keys and ids of the lake."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from catalunya.errors import UsageError

VERSION = 1
"""Of the layout of a lake: keys, and what the documents under them look like. The pointer says which one a lake has."""
OLDEST_VERSION = 0
"""Lakes from this version on are used as they are; older ones need `catalunya lake migrate` first."""

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
LOCKS = "locks"
SITE = "site"
"""The public site of a local lake, unless it has another place; no part of the lake: not copied, not checked, made again."""
DAMAGED = "damaged"
"""What `catalunya lake repair` moved aside."""
PUBLISHED = "published"
"""Copies of released files for the readers of Athena and Trino, each in a folder of its own."""

_ID = re.compile(r"([0-9]{8}T[0-9]{6}Z)-[0-9a-f]{8}")


def make_id(moment: datetime, digest: str) -> str:
    """`YYYYMMDDTHHMMSSZ-<first 8 hex of digest>`; sorts by time."""
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest[:8]}"


def moment_of(identifier: str) -> datetime:
    """The UTC moment inside a snapshot, release or run id; `UsageError` when it is none."""
    moment = _moment(identifier)
    if moment is None:
        raise UsageError(f"{identifier!r} is no id such as 20260105T000000Z-1a2b3c4d; see `catalunya status`")
    return moment


def is_id(name: str) -> bool:
    """True for the id of a snapshot, release or run."""
    return _moment(name) is not None


def _moment(name: str) -> datetime | None:
    match = _ID.fullmatch(name)
    try:
        return datetime.strptime(match[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) if match else None
    except ValueError:
        return None


def landing(dataset_id: str, snapshot_id: str, name: str) -> str:
    """Key of one landed file, `manifest.json` and `refused.json` included."""
    return f"{LANDING}/{dataset_id}/{snapshot_id}/{name}"


def staged(dataset_id: str, snapshot_id: str) -> str:
    """Key of the staged Parquet file of a snapshot."""
    return _by_date(STAGING, dataset_id, snapshot_id)


def quarantined(dataset_id: str, snapshot_id: str) -> str:
    """Key of the Parquet file with the rows of a snapshot that break its definition."""
    return _by_date(QUARANTINE, dataset_id, snapshot_id)


def index(dataset_id: str) -> str:
    """Key of the index of the snapshots of a dataset (`catalunya.lake.index`)."""
    return f"{STAGING}/{dataset_id}/_index.json"


def candidate(candidate_id: str, name: str) -> str:
    """Key of one file of a candidate that is not released yet."""
    return f"{CANDIDATES}/{candidate_id}/{name}"


def release(release_id: str, name: str = "") -> str:
    """Key of one file of a release, or its folder without a name."""
    return f"{RELEASES}/{release_id}/{name}" if name else f"{RELEASES}/{release_id}"


def published(schema: str) -> str:
    """Key of the record of the release that the views of a schema show."""
    return f"{PUBLISHED}/{schema}.json"


def published_file(release_id: str, mart: str) -> str:
    """Key of a released mart as Athena and Trino read it."""
    return f"{PUBLISHED}/files/{release_id}/{mart}/{mart}.parquet"


def ledger(run_id: str) -> str:
    """Key of the record of a run."""
    return f"{LEDGER}/{run_id}.json"


def ledger_archive(month: str) -> str:
    """Key of the older records of the runs of a month, `YYYY-MM`, one record a line."""
    return f"{LEDGER}/archive/{month}.jsonl"


def part(run_id: str, name: str) -> str:
    """Key of the state that one process of a run leaves for the next, until the run ends."""
    return f"{RUNS}/{run_id}/{name}.json"


def alert(digest: str) -> str:
    """Key of the marker that an alert was sent."""
    return f"{ALERTS}/{digest}.json"


def damaged(digest: str, key: str) -> str:
    """Key under which a damaged object is kept, by the first 8 hex digits of its content's SHA-256."""
    return f"{DAMAGED}/{digest[:8]}/{key}"


def docs(release_id: str, name: str) -> str:
    """Key of one file of dbt's documentation of a release."""
    return f"{DOCS}/{release_id}/{name}"


def _by_date(prefix: str, dataset_id: str, snapshot_id: str) -> str:
    day = moment_of(snapshot_id).date().isoformat()
    return f"{prefix}/{dataset_id}/snapshot_date={day}/{snapshot_id}.parquet"
