"""The protocol of the engines: what each does for the stages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import duckdb
from pydantic import BaseModel, ConfigDict

from catalunya.datasets.model import Dataset
from catalunya.lake.staged import Staged
from catalunya.lake.storage import Storage
from catalunya.settings import Settings
from catalunya.warehouse import dbt

ENGINE_NOTE = "engine.json"
"""File of a candidate that names a distributed engine which holds a part of it."""
Snapshots = dict[str, tuple[str, ...]]
"""Dataset to the snapshots that a build reads, oldest first."""


class Cost(BaseModel):
    """What the queries of a run cost on a distributed engine."""

    model_config = ConfigDict(frozen=True)

    queries: int = 0
    bytes_scanned: int = 0
    engine_seconds: float = 0.0
    """Time that the engine worked, over all queries."""
    usd: float | None = None
    """At `usd_per_tb`; None where an engine is not paid by what it scans."""
    usd_per_tb: float | None = None

    def __add__(self, other: Cost) -> Cost:
        paid = [cost for cost in (self.usd, other.usd) if cost is not None]
        return Cost(
            queries=self.queries + other.queries,
            bytes_scanned=self.bytes_scanned + other.bytes_scanned,
            engine_seconds=round(self.engine_seconds + other.engine_seconds, 3),
            usd=round(sum(paid), 6) if paid else None,
            usd_per_tb=self.usd_per_tb or other.usd_per_tb,
        )


@dataclass(frozen=True)
class PublishedRelease:
    """A release that readers of the engine's own schema query."""

    release_id: str
    marts: tuple[str, ...]
    notice: str = ""
    """A comment of every view, such as the mark of demo data."""


class Workspace(Protocol):
    """An open candidate on its engine."""

    @property
    def target(self) -> dbt.Target:
        """Where dbt works on it."""

    def sample(self, query: str, rows: int) -> tuple[str, ...]:
        """Return the first so many rows of a query, in order, as `column=value` pairs."""

    def relation(self, con: duckdb.DuckDBPyConnection, mart: dbt.Mart) -> str:
        """Return the SQL relation from which `con` reads a mart, with the mart's columns and types."""

    def build(self, project: Path, digest: str, on_node: Callable[[str], None] | None = None) -> dbt.Outcome:
        """Build all seeds and models of dbt's project on the candidate; returns the results, of those that failed too."""

    def test(
        self, project: Path, digest: str, on_node: Callable[[str], None] | None = None
    ) -> tuple[dbt.NodeResult, ...]:
        """Return the results of all tests of dbt's project on the candidate."""

    def persist(self) -> None:
        """Store the candidate, so that another process can open it."""


class Engine(Protocol):
    """Builds candidates from a lake and publishes releases to its readers."""

    name: str
    has_readers: bool
    """True when people query it, so that a release needs views on it."""

    def __init__(self, storage: Storage, settings: Settings) -> None: ...

    def check(self) -> str:
        """Return a sentence that says that it can be used; raises an explained error when it cannot."""

    def build(
        self, candidate_id: str, datasets: dict[str, Dataset], snapshots: Snapshots
    ) -> AbstractContextManager[tuple[Workspace, list[Staged]]]:
        """Open a new candidate whose schema `staging` has exactly these snapshots, and return it with their records.

        A candidate that is not persisted is deleted on leaving.
        """

    def reopen(self, candidate_id: str) -> AbstractContextManager[Workspace]:
        """Open a candidate that was persisted."""

    def discard(self, candidate_id: str) -> None:
        """Delete everything of a candidate that is on the engine, and nothing else."""

    def publish_views(self, release: PublishedRelease) -> None:
        """Make the views of the engine's own schema read a release; does nothing when they do already."""

    def cost(self) -> Cost | None:
        """Return the cost of the queries so far; None for an engine in this process."""
