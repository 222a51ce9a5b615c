"""DAG runs with a refused snapshot: the other datasets are released, and one alert is sent."""

from __future__ import annotations

from datetime import date

import pytest

pytestmark = pytest.mark.xdist_group("airflow")


def test_a_refused_snapshot_stops_no_other_dataset_and_sends_one_alert(quiet, first):
    quiet.portal.set_day(date(2026, 3, 9))
    quiet.portal.faults.add("social_services:missing_column=telefon")
    quiet.portal.faults.add("municipalities:new_column")
    before = quiet.pointer()
    ended = quiet.run()
    assert ended.state == "success", ended.states()
    assert ended.states()["stage[social_services]"] == "success"
    assert set(ended.tries().values()) == {1}
    record = quiet.record(ended)
    assert (record["status"], record["exit_code"]) == ("released", 0)
    assert [stale["dataset_id"] for stale in record["stale"]] == ["social_services"]
    [snapshot_id] = record["refused"]
    assert quiet.pointer() != before
    [alert] = quiet.webhook_sink.heard
    assert snapshot_id in alert["title"] and "was refused" in alert["title"]
    assert "telefon" in alert["message"] and "/dags/catalunya_data_pipeline/" in alert["message"]


def test_a_run_whose_only_new_snapshot_is_refused_fails_and_sends_one_alert(quiet, first):
    quiet.portal.set_day(date(2026, 3, 16))
    quiet.portal.faults.add("social_services:missing_column=nom")
    before = quiet.pointer()
    ended = quiet.run(datasets=["social_services"])
    assert ended.state == "failed", ended.states()
    assert ended.states()["publish_release"] == "upstream_failed"
    record = quiet.record(ended)
    assert (record["status"], record["exit_code"]) == ("refused", 3)
    assert quiet.pointer() == before
    [alert] = quiet.webhook_sink.heard
    assert "nom" in alert["message"]
