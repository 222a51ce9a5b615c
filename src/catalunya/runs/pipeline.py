"""The stages in order, for one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Protocol

import duckdb
import structlog

from catalunya import publish
from catalunya.audit import Audit, Stale, audit, blame, culprits, figures_of_candidate, pending, refuse
from catalunya.build import Candidate, build, code_digest, discard, discard_candidates, inputs
from catalunya.datasets.model import Dataset
from catalunya.demo.environment import is_unknown
from catalunya.errors import (
    CatalunyaError,
    HistoryUnreadable,
    LakeCorrupt,
    Refused,
    SourceUnreadable,
    UsageError,
)
from catalunya.ingest import Ingested, ingest
from catalunya.lake import disk, index, layout, pointer, snapshot
from catalunya.lake.lock import Lock
from catalunya.lake.snapshot import DEFINITION_GATES, Manifest
from catalunya.lake.staged import Staged
from catalunya.lake.storage import Storage
from catalunya.release import (
    Release,
    current_release,
    discard_unpublished_releases,
    newest_whole_release,
    unknown_entries,
)
from catalunya.runs.record import (
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
from catalunya.stage import forget_lost_files, stage
from catalunya.warehouse.engines import Engine, open_engine
from catalunya.warehouse.engines.base import Cost

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

    `earlier` is what other processes recorded of the same run, when its stages do not share one (`steps.py`).
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
        self.before = current_release(storage)
        self.last = self.before or newest_whole_release(storage)
        """The release that a new one follows: the shown one or, when the pointer was lost, the newest whole one."""
        self.refusals: list[str] = []
        """What was refused before the build, in sentences."""
        self._compare_with: dict[str, float] | None = None
        """Figures to compare a candidate's marts with, where those of the last release are of other code or snapshots."""
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
            self.clean_up()
            self.ingest(force=force, only=only)
            self.reopen_refusals()
            self.stage(again=rebuild)
            self.require_snapshots()
            if not force and not rebuild and self.nothing_new():
                self.skip("build", "audit", "publish")
                self.raise_refusals()
            else:
                self.restore_staged()
                self.publish(self.audit_or_rebuild(self.build()))
                discard_candidates(self.storage.guarded(self.lock), self.engine)
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
        self.check_clock()
        with self._stage("ingest"):
            for dataset_id, dataset in self._chosen(only).items():
                self._ingest_one(dataset_id, dataset, force=force)

    def _ingest_one(self, dataset_id: str, dataset: Dataset, *, force: bool) -> None:
        def progress(done: int, total: int | None) -> None:
            self.reporter.step("ingest", dataset_id, done, total)

        try:
            newest = snapshot.latest(self.storage, dataset_id, self.now)
            seen = self.record.seen.get(dataset_id)
            still = seen is not None and newest is not None and seen.snapshot_id == newest.snapshot_id
            answer = ingest(
                self.storage,
                dataset,
                self.settings,
                run_id=self.record.run_id,
                now=self.now,
                previous_validators=seen.validators if seen and still else None,
                force=force or not self._is_settled(dataset_id, newest),
                progress=progress,
            )
        except LakeCorrupt as error:
            answer = Ingested(dataset_id, "unreadable", None, {}, 0, 0, str(error))
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
        if answer.outcome == "drifted":
            self.refusals.append(answer.message)
        if answer.snapshot_id:
            self.record.seen[dataset_id] = Seen(snapshot_id=answer.snapshot_id, validators=answer.validators)
        if answer.message:
            self.record.warn(answer.message)

    def _is_settled(self, dataset_id: str, newest: Manifest | None) -> bool:
        """Whether the source need not be read again while it says that nothing changed since its newest snapshot.

        A portal that sent a part of its rows can send them all without another date: what no release contains, or a
        person took out of use, is read again.
        """
        if newest is None:
            return True
        accepted = self.last.snapshots.get(dataset_id, ()) if self.last else ()
        return newest.snapshot_id in accepted and newest.snapshot_id not in snapshot.refused(
            self.storage, dataset_id
        )

    def check_clock(self) -> None:
        """Raise `UsageError` when the lake has snapshots or a release of a later time than the run's clock."""
        for dataset_id in self.datasets:
            later = index.load(self.storage, dataset_id).later_than(self.now)
            if later:
                clock = "CATALUNYA_NOW" if self.settings.now_override else "the clock of this machine"
                raise UsageError(
                    f"{clock} says {self.now:%Y-%m-%d %H:%M:%SZ}, but {dataset_id} has snapshots of a later time: "
                    f"{', '.join(later)}. Correct the clock; or, if it was wrong when they were taken, leave each of them "
                    f"out: `catalunya refuse {later[-1]} --why …`, and run again"
                )

    def reopen_refusals(self) -> None:
        """Lift refusals that other code made: their snapshots are judged again."""
        code = ""
        for dataset_id in self.datasets:
            for snapshot_id, refusal in snapshot.refused(self.storage, dataset_id).items():
                if refusal.gate in DEFINITION_GATES or not refusal.judged_with:
                    continue
                code = code or code_digest(self.settings.home)
                if refusal.is_void(code):
                    snapshot.lift(self.storage, dataset_id, snapshot_id)
                    self.record.warn(
                        f"{dataset_id}: {snapshot_id} is judged again: the code that refused it has changed"
                    )

    def stage(self, *, again: bool = False, anew: Collection[str] = (), only: tuple[str, ...] = ()) -> None:
        """Stage what landed, with `again` every kept snapshot, and in any case those of `anew`.

        All are tried; refusals are kept in `refusals`. Raises `HistoryUnreadable` when a snapshot of the release can no
        longer be staged.
        """
        unreadable: list[str] = []
        with self._stage("stage"):
            for dataset_id, dataset in self._chosen(only).items():
                self._known(dataset_id)
                try:
                    done = stage(
                        self.storage,
                        dataset,
                        run_id=self.record.run_id,
                        now=self.now,
                        again=again,
                        anew=anew,
                        accepted=self.last.snapshots.get(dataset_id, ()) if self.last else (),
                    )
                except Refused as refusal:
                    self._refused(refusal)
                except HistoryUnreadable as error:
                    unreadable.append(str(error))
                except LakeCorrupt as error:
                    self.refusals.append(str(error))
                    self.record.warn(str(error))
                else:
                    self._report_staged(done)
            if not only:
                self.count_datasets()
            if unreadable:
                raise HistoryUnreadable("; ".join(unreadable))

    def restore_staged(self, *, only: tuple[str, ...] = ()) -> None:
        """Stage again what is no longer there, or cut off, although the index says that it is staged."""
        for dataset_id in self._chosen(only):
            lost = forget_lost_files(self.storage, dataset_id)
            if lost:
                self.record.warn(
                    f"{dataset_id}: the staged files of {', '.join(lost)} are missing or damaged; they are made again"
                )
                self.stage(anew=lost, only=(dataset_id,))

    def _refused(self, refusal: Refused) -> None:
        self.refusals.append(str(refusal))
        self.record.refused |= refusal.snapshots
        self.record.warn(str(refusal))

    def raise_refusals(self) -> None:
        """Raise `Refused` with what was refused so far, if anything was."""
        if self.refusals:
            raise Refused("; ".join(self.refusals), dict(self.record.refused))

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
        self.record.stale = []
        for dataset_id in self.datasets:
            self.count_dataset(dataset_id)

    def count_dataset(self, dataset_id: str) -> None:
        """Counts of the snapshot of one dataset that is in use, and its age when it is stale."""
        record = self._known(dataset_id)
        known = index.load(self.storage, dataset_id)
        if not known.usable:
            return
        newest, used = known.complete[-1], known.usable[-1]
        held_back = newest != used and known.gate(newest) != snapshot.BY_HAND
        if newest != used:
            self.record.warn(
                f"{dataset_id}: snapshot {newest} is refused, {used} is used instead; "
                f"`catalunya status` says why, `catalunya accept {newest} --why …` lifts it"
            )
        record.snapshot_id = used
        if record.outcome in {"unreadable", "drifted"} or held_back:
            age = self.now - layout.moment_of(used)
            hours = round(age.total_seconds() / 3600, 2)
            self.record.stale.append(
                Stale(dataset_id=dataset_id, snapshot_id=used, age_hours=max(hours, 0.0))
            )
        staged = known.staged(used)
        if staged is not None:
            record.rows_in = staged.rows_in
            record.rows_staged = staged.rows_staged
            record.rows_quarantined = staged.rows_quarantined
            record.rows_duplicated = staged.rows_duplicated
            record.reasons = staged.reasons
            record.invalid_values = staged.invalid_values

    def require_snapshots(self) -> None:
        """Raise when a dataset has no snapshot at all: there is no release without it."""
        for dataset_id in self.datasets:
            if snapshot.usable(self.storage, dataset_id) or self._known(dataset_id).outcome == "unknown":
                continue
            held = snapshot.refused(self.storage, dataset_id)
            if held:
                name, refusal = list(held.items())[-1]
                raise Refused(
                    f"{dataset_id}: its only snapshot {name} is refused ({refusal.reason}); without one there "
                    f"is no release. Correct datasets/{dataset_id}.yml, or `catalunya accept {name} --why …`",
                    dict(self.record.refused),
                )
            why = self._known(dataset_id).message or "it was never read"
            raise SourceUnreadable(f"{dataset_id}: no snapshot yet, so there is no release: {why}")

    def nothing_new(self) -> bool:
        """True when readers see a release of what is kept and of this code; the record then says so."""
        wanted = inputs(self.storage, self.datasets, self.settings.home)
        found = pointer.read(self.storage)
        unreadable = sorted(name for name in self.datasets if self._known(name).outcome == "unreadable")
        withdrawn = found[0].withdrawn if found is not None else ()
        rolled_back = {wanted.fingerprint, wanted.code} & set(withdrawn)
        if self.before is not None and self.before.inputs_sha256 == wanted.fingerprint:
            self._warn_of_rollback()
            self._unchanged("nothing new", unreadable)
            return True
        if rolled_back:
            what = "the code is that" if wanted.code in withdrawn else "the sources and the code are those"
            self.record.warn(
                f"{what} of a release that was rolled back; it is not published again: wait for new data, correct the "
                "code, or `catalunya run --force`"
            )
            self._unchanged("nothing new since the rollback", unreadable)
            return True
        return False

    def _warn_of_rollback(self) -> None:
        """Name the snapshots that a rollback took out of use."""
        for dataset_id in self.datasets:
            for snapshot_id, refusal in snapshot.refused(self.storage, dataset_id).items():
                if refusal.gate == snapshot.ROLLBACK:
                    self.record.warn(
                        f"{dataset_id}: {snapshot_id} came with a release that was rolled back and is not used; "
                        f"`catalunya accept {snapshot_id} --why …` lifts that"
                    )

    def _unchanged(self, words: str, unreadable: list[str]) -> None:
        self.record.status = "unchanged"
        self.record.exit_code = SourceUnreadable.exit_code if unreadable else 0
        self.record.message = (
            f"{words}, and {', '.join(unreadable)} could not be read; the last release stays"
            if unreadable
            else f"{words}; the last release stays"
        )

    def build(self, leave_out: Collection[str] = ()) -> Candidate:
        """Build a candidate from all staged snapshots that are not refused, without those of `leave_out`."""
        with self._stage("build"):
            return build(
                self.storage,
                self.datasets,
                self.settings,
                self.engine,
                candidate_id=self.record.run_id,
                now=self.now,
                leave_out=leave_out,
                on_node=lambda line: self.reporter.step("build", line),
            )

    def audit_or_rebuild(self, candidate: Candidate | None) -> Candidate:
        """Judge a candidate; when snapshots are refused, build from the others and judge again, as long as any is new.

        It is built first when there is none, or only one that lacks snapshots because an audit was killed while it looked
        for the fault. Returns the candidate that passed. Raises `Refused` when nothing else is new, or when the code is
        at fault.
        """
        if candidate is None or candidate.left_out:
            candidate = self.build()
        while True:
            try:
                self.audit(candidate)
            except Refused as refusal:
                self._refused(refusal)
                self.count_datasets()
                self.require_snapshots()
                left = inputs(self.storage, self.datasets, self.settings.home)
                if not refusal.snapshots or (self.last and self.last.inputs_sha256 == left.fingerprint):
                    raise
                candidate = self.build()
            else:
                return candidate

    def audit(self, candidate: Candidate) -> Audit:
        """Judge a candidate; marks the snapshots at fault and raises `Refused` when it fails."""
        with self._stage("audit"):
            verdict = self._judge(candidate)
            if any(
                f.gate == "marts" and f.severity == "error" for f in verdict.findings
            ) and self._is_otherwise(candidate):
                self._compare_with = self._figures_of_old_data(candidate)
                verdict = self._judge(candidate)
            self.record.findings = list(verdict.findings)
            for sentence in verdict.sentences("warn"):
                self.record.warn(sentence)
            if not verdict.passed:
                verdict = blame(verdict, self._culprits(candidate, verdict))
                refuse(
                    self.storage, self.datasets, candidate, verdict, run_id=self.record.run_id, now=self.now
                )
        return verdict

    def _code_changed(self, candidate: Candidate) -> bool:
        return self.last is not None and self.last.code_sha256 != candidate.inputs.code

    def _is_otherwise(self, candidate: Candidate) -> bool:
        """Whether more than new snapshots makes the candidate differ from the last release.

        That is other code, or snapshots of the release that were refused since.
        """
        if self.last is None:
            return False
        return self._code_changed(candidate) or any(
            not set(ids) <= set(candidate.inputs.snapshots.get(dataset_id, ()))
            for dataset_id, ids in self.last.snapshots.items()
        )

    def _figures_of_old_data(self, candidate: Candidate) -> dict[str, float]:
        """Figures of the marts that today's code makes of those of the last release's snapshots that are still in use.

        What the code or a refusal alone changed is not held against the data. The candidate is built again afterwards.
        """
        new = {
            snapshot_id
            for dataset_id, ids in pending(candidate, publish.baseline(self.last)).items()
            # Without any snapshot of a dataset there would be nothing to compare with.
            if not set(candidate.inputs.snapshots[dataset_id]) <= set(ids)
            for snapshot_id in ids
        }
        if not new:
            return figures_of_candidate(self.settings, self.engine, candidate)
        self.reporter.step("audit", "building from the last release's snapshots to compare with")
        found = figures_of_candidate(self.settings, self.engine, self._trial(candidate, new))
        self._trial(candidate, ())
        return found

    def _trial(self, candidate: Candidate, leave_out: Collection[str]) -> Candidate:
        """The candidate built again, without some of its snapshots."""
        return build(
            self.storage,
            self.datasets,
            self.settings,
            self.engine,
            candidate_id=candidate.candidate_id,
            now=self.now,
            leave_out=leave_out,
        )

    def _judge(self, candidate: Candidate) -> Audit:
        baseline = publish.baseline(self.last)
        if baseline is not None and self._compare_with is not None:
            baseline = replace(baseline, figures=self._compare_with)
        return audit(
            self.storage,
            self.datasets,
            self.settings,
            self.engine,
            candidate,
            baseline,
            now=self.now,
            stale=self._stale(),
            on_node=lambda line: self.reporter.step("audit", line),
        )

    def _culprits(self, candidate: Candidate, verdict: Audit) -> dict[str, str]:
        """The pending snapshots that make the marts wrong, each with its dataset; none when that cannot be said."""
        if not any(f.severity == "error" and f.snapshot_id is None for f in verdict.findings):
            return {}
        # There is no release without any snapshot of a dataset: before the first one, the newest of each stays.
        stay = set() if self.last else set(candidate.inputs.newest().values())
        suspects = {
            snapshot_id: dataset_id
            for dataset_id, ids in pending(candidate, publish.baseline(self.last)).items()
            for snapshot_id in ids
            if snapshot_id not in stay
        }

        def passes(left_out: frozenset[str]) -> bool:
            self.reporter.step("audit", f"trying without {', '.join(sorted(left_out)) or 'none'}")
            trial = self._trial(candidate, left_out)
            tried.append(trial.candidate_id)
            return self._judge(trial).passed

        tried: list[str] = []
        same_code = self.last is not None and not self._is_otherwise(candidate)
        found = culprits(suspects, passes, same_code=same_code)
        if tried:
            # What is left is the last trial: it lacks snapshots that nothing refused.
            discard(self.storage.guarded(self.lock), self.engine, candidate.candidate_id)
        return found

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
        self.record_release(release)
        return release

    def record_release(self, release: Release) -> None:
        """Record a release as this run's own."""
        self.record.status = "released"
        self.record.exit_code = 0
        self.record.release_id = release.release_id
        self.record.message = f"released {release.release_id}"

    def finish(self) -> None:
        """Write the record into the ledger, for a run that broke by a fault of the code as well."""
        if not self.record.message:
            self.record.message = "unexpected error; the traceback is on standard error"
        for key, why in self.storage.ignored.items():
            self.record.warn(f"{self.storage.url}/{key} was passed over: {why}")
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

    def clean_up(self) -> None:
        """Remove what killed runs left behind; readers never saw it."""
        self.storage.clean_scratch()
        for name in unknown_entries(self.storage):
            self.record.warn(f"{self.storage.uri(layout.release(name))} is no release; it was left alone")
        discard_unpublished_releases(self.storage, self.lock)
        discard_candidates(self.storage.guarded(self.lock), self.engine)
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
            with disk.explained(self.storage.scratch(), known_only=True):
                yield
            status = "done"
        except Refused:
            status = "refused"
            raise
        except duckdb.IOException as error:
            raise CatalunyaError(
                f"{name}: DuckDB could not read or write a file: {error}; check the disk and its free space, then run again"
            ) from error
        finally:
            seconds = round(time.monotonic() - started, 3)
            self.record.stages.append(StageRecord(name=name, status=status, seconds=seconds))
            self.reporter.end(name, status, seconds)
