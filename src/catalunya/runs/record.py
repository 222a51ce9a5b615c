"""The record of a run in the ledger, merged from the records of its steps where it ran in steps."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from catalunya import __version__
from catalunya.errors import CatalunyaError, Refused, SourceUnreadable, printable
from catalunya.lake import layout
from catalunya.lake.storage import Entry, MissingKey, Storage
from catalunya.quality.findings import Finding, Stale
from catalunya.settings import Settings
from catalunya.signals import Stopped
from catalunya.warehouse.engines.base import Cost

Status = Literal["released", "unchanged", "refused", "failed"]
StageStatus = Literal["done", "skipped", "refused", "failed"]
_WORST: tuple[StageStatus, ...] = ("skipped", "done", "refused", "failed")

ABANDONED = timedelta(days=2)
"""Age after which the state of failed runs is deleted."""


class StageRecord(BaseModel):
    """One stage of a run."""

    name: str
    status: StageStatus
    seconds: float


STAGED_COUNTS = (
    "rows_in", "rows_staged", "rows_quarantined", "rows_duplicated", "reasons", "invalid_values",
)  # fmt: skip
"""Fields of `DatasetRecord` that staging decides."""


class DatasetRecord(BaseModel):
    """What a run knows of one dataset: the snapshot that it used with its counts, and what reading the source took."""

    snapshot_id: str | None
    outcome: str
    message: str = ""
    """Why the source could not be read, or was refused."""
    rows_in: int = 0
    rows_staged: int = 0
    rows_quarantined: int = 0
    rows_duplicated: int = 0
    reasons: dict[str, int] = {}
    invalid_values: dict[str, int] = {}
    """Column to the number of values that did not fit their definition and are null."""
    requests: int = 0
    bytes: int = 0

    def raise_for_outcome(self) -> None:
        """Raise `Refused` when declared columns of the source are gone, `SourceUnreadable` when it could not be read."""
        if self.outcome == "drifted":
            raise Refused(self.message)
        if self.outcome == "unreadable":
            raise SourceUnreadable(self.message)


class SourceState(BaseModel):
    """The validators that a source sent last, and the snapshot whose content it still had then."""

    snapshot_id: str
    validators: dict[str, Any]


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
    findings: list[Finding] = []
    """What the audit found, warnings included."""
    refused: dict[str, str] = {}
    """Snapshots that this run refused, and why."""
    warnings: list[str] = []
    message: str = ""
    """Empty in the record of a step that did not end the run."""
    exit_code: int = 1
    environment: str
    engine: str
    lake: str
    started_at: datetime
    seconds: float = 0.0
    versions: dict[str, str] = {}
    code_revision: str | None = None
    cost: Cost | None = None
    """What was asked of a distributed engine; None of one in this process, and of a run that asked nothing."""
    seen: dict[str, SourceState] = {}

    @classmethod
    def start(cls, settings: Settings, run_id: str | None = None) -> RunRecord:
        """Return the record of a run that begins now, with a new id unless it has one."""
        now = settings.now()
        return cls(
            run_id=run_id or new_run_id(now),
            environment=settings.environment,
            engine=settings.resolved_engine,
            lake=settings.lake,
            started_at=now,
            versions=versions(settings.resolved_engine),
            code_revision=code_revision(settings.home),
        )

    def end(self, error: BaseException) -> None:
        """Record the error that ended the run; what was released before stays released."""
        if isinstance(error, CatalunyaError):
            message, code = str(error), error.exit_code
        elif isinstance(error, KeyboardInterrupt):
            stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
            message, code = f"{stopped} before it was done; run it again", stopped.exit_code
        else:
            message, code = f"{type(error).__name__}: {error}; the traceback is on standard error", 1
        released = self.status == "released"
        message = printable(message)
        self.message = f"{self.message}; then: {message}" if released else message
        self.exit_code = code
        if not released:
            self.status = "refused" if isinstance(error, Refused) else "failed"

    def warn(self, sentence: str) -> None:
        """Add a warning, once."""
        sentence = printable(sentence)
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def new_run_id(now: datetime) -> str:
    """Return a run's id: its clock and eight random hex digits."""
    return layout.make_id(now, secrets.token_hex(4))


def newest(storage: Storage, now: datetime | None = None) -> RunRecord | None:
    """Return the newest record of the ledger that is whole and, where the clock `now` is given, not from the future."""
    return next(recent(storage, now), None)


