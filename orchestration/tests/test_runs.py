"""DAG runs by a real scheduler: runs that succeed, faults of portals and dbt, killed tasks, alerts."""

from __future__ import annotations

import json
from datetime import date, datetime

import pytest
from rich.console import Console

from catalunya.cli.console import PlainReporter
from catalunya.lake import layout
from catalunya.publication.demo_notice import NOTICE
from catalunya.runs.steps import StepwiseRun
from catalunya.settings import Settings
from orchestration.scripts import airflow_local
from orchestration.tests.airflow_instance import MAINTENANCE, NOW, id_in_lake, scheduled_run
from orchestration.tests.api import EndedRun
from tests.pipeline.command import SMALL, files_of, query
from tests.project import ROOT

pytestmark = pytest.mark.xdist_group("airflow")

DATASETS = sorted(path.stem for path in (ROOT / "datasets").glob("*.yml"))
LATE_S = 3.0
"""The deadline of the DAG `always_late`."""
REST = ("run_dbt_transformations", "validate_data_quality", "publish_release", "generate_dbt_docs")


def test_the_first_run_ends_in_the_same_release_as_the_command(airflow, first, small_release):
    assert first.state == "success", first.states()
    assert set(first.states().values()) == {"success"}
    own = small_release.answer
    assert own.json["release_id"] == airflow.pointer()
    for name in ("release.json", "SHA256SUMS", "catalunya.duckdb"):
        assert (airflow.lake / "releases" / own.json["release_id"] / name).exists()
    theirs = query(
        str(airflow.lake / "releases" / own.json["release_id"]),
        "select * from marts.service_history order by all",
    )
    assert theirs == query(own, "select * from marts.service_history order by all")
    record = airflow.record(first)
    assert (record["status"], record["exit_code"]) == ("released", 0)
    assert {s["name"]: s["status"] for s in record["stages"]} == dict.fromkeys(
        ("ingest", "stage", "build", "audit", "publish"), "done"
    )
    for name in DATASETS:
        ours = own.json["datasets"][name]
        assert {k: record["datasets"][name][k] for k in ("rows_in", "rows_staged", "snapshot_id")} == {
            k: ours[k] for k in ("rows_in", "rows_staged", "snapshot_id")
        }


def test_a_run_leaves_nothing_but_its_release_its_documentation_and_its_record(airflow, first):
    folders = {path.split("/")[0] for path in files_of(airflow.lake)}
    assert folders == {
        "landing", "staging", "quarantine", "releases", "docs", "ledger", "current.json", "site",
    }  # fmt: skip
    [page] = (airflow.lake / "docs").glob("*/index.html")
    assert "coverage_comarca" in page.read_text("utf-8")


def test_every_model_and_test_is_in_the_log_line_by_line_and_as_a_table(airflow, first):
    built = airflow.log_of(first, "run_dbt_transformations")
    assert "model coverage_comarca: OK in" in built
    assert "seed source_corrections: " in built
    assert "node" in built and "status" in built
    assert "test unique_combination_of_columns_population_municipality_id__year: pass in" in airflow.log_of(
        first, "validate_data_quality"
    )


def test_a_release_is_an_event_of_each_mart_with_its_rows_and_starts_a_dag_that_waits_for_it(airflow, first):
    events = airflow.request("/assets/events?limit=100")["asset_events"]
    extras = {event["name"]: event["extra"] for event in events}
    release_id = airflow.pointer()
    [(rows,)] = query(
        str(airflow.lake / "releases" / release_id), "select count(*) from marts.coverage_comarca"
    )
    assert extras["marts/coverage_comarca"] == {"rows": rows, "release_id": release_id, "demo": True}
    assert extras["landing/population"]["rows"] > 8000
    reader = airflow.wait(
        lambda: airflow.request("/dags/reader_of_a_mart/dagRuns")["dag_runs"],
        "the reader of a mart did not start",
    )[0]["dag_run_id"]
    path = f"/dags/reader_of_a_mart/dagRuns/{reader}/taskInstances/read/xcomEntries/return_value"
    assert airflow.ended(reader, "reader_of_a_mart").state == "success"
    assert json.loads(json.dumps(airflow.request(path)["value"]))[0]["rows"] == rows


