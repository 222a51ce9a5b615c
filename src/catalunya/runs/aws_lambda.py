"""Two functions on AWS, ingest and stage: each does this step of a run for one dataset, as `steps.py` has it.

They are invoked asynchronously, with the run and the dataset as the key. Invocations are idempotent: a step that is
done is not done again. A failure is raised, so that the invocation goes to the dead-letter queue; a refusal is a result,
since a retry would not change it. An event that comes from other code, or names another definition of the dataset, is
answered at once with a failed result: functions and Airflow have to be of one commit.
"""

from __future__ import annotations

import contextlib
import hashlib
import resource
import shutil
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from catalunya.datasets.model import Dataset
from catalunya.errors import CatalunyaError, LakeBusy, Refused, UsageError
from catalunya.lake import layout
from catalunya.lake.lock import lock_owner
from catalunya.runs import steps
from catalunya.runs.record import DatasetRecord, RunRecord
from catalunya.runs.reporter import NullReporter
from catalunya.runs.steps import StepwiseRun
from catalunya.settings import Settings
from catalunya.staging import row_sql

Stage = Literal["ingest", "stage"]

_BUNDLE = Path(__file__).resolve().parents[2]
"""Where the package of the functions was unpacked; the definitions lie beside the library there."""

_UPDATE = (
    "Functions and Airflow have to be of one commit: deploy the stack from the checkout that Airflow runs (`make deploy`), "
    "or update Airflow to the commit that was deployed; then trigger a run. See docs/aws.md, Update"
)

log = structlog.get_logger(__name__)


class FunctionFailed(CatalunyaError):
    """A function ended in an error that is on record."""


class Invocation(BaseModel):
    """The event: the run and the dataset whose step is to be done, which together are the key; and what the caller knows.

    Other fields are ignored: an event that has them comes from other code, which `code` tells.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    dataset: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    force: bool = False
    """Read the source although nothing changed; stage every kept snapshot again."""
    code: str = ""
    """Digest of the caller's code (`code_digest`)."""
    definition: str = ""
    """Digest of the caller's definition of the dataset (`row_sql.definition_digest`)."""

    @classmethod
    def of(cls, dataset: Dataset, run_id: str, *, force: bool = False) -> Invocation:
        """Return the invocation for a dataset as this process knows it."""
        return cls(
            run_id=run_id,
            dataset=dataset.id,
            force=force,
            code=code_digest(),
            definition=row_sql.definition_digest(dataset),
        )

    @field_validator("run_id")
    @classmethod
    def _is_an_id(cls, run_id: str) -> str:
        try:
            layout.moment_of(run_id)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return run_id


class LambdaContext(Protocol):
    """What AWS passes to each invocation."""

    aws_request_id: str
    memory_limit_in_mb: Any

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the invocation times out."""


def ingest(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Read one source and return the dataset's record; raises the error that prevented it."""
    return _handle("ingest", event, context)


