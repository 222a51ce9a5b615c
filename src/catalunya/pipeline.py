"""The stages in order, for one run, and the ledger that records it."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

import structlog
from pydantic import BaseModel, ConfigDict

from catalunya import __version__, publish
from catalunya.audit import audit
from catalunya.build import Candidate, build, discard_candidates, inputs
from catalunya.datasets import Dataset
from catalunya.errors import CatalunyaError, Refused, SourceUnreadable, UsageError
from catalunya.ingest import Ingested, ingest
from catalunya.lake import layout, pointer, snapshot
from catalunya.lake.lock import Lock
from catalunya.lake.storage import Storage
from catalunya.publish import Release, Stale
from catalunya.settings import Settings
from catalunya.stage import Staged, stage, staged_record

log = structlog.get_logger(__name__)

Status = Literal["released", "unchanged", "refused", "failed"]
StageStatus = Literal["done", "skipped", "refused", "failed"]


class Reporter(Protocol):
    """Who is told how a run goes; the CLI draws bars, a log prints lines."""

    def begin(self, stage: str) -> None:
        """A stage begins."""

    def step(self, stage: str, what: str, done: int | None = None, total: int | None = None) -> None:
        """Something of a stage went on: a dataset's rows, a model."""

    def end(self, stage: str, status: str, seconds: float) -> None:
        """A stage ended."""


class StageRecord(BaseModel):
    """One stage of a run."""

    name: str
    status: StageStatus
    seconds: float


class DatasetRecord(BaseModel):
    """What a run knows of one dataset: the snapshot it used and its counts, and what reading cost."""

    snapshot_id: str | None
    outcome: str
    rows_in: int = 0
    rows_staged: int = 0
    rows_quarantined: int = 0
    rows_duplicated: int = 0
    reasons: dict[str, int] = {}
    requests: int = 0
    bytes: int = 0


class RunRecord(BaseModel):
    """The ledger's record of one run; `catalunya run --json` prints it."""

    model_config = ConfigDict(validate_assignment=True)

    run_id: str
    status: Status = "failed"
    release_id: str | None = None
    release: str | None = None
    stages: list[StageRecord] = []
    datasets: dict[str, DatasetRecord] = {}
    stale: list[Stale] = []
    warnings: list[str] = []
    message: str = ""
    exit_code: int = 1
    environment: str
    engine: str
    lake: str
    started_at: datetime
    seconds: float = 0.0
    versions: dict[str, str] = {}
    code_revision: str | None = None
    seen: dict[str, Seen] = {}


class Seen(BaseModel):
    """Validators of a source as last seen, for a snapshot whose content did not change since."""

    snapshot_id: str
    validators: dict[str, Any]


RunRecord.model_rebuild()


def new_run_id(now: datetime) -> str:
    """A run's id: its clock and eight random hex digits."""
    return layout.make_id(now, secrets.token_hex(4))


