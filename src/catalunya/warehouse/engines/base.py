"""What an engine does for the stages, whichever it is."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
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
    """What a run asked of a distributed engine."""

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
class Shown:
    """A release as readers of the engine's own schema see it."""

    release_id: str
    marts: tuple[str, ...]


class Workspace(Protocol):
    """A candidate that is open on its engine."""

    @property
    def target(self) -> dbt.Target:
        """Where dbt works on it."""

    def sample(self, query: str, rows: int) -> tuple[str, ...]:
        """The first so many rows of a query, in order, as `column=value` pairs."""

    def relation(self, con: duckdb.DuckDBPyConnection, mart: dbt.Mart) -> str:
        """What DuckDB reads the rows of a mart from, with the mart's columns and types."""

    def keep(self) -> None:
        """Make the candidate last beyond this process."""


class Engine(Protocol):
    """An engine with a lake to build from."""

    name: str
    has_readers: bool
    """True when people query it, so that it has to show them the release."""

    def __init__(self, storage: Storage, settings: Settings) -> None: ...

    def check(self) -> str:
        """See whether it can be used, and say so in a sentence; raises an explained error when it cannot."""

    def build(
        self, candidate_id: str, datasets: dict[str, Dataset], snapshots: Snapshots
    ) -> AbstractContextManager[tuple[Workspace, list[Staged]]]:
        """A new candidate with the schema `staging` of exactly these snapshots, and their counts.

        What is not kept is gone on leaving.
        """

    def reopen(self, candidate_id: str) -> AbstractContextManager[Workspace]:
        """A candidate that was kept."""

    def discard(self, candidate_id: str) -> None:
        """Delete all of a candidate that the engine holds, and nothing else."""

    def show(self, release: Shown) -> None:
        """Let readers of the engine's own schema see a release; done once, again does nothing."""

    def cost(self) -> Cost | None:
        """What was asked of the engine so far; None of an engine in this process."""