def recent(storage: Storage, now: datetime | None = None) -> Iterator[RunRecord]:
    """Yield the records of the ledger that are whole, newest first; where `now` is given, none from the future.

    Anything else in the ledger is ignored with one warning. Names sort by time: with `now` only the last days are listed,
    where there was a run in them, and only what is asked for is read.
    """
    for entry in _newest_first(storage, now):
        try:
            yield RunRecord.model_validate_json(storage.read(entry.key))
        except ValidationError:
            storage.ignore([entry.key], "not a record of a run (cut short, or written by something else)")
        except MissingKey:
            continue


def ledger_record(data: bytes) -> dict[str, object] | None:
    """Return a record of the ledger, or a line of its archive; None when it is none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("run_id"), str) else None


def last_seen(storage: Storage, now: datetime | None = None) -> dict[str, SourceState]:
    """Return the state of each source in the newest record of the ledger."""
    found = newest(storage, now)
    return found.seen if found else {}


_WINDOWS = (timedelta(days=7), timedelta(days=90))
"""How far back the ledger is listed, one after the other, before all of it is."""


def _newest_first(storage: Storage, now: datetime | None) -> Iterator[Entry]:
    """Return the ledger's records, newest first, each once."""
    begins = [layout.make_id(now - window, "0" * 8) for window in _WINDOWS] if now else []
    last = layout.make_id(now, "f" * 8) if now else None
    archive = layout.ledger_archive("").rpartition("/")[0] + "/"
    passed: set[str] = set()
    for begin in (*begins, ""):
        for entry in reversed(storage.list(layout.LEDGER, after=begin)):
            name = entry.key.removeprefix(f"{layout.LEDGER}/")
            if name in passed or entry.key.startswith(archive):
                continue
            passed.add(name)
            if not name.endswith(".json") or not layout.is_id(name.removesuffix(".json")):
                storage.ignore([entry.key], "not the name of a run's record")
            elif last is not None and name.removesuffix(".json") > last:
                storage.ignore([entry.key], "a record from the future: the clock of its run was wrong")
            else:
                yield entry


def merged(steps: Iterable[RunRecord]) -> RunRecord | None:
    """Return one record of the steps of a run, given in the order in which they ran; None when there are none.

    A step that released decides how the run ended, else the first that failed, else the last that ended it.
    """
    whole: RunRecord | None = None
    for step in steps:
        if whole is None:
            whole = step.model_copy(deep=True)
            continue
        for stage in step.stages:
            _add_stage(whole.stages, stage)
        whole.datasets |= step.datasets
        whole.seen |= step.seen
        whole.refused |= step.refused
        whole.versions |= step.versions
        whole.stale = step.stale or whole.stale
        whole.findings = step.findings or whole.findings
        if step.cost is not None:
            whole.cost = step.cost if whole.cost is None else whole.cost + step.cost
        whole.seconds = round(whole.seconds + step.seconds, 3)
        for sentence in step.warnings:
            whole.warn(sentence)
        if step.status == "released" and whole.exit_code and whole.message:
            whole.warn(whole.message)
        if step.status == "released" or (step.message and not (whole.message and whole.exit_code)):
            whole.status, whole.message, whole.exit_code = step.status, step.message, step.exit_code
            whole.release_id = step.release_id
    return whole


def _add_stage(stages: list[StageRecord], more: StageRecord) -> None:
    for known in stages:
        if known.name == more.name:
            known.seconds = round(known.seconds + more.seconds, 3)
            known.status = max(known.status, more.status, key=_WORST.index)
            return
    stages.append(more.model_copy())


def versions(engine: str = "duckdb") -> dict[str, str]:
    """Return the versions of this project, of Python and of what transforms the data, as far as it is installed."""
    found = {"catalunya": __version__, "python": platform.python_version()}
    for name in ("dbt-core", f"dbt-{engine}", "duckdb"):
        # The functions on AWS come without dbt.
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def code_revision(home: Path) -> str | None:
    """Return the git commit of the code, with `+` when files differ from it; None outside a checkout."""
    git = shutil.which("git")
    revision = os.environ.get("CATALUNYA_REVISION")
    if revision or git is None or not (home / ".git").exists():
        return revision

    def run(*arguments: str) -> str:
        command = [git, "-C", str(home), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    commit = run("rev-parse", "HEAD")
    return f"{commit}+" if commit and run("status", "--porcelain") else commit or None
