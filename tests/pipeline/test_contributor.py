"""Mistakes of a person who works on the project: none of them may cost a snapshot or publish what is wrong."""

from __future__ import annotations

from datetime import date

from tests.conftest import ROOT
from tests.pipeline.conftest import query

LATER = "2026-03-02T06:00:00Z"


def test_a_wrong_test_is_not_blamed_on_the_new_snapshot(released, demo, home):
    wrong = home / "dbt" / "mart" / "tests" / "nobody_is_old.sql"
    wrong.write_text("select * from {{ ref('population') }} where people_aged_65_over > 0")
    released.env = {"CATALUNYA_HOME": str(home)}
    demo.set_day(date(2026, 3, 1))
    refused = released.run(now=LATER)
    assert (refused.code, refused.json["status"]) == (3, "refused")
    assert "nobody_is_old" in refused.json["message"]
    assert "mend the model or its test" in refused.json["message"]
    assert not any(d["refused"] for d in released("status").json["datasets"].values())
    wrong.unlink()
    mended = released.run(now="2026-03-02T07:00:00Z")
    assert (mended.code, mended.json["status"]) == (0, "released")
    assert mended.json["datasets"]["social_services"]["snapshot_id"].startswith("20260302")


def test_accepting_a_refused_snapshot_lifts_only_what_it_was_refused_for(released, demo, home):
    demo.faults.add("social_services:missing_column=telefon")
    released.run(now=LATER)
    [snapshot_id] = released("status").json["datasets"]["social_services"]["refused"]
    assert released("accept", snapshot_id, "--why", "telephones are gone").code == 0
    wrong = home / "dbt" / "mart" / "tests" / "no_services.sql"
    wrong.write_text("select * from {{ ref('service_history') }}")
    released.env = {"CATALUNYA_HOME": str(home)}
    answer = released.run(now="2026-03-02T07:00:00Z")
    assert (answer.code, answer.json["status"]) == (3, "refused")
    assert "no_services" in answer.json["message"]


def test_a_card_that_the_demo_portal_does_not_know_leaves_the_demo_working(tmp_path, released, demo, home):
    card = (ROOT / "datasets" / "service_users.yml").read_text("utf-8")
    card = card.replace("id: service_users", "id: libraries").replace("yavr-pn8q", "zzzz-0000")
    (home / "datasets" / "libraries.yml").write_text(card, "utf-8")
    model = home / "dbt" / "mart" / "models" / "intermediate" / "int_libraries.sql"
    model.write_text("select * from {{ source('staging', 'libraries') }}")
    released.env = {"CATALUNYA_HOME": str(home), "ENVIRONMENT": "demo"}
    assert released("datasets", "generate").code == 0
    answer = released.run(now=LATER)
    assert (answer.code, answer.json["status"]) == (0, "released")
    assert answer.json["datasets"]["libraries"]["outcome"] == "unknown"
    assert any("demo portal does not know" in warning for warning in answer.json["warnings"])
    assert query(answer, "select count(*) > 1000 from marts.service_history") == [(True,)]
    assert released.run(now="2026-03-02T07:00:00Z").json["status"] == "unchanged"