def test_airflow_marks_demo_data_in_its_title_on_its_first_page_and_in_each_dag(airflow, first):
    airflow.request("/version")
    page = airflow_local.call_api(f"{airflow.url}/ui/config", None, airflow.token)
    assert page["instance_name"] == "Catalunya (demo data)"
    assert page["dashboard_alert"] == [{"text": NOTICE, "category": "warning"}]
    dag = airflow.request("/dags/catalunya_data_pipeline/details")
    assert "demo data" in {tag["name"] for tag in dag["tags"]}
    assert dag["doc_md"].startswith(f"**{NOTICE}**")
    assert NOTICE in airflow.log_of(first, "publish_release")
    [page] = (airflow.lake / "docs").glob("*/index.html")
    text = page.read_text("utf-8")
    assert "<title>DEMO DATA: dbt Docs</title>" in text and f">{NOTICE}</div>" in text


def test_a_successful_run_sends_no_alert(airflow, first):
    assert airflow.webhook_sink.heard == []


def test_a_run_with_nothing_new_succeeds_and_starts_no_dbt(quiet, first):
    before = quiet.pointer()
    quiet.portal.log.clear()
    ended = quiet.run()
    assert ended.state == "success"
    states = ended.states()
    assert all(states[name] == "skipped" for name in ("wait_for_new_data", *REST, "build_site"))
    assert states["finish_run"] == "success"
    assert quiet.pointer() == before
    record = quiet.record(ended)
    assert (record["status"], record["exit_code"]) == ("unchanged", 0)
    assert sum(d["requests"] for d in record["datasets"].values()) == len(quiet.portal.log) == 6
    assert quiet.webhook_sink.heard == []


def test_a_site_that_cannot_be_built_takes_no_release_back_and_is_built_by_the_next_run(quiet, first):
    def shown() -> str:
        return json.loads((quiet.lake / "site" / "current" / "site.json").read_text())["release_id"]

    before = quiet.pointer()
    assert shown() == before
    foreign = quiet.lake / "site" / "thesis.odt"
    foreign.write_text("years of work")
    ended = quiet.run(force=True)
    assert (ended.state, ended.states()["build_site"]) == ("failed", "failed")
    assert (ended.tries()["build_site"], ended.states()["finish_run"]) == (1, "success")
    assert quiet.record(ended)["status"] == "released"
    assert shown() == before != quiet.pointer()
    [alert] = quiet.webhook_sink.heard
    assert "build_site failed" in alert["title"] and "thesis.odt" in alert["message"]
    foreign.unlink()
    again = quiet.run()
    assert again.state == "success", again.states()
    assert quiet.record(again)["status"] == "unchanged"
    assert again.states()["build_site"] == "success"
    assert shown() == quiet.pointer()


def test_each_source_is_retried_alone_and_one_that_is_down_stops_no_other_and_sends_one_alert(quiet, first):
    """One portal is down, one fails once, one has rows that break its definition."""
    quiet.portal.set_day(date(2026, 2, 1))
    quiet.portal.faults.add("population:down")
    quiet.portal.faults.add("service_users:http_500=1")
    quiet.portal.faults.add("social_services:bad_rows")
    before = quiet.pointer()
    ended = quiet.run()
    assert ended.state == "success"
    assert ended.states()["ingest[population]"] == "failed"
    assert ended.states()["ingest[service_users]"] == "success"
    tries = ended.tries()
    assert (tries.pop("ingest[population]"), tries.pop("ingest[service_users]")) == (3, 2)
    assert set(tries.values()) == {1}
    record = quiet.record(ended)
    assert (record["status"], [s["dataset_id"] for s in record["stale"]]) == ("released", ["population"])
    assert record["datasets"]["social_services"]["rows_quarantined"] > 0
    assert quiet.pointer() != before
    [alert] = quiet.webhook_sink.heard
    assert "population could not be read" in alert["title"]
    assert "127.0.0.1" in alert["message"] and "/dags/catalunya_data_pipeline/" in alert["message"]


def test_a_portal_that_is_down_with_nothing_else_new_is_a_failed_run(quiet, first):
    quiet.portal.faults.add("population:down")
    before = quiet.pointer()
    ended = quiet.run(datasets=["population"])
    assert ended.states()["ingest[boundaries]"] == "skipped"
    assert (ended.state, ended.states()["finish_run"]) == ("failed", "failed")
    assert quiet.record(ended)["exit_code"] == 4
    assert quiet.pointer() == before


