"""A run in steps makes the same release as a run in one process, whatever fails in between."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from rich.console import Console

from catalunya.build import build, discard, newest_candidate
from catalunya.cli.console import PlainReporter
from catalunya.demo import server
from catalunya.errors import BuildFailed, LakeBusy, Refused, SourceUnreadable, UsageError
from catalunya.ingest import Ingested
from catalunya.lake import layout, pointer, snapshot
from catalunya.lake.lock import lake_lock
from catalunya.lake.opening import open_lake
from catalunya.lake.pointer import PointerMoved
from catalunya.lake.storage import Storage
from catalunya.operations import alerts
from catalunya.runs import record, steps
from catalunya.runs.steps import StepwiseRun
from catalunya.settings import Settings
from catalunya.warehouse.engines import open_engine
from tests.pipeline.command import DAY, SMALL

# One process imports dbt for all these tests, and makes the run that they take up.
pytestmark = pytest.mark.xdist_group("dbt")
NOW = "2026-01-05T06:00:00Z"
MOMENT = Settings(CATALUNYA_NOW=NOW).now()


@pytest.fixture(scope="module", autouse=True)
def runs_with_few_marts(small_project: Path) -> Iterator[None]:
    """Runs in this process are of the project that `small_release` was made with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATALUNYA_HOME", str(small_project))
        yield


def stepwise_run(name: str, lake: str, url: str) -> StepwiseRun:
    settings = Settings(
        CATALUNYA_LAKE=lake, CATALUNYA_NOW=NOW, CATALUNYA_SOCRATA_URL=url, CATALUNYA_IDESCAT_URL=url,
        CATALUNYA_ICGC_URL=url, CATALUNYA_HTTP_ATTEMPTS=1, ENVIRONMENT="demo", CATALUNYA_HOME=os.environ["CATALUNYA_HOME"],
    )  # fmt: skip
    return StepwiseRun(settings, steps.run_id_of(name, MOMENT), PlainReporter(Console(quiet=True)))


def ingest_and_stage(run: StepwiseRun) -> None:
    for dataset_id in run.datasets:
        run.ingest(dataset_id)
    for dataset_id in run.datasets:
        run.stage(dataset_id)


def run_all_steps(run: StepwiseRun) -> record.RunRecord:
    ingest_and_stage(run)
    run.build()
    run.audit()
    run.publish()
    run.docs()
    return run.finish()


