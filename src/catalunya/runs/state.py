"""What one run over a lake works with, and what it puts on record."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import duckdb

from catalunya import signals
from catalunya.build import Candidate, build
from catalunya.datasets.model import Dataset
from catalunya.errors import MORE_MEMORY, CatalunyaError, Refused, UsageError
from catalunya.lake import disk, layout
from catalunya.lake.lock import Lock
from catalunya.lake.storage import Storage
from catalunya.quality.findings import Stale
from catalunya.release import Release, current_release, newest_whole_release
from catalunya.runs.heartbeat import send_heartbeat
from catalunya.runs.record import DatasetRecord, RunRecord, StageRecord, StageStatus, last_seen
from catalunya.runs.reporter import Reporter
from catalunya.settings import Settings
from catalunya.warehouse.engines import Engine, open_engine
from catalunya.warehouse.engines.base import Cost


@dataclass(eq=False)
class RunState:
    """A lake that a run has locked, and the record of the run."""

    settings: Settings
    storage: Storage
    datasets: dict[str, Dataset]
    lock: Lock
    reporter: Reporter
    record: RunRecord
    earlier: RunRecord | None = None
    """What other processes recorded of the same run, when its stages do not share one process (`steps.py`)."""
    refusals: list[str] = field(default_factory=list)
    """What was refused before the build, in sentences."""
    compare_with: dict[str, float] | None = None
    """Figures to compare a candidate's marts with, where those of the last release are of other code or snapshots."""

    def __post_init__(self) -> None:
        self.now = self.record.started_at
        self.record.lake = self.storage.url
        self._started = time.monotonic()

    @cached_property
    def engine(self) -> Engine:
        """Where the marts are built; opened when a stage first needs it."""
        return open_engine(self.storage, self.settings)

    @cached_property
    def shown(self) -> Release | None:
        """The release that readers saw when the run began."""
        return current_release(self.storage)

    @cached_property
    def last(self) -> Release | None:
        """The release that a new one follows: the shown one or, when the pointer was lost, the newest whole one."""
        return self.shown or newest_whole_release(self.storage)

    def begin(self) -> None:
        """Read what the lake knows of the sources and of the release that readers see; raises `LakeCorrupt`."""
        self.record.seen = last_seen(self.storage, self.now)
        self.record.release_id = self.shown.release_id if self.shown else None

    def execute(self, work: Callable[[], object], stage: str | None = None) -> RunRecord:
        """Do the work of a run and return its record, which is in the ledger however the work ended.

        `stage` names the only stage of the run. No error is raised: the record has it.
        """
        try:
            self.begin()
            if stage is not None:
                self.record.status, self.record.exit_code = "unchanged", 0
                self.record.message = f"{stage} done"
            work()
            if self.record.exit_code:
                signals.check()
        except BaseException as error:  # noqa: BLE001
            signals.defer()
            ended_by = signals.stopped() or error
            if not isinstance(ended_by, CatalunyaError | KeyboardInterrupt):
                traceback.print_exception(ended_by)
            self.record.end(ended_by)
        signals.defer()
        try:
            self._finish()
        except CatalunyaError as error:
            self.record.end(error)
            self.record.warn(f"this run is not in the ledger: {error}")
        if stage is None:
            send_heartbeat(self.settings, self.record.exit_code)
        return self.record

    def _finish(self) -> None:
        for key, why in self.storage.ignored.items():
            self.record.warn(f"{self.storage.url}/{key} was ignored: {why}")
        if self.record.release_id:
            self.record.release = self.storage.uri(layout.release(self.record.release_id))
        self.record.cost = self.cost()
        self.record.seconds = round(time.monotonic() - self._started, 3)
        data = self.record.model_dump_json(indent=1).encode()
        self.storage.put(layout.ledger(self.record.run_id), data)

    def cost(self) -> Cost | None:
        """Return what the run asked of the engine; a warning and None when the engine does not say."""
        if "engine" not in self.__dict__:
            return None
        try:
            return self.engine.cost()
        except CatalunyaError as error:
            self.record.warn(f"the cost of the run is not known: {error}")
            return None

    def select(self, only: tuple[str, ...]) -> dict[str, Dataset]:
        """Return the datasets named in `only`, all when it is empty; raises `UsageError` for an unknown one."""
        unknown = [name for name in only if name not in self.datasets]
        if unknown:
            raise UsageError(f"no dataset {', '.join(unknown)}; there are: {', '.join(self.datasets)}")
        return {name: self.datasets[name] for name in (only or self.datasets)}

    def dataset_record(self, dataset_id: str) -> DatasetRecord:
        """Return what this run knows of a dataset so far."""
        earlier = self.earlier.datasets.get(dataset_id) if self.earlier else None
        default = earlier or DatasetRecord(snapshot_id=None, outcome="not read")
        return self.record.datasets.setdefault(dataset_id, default)

    @property
    def stale(self) -> tuple[Stale, ...]:
        """The datasets whose source could not be used."""
        return tuple(self.record.stale or (self.earlier.stale if self.earlier else ()))

    def build_candidate(
        self,
        candidate_id: str,
        leave_out: Collection[str] = (),
        on_node: Callable[[str], None] | None = None,
    ) -> Candidate:
        """Build a candidate from all staged snapshots that are not refused, without those of `leave_out`."""
        return build(
            self.storage,
            self.datasets,
            self.settings,
            self.engine,
            candidate_id=candidate_id,
            now=self.now,
            leave_out=leave_out,
            on_node=on_node,
        )

    def refuse(self, refusal: Refused) -> None:
        """Record what was refused, so that the run can go on without it."""
        self.refusals.append(str(refusal))
        self.record.refused |= refusal.snapshots
        self.record.warn(str(refusal))

    def skip(self, *stages: str) -> None:
        """Record stages that were not needed."""
        for name in stages:
            self.record.stages.append(StageRecord(name=name, status="skipped", seconds=0.0))
            self.reporter.end(name, "skipped", 0.0)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Report and record a stage: how it ended and how long it took; explain an error of the disk."""
        self.reporter.begin(name)
        started = time.monotonic()
        status: StageStatus = "failed"
        try:
            with disk.explained(self.storage.scratch(), known_only=True):
                yield
            status = "done"
        except Refused:
            status = "refused"
            raise
        except duckdb.OutOfMemoryException as error:
            raise CatalunyaError(f"{name}: DuckDB has too little memory: {error}; {MORE_MEMORY}") from error
        except duckdb.IOException as error:
            raise CatalunyaError(
                f"{name}: DuckDB could not read or write a file: {error}; check the disk and its free space, then run again"
            ) from error
        finally:
            seconds = round(time.monotonic() - started, 3)
            self.record.stages.append(StageRecord(name=name, status=status, seconds=seconds))
            self.reporter.end(name, status, seconds)
