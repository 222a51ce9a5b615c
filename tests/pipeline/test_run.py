"""Whole runs against the demo portal: what is released, when nothing is new, and what stops a release.

One module, because its cases follow each other on the same releases.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest

from catalunya.demo import server
from tests.pipeline.command import LATER, LATER_DAY, Command, files_of, query
from tests.project import ROOT

DATASETS = sorted(path.stem for path in (ROOT / "datasets").glob("*.yml"))
MARTS = {
    "dim_municipality", "dim_comarca", "dim_service_type", "population", "service_history",
    "coverage_municipality", "coverage_comarca", "coverage_catalonia", "data_quality",
    "access_municipality", "residence_places_control", "places_control_catalonia", "service_changes",
}  # fmt: skip


def test_a_run_releases_every_mart_and_says_what_it_did(first_release):
    answer = first_release.answer
    found = answer.json
    assert answer.code == 0
    assert found["status"] == "released"
    assert [s["name"] for s in found["stages"]] == ["ingest", "stage", "build", "audit", "publish"]
    assert {s["status"] for s in found["stages"]} == {"done"}
    assert sorted(found["datasets"]) == DATASETS
    for counts in found["datasets"].values():
        assert counts["rows_in"] == (
            counts["rows_staged"] + counts["rows_quarantined"] + counts["rows_duplicated"]
        )
        assert counts["requests"] > 0
        assert counts["bytes"] > 0
    assert found["stale"] == []
    assert "released" in answer.stderr


def test_a_release_folder_is_whole_and_its_checksums_are_right(first_release):
    folder = first_release.folder
    assert set(MARTS) <= {path.stem for path in (folder / "parquet").glob("*.parquet")}
    sums = dict(
        reversed(line.split("  ", 1)) for line in (folder / "SHA256SUMS").read_text("utf-8").splitlines()
    )
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(sums) == present - {"SHA256SUMS"}
    for name, expected in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
    record = json.loads((folder / "release.json").read_text("utf-8"))
    assert record["release_id"] == folder.name
    assert set(record["snapshots"]) == set(DATASETS)


def test_the_three_forms_of_a_mart_hold_the_same_rows(first_release):
    folder = first_release.folder
    tables = [
        name
        for (name,) in query(folder, "select table_name from duckdb_tables() where schema_name = 'marts'")
    ]
    assert set(MARTS) <= set(tables)
    with duckdb.connect(f"{folder}/catalunya.duckdb", read_only=True) as con:
        for table in tables:
            counts = con.execute(
                f"""
                select (select count(*) from marts.{table}),
                    (select count(*) from read_parquet('{folder}/parquet/{table}.parquet')),
                    (select count(*) from read_csv('{folder}/csv/{table}.csv', header = true, all_varchar = true))
                """
            ).fetchone()
            assert counts is not None
            assert counts[0] == counts[1] == counts[2], table
            assert counts[0] > 0 or table == "service_changes", table


def test_every_table_and_column_of_a_release_is_described(first_release):
    folder = first_release.folder
    bare = query(
        folder,
        """
        select table_name, column_name from duckdb_columns()
        where schema_name = 'marts' and coalesce(comment, '') = ''
        """,
    )
    assert bare == []
    dictionary = Path(folder, "dictionary.md").read_text("utf-8")
    assert "places_per_100_aged_65_over" in dictionary


def test_the_audit_warns_of_a_difference_from_published_places_with_territory_and_both_figures(first_release):
    [warning] = [w for w in first_release.answer.json["warnings"] if "residence_places_agree" in w]
    for part in (
        "comarca_id=",
        "comarca=",
        "ownership=",
        "places_official=",
        "places_computed=",
        "read_back",
    ):
        assert part in warning
    [(compared, differing, published, computed, difference, reason)] = query(
        first_release.answer,
        """
        select controls, controls_differing, largest_difference_published, largest_difference_computed,
            largest_difference, largest_difference_reason
        from marts.data_quality where dataset_id = 'social_services' and is_newest
        """,
    )
    assert (compared, reason) == (42 * 3 + 2 * 43 * 3, "read_back")
    assert 0 < differing < compared
    assert computed - published == difference != 0


def test_people_reach_together_exactly_the_places_that_there_are(first_release):
    rows = query(
        first_release.answer,
        """
        select a.service_group, count(*), count(nearest_km), sum(accessibility_ratio * people_aged_65_over_latest),
            (
                select sum(places) from marts.service_history as h
                where h.is_current and h.service_group = a.service_group and h.municipality_id is not null
            ),
            max(nearest_km), count(distinct register_on)
        from marts.access_municipality as a group by a.service_group
        """,
    )
    assert len(rows) == 4
    for group, municipalities, near, reached, places, farthest, days in rows:
        assert (municipalities, near, days) == (947, 947, 1), group
        assert reached == pytest.approx(float(places), abs=2), group
        assert 5 < farthest < 100, group


def test_demo_data_say_so_wherever_a_person_meets_them(first_release):
    folder = first_release.folder
    assert "DEMO" in (folder / "dictionary.md").read_text("utf-8")
    assert "DEMO" in (folder / "LICENCES.md").read_text("utf-8")
    assert json.loads((folder / "datapackage.json").read_text("utf-8"))["title"].startswith("DEMO")
    assert json.loads((folder / "release.json").read_text("utf-8"))["demo"] is True
    comments = query(str(folder), "select comment from duckdb_tables() where schema_name = 'marts'")
    assert all("DEMO" in comment for (comment,) in comments)
    assert "DEMO DATA" in first_release.answer.stderr


def test_every_row_of_a_demo_csv_file_says_so_and_nothing_else_of_it_differs_from_the_table(first_release):
    folder = first_release.folder
    package = json.loads((folder / "datapackage.json").read_text("utf-8"))
    dictionary = (folder / "dictionary.md").read_text("utf-8").split("\n## ")[1:]
    assert len(package["resources"]) == len(dictionary) == len(list((folder / "csv").iterdir()))
    for resource, section in zip(package["resources"], dictionary, strict=True):
        path = folder / resource["path"]
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        assert header[-1] == "demo_notice" == resource["schema"]["fields"][-1]["name"]
        assert {row[-1] for row in rows} <= {"DEMO DATA: not real"}
        parquet = duckdb.read_parquet(str(folder / "parquet" / f"{path.stem}.parquet"))
        assert parquet.columns == header[:-1]
        assert parquet.count("*").fetchone() == (len(rows),)
        assert "| `demo_notice` |" in section


def test_frictionless_finds_the_data_package_valid(first_release):
    folder = first_release.folder
    done = subprocess.run(
        [Path(sys.executable).with_name("frictionless"), "validate", "datapackage.json", "--json"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["valid"] is True
    assert len(report["tasks"]) >= len(MARTS)


def test_a_second_run_asks_once_per_resource_stores_only_its_record_and_runs_no_dbt(released, demo):
    before = files_of(released.lake)
    demo.log.clear()
    answer = released.run(now="2026-01-05T12:00:00Z")
    assert (answer.code, answer.json["status"]) == (0, "unchanged")
    assert [s["status"] for s in answer.json["stages"]] == ["done", "done", "skipped", "skipped", "skipped"]
    assert sum(d["requests"] for d in answer.json["datasets"].values()) == 6
    assert len(demo.log) == 6
    assert {d["requests"] for name, d in answer.json["datasets"].items() if name != "boundaries"} == {1}
    new = {key: size for key, size in files_of(released.lake).items() if before.get(key) != size}
    assert [key.split("/")[0] for key in new] == ["ledger"]
    assert answer.json["datasets"]["social_services"]["rows_staged"] > 10_000


def test_a_change_at_a_portal_makes_a_new_release_with_its_history(first_release, second_release, twice):
    answer = second_release.answer
    assert answer.json["status"] == "released"
    assert answer.json["datasets"]["municipalities"]["outcome"] == "unchanged"
    status = twice("status").json
    first = first_release.release_id
    assert (status["previous"], status["release_id"]) == (first, answer.json["release_id"])
    assert status["datasets"]["social_services"]["snapshots"] == 2
    [(closed,)] = query(
        answer, "select count(*) from marts.service_history where valid_to = date '2026-03-02'"
    )
    assert closed > 0
    [(snapshots,)] = query(
        answer, "select count(*) from marts.data_quality where dataset_id = 'social_services'"
    )
    assert snapshots == 2


def test_rollback_shows_the_old_release_and_the_next_run_does_not_undo_it(first_release, twice, demo):
    first = first_release.release_id
    second = twice("status").json["release_id"]
    demo.set_day(LATER_DAY)
    demo.faults.add("ivft-vegh:new_column")
    twice.url = demo.url
    back = twice("rollback")
    assert (back.code, back.json["release_id"]) == (0, first)
    again = twice.run(now="2026-03-02T12:00:00Z")
    assert (again.code, again.json["status"], again.json["release_id"]) == (0, "unchanged", first)
    assert any("rolled back" in warning for warning in again.json["warnings"])
    forward = twice("rollback", "--to", second)
    assert twice("status").json["release_id"] == forward.json["release_id"] == second


def test_a_portal_that_is_down_makes_its_dataset_stale_and_holds_up_nothing_else(second_release):
    answer = second_release.answer
    assert (answer.code, answer.json["status"]) == (0, "released")
    [stale] = answer.json["stale"]
    assert stale["dataset_id"] == "population"
    assert stale["age_hours"] == 56 * 24.0
    record = json.loads(Path(answer.json["release"], "release.json").read_text("utf-8"))
    assert record["stale"] == answer.json["stale"]


def test_when_nothing_else_is_new_an_unreadable_portal_is_exit_4(released, demo):
    demo.faults.add("ivft-vegh:http_500")
    answer = released.run(now="2026-01-06T06:00:00Z")
    assert (answer.code, answer.json["status"]) == (4, "unchanged")
    assert [s["dataset_id"] for s in answer.json["stale"]] == ["social_services"]
    assert answer.json["release_id"] == released("status").json["release_id"]


def test_without_an_earlier_snapshot_there_is_no_release_but_the_others_are_landed(
    tmp_path, small_demo, small_project
):
    small_demo.faults.add("ivft-vegh:down")
    command = Command(str(tmp_path / "lake"), small_demo.url, home=small_project)
    answer = command.run()
    assert (answer.code, answer.json["status"], answer.json["release_id"]) == (4, "failed", None)
    assert "social_services" in answer.json["message"]
    assert command("status").json["datasets"]["municipalities"]["snapshots"] == 1
    # The demo environment brings a portal of its own, where everything can be read.
    command.url, command.env = None, {"ENVIRONMENT": "demo"}
    corrected = command.run(now="2026-01-05T12:00:00Z")
    assert (corrected.code, corrected.json["status"], corrected.json["environment"]) == (
        0,
        "released",
        "demo",
    )


def test_a_new_column_is_warned_of_and_the_run_goes_on(second_release):
    answer = second_release.answer
    assert (answer.code, answer.json["status"]) == (0, "released")
    assert any("new column" in warning for warning in answer.json["warnings"])


def test_a_register_that_lost_most_of_its_rows_is_refused_by_the_audit_and_every_event_is_one_alert(
    small, webhook_sink
):
    small.env = {"CATALUNYA_NOTIFY_URLS": webhook_sink.channel}
    first = small("status").json["release_id"]
    with server.running(rows=200, day=LATER_DAY) as shrunk:
        small.url = shrunk.url
        answer = small.run(now=LATER)
        assert (answer.code, answer.json["status"], answer.json["release_id"]) == (3, "refused", first)
        assert "200 rows" in answer.json["message"]
        [(snapshot_id, refusal)] = small("status").json["datasets"]["social_services"]["refused"].items()
        assert (refusal["gate"], refusal["figures"]["rows"]) == ("rows", 200)
        accepted = small("accept", snapshot_id, "--why", "a test of a real cut")
        assert accepted.code == 0
        final = small.run("--dataset", "municipalities", now="2026-04-20T12:00:00Z")
    assert final.json["status"] == "released"
    assert any("accepted by hand" in warning for warning in final.json["warnings"])
    unusual = "social_services changed in an unusual way"
    silent = "social_services has been silent for longer than its cadence"
    told = [(alert["title"].partition(": ")[2], alert["message"]) for alert in webhook_sink.heard]
    assert [title for title, _ in told] == [
        unusual, f"run {answer.json['run_id']} was refused", unusual, silent,
    ]  # fmt: skip
    for (_, message), words in zip(
        told,
        (
            "200 rows, expected are",
            "200 rows, the last release",
            "accepted by hand",
            "its cadence is 31 days",
        ),
        strict=True,
    ):
        assert words in message


@pytest.fixture
def over(monkeypatch) -> Iterator[threading.Event]:
    """Ends what the fault `slow` of the portals of this process began."""
    event = threading.Event()

    async def until_it_is_set(_: float) -> None:
        while not event.is_set():
            await asyncio.sleep(0.02)

    monkeypatch.setattr("catalunya.demo.faults.middleware.asyncio", SimpleNamespace(sleep=until_it_is_set))
    yield event
    event.set()


def test_two_runs_at_once_one_wins_and_the_other_names_it(released, demo, over):
    demo.faults.add("population:slow")
    before = files_of(released.lake)
    winner = released.start("run", "--json")
    while not demo.log:
        assert winner.poll() is None
        time.sleep(0.05)
    loser = released.run()
    assert files_of(released.lake) == before
    assert winner.poll() is None
    over.set()
    out, _ = winner.communicate(timeout=600)
    won = json.loads(out)
    assert (winner.returncode, won["status"]) == (0, "unchanged")
    assert loser.code == 1
    assert won["run_id"] in loser.json["message"]
    assert set(files_of(released.lake)) - set(before) == {f"ledger/{won['run_id']}.json"}


@pytest.mark.parametrize(
    ("env", "words", "named"),
    [
        ({"ENVIRONMENT": "prod"}, ["run"], "ENVIRONMENT"),
        ({"ENVIRONMENT": "production", "CATALUNYA_NOW": ""}, ["run"], "CATALUNYA_LAKE"),
        ({"CATALUNYA_ENGINE": "spark"}, ["status"], "CATALUNYA_ENGINE"),
        ({"CATALUNYA_LAKE": "/proc/nowhere"}, ["run"], "CATALUNYA_LAKE"),
        ({}, ["accept", "20260101T000000Z-00000000", "--why", "x"], "no snapshot is refused"),
        ({}, ["rollback"], "no release"),
        ({}, ["run", "--dataset", "towns"], "towns"),
        ({}, ["publish"], "candidate"),
    ],
)
def test_wrong_settings_and_arguments_are_exit_2_and_named(tmp_path, env, words, named):
    answer = Command(str(tmp_path / "lake"), "http://127.0.0.1:9", env=env)(*words)
    assert answer.code == 2
    assert named in answer.json["message"]
    assert named in answer.stderr


def test_an_unknown_option_is_exit_2(tmp_path):
    process = Command(str(tmp_path / "lake"), None).start("run", "--dry")
    _, err = process.communicate(timeout=600)
    assert process.returncode == 2
    assert "--dry" in err


def test_demo_data_and_real_data_never_share_a_lake(released, shared):
    with server.running(files=shared) as real:
        released.url = real.url
        answer = released.run(now=LATER)
    assert answer.code == 2
    assert "holds demo data" in answer.json["message"]