def stage(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Stage what landed of one dataset and return its record; raises the error that prevented it."""
    return _handle("stage", event, context)


@cache
def code_digest() -> str:
    """Return 16 hex digits over all modules of this package, without their line ends: those differ between checkouts."""
    package = Path(__file__).resolve().parents[1]
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).as_posix()):
        found.update(f"{path.relative_to(package).as_posix()}\n".encode())
        found.update(hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).digest())
    return found.hexdigest()[:16]


def step_name(stage: Stage, dataset_id: str) -> str:
    """Return the name of the step that a function does."""
    return f"{stage}.{dataset_id}"


def is_done(stage: Stage, dataset_id: str, result: RunRecord | None) -> bool:
    """Return True when a retry would not change the result of a step: it succeeded, or was refused."""
    try:
        parse_result(stage, dataset_id, result)
    except CatalunyaError as error:
        return isinstance(error, Refused)
    return True


def succeeded(stage: Stage, dataset_id: str, result: RunRecord | None) -> bool:
    """Return True when the result of a step is there and is a success."""
    with contextlib.suppress(CatalunyaError):
        return bool(parse_result(stage, dataset_id, result))
    return False


def parse_result(stage: Stage, dataset_id: str, result: RunRecord | None) -> DatasetRecord:
    """Return the dataset's record in the result of a step.

    Raises what the step ended in: `Refused`, `SourceUnreadable`, `UsageError` where a retry would fail in the same way, or
    `FunctionFailed` for any other failure.
    """
    if result is None:
        raise FunctionFailed(f"{stage} of {dataset_id} by a function left no result")
    record = result.datasets.get(dataset_id)
    if result.status == "refused":
        raise Refused(result.message, result.refused)
    if result.message or record is None:
        reason = f"{stage} of {dataset_id} by a function failed: {result.message or 'it returned no error message'}"
        raise UsageError(reason) if result.exit_code == UsageError.exit_code else FunctionFailed(reason)
    if stage == "ingest":
        record.raise_for_outcome()
    return record


def _handle(stage: Stage, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    _log_in_json()
    invocation = _parse_event(event)
    started = time.monotonic()
    with structlog.contextvars.bound_contextvars(
        run_id=invocation.run_id, dataset=invocation.dataset, stage=stage, request_id=context.aws_request_id
    ):
        log.info("begins", remaining_ms=context.get_remaining_time_in_millis(), **_resources(context))
        outcome = "failed"
        try:
            answer = _do_once(stage, invocation)
            outcome = str(answer["outcome"])
        except Exception as error:
            log.error("failed", error=type(error).__name__, reason=str(error))
            raise
        finally:
            log.info(
                "ended",
                outcome=outcome,
                seconds=round(time.monotonic() - started, 3),
                remaining_ms=context.get_remaining_time_in_millis(),
                peak_memory_mb=peak_memory_mb(),
                **_resources(context),
            )
        return answer


def _parse_event(event: dict[str, Any]) -> Invocation:
    try:
        return Invocation.model_validate(event)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(f"invalid event payload: {faults}") from None


def _do_once(stage: Stage, invocation: Invocation) -> dict[str, Any]:
    """Do the step, or return its result when it was done before."""
    run, dataset_id = StepwiseRun(_settings(), invocation.run_id, NullReporter()), invocation.dataset
    lock = f"call-{stage}-{dataset_id}"
    try:
        with steps.acquire_lock(run.storage, run.run_id, lock):
            result = run.result(step_name(stage, dataset_id))
            if result is None and run.has_ended():
                return _answer("ended", None)
            if is_done(stage, dataset_id, result):
                return _answer("done before", result.datasets.get(dataset_id) if result else None)
            if difference := _difference(run, invocation):
                error = UsageError(difference)
                run.fail(step_name(stage, dataset_id), error)
                raise error
            return _do(run, stage, invocation)
    except LakeBusy:
        owner = lock_owner(run.storage, lock)
        if owner is not None and owner.holder == run.run_id:
            return _answer("under way", None)
        raise


def _difference(run: StepwiseRun, invocation: Invocation) -> str:
    """Return how the caller's code and definition differ from those of this function, in sentences; empty when equal."""
    dataset = run.datasets.get(invocation.dataset)
    if not invocation.code:
        what = "the event has no digest of Airflow's code: Airflow is older than this function"
    elif dataset is None:
        what = f"this function has no definition of {invocation.dataset}, it was deployed with: {', '.join(run.datasets)}"
    else:
        own = Invocation.of(dataset, run.run_id)
        pairs = {
            "code": (invocation.code, own.code),
            f"definition of {dataset.id}": (invocation.definition, own.definition),
        }
        found = [
            f"the {name} of Airflow ({theirs}) is not that of this function ({ours})"
            for name, (theirs, ours) in pairs.items()
            if theirs != ours
        ]
        what = "; ".join(found)
    return what and f"{what}. {_UPDATE}"


def _do(run: StepwiseRun, stage: Stage, invocation: Invocation) -> dict[str, Any]:
    work = run.ingest if stage == "ingest" else run.stage
    try:
        record = work(invocation.dataset, force=invocation.force)
    except Refused as refusal:
        log.warning("refused", reason=str(refusal))
        return {"outcome": "refused", "message": str(refusal)}
    return _answer(record.outcome if stage == "ingest" else "staged", record)


def _answer(outcome: str, record: DatasetRecord | None) -> dict[str, Any]:
    return {**(record.model_dump(mode="json") if record else {}), "outcome": outcome}


def _settings() -> Settings:
    settings = Settings.load()
    bundled = (_BUNDLE / "datasets").is_dir() and "home" not in settings.model_fields_set
    return settings.model_copy(update={"home": _BUNDLE}) if bundled else settings


def _resources(context: LambdaContext) -> dict[str, int]:
    disk = shutil.disk_usage(tempfile.gettempdir())
    return {"memory_mb": int(context.memory_limit_in_mb), "tmp_free_mb": disk.free // 2**20}


def peak_memory_mb() -> int:
    """Return the highest memory use of this process so far, in MiB; its earlier invocations count too."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 2**20 if sys.platform == "darwin" else peak // 2**10


def _log_in_json() -> None:
    """Log one JSON object a line on standard output, which is where the runtime collects it."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=False,
    )
