"""What became of the sources of a release: snapshots, controls, and the last runs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import duckdb

from catalunya.lake import index, snapshot
from catalunya.lake.snapshot import Manifest
from catalunya.lake.staged import StagedFile
from catalunya.lake.storage import Storage
from catalunya.release import Release
from catalunya.runs import record
from catalunya.runs.record import RunRecord

LAST_RUNS = 10
QUALITY = ("rows_unmatched", "rows_corrected", "rows_carried_forward", "controls", "controls_differing")
"""Columns of the mart `data_quality` that are shown beside the counts of staging."""


@dataclass(frozen=True)
class SourceStatus:
    """The newest snapshot of a dataset in the release."""

    manifest: Manifest | None
    """None when it is no longer in the lake."""
    staged: StagedFile | None
    quality: dict[str, Any]


@dataclass(frozen=True)
class Control:
    """Published places of Catalonia in a year, beside ours."""

    year: int
    facility: str
    basis: str | None
    published: int
    ours: int | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Status:
    """What is known of the making of a release."""

    sources: dict[str, SourceStatus] = field(default_factory=dict)
    controls: tuple[Control, ...] = ()
    runs: tuple[RunRecord, ...] = ()
    dbt_docs: str | None = None
    """Address of dbt's own documentation; None when the release has none."""


def read_status(con: duckdb.DuckDBPyConnection, storage: Storage, release: Release) -> Status:
    """Read what became of the newest snapshots, the controls, and the last runs; `con` names marts without a schema."""
    quality = {
        name: dict(zip(QUALITY, row, strict=True))
        for name, *row in con.execute(
            f"select dataset_id, {', '.join(QUALITY)} from data_quality where is_newest"
        ).fetchall()
    }
    controls = con.execute(
        "select year, facility, any_value(basis), sum(places_official)::bigint, sum(places_computed)::bigint, "
        "list_sort(list(distinct difference_reason) filter (difference_reason is not null)) "
        "from places_control_catalonia group by year, facility order by year desc, facility desc"
    ).fetchall()
    return Status(
        sources={
            name: SourceStatus(
                snapshot.read(storage, name, found.snapshot_id),
                index.load(storage, name).staged(found.snapshot_id),
                quality.get(name, {}),
            )
            for name, found in release.datasets.items()
        },
        controls=tuple(Control(*row[:5], reasons=tuple(row[5] or ())) for row in controls),
        runs=tuple(itertools.islice(record.recent(storage), LAST_RUNS)),
    )