class Run:
    """One run over a lake that it holds. Each stage can be called alone; `all_stages` calls them in order."""

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        datasets: dict[str, Dataset],
        lock: Lock,
        reporter: Reporter,
        run_id: str,
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
            versions=versions(),
            code_revision=code_revision(settings.home),
            seen=_last_seen(storage),
        )
        self._started = time.monotonic()
        self._ingested: dict[str, Ingested] = {}

    def all_stages(self, *, force: bool = False, only: tuple[str, ...] = ()) -> RunRecord:
        """Every stage once; the record is kept in the ledger whatever happens."""
        try:
            self._tidy()
            self.ingest(force=force, only=only)
            self.stage()
            self._require_snapshots()
            if self._nothing_new(force=force):
                self._skip("build", "audit", "publish")
            else:
                candidate = self.build()
                self.audit(candidate)
                self.publish(candidate)
        except CatalunyaError as error:
            self._fail(error)
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
            self._fail(error)
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
        self._ingested[dataset_id] = answer
        self.reporter.step("ingest", f"{dataset_id}: {answer.outcome}")
        self.record.datasets[dataset_id] = DatasetRecord(
            snapshot_id=answer.snapshot_id,
            outcome=answer.outcome,
            rows_in=answer.rows,
            requests=answer.requests,
            bytes=answer.bytes,
        )
        if answer.snapshot_id:
            self.record.seen[dataset_id] = Seen(snapshot_id=answer.snapshot_id, validators=answer.validators)
        if answer.message:
            self._warn(answer.message)

    def stage(self) -> None:
        """Stage what landed; every dataset is tried before a refusal is raised."""
        refusals: list[Refused] = []
        with self._stage("stage"):
            for dataset in self.datasets.values():
                try:
                    done = stage(self.storage, dataset, run_id=self.record.run_id, now=self.now)
                except Refused as refusal:
                    refusals.append(refusal)
                else:
                    self._report_staged(done)
            self._count_datasets()
            drifted = [a.message for a in self._ingested.values() if a.outcome == "drifted"]
            if refusals or drifted:
                raise Refused("; ".join([*drifted, *(str(refusal) for refusal in refusals)]))

    def _report_staged(self, done: list[Staged]) -> None:
        for staged in done:
            self.reporter.step("stage", f"{staged.dataset_id}: {staged.rows_staged} of {staged.rows_in} rows")
            for warning in staged.warnings:
                self._warn(warning)

    def _count_datasets(self) -> None:
        """Counts of the snapshots in use, and the datasets that are stale."""
        for dataset_id in self.datasets:
            record = self.record.datasets.get(dataset_id) or DatasetRecord(
                snapshot_id=None, outcome="not read"
            )
            self.record.datasets[dataset_id] = record
            accepted = snapshot.accepted(self.storage, dataset_id)
            if not accepted:
                continue
            newest = snapshot.latest(self.storage, dataset_id)
            held_back = newest is not None and newest.snapshot_id != accepted[-1]
            if held_back and newest is not None:
                self._warn(
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

    def _require_snapshots(self) -> None:
        """Raise when a dataset has no snapshot at all: there is no release without it."""
        for dataset_id in self.datasets:
            if snapshot.accepted(self.storage, dataset_id):
                continue
            held = snapshot.refused(self.storage, dataset_id)
            if held:
                name, refusal = list(held.items())[-1]
                raise Refused(
                    f"{dataset_id}: its only snapshot {name} is refused ({refusal.reason}); without one there "
                    f"is no release. Mend the card, or `catalunya accept {name} --why …`"
                )
            answer = self._ingested.get(dataset_id)
            why = answer.message if answer and answer.message else "it was never read"
            raise SourceUnreadable(f"{dataset_id}: no snapshot yet, so there is no release: {why}")

    def _nothing_new(self, *, force: bool) -> bool:
        wanted = inputs(self.storage, self.datasets, self.settings.home).fingerprint
        found = pointer.read(self.storage)
        unreadable = sorted(name for name, a in self._ingested.items() if a.outcome == "unreadable")
        if force:
            return False
        if self.before is not None and self.before.inputs_sha256 == wanted:
            self._unchanged("nothing new", unreadable)
            return True
        if found is not None and wanted in found[0].withdrawn:
            self._warn(
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
                candidate_id=self.record.run_id,
                now=self.now,
                on_node=lambda name: self.reporter.step("build", name),
            )

    def audit(self, candidate: Candidate) -> None:
        """Judge a candidate; raises `Refused` when it fails."""
        with self._stage("audit"):
            verdict = audit(
                self.storage,
                self.datasets,
                self.settings,
                candidate,
                publish.baseline(self.before),
                run_id=self.record.run_id,
                now=self.now,
                on_node=lambda name: self.reporter.step("audit", name),
            )
            for sentence in verdict.sentences("warn"):
                self._warn(sentence)

    def publish(self, candidate: Candidate) -> Release:
        """Publish an audited candidate and swap the pointer."""
        with self._stage("publish"):
            release = publish.publish(
                self.storage,
                self.datasets,
                candidate,
                self.lock,
                run_id=self.record.run_id,
                now=self.now,
                engine=self.settings.resolved_engine,
                stale=tuple(self.record.stale),
                warnings=tuple(self.record.warnings),
                code_revision=self.record.code_revision,
                versions=self.record.versions,
                keep=self.settings.keep_releases,
            )
            discard_candidates(self.storage)
        self.record.status = "released"
        self.record.exit_code = 0
        self.record.release_id = release.release_id
        self.record.message = f"released {release.release_id}"
        return release

    def finish(self) -> None:
        """Write the record into the ledger, for a run that broke by a fault of the code as well."""
        if not self.record.message:
            self.record.message = "broken off by a fault of the code; the traceback is on standard error"
        if self.record.release_id:
            self.record.release = self.storage.uri(layout.release(self.record.release_id))
        self.record.seconds = round(time.monotonic() - self._started, 3)
        data = self.record.model_dump_json(indent=1).encode()
        self.storage.put(layout.ledger(self.record.run_id), data)

    def _fail(self, error: CatalunyaError) -> None:
        """Put an explained error into the record."""
        self.record.status = "refused" if isinstance(error, Refused) else "failed"
        self.record.exit_code = error.exit_code
        self.record.message = str(error)

    def _tidy(self) -> None:
        """Remove what killed runs left behind; readers never saw it."""
        self.storage.clean_scratch()
        publish.discard_unpublished(self.storage)
        discard_candidates(self.storage)

    def _chosen(self, only: tuple[str, ...]) -> dict[str, Dataset]:
        unknown = [name for name in only if name not in self.datasets]
        if unknown:
            raise UsageError(f"no dataset {', '.join(unknown)}; there are: {', '.join(self.datasets)}")
        return {name: self.datasets[name] for name in (only or self.datasets)}

    def _warn(self, sentence: str) -> None:
        if sentence not in self.record.warnings:
            self.record.warnings.append(sentence)

    def _skip(self, *stages: str) -> None:
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


def _last_seen(storage: Storage) -> dict[str, Seen]:
    """What the newest record of the ledger knows of each source's validators."""
    entries = storage.list(layout.LEDGER)
    return RunRecord.model_validate_json(storage.read(entries[-1].key)).seen if entries else {}


def versions() -> dict[str, str]:
    """The versions of this project, of Python and of what transforms the data."""
    used = ("dbt-core", "dbt-duckdb", "duckdb")
    return {"catalunya": __version__, "python": platform.python_version(), **{n: version(n) for n in used}}


def code_revision(home: Path) -> str | None:
    """The git commit of the code, with `+` when files differ from it; None outside a checkout."""
    git = shutil.which("git")
    revision = os.environ.get("CATALUNYA_REVISION")
    if revision or git is None or not (home / ".git").exists():
        return revision

    def run(*words: str) -> str:
        command = [git, "-C", str(home), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    commit = run("rev-parse", "HEAD")
    return f"{commit}+" if commit and run("status", "--porcelain") else commit or None