def test_a_failed_check_of_dbt_does_not_stop_landing_and_staging_and_sends_one_alert(quiet, first):
    quiet.portal.set_day(date(2026, 1, 20))
    quiet.portal.set_rows(SMALL + 3)
    landed = set((quiet.lake / "landing" / "social_services").iterdir())
    before = quiet.pointer()
    ended = quiet.run(force=True, engine="trino")
    states = ended.states()
    assert ended.state == "failed"
    assert (states["check_dbt_connection"], ended.tries()["check_dbt_connection"]) == ("failed", 1)
    assert states["wait_for_new_data"] == "success"
    assert {states[f"{stage}[{name}]"] for stage in ("ingest", "stage") for name in DATASETS} == {"success"}
    assert {states[name] for name in REST} == {"upstream_failed"}
    [new] = set((quiet.lake / "landing" / "social_services").iterdir()) - landed
    assert [*(quiet.lake / "staging" / "social_services").glob(f"*/{new.name}.parquet")]
    assert quiet.pointer() == before
    [alert] = quiet.webhook_sink.heard
    assert "check_dbt_connection failed" in alert["title"]
    assert "CATALUNYA_LAKE: trino reads a lake in S3" in alert["message"]


def test_a_model_that_does_not_build_and_an_audit_that_refuses_are_named_and_cleared_after_correction(
    quiet, first
):
    project = quiet.home / "dbt" / "mart"
    model, rule = project / "models" / "broken_model.sql", project / "tests" / "broken_audit.sql"
    model.write_text("select no_such_column from {{ ref('population') }}")
    rule.write_text("select * from {{ ref('population') }}")
    before = quiet.pointer()

    def cleared(task: str) -> EndedRun:
        quiet.webhook_sink.heard.clear()
        clear = {
            "dry_run": False, "dag_run_id": ended.run_id, "task_ids": [task],
            "include_downstream": True, "only_failed": False, "reset_dag_runs": True,
        }  # fmt: skip
        quiet.request("/dags/catalunya_data_pipeline/clearTaskInstances", clear)
        return quiet.ended(ended.run_id)

    ended = quiet.run()
    assert ended.state == "failed"
    assert ended.tries()["run_dbt_transformations"] == 3
    assert quiet.pointer() == before
    record = quiet.record(ended)
    assert record["status"] == "failed" and "broken_model" in record["message"]
    [alert] = quiet.webhook_sink.heard
    assert "run_dbt_transformations failed" in alert["title"] and "no_such_column" in alert["message"]

    model.unlink()
    refused = cleared("run_dbt_transformations")
    assert refused.state == "failed"
    states = refused.states()
    assert (states["run_dbt_transformations"], states["validate_data_quality"]) == ("success", "failed")
    assert states["publish_release"] == "upstream_failed"
    assert refused.tries()["validate_data_quality"] == 1
    assert quiet.pointer() == before
    assert quiet.record(refused)["status"] == "refused"
    [alert] = quiet.webhook_sink.heard
    assert "was refused" in alert["title"] and "broken_audit" in alert["message"]

    rule.unlink()
    again = cleared("run_dbt_transformations")
    assert again.state == "success", again.states()
    corrected = quiet.record(again)
    assert corrected["status"] == "released"
    assert {d["outcome"] for d in corrected["datasets"].values()} == {"unchanged"}


def test_a_worker_killed_in_every_task_costs_one_try_only(quiet, first, fork_server):
    quiet.portal.set_day(date(2026, 3, 1))
    quiet.portal.set_rows(SMALL + 6)
    assert fork_server.run(quiet.env, ["run", "--json"]).json["status"] == "released"
    expected = quiet.pointer()
    kills = {
        "check_dbt_connection": 0, "ingest": 1, "wait_for_new_data": 0, "stage": 1,
        "worker:run_dbt_transformations": 2, "validate_data_quality": 1, "publish_release": 10,
        "generate_dbt_docs": 2, "finish_run": 1, "build_site": 0,
    }  # fmt: skip
    quiet.kills.write_text(json.dumps(kills))
    ended = quiet.run(force=True)
    assert ended.state == "success", ended.states()
    assert {name: tries for name, tries in ended.tries().items() if tries != 2} == {}
    assert quiet.pointer().split("-")[1] == expected.split("-")[1]
    assert quiet.record(ended)["status"] == "released"
    assert not (quiet.lake / "runs" / id_in_lake(ended.run_id)).exists()
    assert quiet.webhook_sink.heard == []


