"""A run whose steps run in processes of their own: tasks of Airflow, functions on AWS.

State passes between steps through `runs/<run_id>/` in the lake, until `finish` makes one record of it for the
ledger. Each step locks what it changes: a dataset while it is read or staged, the lake while it is
built, audited and published. Steps are idempotent: a retry repairs partial output.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime

from pydantic import ValidationError

from catalunya import publish
from catalunya.audit import Audit, read_verdict
from catalunya.build import Candidate, discard, discard_candidates, read_candidate
from catalunya.datasets import loader
from catalunya.datasets.model import Dataset
from catalunya.errors import BuildFailed, CatalunyaError, LakeBusy, NothingElseNew, Refused, UsageError
from catalunya.lake import index, layout
from catalunya.lake.lock import Lock, lake_lock
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from catalunya.log import bound, get_logger
from catalunya.release import Release, discard_unpublished_releases
from catalunya.runs import dbt_docs
from catalunya.runs.heartbeat import send_heartbeat
from catalunya.runs.pipeline import Run
from catalunya.runs.record import DatasetRecord, RunRecord, last_seen, merged
from catalunya.runs.reporter import Reporter
from catalunya.settings import Settings
from catalunya.stage import not_staged
from catalunya.warehouse.engines import open_engine

log = get_logger(__name__)

LOCK_TIMEOUT_S = 120.0
"""How long a step waits for a lock of another run."""
_ORDER = ("ingest", "wait", "stage", "build", "audit", "publish")


def run_id_of(name: str, moment: datetime) -> str:
    """Return the id of the run that an orchestrator calls `name`: the same in every process and every try."""
    return layout.make_id(moment, hashlib.sha256(name.encode()).hexdigest())


@contextmanager
def whole_lake(storage: Storage, run_id: str, datasets: dict[str, Dataset]) -> Iterator[Lock]:
    """Lock the lake and all its datasets, for a run in one process; raises `LakeBusy` at once."""
    with ExitStack() as locks:
        lock = locks.enter_context(lake_lock(storage, run_id))
        for dataset_id in datasets:
            locks.enter_context(lake_lock(storage, run_id, lock_of(dataset_id)))
        locks.enter_context(index.remembered())
        yield lock


class StepwiseRun:
    """One run in steps; make one in every process with the same `run_id`."""

    def __init__(self, settings: Settings, run_id: str, reporter: Reporter) -> None:
        self.settings = settings
        self.run_id = run_id
        self.reporter = reporter
        self.storage = open_lake(settings.lake)
        self.datasets = loader.load(settings.home / "datasets")

    def ingest(self, dataset_id: str, *, force: bool = False) -> DatasetRecord:
        """Read one source. Raises `SourceUnreadable`, or `Refused` when declared columns are gone."""
        with self._step(f"ingest.{dataset_id}", lock_of(dataset_id)) as run:
            run.ingest(force=force, only=(dataset_id,))
        record = run.record.datasets[dataset_id]
        record.raise_for_outcome()
        return record

    def read_so_far(self) -> set[str]:
        """Return the datasets whose ingest has ended in this run, also those where it failed."""
        prefix = f"{layout.RUNS}/{self.run_id}/ingest."
        found = self.storage.list(f"{layout.RUNS}/{self.run_id}")
        return {e.key.removeprefix(prefix).removesuffix(".json") for e in found if e.key.startswith(prefix)}

    def anything_new(self, *, missing: tuple[str, ...] = (), asked: bool = False) -> tuple[bool, str]:
        """Return whether there is anything to release, and why not.

        `missing` are datasets whose ingest reported no result; with `asked` there is a release in any case.
        """
        with self._step("wait", "run") as run:
            for dataset_id in missing:
                message = f"{dataset_id}: ingest reported no result; its last snapshot is used"
                run.record.warn(message)
                run.record.datasets[dataset_id] = DatasetRecord(
                    snapshot_id=None, outcome="unreadable", message=message
                )
            run.reopen_refusals()
            run.require_snapshots()
            if asked or not run.nothing_new():
                return True, ""
            drifted = [d.message for d in run.record.datasets.values() if d.outcome == "drifted"]
            if drifted:
                run.record.end(Refused("; ".join(drifted)))
            run.skip("stage", "build", "audit", "publish")
            return False, run.record.message

    def stage(self, dataset_id: str, *, force: bool = False) -> DatasetRecord:
        """Stage what landed of one dataset, or lost its staged file, with `force` every kept snapshot.

        Raises `Refused` on drift.
        """
        with self._step(f"stage.{dataset_id}", lock_of(dataset_id)) as run:
            run.restore_staged(only=(dataset_id,))
            run.stage(force=force, only=(dataset_id,))
            run.count_dataset(dataset_id)
            run.raise_refusals()
            return run.record.datasets[dataset_id]

    def build(self) -> Candidate:
        """Build the candidate of this run, of what landed since its datasets were staged as well.

        Raises `NothingElseNew` when this run refused snapshots and nothing else is new, and `BuildFailed` when a snapshot
        is not staged and functions on AWS stage: no other role may read landed pages.
        """
        with self._step("build", "run") as run:
            self.storage.clean_scratch()
            discard_candidates(self.storage.guarded(run.lock), run.engine)
            if self.settings.lambda_prefix:
                self._require_staged()
            else:
                self._stage_the_rest(run)
            run.count_datasets()
            run.require_snapshots()
            refusals = [*run.refusals, *(r.message for r in self._results() if r.status == "refused")]
            if refusals and run.nothing_new():
                raise NothingElseNew("; ".join(refusals))
            return run.build()

    def _stage_the_rest(self, run: Run) -> None:
        for dataset_id in self.datasets:
            with acquire_lock(self.storage, self.run_id, lock_of(dataset_id)):
                run.stage(only=(dataset_id,))
                run.restore_staged(only=(dataset_id,))

    def _require_staged(self) -> None:
        unstaged = {name: not_staged(self.storage, dataset) for name, dataset in self.datasets.items()}
        found = [f"{name}: {', '.join(ids)}" for name, ids in unstaged.items() if ids]
        if found:
            raise BuildFailed(
                f"snapshots that are not staged, because they landed after this run's stage tasks or their staged file is "
                f"missing or damaged: {'; '.join(found)}. Functions on AWS stage, this task may not: start another run, its "
                "stage tasks stage them"
            )

    def audit(self) -> Audit:
        """Judge the candidate of this run; when snapshots are refused, build and judge again without them.

        Raises `Refused` when nothing else is new, or when the code is at fault.
        """
        with self._step("audit", "run") as run:
            # An audit that is killed while it looks for the fault leaves no candidate, or one that lacks snapshots.
            killed = self.result("build") is not None and read_candidate(self.storage, self.run_id) is None
            return read_verdict(self.storage, run.audit_or_rebuild(None if killed else self._candidate()))

    def publish(self) -> Release:
        """Publish the candidate of this run."""
        with self._step("publish", "run") as run:
            candidate = self._candidate()
            if run.shown is not None and run.shown.run_id == self.run_id:
                # A try that was killed after the swap had published it.
                publish.publish_views(self.storage, run.engine)
                run.record_release(run.shown)
                return run.shown
            # Here and not before the build: on AWS no other role may touch a release.
            discard_unpublished_releases(self.storage, run.lock)
            return run.publish(candidate)

    def result(self, step: str) -> RunRecord | None:
        """Return the record that a step of this run, such as `ingest.population`, left; None when there is none."""
        key = layout.part(self.run_id, step)
        return self._read_result(key) if self.storage.exists(key) else None

    def delete_result(self, step: str) -> None:
        """Delete a step's result so that it can be retried."""
        self.storage.delete(layout.part(self.run_id, step))

    def fail(self, step: str, error: CatalunyaError) -> None:
        """Store the result of a step that could not begin; the source of an `ingest` counts as one that cannot be read."""
        record = RunRecord.start(self.settings, self.run_id)
        stage, _, dataset_id = step.partition(".")
        if stage == "ingest":
            message = f"{dataset_id}: {error}"
            record.datasets[dataset_id] = DatasetRecord(
                snapshot_id=None, outcome="unreadable", message=message
            )
        record.end(error)
        self._put_result(step, record)

    def _put_result(self, step: str, record: RunRecord) -> None:
        self.storage.put(layout.part(self.run_id, step), record.model_dump_json().encode())

    def has_ended(self) -> bool:
        """Return True when the run is in the ledger and nothing of it is left to repeat."""
        left = self.storage.list(f"{layout.RUNS}/{self.run_id}")
        return not left and self.storage.exists(layout.ledger(self.run_id))

    def docs(self) -> str:
        """Write dbt's documentation of what this run released; returns its address."""
        return dbt_docs.generate(self.storage, self.settings, self._candidate())

    def documented(self, release_id: str | None) -> bool:
        """Return True when dbt's documentation of a release is in the lake."""
        return release_id is not None and self.storage.exists(layout.docs(release_id, dbt_docs.INDEX))

    def finish(self) -> RunRecord:
        """Merge the records of all steps into one, and put it into the ledger.

        The results of the steps are deleted when nothing is left to do; after a run that failed they stay for a while,
        so that its tasks can be repeated by hand.
        """
        with acquire_lock(self.storage, self.run_id, "run") as lock:
            record = merged(self._results()) or self._run(lock).record
            key = layout.ledger(self.run_id)
            if not record.message and self.storage.exists(key):
                # A try that was killed while it deleted the results had done all else.
                record = RunRecord.model_validate_json(self.storage.read(key))
            record.seen = last_seen(self.storage, self.settings.now()) | record.seen
            if not record.message:
                last = record.stages[-1].name if record.stages else "nothing"
                record.message = f"the run stopped before publishing; the last stage on record is {last}"
            if record.release_id:
                record.release = self.storage.uri(layout.release(record.release_id))
            self.storage.put(key, record.model_dump_json(indent=1).encode())
            done = record.status == "released" and self.documented(record.release_id)
            if done or record.status == "unchanged":
                self._clear()
        send_heartbeat(self.settings, record.exit_code)
        return record

    def _clear(self) -> None:
        if self.run_id in self.storage.folders(layout.CANDIDATES):
            discard(self.storage, open_engine(self.storage, self.settings), self.run_id)
        self.storage.delete_folder(f"{layout.RUNS}/{self.run_id}")

    def _candidate(self) -> Candidate:
        found = read_candidate(self.storage, self.run_id)
        if found is None:
            raise UsageError(f"run {self.run_id} has no candidate; its build has to run first")
        return found

    def _run(self, lock: Lock) -> Run:
        record = RunRecord.start(self.settings, self.run_id)
        earlier = merged(self._results())
        run = Run(self.settings, self.storage, self.datasets, lock, self.reporter, record, earlier)
        run.begin()
        return run

    def _results(self) -> list[RunRecord]:
        """Return the records of the steps, in the order of the stages."""
        keys = [entry.key for entry in self.storage.list(f"{layout.RUNS}/{self.run_id}")]
        stages = {key: key.rsplit("/", 1)[-1].split(".", 1)[0] for key in keys}
        self.storage.ignore((key for key in keys if stages[key] not in _ORDER), "it is no step of a run")
        known = [key for key in keys if stages[key] in _ORDER]
        found = (self._read_result(key) for key in sorted(known, key=lambda key: _ORDER.index(stages[key])))
        return [result for result in found if result is not None]

    def _read_result(self, key: str) -> RunRecord | None:
        try:
            return RunRecord.model_validate_json(self.storage.read(key))
        except ValidationError:
            self.storage.ignore(
                [key], "it is damaged: clear the task that wrote it, so that it is done again"
            )
            return None

    @contextmanager
    def _step(self, name: str, lock_name: str) -> Iterator[Run]:
        """Do one step of the run; its result is stored when it ends, also when it fails."""
        with bound(run=self.run_id), acquire_lock(self.storage, self.run_id, lock_name) as lock:
            run = self._run(lock)
            before = dict(run.record.seen)
            started = time.monotonic()
            try:
                yield run
            except CatalunyaError as error:
                run.record.end(error)
                raise
            except Exception as error:
                run.record.message = f"{name}: {type(error).__name__}: {error}"
                raise
            finally:
                run.record.seconds = round(time.monotonic() - started, 3)
                run.record.cost = run.cost()
                run.record.seen = {k: v for k, v in run.record.seen.items() if v != before.get(k)}
                self._put_result(name, run.record)


def lock_of(dataset_id: str) -> str:
    """Return the lock that a dataset is read and staged under."""
    return f"dataset-{dataset_id}"


@contextmanager
def acquire_lock(storage: Storage, run_id: str, what: str) -> Iterator[Lock]:
    """Lock `what`; waits up to `LOCK_TIMEOUT_S` for another run to release it, then raises `LakeBusy`."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    with ExitStack() as stack:
        while True:
            try:
                lock = stack.enter_context(lake_lock(storage, run_id, what))
                break
            except LakeBusy as busy:
                if time.monotonic() > deadline:
                    raise
                log.info("waiting for the lock", reason=str(busy))
                time.sleep(1)
        yield lock
