"""Each role has the permissions that its steps need of S3, recorded over the whole life of a lake, and no others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import boto3
import obstore
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
from catalunya.site.material import Material
from infrastructure.permissions import ROLES
from tests.aws.invocation import DAY, Invocation, event, variables
from tests.aws.needs import Need, necessary
from tests.aws.policy import ACCOUNT, Account
from tests.aws.recorder import KEY, Recorder
from tests.project import ROOT
from tests.s3 import S3Emulator
from tests.webhook_sink import listening

pytestmark = pytest.mark.aws


class Life:
    """A lake from its first release on; every step of every run is recorded under its role."""

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

    def invoke(self, stage: aws_lambda.Stage, run_id: str, dataset_id: str) -> None:
        """Do what a task of the DAG does: invoke, read the result, delete a failed one and invoke again."""
        part = aws_lambda.step_name(stage, dataset_id)
        for _ in range(2):
            with self.recorder.role(stage), suppress(CatalunyaError):
                getattr(aws_lambda, stage)(event(dataset_id, run_id), Invocation())
            with self.recorder.role("orchestrator"):
                result = self.stepwise(run_id).result(part)
                if aws_lambda.is_done(stage, dataset_id, result):
                    return
                self.stepwise(run_id).delete_result(part)

    def stepwise(self, run_id: str) -> StepwiseRun:
        return StepwiseRun(self.settings, run_id, aws_lambda.NullReporter())

    def ingest_all(self, run_id: str) -> None:
        for dataset_id in self.datasets:
            self.invoke("ingest", run_id, dataset_id)
        with self.recorder.role("orchestrator"):
            assert self.stepwise(run_id).read_so_far() == set(self.datasets)

    def run(self) -> str:
        """Do one run of the DAG and return its id."""
        run_id = self.new_run()
        self.ingest_all(run_id)
        try:
            with self.recorder.role("build"):
                new, _ = self.stepwise(run_id).anything_new()
            if new:
                self.transform(run_id)
        finally:
            with self.recorder.role("publish"):
                one = self.stepwise(run_id)
                alerts.deliver(one.storage, (), alerts.of_findings(one.finish()))
        return run_id

    def transform(self, run_id: str) -> None:
        for dataset_id in self.datasets:
            self.invoke("stage", run_id, dataset_id)
        with self.recorder.role("orchestrator"):
            for dataset_id in self.datasets:
                result = self.stepwise(run_id).result(aws_lambda.step_name("stage", dataset_id))
                assert result is not None
                # A refused snapshot is omitted; the run continues.
                with suppress(Refused):
                    aws_lambda.parse_result("stage", dataset_id, result)
        with self.recorder.role("build"):
            self.stepwise(run_id).build()
            self.stepwise(run_id).audit()
        with self.recorder.role("publish"):
            self.stepwise(run_id).publish()
            self.stepwise(run_id).docs()


PUT = obstore.put


def in_two_parts(store: Any, key: str, content: Any, **options: Any) -> Any:
    """Upload a file in two parts, as large files are."""
    if isinstance(content, Path):
        options["chunk_size"] = max(1, content.stat().st_size // 2)
    return PUT(store, key, content, **options)


@pytest.fixture(scope="module")
def recorded(s3_emulator: S3Emulator, templates: dict[str, Account]) -> Iterator[dict[str, set[Need]]]:
    """Role to the needs of runs that release, find nothing new, meet schema drift and refusals, and are corrected.

    A request that the role's policy does not allow is denied, so these runs would fail. Every file is uploaded in parts.
    """
    bucket = s3_emulator.new_bucket(f"catalunya-production-lake-{ACCOUNT}")
    recorder = Recorder(s3_emulator.endpoint, templates["production"], bucket)
    with pytest.MonkeyPatch.context() as patch, recorder.front, server.running(day=DAY) as demo:
        for name, value in {
            **s3_emulator.env,
            **variables(bucket, demo.url),
            "CATALUNYA_LAKE": f"s3://{bucket}",
            "AWS_ENDPOINT_URL": recorder.front.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
        }.items():
            patch.setenv(name, value)
        patch.setattr("obstore.put", in_two_parts)
        _live(Life(demo, recorder))
        assert recorder.gate.denied == []
        yield recorder.needed


def _live(life: Life) -> None:
    # The first snapshot of a dataset is refused: no run can release before there is an accepted one.
    life.demo.faults.add("social_services:missing_column=telefon")
    for _ in range(2):
        with pytest.raises(Refused):
            life.run()
    life.demo.faults.clear()
    life.run()
    life.run()
    # Killed runs left an unpublished release and a candidate: the next run deletes them.
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
    _fail_a_stage(life)
    life.demo.set_day(date(2026, 4, 1))
    with pytest.raises(Refused):
        life.run()
    life.demo.faults.clear()
    _refuse_in_audit(life)
    _accept_and_roll_back(life)
    _maintain(life)
    _alert(life)
    _download(life)
    _build_site(life)


def _fail_a_stage(life: Life) -> None:
    """A stage that fails by an unexpected error leaves a failed result, which is deleted."""
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr("catalunya.runs.pipeline.stage", _broken)
        life.invoke("stage", life.new_run(), "population")


def _broken(*_: object, **__: object) -> None:
    raise CatalunyaError("unexpected")


def _forget_figures(life: Life) -> None:
    """Make the release one of an older version, which recorded no figures: its marts are read to compare with."""
    shown = current_release(life.storage())
    assert shown is not None and shown.figures
    older = shown.model_copy(update={"figures": {}})
    life.storage().put(layout.release(shown.release_id, "release.json"), older.model_dump_json().encode())


def _refuse_in_audit(life: Life) -> None:
    """A register that lost most of its rows is refused; another dataset that changed is released by the same run."""
    with server.running(rows=4000, day=date(2026, 5, 1)) as shrunk, pytest.MonkeyPatch.context() as patch:
        shrunk.faults.add("municipalities:new_column")
        for name in PORTAL_VARIABLES:
            patch.setenv(name, shrunk.url)
        run_id = life.run()
    released = current_release(life.storage())
    assert released is not None and released.run_id == run_id
    held = snapshot.refused(life.storage(), "social_services")
    assert [refusal.gate for refusal in held.values() if refusal.run_id == run_id]


def _accept_and_roll_back(life: Life) -> None:
    moment = life.settings.now()
    held = [name for dataset_id in life.datasets for name in snapshot.refused(life.storage(), dataset_id)]
    run_id = "20260105T230000Z-00000000"
    _outdate_index(life)
    with life.recorder.role("steward"), lake_lock(life.storage(), run_id):
        for snapshot_id in held:
            snapshot.accept(life.storage(), life.datasets, snapshot_id, "it is real", moment)
            snapshot.refuse_by_hand(
                life.storage(), life.datasets, snapshot_id, "it is wrong after all", moment, run_id
            )
            snapshot.accept(life.storage(), life.datasets, snapshot_id, "it is real", moment)
    _refuse_and_lift(life)
    with life.recorder.role("publish"), lake_lock(life.storage(), "20260106T000000Z-00000000") as lock:
        roll_back(life.storage(), lock, run_id="20260106T000000Z-00000000", now=moment)


def _outdate_index(life: Life) -> None:
    """Leave the index as a process does that was killed after it wrote a manifest: readers list the snapshots instead."""
    [newest, *_] = reversed(snapshot.complete(life.storage(), "population"))
    index.forget(life.storage(), "population", newest)


def _refuse_and_lift(life: Life) -> None:
    """Refuse and lift: by an older definition, or by a rollback."""
    newest = snapshot.latest(life.storage(), "population")
    assert newest is not None
    refusal = snapshot.Refusal(
        gate="schema",
        reason="x",
        figures={},
        refused_at=life.settings.now(),
        run_id="20260105T230000Z-00000000",
    )
    for role in ("stage", "build", "publish"):
        _outdate_index(life)
        with life.recorder.role(role):
            snapshot.refuse(life.storage(), "population", newest.snapshot_id, refusal)
            snapshot.lift(life.storage(), "population", newest.snapshot_id)


def _download(life: Life) -> None:
    """Do what docs/aws.md says of the first release: look what is shown, list its files, and download them."""
    shown = current_release(life.storage())
    assert shown is not None
    s3: Any = boto3.client("s3", region_name="us-east-1")
    bucket = life.settings.lake.removeprefix("s3://")
    with life.recorder.role("reader"):
        s3.get_object(Bucket=bucket, Key=layout.CURRENT)
        for folder in (layout.release(shown.release_id), layout.docs(shown.release_id, "index.html")):
            found = s3.list_objects_v2(Bucket=bucket, Prefix=folder)["Contents"]
            assert found
            for entry in found:
                s3.get_object(Bucket=bucket, Key=entry["Key"])


def _build_site(life: Life) -> None:
    shown = current_release(life.storage())
    assert shown is not None
    with life.recorder.role("publish"), tempfile.TemporaryDirectory() as folder:
        material = Material(life.storage(), life.datasets, shown, life.settings.site_url)
        assert material.build(Path(folder)).pages > 1000
        assert shown.release_id in material.kept_releases()


def _maintain(life: Life) -> None:
    old = "20240101T000000Z-00000000"
    for key in (layout.release(old, "release.json"), layout.docs(old, "index.html")):
        life.storage().put(key, b"old")
    life.storage().put(layout.ledger(old), f'{{"run_id": "{old}"}}'.encode())
    with life.recorder.role("publish"):
        maintenance.retain(life.storage(), "20260106T010000Z-00000000", 2, life.settings.now())
    assert not life.storage().exists(layout.ledger(old))
    assert not life.storage().list(layout.release(old)) + life.storage().list(f"{layout.DOCS}/{old}")
    with life.recorder.role("monitor"):
        lake = life.storage()
        for dataset_id in life.datasets:
            maintenance.verify(lake, dataset_id)
        maintenance.freshness(lake, life.datasets, life.settings.now())
        status.describe(lake, life.datasets, life.settings.now())


def test_only_refusals_are_deleted_in_landing_and_only_publish_moves_the_pointer(recorded):
    for role, found in recorded.items():
        name = role.rpartition("-")[2]
        keys = {(need.action, need.resource.rpartition(":::")[2].partition("/")[2]) for need in found}
        deleted = [key for action, key in keys if action == "s3:DeleteObject" and key.startswith("landing/")]
        assert all(key.endswith("/refused.json") for key in deleted), (role, deleted)
        assert not deleted or name in {"stage", "build", "publish", "steward"}, (role, deleted)
        assert (("s3:PutObject", "current.json") in keys) == (name == "publish")


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_without_any_one_of_its_rights_in_the_lake_a_role_could_not_do_its_steps(recorded, templates, role):
    """Copies for the readers of Athena are made and read in the runs of `test_dag.py`: this lake is built by DuckDB."""
    account = templates["production"]
    name = f"catalunya-production-{role.name}"
    lake = f"arn:aws:s3:::catalunya-production-lake-{ACCOUNT}"
    rights = {
        right
        for right in account.rights(name)
        if right.resource.startswith(lake)
        and right.action != "s3:GetBucketLocation"
        and not right.resource.startswith(f"{lake}/{layout.PUBLISHED}")
    }
    assert rights - necessary(account, name, recorded[name]) == set()


def _alert(life: Life) -> None:
    """Send alerts: one that arrives, one that was sent before, and one that no channel takes."""
    with listening() as webhook_sink:
        for role in ("publish", "monitor", "orchestrator"):
            with life.recorder.role(role):
                for address, event in (
                    (webhook_sink.channel, "sent"),
                    (webhook_sink.channel, "sent"),
                    ("json://127.0.0.1:9", "unsent"),
                ):
                    alert = alerts.Alert(kind="failed", subject="x", reason="y", event=f"{event} {role}")
                    alerts.deliver(life.storage(), (address,), [alert])