def test_the_sensor_waits_in_the_triggerer_for_the_last_result(quiet, first):
    run_id = quiet.trigger("sensor_alone")
    path = f"/dags/sensor_alone/dagRuns/{run_id}/taskInstances/wait_for_new_data"
    quiet.wait(lambda: quiet.request(path)["state"] == "deferred", "the sensor did not defer")
    settings = Settings(
        CATALUNYA_LAKE=str(quiet.lake), CATALUNYA_HOME=str(quiet.home), CATALUNYA_NOW=NOW,
        CATALUNYA_SOCRATA_URL=quiet.portal.url, CATALUNYA_IDESCAT_URL=quiet.portal.url,
        CATALUNYA_ICGC_URL=quiet.portal.url, ENVIRONMENT="demo",
    )  # fmt: skip
    stepwise = StepwiseRun(settings, id_in_lake(run_id, "sensor_alone"), PlainReporter(Console(quiet=True)))
    for dataset_id in DATASETS[:-1]:
        stepwise.ingest(dataset_id)
    assert quiet.request(path)["state"] == "deferred"
    stepwise.ingest(DATASETS[-1])
    ended = quiet.ended(run_id, "sensor_alone")
    assert ended.states() == {"wait_for_new_data": "skipped"}


def test_a_run_later_than_its_deadline_sends_an_alert_and_one_that_failed_before_does_not(quiet, first):
    def alerts_of(run_id: str) -> list[dict[str, str]]:
        return [alert for alert in quiet.webhook_sink.heard if run_id in alert["title"]]

    failed = quiet.run("always_late", fail=True)
    assert failed.state == "failed"
    run_id = quiet.trigger("always_late")
    quiet.wait(lambda: alerts_of(run_id), "no alert of the late run")
    [alert] = alerts_of(run_id)
    assert "later than its deadline" in alert["title"]
    assert f"/dags/always_late/runs/{run_id}" in alert["message"]
    times = quiet.request(f"/dags/always_late/dagRuns/{failed.run_id}")
    took = datetime.fromisoformat(times["end_date"]) - datetime.fromisoformat(times["queued_at"])
    # On a busy machine that run is late itself.
    assert alerts_of(failed.run_id) == [] or took.total_seconds() >= LATE_S
    quiet.request(f"/dags/always_late/dagRuns/{run_id}", {"state": "failed"}, "PATCH")


def test_a_failed_finish_sends_an_alert(quiet, first):
    name = "its-record-cannot-be-written"
    block = quiet.lake / layout.ledger(id_in_lake(name))
    block.mkdir()
    ended = quiet.ended(quiet.trigger(name=name))
    block.rmdir()
    assert ended.states()["finish_run"] == "failed"
    [alert] = quiet.webhook_sink.heard
    assert "finish_run failed" in alert["title"]


def test_the_backfill_reads_kept_snapshots_and_sends_no_request_to_a_portal(quiet, first):
    quiet.portal.log.clear()
    before = quiet.pointer()
    ended = quiet.run("catalunya_backfill")
    assert ended.state == "success", ended.states()
    assert list(quiet.portal.log) == []
    assert quiet.pointer().split("-")[1] == before.split("-")[1]
    assert quiet.pointer() != before


def test_maintenance_finds_a_byte_that_was_changed(quiet, first):
    quiet.unpause(MAINTENANCE)
    assert scheduled_run(quiet, MAINTENANCE).state == "success"
    page = next(iter(sorted((quiet.lake / "landing" / "service_users").glob("*/page-00000.json"))))
    good = page.read_bytes()
    page.write_bytes(good.replace(b"1", b"2", 1))
    try:
        ended = quiet.run(MAINTENANCE)
    finally:
        page.write_bytes(good)
    assert ended.state == "failed"
    assert ended.states()["verify_snapshots[service_users]"] == "failed"
    assert ended.states()["verify_snapshots[population]"] == "success"
    assert any("SHA-256" in alert["message"] for alert in quiet.webhook_sink.heard)


def test_no_task_uses_what_airflow_is_about_to_remove(airflow, first):
    logs = "\n".join(
        path.read_text("utf-8", "replace") for path in (airflow.folder / "airflow" / "logs").rglob("*.log")
    )
    assert "DeprecatedImportWarning" not in logs
    assert "RemovedInAirflow" not in logs