@pytest.fixture(scope="module")
def audited_lake(small_release, tmp_path_factory) -> Path:
    """A lake with a run in steps as far as its audit: one portal was down, the ingest of another failed."""
    lake = tmp_path_factory.mktemp("audited") / "lake"
    shutil.copytree(small_release.lake, lake)
    with server.running(rows=SMALL, day=DAY) as demo, pytest.MonkeyPatch.context() as patch:
        demo.faults.add("population:down")
        run = stepwise_run("a", str(lake), demo.url)
        with pytest.raises(SourceUnreadable, match="population"):
            run.ingest("population")
        with patch.context() as broken:
            broken.setattr("catalunya.runs.pipeline.ingest", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                run.ingest("service_users")
        for dataset_id in run.datasets:
            run.stage(dataset_id)
        run.build()
        verdict = run.audit()
    assert any("nothing newer could be used" in sentence for sentence in verdict.sentences("warn"))
    return lake


@pytest.fixture
def audited(audited_lake: Path, tmp_path: Path) -> StepwiseRun:
    """That run, in a lake of the test's own."""
    shutil.copytree(audited_lake, tmp_path / "lake")
    return stepwise_run("a", str(tmp_path / "lake"), "http://127.0.0.1:9")


def test_a_run_in_steps_ends_in_the_release_of_a_run_in_one_process(small_demo, s3_bucket, small_release):
    lake = f"s3://{s3_bucket}/lake"
    ended = run_all_steps(stepwise_run("a", lake, small_demo.url))
    own = small_release.release_id
    assert (ended.status, ended.exit_code, ended.release_id) == ("released", 0, own)
    assert [stage.name for stage in ended.stages] == ["ingest", "stage", "build", "audit", "publish"]
    storage = open_lake(lake)
    assert storage.exists(layout.docs(str(ended.release_id), "index.html"))
    assert storage.folders(layout.RUNS) == storage.folders(layout.CANDIDATES) == []
    again = stepwise_run("b", lake, small_demo.url)
    for dataset_id in again.datasets:
        again.ingest(dataset_id)
    assert again.read_so_far() == set(again.datasets)
    new, why = again.anything_new()
    assert not new
    assert "nothing new" in why
    assert again.finish().status == "unchanged"


def test_an_ingest_without_a_result_is_reported_and_the_last_snapshot_is_used(small, small_demo):
    run = stepwise_run("a", small.lake, small_demo.url)
    run.ingest("population")
    new, _ = run.anything_new(missing=("boundaries",))
    assert not new
    ended = run.finish()
    assert ended.exit_code == 4
    assert any("boundaries: ingest reported no result" in warning for warning in ended.warnings)


def test_a_step_that_could_not_begin_fails_the_run_and_its_dataset_counts_as_not_read(small, small_demo):
    run = stepwise_run("a", small.lake, small_demo.url)
    for dataset_id in run.datasets:
        if dataset_id != "boundaries":
            run.ingest(dataset_id)
    run.fail("ingest.boundaries", UsageError("the function runs other code"))
    assert run.read_so_far() == set(run.datasets)
    assert not run.anything_new()[0]
    ended = run.finish()
    assert (ended.status, ended.exit_code, ended.message) == ("failed", 2, "the function runs other code")
    assert ended.datasets["boundaries"].outcome == "unreadable"


def test_a_run_that_stopped_says_so_and_names_its_last_stage(tmp_path, small_demo):
    run = stepwise_run("a", str(tmp_path / "lake"), small_demo.url)
    ingest_and_stage(run)
    ended = run.finish()
    assert (ended.status, ended.exit_code) == ("failed", 1)
    assert "stopped before publishing" in ended.message
    assert "stage" in ended.message
    assert run.finish() == ended


def test_a_source_that_cannot_be_read_is_stale_and_an_ingest_that_failed_does_not_hide_the_release(audited):
    release = audited.publish()
    ended = audited.finish()
    assert (ended.status, ended.exit_code, ended.release_id) == ("released", 0, release.release_id)
    assert [stale.dataset_id for stale in ended.stale] == ["population"]
    assert [alert.kind for alert in alerts.of_findings(ended)] == ["unreadable"]
    assert any("ZeroDivisionError" in warning for warning in ended.warnings)


def test_a_drift_fails_the_reading_or_the_staging_of_that_dataset_alone(small, small_demo):
    small_demo.faults.add("social_services:missing_column=telefon")
    run = stepwise_run("a", small.lake, small_demo.url)
    with pytest.raises(Refused, match="telefon"):
        run.ingest("social_services")
        run.stage("social_services")
    run.ingest("population")
    run.stage("population")
    assert run.finish().status == "refused"


def test_a_candidate_older_than_the_release_is_not_published(audited):
    found = pointer.read(audited.storage)
    assert found
    older, newer = found[0].release_id, "20260105T080000Z-12345678"
    releases = Path(audited.settings.lake, "releases")
    shutil.copytree(releases / older, releases / newer)
    record_of = releases / newer / "release.json"
    record_of.write_text(record_of.read_text("utf-8").replace(older, newer), "utf-8")
    pointer.swap(
        audited.storage, found[0].model_copy(update={"release_id": newer, "previous": older}), found[1]
    )
    shown = audited.storage.read("current.json")
    with pytest.raises(PointerMoved, match="run again"):
        audited.publish()
    assert audited.storage.read("current.json") == shown
    assert audited.finish().status == "failed"


def test_a_try_of_publish_that_was_killed_after_the_swap_is_taken_up(audited):
    release = audited.publish()
    audited.storage.delete(layout.part(audited.run_id, "publish"))
    assert audited.publish() == release
    ended = audited.finish()
    assert (ended.status, ended.release_id) == ("released", release.release_id)


def test_an_audit_that_was_killed_while_it_looked_for_the_fault_builds_again_before_it_judges(audited):
    storage, settings = audited.storage, audited.settings
    [boundaries] = snapshot.usable(storage, "boundaries")
    engine = open_engine(storage, settings)
    build(
        storage, audited.datasets, settings, engine, candidate_id=audited.run_id, now=settings.now(), leave_out=[boundaries]
    )  # fmt: skip
    with pytest.raises(UsageError, match=f"lacks {boundaries}"):
        audited.publish()
    assert newest_candidate(storage) is None
    assert audited.audit().passed
    assert boundaries in audited.publish().snapshots["boundaries"]


def test_an_audit_whose_candidate_is_gone_builds_it_again_and_one_before_any_build_says_so(audited):
    storage = audited.storage
    built = storage.read(layout.part(audited.run_id, "build"))
    discard(storage, open_engine(storage, audited.settings), audited.run_id)
    audited.delete_result("build")
    with pytest.raises(UsageError, match="its build has to run first"):
        audited.audit()
    storage.put(layout.part(audited.run_id, "build"), built)
    assert audited.audit().passed


def test_damaged_and_unknown_files_among_the_results_of_a_run_are_named_and_ignored(audited):
    storage = audited.storage
    damaged = layout.part(audited.run_id, "ingest.population")
    storage.put(damaged, storage.read(damaged)[:40])
    storage.put(layout.part(audited.run_id, "note"), b"mine")
    assert audited.result("ingest.population") is None
    audited.publish()
    ended = audited.finish()
    assert ended.status == "released"
    assert storage.ignored.keys() == {damaged, layout.part(audited.run_id, "note")}


def test_a_source_that_drifted_is_a_refused_run_also_when_nothing_else_is_new(small, small_demo, monkeypatch):
    run = stepwise_run("a", small.lake, small_demo.url)
    for dataset_id in run.datasets:
        if dataset_id != "boundaries":
            run.ingest(dataset_id)
    drifted = Ingested("boundaries", "drifted", None, {}, 1, 1, "boundaries: CODICOMAR is gone")
    monkeypatch.setattr("catalunya.runs.pipeline.ingest", lambda *_, **__: drifted)
    with pytest.raises(Refused, match="CODICOMAR"):
        run.ingest("boundaries")
    new, why = run.anything_new()
    assert not new
    assert "CODICOMAR" in why
    ended = run.finish()
    assert (ended.status, ended.exit_code) == ("refused", 3)


def test_a_finish_that_was_killed_while_it_cleared_away_keeps_its_record(small, small_demo):
    run = stepwise_run("a", small.lake, small_demo.url)
    for dataset_id in run.datasets:
        run.ingest(dataset_id)
    run.anything_new()
    left = run.storage.read(layout.part(run.run_id, "ingest.population"))
    ended = run.finish()
    assert ended.status == "unchanged"
    run.storage.put(layout.part(run.run_id, "ingest.population"), left)
    assert run.finish() == ended
    assert run.storage.folders(layout.RUNS) == []


def test_what_was_landed_by_hand_before_the_build_is_staged_by_it(small, small_demo):
    run = stepwise_run("a", small.lake, small_demo.url)
    ingest_and_stage(run)
    small_demo.set_day(date(2026, 3, 1))
    small_demo.set_rows(SMALL + 3)
    small.url, small.now = small_demo.url, NOW
    landed = small("ingest", "--dataset", "social_services").json["datasets"]["social_services"]
    assert landed["outcome"] == "new"
    candidate = run.build()
    assert len(candidate.inputs.snapshots["social_services"]) == 2


def test_a_staged_file_that_is_lost_is_made_again_by_the_stage_step_of_the_next_run(small, small_demo):
    small_demo.set_day(date(2026, 3, 1))
    small_demo.set_rows(SMALL + 3)
    run = stepwise_run("a", small.lake, small_demo.url)
    run.ingest("social_services")
    run.stage("social_services")
    lost = layout.staged("social_services", snapshot.usable(run.storage, "social_services")[0])
    kept = run.storage.read(lost)
    run.storage.delete(lost)
    stepwise_run("b", small.lake, small_demo.url).stage("social_services")
    assert run.storage.read(lost) == kept


def test_a_build_where_functions_stage_names_what_they_have_not_staged_and_stages_nothing(
    small_demo, s3_bucket, small_release
):
    lake = f"s3://{s3_bucket}/lake"
    _upload(small_release.lake, open_lake(lake))
    run = stepwise_run("a", lake, small_demo.url)
    run.settings = run.settings.model_copy(update={"lambda_prefix": "catalunya-production"})
    small_demo.set_day(date(2026, 3, 1))
    small_demo.set_rows(SMALL + 3)
    ingest_and_stage(run)
    landed, staged = snapshot.usable(run.storage, "social_services"), run.storage.list(layout.STAGING)
    lost = layout.staged("social_services", landed[0])
    kept = run.storage.read(lost)
    run.storage.put(lost, kept[:1000])
    small_demo.set_day(date(2026, 4, 1))
    small_demo.set_rows(SMALL + 6)
    other = stepwise_run("b", lake, small_demo.url)
    other.ingest("social_services")
    late = snapshot.usable(run.storage, "social_services")[-1]
    with pytest.raises(BuildFailed, match=f"social_services: {landed[0]}, {late}.*start another run"):
        run.build()
    assert [e.key for e in run.storage.list(layout.STAGING)] == [e.key for e in staged]
    assert run.storage.read(lost) == kept[:1000]
    other.settings = run.settings
    other.stage("social_services")
    assert run.storage.read(lost) == kept
    assert other.build().inputs.snapshots["social_services"] == (*landed, late)


def _upload(folder: Path, lake: Storage) -> None:
    for entry in open_lake(str(folder)).list():
        lake.put(entry.key, (folder / entry.key).read_bytes())


def test_a_run_in_steps_and_a_run_in_one_process_lock_each_other_out(small, small_demo, monkeypatch):
    monkeypatch.setattr(steps, "LOCK_TIMEOUT_S", 0.0)
    run = stepwise_run("a", small.lake, small_demo.url)
    with lake_lock(run.storage, "other", "dataset-population"):
        busy = small.run(now="2026-01-05T08:00:00Z")
        assert busy.code == 1
        assert "other" in busy.json["message"]
        with pytest.raises(LakeBusy, match="other"):
            run.ingest("population")
    run.ingest("population")


def test_an_alert_that_was_not_delivered_leaves_no_sent_marker(tmp_path):
    lake = open_lake(str(tmp_path / "lake"))
    alert = alerts.Alert(
        kind="unusual", subject="population", reason="rows are duplicates", event="rows population x"
    )
    assert not alerts.deliver(lake, ("json://127.0.0.1:9",), [alert])
    assert lake.list(layout.ALERTS) == []
    assert alerts.deliver(lake, (), [alert])
    assert lake.list(layout.ALERTS) == []
