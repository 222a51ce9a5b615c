"""Each role is allowed what its part of the pipeline asks of S3, heard while a whole life of a lake goes by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from fnmatch import fnmatch

import pytest

from catalunya.datasets import loader
from catalunya.demo import server
from catalunya.errors import CatalunyaError, Refused
from catalunya.lake import index, layout, snapshot
from catalunya.lake.lock import lake_lock
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from catalunya.operations import alerts, maintenance, status
from catalunya.release import current_release, roll_back
from catalunya.runs import aws_lambda
from catalunya.runs.steps import StepwiseRun
from catalunya.settings import PORTAL_VARIABLES, Settings
from infrastructure.duties import DUTIES, PROBE
from tests.aws.conftest import DAY, Invocation, variables
from tests.aws.policy import ACCOUNT
from tests.aws.recorder import Asked, Recorder
from tests.conftest import ROOT
from tests.s3 import S3Emulator
from tests.webhook_sink import listening

pytestmark = pytest.mark.aws


class Life:
    """A lake from its first release on, every part of every run under the duty that does it."""

    def __init__(self, demo: server.RunningPortal, recorder: Recorder) -> None:
        self.demo = demo
        self.recorder = recorder
        self.settings = Settings.load().model_copy(
            update={"engine": "duckdb", "lambda_prefix": "catalunya-production"}
        )
        self.datasets = loader.load(ROOT / "datasets")
        self.number = 0

    def storage(self) -> Storage:
        return open_lake(self.settings.lake)

    def new_run(self) -> str:
        self.number += 1
        return f"20260105T0{self.number}0000Z-0000000{self.number}"

    def ask(self, stage: aws_lambda.Stage, run_id: str, dataset_id: str) -> None:
        """As a task of the DAG does: ask, look at the result, take one of failure back and ask again."""
        part = aws_lambda.step_name(stage, dataset_id)
        for _ in range(2):
            with self.recorder.duty(stage), suppress(CatalunyaError):
                getattr(aws_lambda, stage)({"run_id": run_id, "dataset": dataset_id}, Invocation())
            with self.recorder.duty("orchestrator"):
                result = self.stepwise(run_id).result(part)
                if aws_lambda.is_done(stage, dataset_id, result):
                    return
                self.stepwise(run_id).delete_result(part)

    def stepwise(self, run_id: str) -> StepwiseRun:
        return StepwiseRun(self.settings, run_id, aws_lambda.NullReporter())

    def read(self, run_id: str) -> None:
        for dataset_id in self.datasets:
            self.ask("ingest", run_id, dataset_id)
        with self.recorder.duty("monitor"):
            assert self.stepwise(run_id).read_so_far() == set(self.datasets)

    def run(self) -> str:
        """One run of the DAG."""
        run_id = self.new_run()
        self.read(run_id)
        try:
            with self.recorder.duty("build"):
                new, _ = self.stepwise(run_id).anything_new()
            if new:
                self.transform(run_id)
        finally:
            with self.recorder.duty("publish"):
                one = self.stepwise(run_id)
                alerts.deliver(one.storage, (), alerts.of_findings(one.finish()))
        return run_id

    def transform(self, run_id: str) -> None:
        for dataset_id in self.datasets:
            self.ask("stage", run_id, dataset_id)
        with self.recorder.duty("orchestrator"):
            for dataset_id in self.datasets:
                result = self.stepwise(run_id).result(aws_lambda.step_name("stage", dataset_id))
                assert result is not None
                # What is refused is left out, the run goes on.
                with suppress(Refused):
                    aws_lambda.parse_result("stage", dataset_id, result)
        with self.recorder.duty("build"):
            self.stepwise(run_id).build()
            self.stepwise(run_id).audit()
        with self.recorder.duty("publish"):
            self.stepwise(run_id).publish()
            self.stepwise(run_id).docs()


@pytest.fixture(scope="module")
def heard(s3_emulator: S3Emulator) -> Iterator[dict[str, set[Asked]]]:
    """By duty, all that was asked for in runs that release, find nothing, meet drift and refusal, and are corrected."""
    recorder = Recorder(s3_emulator.endpoint)
    bucket = s3_emulator.new_bucket()
    with pytest.MonkeyPatch.context() as patch, recorder.front, server.running(day=DAY) as demo:
        for name, value in {
            **s3_emulator.env,
            **variables(bucket, demo.url),
            "CATALUNYA_LAKE": f"s3://{bucket}",
            "AWS_ENDPOINT_URL": recorder.front.endpoint,
        }.items():
            patch.setenv(name, value)
        _live(Life(demo, recorder))
        yield recorder.heard


def _live(life: Life) -> None:
    # The first snapshot of a dataset is refused: there is no release without one that is not, in no later run.
    life.demo.faults.add("social_services:missing_column=telefon")
    for _ in range(2):
        with pytest.raises(Refused):
            life.run()
    life.demo.faults.clear()
    life.run()
    life.run()
    # Killed runs left a release that nobody saw and a candidate: the next one clears them away.
    life.storage().put(layout.release("20270101T000000Z-00000000", "csv/x.csv"), b"left")
    life.storage().put(layout.candidate("20250101T000000Z-00000000", "candidate.duckdb"), b"left")
    _forget_figures(life)
    life.demo.faults.add("municipalities:bad_rows")
    life.demo.set_day(date(2026, 3, 1))
    life.run()
    assert life.storage().list(layout.QUARANTINE)
    life.demo.faults.clear()
    life.demo.faults.add("social_services:missing_column=telefon")
    life.demo.faults.add("service_users:down=1")
    _break_a_staging(life)
    life.demo.set_day(date(2026, 4, 1))
    with pytest.raises(Refused):
        life.run()
    life.demo.faults.clear()
    _refuse_in_audit(life)
    _mend(life)
    _look_after(life)
    _tell(life)


def _break_a_staging(life: Life) -> None:
    """A stage that fails by a fault of the code leaves a result of failure, which is taken back."""
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr("catalunya.runs.pipeline.stage", _broken)
        life.ask("stage", life.new_run(), "population")


def _broken(*_: object, **__: object) -> None:
    raise CatalunyaError("a fault of the code")


def _forget_figures(life: Life) -> None:
    """A release of a version that did not record the figures of its marts: they are read to compare with."""
    shown = current_release(life.storage())
    assert shown is not None and shown.figures
    older = shown.model_copy(update={"figures": {}})
    life.storage().put(layout.release(shown.release_id, "release.json"), older.model_dump_json().encode())


def _refuse_in_audit(life: Life) -> None:
    """A register that lost most of its rows beside another list that changed: the one is refused, the other released."""
    with server.running(rows=4000, day=date(2026, 5, 1)) as torn, pytest.MonkeyPatch.context() as patch:
        torn.faults.add("municipalities:new_column")
        for name in PORTAL_VARIABLES:
            patch.setenv(name, torn.url)
        run_id = life.run()
    released = current_release(life.storage())
    assert released is not None and released.run_id == run_id
    held = snapshot.refused(life.storage(), "social_services")
    assert [refusal.gate for refusal in held.values() if refusal.run_id == run_id]


def _mend(life: Life) -> None:
    moment = life.settings.now()
    held = [name for dataset_id in life.datasets for name in snapshot.refused(life.storage(), dataset_id)]
    run_id = "20260105T230000Z-00000000"
    _leave_index_behind(life)
    with life.recorder.duty("steward"), lake_lock(life.storage(), run_id):
        for snapshot_id in held:
            snapshot.accept(life.storage(), life.datasets, snapshot_id, "it is real", moment)
            snapshot.refuse_by_hand(
                life.storage(), life.datasets, snapshot_id, "it is wrong after all", moment, run_id
            )
            snapshot.accept(life.storage(), life.datasets, snapshot_id, "it is real", moment)
    _reopen(life)
    with life.recorder.duty("publish"), lake_lock(life.storage(), "20260106T000000Z-00000000") as lock:
        roll_back(life.storage(), lock, run_id="20260106T000000Z-00000000", now=moment)


def _leave_index_behind(life: Life) -> None:
    """As one that was killed after it wrote a manifest leaves it: who reads it next looks beside the bytes."""
    [newest, *_] = reversed(snapshot.complete(life.storage(), "population"))
    index.forget(life.storage(), "population", newest)


def _reopen(life: Life) -> None:
    """A refusal that does not hold any more: of another definition, or of a rollback."""
    newest = snapshot.latest(life.storage(), "population")
    assert newest is not None
    refusal = snapshot.Refusal(
        gate="schema",
        reason="x",
        figures={},
        refused_at=life.settings.now(),
        run_id="20260105T230000Z-00000000",
    )
    for duty in ("stage", "build", "publish"):
        _leave_index_behind(life)
        with life.recorder.duty(duty):
            snapshot.refuse(life.storage(), "population", newest.snapshot_id, refusal)
            snapshot.lift(life.storage(), "population", newest.snapshot_id)


def _look_after(life: Life) -> None:
    old = "20240101T000000Z-00000000"
    for key in (layout.release(old, "release.json"), layout.docs(old, "index.html")):
        life.storage().put(key, b"old")
    life.storage().put(layout.ledger(old), f'{{"run_id": "{old}"}}'.encode())
    with life.recorder.duty("publish"):
        maintenance.retain(life.storage(), "20260106T010000Z-00000000", 2, life.settings.now())
    assert not life.storage().exists(layout.ledger(old))
    assert not life.storage().list(layout.release(old)) + life.storage().list(f"{layout.DOCS}/{old}")
    with life.recorder.duty("monitor"):
        lake = life.storage()
        for dataset_id in life.datasets:
            maintenance.verify(lake, dataset_id)
        maintenance.freshness(lake, life.datasets, life.settings.now())
        status.describe(lake, life.datasets, life.settings.now())


@pytest.mark.parametrize("duty", [duty.name for duty in DUTIES])
def test_a_role_may_do_what_its_part_of_the_pipeline_did(heard, templates, duty):
    account = templates["production"]
    bucket = f"arn:aws:s3:::catalunya-production-lake-{ACCOUNT}"
    assert heard[duty]
    refused = [
        (action, key)
        for action, key in sorted(heard[duty])
        if not account.may(f"catalunya-production-{duty}", action, f"{bucket}/{key}" if key else bucket)
    ]
    assert refused == []


def test_no_part_of_the_pipeline_deleted_what_landed_but_refusals_or_moved_the_pointer_but_publish(heard):
    for duty, found in heard.items():
        deleted = [key for action, key in found if action == "s3:DeleteObject" and key.startswith("landing/")]
        assert all(key.endswith("/refused.json") for key in deleted), (duty, deleted)
        assert not deleted or duty in {"stage", "build", "publish", "steward"}, (duty, deleted)
        assert (("s3:PutObject", "current.json") in found) == (duty == "publish")


@pytest.mark.parametrize("duty", DUTIES, ids=lambda duty: duty.name)
def test_every_pattern_of_a_duty_was_needed(heard, duty):
    """A right that nothing asked for in a whole life of a lake is one too many; this lake is built by DuckDB."""
    spare = {
        (kind, pattern)
        for kind, action, patterns in (
            ("reads", "s3:GetObject", duty.reads),
            ("writes", "s3:PutObject", duty.writes),
            ("deletes", "s3:DeleteObject", duty.deletes),
        )
        for pattern in patterns
        if not pattern.startswith(layout.PUBLISHED)
        # The first to write under a condition writes it, whichever that is.
        and pattern != PROBE
        and not any(asked == action and fnmatch(key, pattern) for asked, key in heard[duty.name])
    }
    assert spare == set()


def _tell(life: Life) -> None:
    """Alerts that were heard, that were told before, and that nobody heard."""
    with listening() as webhook_sink:
        for duty in ("publish", "monitor", "orchestrator"):
            with life.recorder.duty(duty):
                for address, event in (
                    (webhook_sink.channel, "heard"),
                    (webhook_sink.channel, "heard"),
                    ("json://127.0.0.1:9", "unheard"),
                ):
                    alert = alerts.Alert(kind="failed", subject="x", reason="y", event=f"{event} {duty}")
                    alerts.deliver(life.storage(), (address,), [alert])
