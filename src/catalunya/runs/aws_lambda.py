"""Two functions on AWS, ingest and stage: each does one dataset's part of a run, as `steps.py` has it.

They are invoked asynchronously, with the run and the dataset as the key. A key that was done is not done again,
however often it is asked for. A failure is raised, so that the invocation goes to the dead-letter queue; a
refusal is a result, which no other try would change.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal, Protocol

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from catalunya.errors import CatalunyaError, LakeBusy, Refused, SourceUnreadable, UsageError
from catalunya.lake import layout
from catalunya.lake.lock import lock_owner
from catalunya.runs import steps
from catalunya.runs.record import DatasetRecord, RunRecord
from catalunya.runs.steps import StepwiseRun
from catalunya.settings import Settings

Stage = Literal["ingest", "stage"]

_BUNDLE = Path(__file__).resolve().parents[2]
"""Where the package of the functions was unpacked; the definitions lie beside the library there."""

log = structlog.get_logger(__name__)


class FunctionFailed(CatalunyaError):
    """A function ended in an error that is on record."""


class Order(BaseModel):
    """The event: whose part of which run is to be done. The two together are the key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    dataset: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    force: bool = False
    """Read the source although nothing changed; stage every kept snapshot again."""

    @field_validator("run_id")
    @classmethod
    def _is_an_id(cls, run_id: str) -> str:
        try:
            layout.moment_of(run_id)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return run_id


class Context(Protocol):
    """What AWS says of an invocation."""

    aws_request_id: str
    memory_limit_in_mb: Any

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation times out."""


class NullReporter:
    """The log has one line an invocation and those of the library; it needs no progress."""

    def begin(self, stage: str) -> None:
        """Ignore it."""

    def step(self, stage: str, what: str, done: int | None = None, total: int | None = None) -> None:
        """Ignore it."""

    def end(self, stage: str, status: str, seconds: float) -> None:
        """Ignore it."""


def ingest(event: dict[str, Any], context: Context) -> dict[str, Any]:
    """Read one source; returns the dataset's record. Raises what kept it from being read."""
    return _handle("ingest", event, context)


def stage(event: dict[str, Any], context: Context) -> dict[str, Any]:
    """Type what landed of one dataset; returns the dataset's record. Raises what kept it from being staged."""
    return _handle("stage", event, context)


def part_of(stage: Stage, dataset_id: str) -> str:
    """The name of the part that a function leaves on record."""
    return f"{stage}.{dataset_id}"


def is_done(stage: Stage, dataset_id: str, result: RunRecord | None) -> bool:
    """True when no other try would change a part's end: it ended well, or in a refusal."""
    if result is None:
        return False
    try:
        parse_result(stage, dataset_id, result)
    except Refused:
        return True
    except CatalunyaError:
        return False
    return True


def succeeded(stage: Stage, dataset_id: str, result: RunRecord | None) -> bool:
    """True when a part is on record and ended well."""
    try:
        return result is not None and bool(parse_result(stage, dataset_id, result))
    except CatalunyaError:
        return False


def parse_result(stage: Stage, dataset_id: str, result: RunRecord) -> DatasetRecord:
    """What a part's result says: the dataset's record, or the error it ended in.

    Raises `Refused`, `SourceUnreadable`, or `FunctionFailed` for whatever else kept it from being done.
    """
    record = result.datasets.get(dataset_id)
    if result.status == "refused":
        raise Refused(result.message, result.refused)
    if result.message or record is None:
        raise FunctionFailed(
            f"{stage} of {dataset_id} by a function failed: {result.message or 'it returned no error message'}"
        )
    if stage == "ingest" and record.outcome == "drifted":
        raise Refused(record.message)
    if stage == "ingest" and record.outcome == "unreadable":
        raise SourceUnreadable(record.message)
    return record


def _handle(stage: Stage, event: dict[str, Any], context: Context) -> dict[str, Any]:
    _log_in_json()
    order = _order(event)
    began = time.monotonic()
    with structlog.contextvars.bound_contextvars(
        run_id=order.run_id, dataset=order.dataset, stage=stage, request_id=context.aws_request_id
    ):
        log.info("begins", remaining_ms=context.get_remaining_time_in_millis(), **_budget(context))
        outcome = "failed"
        try:
            answer = _once(stage, order)
            outcome = str(answer["outcome"])
        except Exception as error:
            log.error("failed", error=type(error).__name__, reason=str(error))
            raise
        finally:
            log.info(
                "ended",
                outcome=outcome,
                seconds=round(time.monotonic() - began, 3),
                remaining_ms=context.get_remaining_time_in_millis(),
                peak_memory_mb=peak_memory_mb(),
                **_budget(context),
            )
        return answer


def _order(event: dict[str, Any]) -> Order:
    try:
        return Order.model_validate(event)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(f"invalid event payload: {faults}") from None


def _once(stage: Stage, order: Order) -> dict[str, Any]:
    """Do the part, or answer what is on record of it when it was done."""
    one = StepwiseRun(_settings(), order.run_id, NullReporter())
    if order.dataset not in one.datasets:
        raise UsageError(f"no dataset {order.dataset}; there are: {', '.join(one.datasets)}")
    part = part_of(stage, order.dataset)
    call = f"call-{stage}-{order.dataset}"
    try:
        with steps.acquire_lock(one.storage, order.run_id, call):
            result = one.result(part)
            if result is None and one.has_ended():
                return _answer("ended", None)
            if is_done(stage, order.dataset, result):
                return _answer("done before", result.datasets.get(order.dataset) if result else None)
            return _work(one, stage, order)
    except LakeBusy:
        holder = lock_owner(one.storage, call)
        if holder is not None and holder.holder == order.run_id:
            return _answer("under way", None)
        raise


def _work(one: StepwiseRun, stage: Stage, order: Order) -> dict[str, Any]:
    try:
        if stage == "ingest":
            done = one.ingest(order.dataset, force=order.force)
        else:
            done = one.stage(order.dataset, again=order.force)
    except Refused as refusal:
        log.warning("refused", reason=str(refusal))
        return {"outcome": "refused", "message": str(refusal)}
    return _answer(done.outcome if stage == "ingest" else "staged", done)


def _answer(outcome: str, record: DatasetRecord | None) -> dict[str, Any]:
    return {**(record.model_dump(mode="json") if record else {}), "outcome": outcome}


def _settings() -> Settings:
    settings = Settings.load()
    bundled = (_BUNDLE / "datasets").is_dir() and "home" not in settings.model_fields_set
    return settings.model_copy(update={"home": _BUNDLE}) if bundled else settings


def _budget(context: Context) -> dict[str, int]:
    disk = shutil.disk_usage(tempfile.gettempdir())
    return {"memory_mb": int(context.memory_limit_in_mb), "tmp_free_mb": disk.free // 2**20}


def peak_memory_mb() -> int:
    """The most memory that this process ever held, in MiB; earlier invocations of it count too."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 2**20 if sys.platform == "darwin" else peak // 2**10


def _log_in_json() -> None:
    """One JSON object a line on standard output, which is where the runtime collects it."""
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
