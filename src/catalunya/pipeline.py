"""The stages in order, for one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Protocol

import structlog

from catalunya import publish
from catalunya.audit import Audit, Stale, audit, refuse
from catalunya.build import Candidate, build, discard_candidates, inputs
from catalunya.datasets import Dataset
from catalunya.demo.borrow import is_unknown
from catalunya.engines import Engine, open_engine
from catalunya.engines.protocol import Cost
from catalunya.errors import CatalunyaError, Refused, SourceUnreadable, UsageError
from catalunya.ingest import ingest
from catalunya.lake import layout, pointer, snapshot
from catalunya.lake.lock import Lock
from catalunya.lake.storage import Storage
from catalunya.publish import Release
from catalunya.record import (
    DatasetRecord,
    RunRecord,
    Seen,
    StageRecord,
    StageStatus,
    code_revision,
    last_seen,
    versions,
)
from catalunya.settings import Settings
from catalunya.stage import Staged, stage, staged_record

log = structlog.get_logger(__name__)


class Reporter(Protocol):
    """Who is told how a run goes; the CLI draws bars, a log prints lines."""

    def begin(self, stage: str) -> None:
        """A stage begins."""

    def step(self, stage: str, what: str, done: int | None = None, total: int | None = None) -> None:
        """Something of a stage went on: a dataset's rows, a model."""

    def end(self, stage: str, status: str, seconds: float) -> None:
        """A stage ended."""


