"""Mistakes of a person who works on the project: none of them may cost a snapshot or publish what is wrong."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from tests.pipeline.command import LATER, LATER_DAY, query
from tests.project import ROOT


def test_a_missing_column_is_refused_then_passed_over_then_accepted_and_a_wrong_test_not_blamed_on_it(
    small, small_demo, small_home, webhook_sink
):
    small.env, small.url = {"CATALUNYA_NOTIFY_URLS": webhook_sink.channel}, small_demo.url
    first = small("status").json["release_id"]
    small_demo.set_day(LATER_DAY)
    small_demo.faults.add("social_services:missing_column=telefon")
    answer = small.run(now=LATER)
    assert (answer.code, answer.json["status"], answer.json["release_id"]) == (3, "refused", first)
    assert "telefon" in answer.json["message"]
    [snapshot_id] = small("status").json["datasets"]["social_services"]["refused"]
    assert Path(small.lake, "landing/social_services", snapshot_id, "refused.json").exists()
    again = small.run(now="2026-03-02T07:00:00Z")
    assert again.code == 0
    assert any(snapshot_id in warning for warning in again.json["warnings"])
    [alert] = webhook_sink.heard
    assert answer.json["run_id"] in alert["title"] and "telefon" in alert["message"]

    accepted = small("accept", snapshot_id, "--why", "telephones are no longer published")
    assert (accepted.code, accepted.json["dataset_id"]) == (0, "social_services")
    small_demo.faults.clear()
    small_demo.set_day(LATER_DAY + timedelta(days=30))
    wrong = small_home / "dbt" / "mart" / "tests" / "nobody_is_old.sql"
    wrong.write_text("select * from {{ ref('population') }} where people_aged_65_over > 0")
    small.env, small.home = {}, small_home
    refused = small.run(now="2026-04-02T08:00:00Z")
    assert (refused.code, refused.json["status"]) == (3, "refused")
    assert "nobody_is_old" in refused.json["message"]
    assert "correct the model or its test" in refused.json["message"]
    assert not any(d["refused"] for d in small("status").json["datasets"].values())

    wrong.unlink()
    corrected = small.run(now="2026-04-02T09:00:00Z")
    assert (corrected.code, corrected.json["status"]) == (0, "released")
    assert corrected.json["datasets"]["social_services"]["snapshot_id"].startswith("20260402T08")
    read = query(corrected, "select snapshot_id from marts.data_quality where dataset_id = 'social_services'")
    assert len(read) == 3
    assert (snapshot_id,) in read


def test_a_definition_that_the_demo_portal_does_not_have_leaves_the_demo_working(
    small, small_demo, small_home
):
    definition = (ROOT / "datasets" / "service_users.yml").read_text("utf-8")
    definition = definition.replace("id: service_users", "id: libraries").replace("yavr-pn8q", "zzzz-0000")
    (small_home / "datasets" / "libraries.yml").write_text(definition, "utf-8")
    model = small_home / "dbt" / "mart" / "models" / "intermediate" / "int_libraries.sql"
    model.parent.mkdir()
    model.write_text("select * from {{ source('staging', 'libraries') }}")
    small.env, small.home, small.url = {"ENVIRONMENT": "demo"}, small_home, small_demo.url
    assert small("datasets", "generate").code == 0
    answer = small.run(now=LATER)
    assert (answer.code, answer.json["status"]) == (0, "released")
    assert answer.json["datasets"]["libraries"]["outcome"] == "unknown"
    assert any("demo portal does not have" in warning for warning in answer.json["warnings"])
    assert query(answer, "select count(*) > 500 from marts.service_history") == [(True,)]
    assert small.run(now="2026-03-02T07:00:00Z").json["status"] == "unchanged"


def test_a_test_that_has_too_little_memory_with_a_new_snapshot_is_not_blamed_on_it(
    small, small_demo, small_home
):
    small_demo.set_day(LATER_DAY)
    small_demo.faults.add("ivft-vegh:new_column")
    small.url, small.home = small_demo.url, small_home
    first = small("status").json["release_id"]
    large = small_home / "dbt" / "mart" / "tests" / "large.sql"
    # One list of 800 MB for each snapshot but the first.
    large.write_text("""
        with counted as (
            select count(distinct snapshot_id) - 1 as more from {{ ref('data_quality') }}
            where dataset_id = 'social_services'
        ), large as (select list(r.range) as numbers from counted, range(cast(100000000 * more as bigint)) as r)
        select len(numbers) as n from large where len(numbers) = 1
    """)
    small.env = {"CATALUNYA_DUCKDB_MEMORY": "400MB"}
    answer = small.run(now=LATER)
    assert (answer.code, answer.json["status"], answer.json["release_id"]) == (1, "failed", first)
    assert "large could not run" in answer.json["message"]
    assert "raise CATALUNYA_DUCKDB_MEMORY" in answer.json["message"]
    assert not any(d["refused"] for d in small("status").json["datasets"].values())
    large.unlink()
    assert small.run(now="2026-03-02T07:00:00Z").json["status"] == "released"


def test_a_model_that_has_too_little_memory_is_told_with_the_variable(small, small_demo):
    small.url, small.env = small_demo.url, {"CATALUNYA_DUCKDB_MEMORY": "1MB"}
    answer = small.run("--force", now=LATER)
    assert answer.code == 1
    assert answer.json["message"].endswith("or raise CATALUNYA_DUCKDB_MEMORY when it is set")
