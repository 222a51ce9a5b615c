"""A warehouse that the pipeline itself lands, stages and builds, beside what the portals sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from catalunya import audit, build, stage
from catalunya.lake import layout
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from catalunya.settings import Settings
from catalunya.warehouse.engines import open_engine
from catalunya.warehouse.engines.duckdb import DATABASE
from tests.factories import DEFINITIONS, land

from .kept import Kept, Snapshot
from .portals import Sent
from .typed import typed

NOW = datetime(2027, 2, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class BuiltWarehouse:
    """What the portals sent, and the warehouse that the pipeline made of it."""

    kept: Kept
    path: Path
    candidate: build.Candidate
    audit: Callable[[], audit.Audit]
    """Audit the candidate."""

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the query finds in the warehouse."""
        with duckdb.connect(self.path, read_only=True) as con:
            return con.execute(query).fetchall()

    def columns(self, mart: str) -> list[str]:
        """The columns of a mart, in order; none where there is no such mart."""
        found = self.rows(
            "select column_name from information_schema.columns where table_schema = 'marts' "
            f"and table_name = '{mart}' order by ordinal_position"
        )
        return [name for (name,) in found]


def build_warehouse(lake: Path, everything: list[Sent]) -> BuiltWarehouse:
    """The warehouse that the pipeline makes of what the portals sent, in a lake of its own."""
    storage = open_lake(str(lake))
    snapshots = [_landed(storage, sent) for sent in everything]
    for dataset in DEFINITIONS.values():
        stage.stage(storage, dataset, run_id="20270201T120000Z-00000000", now=NOW)
    settings = Settings.model_validate({"ENVIRONMENT": "development", "CATALUNYA_LAKE": str(lake)})
    engine = open_engine(storage, settings)
    candidate = build.build(
        storage, DEFINITIONS, settings, engine, candidate_id="20270201T120000Z-00000000", now=NOW
    )
    path = lake / layout.candidate(candidate.candidate_id, DATABASE)

    def audit_candidate() -> audit.Audit:
        return audit.audit(storage, DEFINITIONS, settings, engine, candidate, None, now=NOW)

    return BuiltWarehouse(Kept(snapshots), path, candidate, audit_candidate)


def _landed(storage: Storage, sent: Sent) -> Snapshot:
    said = {} if sent.updated is None else {"rows_updated_at": sent.updated}
    manifest = land(storage, DEFINITIONS[sent.dataset_id], sent.pages, now=sent.taken_at, validators=said)
    return Snapshot(
        sent.dataset_id,
        manifest.snapshot_id,
        sent.taken_at,
        len(sent.rows),
        typed(sent.dataset_id, sent.rows, sent.taken_at.date()),
        sent.totals,
        None if sent.updated is None else datetime.fromtimestamp(sent.updated, UTC).date(),
    )