class Run:
    """One run over a lake that it holds. Each stage can be called alone; `all_stages` calls them in order.

    `earlier` is what other processes recorded of the same run, when its stages do not share one (`relay.py`).
    """

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        datasets: dict[str, Dataset],
        lock: Lock,
        reporter: Reporter,
        run_id: str,
        earlier: RunRecord | None = None,
    ) -> None:
        self.settings = settings
        self.storage = storage
        self.datasets = datasets
        self.lock = lock
        self.reporter = reporter
        self.now = settings.now()
        self.before = publish.current(storage)
        self.record = RunRecord(
            run_id=run_id,
            release_id=self.before.release_id if self.before else None,
            environment=settings.environment,
            engine=settings.resolved_engine,
            lake=storage.url,
            started_at=self.now,
            versions=versions(settings.resolved_engine),
            code_revision=code_revision(settings.home),
            seen=last_seen(storage, self.now),
        )
        self.earlier = earlier
        self._started = time.monotonic()

    @cached_property
    def engine(self) -> Engine:
        """Where the marts are built; opened when a stage first needs it."""
        return open_engine(self.storage, self.settings)

    def all_stages(
        self, *, force: bool = False, rebuild: bool = False, only: tuple[str, ...] = ()
    ) -> RunRecord:
        """Every stage once; the record is kept in the ledger whatever happens.

        `force` reads every source again, `rebuild` stages every kept snapshot again; both publish although
        nothing is new. `only` are the datasets whose sources are read, all by default.
        """
        try:
            self.tidy()
            self.ingest(force=force, only=only)
            self.stage(again=rebuild)
            self.require_snapshots()
            if not force and not rebuild and self.nothing_new():
                self.skip("build", "audit", "publish")
            else:
                candidate = self.build()
                self.audit(candidate)
                self.publish(candidate)
                discard_candidates(self.storage, self.engine)
        except CatalunyaError as error:
            self.fail(error)
        finally:
            self.finish()
        return self.record

    def one_stage(self, name: str, work: Callable[[], object]) -> RunRecord:
        """One stage alone, recorded in the ledger too."""
        self.record.status = "unchanged"
        self.record.exit_code = 0
        self.record.message = f"{name} done"
        try:
            work()
        except CatalunyaError as error:
            self.fail(error)
        finally:
            self.finish()
        return self.record

    def ingest(self, *, force: bool = False, only: tuple[str, ...] = ()) -> None:
        """Read every source; one that cannot be read does not hold up the others."""
        with self._stage("ingest"):
            for dataset_id, dataset in self._chosen(only).items():
                self._ingest_one(dataset_id, dataset, force=force)

    def _ingest_one(self, dataset_id: str, dataset: Dataset, *, force: bool) -> None:
        def progress(done: int, total: int | None) -> None:
            self.reporter.step("ingest", dataset_id, done, total)

        newest = snapshot.latest(self.storage, dataset_id)
        seen = self.record.seen.get(dataset_id)
        still = seen is not None and newest is not None and seen.snapshot_id == newest.snapshot_id
        answer = ingest(
            self.storage,
            dataset,
            self.settings,
            run_id=self.record.run_id,
            now=self.now,
            known=seen.validators if seen and still else None,
            force=force,
            progress=progress,
        )
        if (
            answer.outcome == "unreadable"
            and answer.snapshot_id is None
            and is_unknown(self.settings, dataset_id)
        ):
            words = f"{dataset_id}: the demo portal does not know it; its tables stay empty here"
            answer = replace(answer, outcome="unknown", message=words)
        self.reporter.step("ingest", f"{dataset_id}: {answer.outcome}")
        self.record.datasets[dataset_id] = DatasetRecord(
            snapshot_id=answer.snapshot_id,
            outcome=answer.outcome,
            message=answer.message,
            rows_in=answer.rows,
            requests=answer.requests,
            bytes=answer.bytes,
        )
        if answer.snapshot_id:
            self.record.seen[dataset_id] = Seen(snapshot_id=answer.snapshot_id, validators=answer.validators)
        if answer.message:
            self.record.warn(answer.message)

    def stage(self, *, again: bool = False, only: tuple[str, ...] = ()) -> None:
        """Stage what landed, with `again` every kept snapshot; all are tried before a refusal is raised."""
        refusals: list[str] = []
        with self._stage("stage"):
            for dataset_id, dataset in self._chosen(only).items():
                known = self._known(dataset_id)
                if known.outcome == "drifted":
                    refusals.append(known.message)
                try:
                    done = stage(self.storage, dataset, run_id=self.record.run_id, now=self.now, again=again)
                except Refused as refusal:
                    refusals.append(str(refusal))
                else:
                    self._report_staged(done)
            if not only:
                self.count_datasets()
            if refusals:
                raise Refused("; ".join(refusals))

    def _known(self, dataset_id: str) -> DatasetRecord:
        """What this run knows of a dataset so far."""
        if self.earlier is not None and dataset_id not in self.record.datasets:
            self.record.datasets |= {k: v for k, v in self.earlier.datasets.items() if k == dataset_id}
        return self.record.datasets.setdefault(
            dataset_id, DatasetRecord(snapshot_id=None, outcome="not read")
        )

    def _report_staged(self, done: list[Staged]) -> None:
        for staged in done:
            self.reporter.step("stage", f"{staged.dataset_id}: {staged.rows_staged} of {staged.rows_in} rows")
            for warning in staged.warnings:
                self.record.warn(warning)

    def count_datasets(self) -> None:
        """Counts of the snapshots in use, and the datasets that are stale."""
        for dataset_id in self.datasets:
            self.count_dataset(dataset_id)

    def count_dataset(self, dataset_id: str) -> None:
        """Counts of the snapshot of one dataset that is in use, and its age when it is stale."""
        record = self._known(dataset_id)
        accepted = snapshot.accepted(self.storage, dataset_id)
        if not accepted:
            return
        newest = snapshot.latest(self.storage, dataset_id)
        held_back = newest is not None and newest.snapshot_id != accepted[-1]
        if held_back and newest is not None:
            self.record.warn(
                f"{dataset_id}: snapshot {newest.snapshot_id} is refused, {accepted[-1]} is used instead; "
                f"`catalunya status` says why, `catalunya accept {newest.snapshot_id} --why …` lifts it"
            )
        record.snapshot_id = accepted[-1]
        if record.outcome in {"unreadable", "drifted"} or held_back:
            age = self.now - layout.moment_of(accepted[-1])
            hours = round(age.total_seconds() / 3600, 2)
            self.record.stale.append(
                Stale(dataset_id=dataset_id, snapshot_id=accepted[-1], age_hours=max(hours, 0.0))
            )
        staged = staged_record(self.storage, dataset_id, accepted[-1])
        if staged is not None:
            record.rows_in = staged.rows_in
            record.rows_staged = staged.rows_staged
            record.rows_quarantined = staged.rows_quarantined
            record.rows_duplicated = staged.rows_duplicated
            record.reasons = staged.reasons

    def require_snapshots(self) -> None:
        """Raise when a dataset has no snapshot at all: there is no release without it."""
        for dataset_id in self.datasets:
            if snapshot.accepted(self.storage, dataset_id) or self._known(dataset_id).outcome == "unknown":
                continue
            held = snapshot.refused(self.storage, dataset_id)
            if held:
                name, refusal = list(held.items())[-1]
                raise Refused(
                    f"{dataset_id}: its only snapshot {name} is refused ({refusal.reason}); without one there "
                    f"is no release. Mend the card, or `catalunya accept {name} --why …`"
                )
            why = self._known(dataset_id).message or "it was never read"
            raise SourceUnreadable(f"{dataset_id}: no snapshot yet, so there is no release: {why}")

    def nothing_new(self) -> bool:
        """True when a release of what is kept and of this code exists; the record then says so."""
        wanted = inputs(self.storage, self.datasets, self.settings.home).fingerprint
        found = pointer.read(self.storage)
        unreadable = sorted(name for name in self.datasets if self._known(name).outcome == "unreadable")
        if self.before is not None and self.before.inputs_sha256 == wanted:
            self._unchanged("nothing new", unreadable)
            return True
        if found is not None and wanted in found[0].withdrawn:
            self.record.warn(
                "the sources and the code are those of a release that was rolled back; it is not published "
                "again: wait for new data, mend the code, or `catalunya run --force`"
            )
            self._unchanged("nothing new since the rollback", unreadable)
            return True
        return False

    def _unchanged(self, words: str, unreadable: list[str]) -> None:
        self.record.status = "unchanged"
        self.record.exit_code = SourceUnreadable.exit_code if unreadable else 0
        self.record.message = (
            f"{words}, and {', '.join(unreadable)} could not be read; the last release stays"
            if unreadable
            else f"{words}; the last release stays"
        )

    def build(self) -> Candidate:
        """Build a candidate from all staged snapshots."""
        with self._stage("build"):
            return build(
                self.storage,
                self.datasets,
                self.settings,
                self.engine,
                candidate_id=self.record.run_id,
                now=self.now,
                on_node=lambda line: self.reporter.step("build", line),
            )

    def audit(self, candidate: Candidate) -> Audit:
        """Judge a candidate; raises `Refused` when it fails."""
        with self._stage("audit"):
            verdict = audit(
                self.storage,
                self.datasets,
                self.settings,
                self.engine,
                candidate,
                publish.baseline(self.before),
                now=self.now,
                stale=self._stale(),
                on_node=lambda line: self.reporter.step("audit", line),
            )
            self.record.findings = list(verdict.findings)
            for sentence in verdict.sentences("warn"):
                self.record.warn(sentence)
            if not verdict.passed:
                refuse(self.storage, verdict, run_id=self.record.run_id, now=self.now)
        return verdict

    def _stale(self) -> tuple[Stale, ...]:
        return tuple(self.record.stale or (self.earlier.stale if self.earlier else ()))

    def publish(self, candidate: Candidate) -> Release:
        """Publish an audited candidate and swap the pointer."""
        with self._stage("publish"):
            release = publish.publish(
                self.storage,
                self.datasets,
                self.engine,
                candidate,
                self.lock,
                run_id=self.record.run_id,
                now=self.now,
                stale=self._stale(),
                warnings=(*(self.earlier.warnings if self.earlier else ()), *self.record.warnings),
                code_revision=self.record.code_revision,
                versions=self.record.versions,
                keep=self.settings.keep_releases,
            )
        self.adopt(release)
        return release

    def adopt(self, release: Release) -> None:
        """Record a release as this run's own."""
        self.record.status = "released"
        self.record.exit_code = 0
        self.record.release_id = release.release_id
        self.record.message = f"released {release.release_id}"

    def finish(self) -> None:
        """Write the record into the ledger, for a run that broke by a fault of the code as well."""
        if not self.record.message:
            self.record.message = "broken off by a fault of the code; the traceback is on standard error"
        if self.record.release_id:
            self.record.release = self.storage.uri(layout.release(self.record.release_id))
        self.record.cost = self.cost()
        self.record.seconds = round(time.monotonic() - self._started, 3)
        data = self.record.model_dump_json(indent=1).encode()
        self.storage.put(layout.ledger(self.record.run_id), data)

    def cost(self) -> Cost | None:
        """What was asked of the engine; a warning and None when it does not say."""
        if "engine" not in self.__dict__:
            return None
        try:
            return self.engine.cost()
        except CatalunyaError as error:
            self.record.warn(f"what the run cost is not known: {error}")
            return None

    def fail(self, error: CatalunyaError) -> None:
        """Put an explained error into the record."""
        self.record.status = "refused" if isinstance(error, Refused) else "failed"
        self.record.exit_code = error.exit_code
        self.record.message = str(error)

    def tidy(self) -> None:
        """Remove what killed runs left behind; readers never saw it."""
        self.storage.clean_scratch()
        publish.discard_unpublished(self.storage)
        discard_candidates(self.storage, self.engine)
        publish.show(self.storage, self.engine)

    def _chosen(self, only: tuple[str, ...]) -> dict[str, Dataset]:
        unknown = [name for name in only if name not in self.datasets]
        if unknown:
            raise UsageError(f"no dataset {', '.join(unknown)}; there are: {', '.join(self.datasets)}")
        return {name: self.datasets[name] for name in (only or self.datasets)}

    def skip(self, *stages: str) -> None:
        """Record stages that there was no need for."""
        for name in stages:
            self.record.stages.append(StageRecord(name=name, status="skipped", seconds=0.0))
            self.reporter.end(name, "skipped", 0.0)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self.reporter.begin(name)
        started = time.monotonic()
        status: StageStatus = "failed"
        try:
            yield
            status = "done"
        except Refused:
            status = "refused"
            raise
        finally:
            seconds = round(time.monotonic() - started, 3)
            self.record.stages.append(StageRecord(name=name, status=status, seconds=seconds))
            self.reporter.end(name, status, seconds)
