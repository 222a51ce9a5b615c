"""From a row of a mart back to the bytes: whichever release, and only what is really there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from catalunya.lake.opening import open_lake
from catalunya.operations.query import Selection
from catalunya.operations.trace import trace
from tests.pipeline.command import Answer, Command, query

COMARCA = ("trace", "coverage_comarca", "--comarca", "11", "--year", "2024")


def sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def used(answer: Answer) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for snapshot in answer.json["snapshots"]:
        found.setdefault(snapshot["dataset_id"], []).append(snapshot["snapshot_id"])
    return found


@pytest.fixture
def traced(twice: Command) -> tuple[Command, list[str], list[str]]:
    """A lake with two releases; their ids, and those of the two snapshots of the register."""
    status = twice("status").json
    record = json.loads(Path(status["release"], "release.json").read_text("utf-8"))
    return twice, status["releases"], list(record["snapshots"]["social_services"])


def test_the_figures_of_a_comarca_lead_to_files_addresses_and_checksums(released):
    answer = released(*COMARCA, "--verify")
    assert answer.code == 0, answer.stderr
    found = answer.json
    assert (found["rows_found"], len(found["rows"])) == (20, 20)
    assert {row["comarca_id"] for row in found["rows"]} == {"11"}
    assert sorted(used(answer)) == ["municipalities", "population", "social_services"]
    for snapshot in found["snapshots"]:
        for file in [*snapshot["landing"], snapshot["staging"]]:
            assert sha256(file["address"]) == file["sha256"]
        assert all(file["url"].startswith("http") and file["rows"] for file in snapshot["landing"])
    for file in found["files"]:
        assert sha256(file["address"]) == file["sha256"]
    assert (found["verified"], found["faults"]) == (True, [])


def test_the_population_of_a_year_leads_to_the_page_that_asked_for_it(released):
    answer = released(*COMARCA)
    [population] = [s for s in answer.json["snapshots"] if s["dataset_id"] == "population"]
    assert any("2024" in file["url"] for file in population["landing"])
    assert query(
        released("status").json["release"],
        "select distinct snapshot_id from marts.population where year = 2024",
    ) == [(population["snapshot_id"],)]


def test_a_year_leads_to_the_register_of_its_day_and_one_before_the_first_to_the_first(traced):
    command, _, (first, second) = traced
    observed = command("trace", "coverage_catalonia", "--year", "2026")
    read_back = command("trace", "coverage_catalonia", "--year", "2024")
    assert used(observed)["social_services"] == [second]
    assert used(read_back)["social_services"] == [first]


def test_after_a_rollback_the_older_release_is_traced_and_the_newer_can_still_be_asked_for(traced):
    command, (older, newer), (first, second) = traced
    assert command("rollback").code == 0
    answer = command("trace", "coverage_catalonia", "--year", "2026", "--verify")
    assert (answer.code, answer.json["release_id"]) == (0, older)
    assert used(answer)["social_services"] == [first]
    assert answer.json["built_from"]["social_services"] == 1
    asked = command("trace", "coverage_catalonia", "--year", "2026", "--release", newer)
    assert asked.json["release_id"] == newer
    assert used(asked)["social_services"] == [second]
    assert asked.json["built_from"]["social_services"] == 2


def test_a_change_leads_to_the_snapshot_that_shows_it_and_the_one_before(traced):
    command, _, (first, second) = traced
    [(service_id,)] = query(
        command("status").json["release"],
        "select service_id from marts.service_changes where change = 'closed' order by 1 limit 1",
    )
    answer = command("trace", "service_changes", "--service", service_id)
    assert {
        (s["snapshot_id"], s["gives"])
        for s in answer.json["snapshots"]
        if s["dataset_id"] == "social_services"
    } == {(first, "shows the state before"), (second, "shows the change")}
    history = command("trace", "service_history", "--service", service_id)
    assert used(history)["social_services"] == [first, first]


def test_every_mart_can_be_traced(first_release):
    lake, answer = first_release
    storage = open_lake(str(lake))
    for mart, rows in json.loads(Path(answer.json["release"], "release.json").read_text("utf-8"))[
        "rows"
    ].items():
        if rows == 0:
            continue
        found = trace(storage, mart, Selection())
        assert found.rows_found == rows
        assert found.snapshots, mart
        assert set(found.built_from) >= {snapshot.dataset_id for snapshot in found.snapshots}, mart


MART = """
models:
  - name: {name}
    description: One row per year.
    config: {{meta: {{provenance: {provenance}}}}}
    columns:
      - {{name: year, data_type: integer}}
      - {{name: people, data_type: bigint}}
"""
DECLARED = "[{dataset: population, role: people, rule: year, column: year}]"


def test_a_mart_of_one_sql_and_one_yaml_file_can_be_traced(released, home):
    marts = home / "dbt" / "mart" / "models" / "marts"
    expected = {"people_by_year": (DECLARED, "people"), "people_undeclared": ("[]", "all")}
    for name, (provenance, _) in expected.items():
        (marts / f"{name}.sql").write_text(
            "select year, cast(sum(people) as bigint) as people from {{ ref('population') }} group by year"
        )
        (marts / f"{name}.yml").write_text(MART.format(name=name, provenance=provenance))
    released.home = home
    assert released.run(now="2026-01-05T12:00:00Z").json["status"] == "released"
    for name, (_, gives) in expected.items():
        answer = released("trace", name, "--year", "2024", "--verify")
        assert answer.code == 0, answer.stderr
        assert answer.json["rows_found"] == 1
        assert {s["dataset_id"]: s["gives"] for s in answer.json["snapshots"]} == {"population": gives}


def test_a_mart_that_names_a_column_that_it_does_not_have_fails_the_build_by_name(released, home):
    file = home / "dbt" / "mart" / "models" / "marts" / "population.yml"
    file.write_text(file.read_text("utf-8").replace("column: snapshot_id}", "column: snapshot}", 1))
    released.home = home
    answer = released.run(now="2026-01-05T12:00:00Z")
    assert answer.code == 1
    assert "population: provenance names the column snapshot" in answer.json["message"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "'nothing' is no mart"),
        (["../../landing"], "is no mart"),
        (["coverage_comarca", "--comarca", "99"], "no row with comarca_id 99; it has 01 to 43"),
        (["coverage_comarca", "--year", "1900"], "no row with year 1900"),
        (["coverage_municipality", "--municipality", "8001"], "no row with municipality_id 8001"),
        (["population", "--comarca", "11"], "population has no column comarca_id; its columns are"),
        (["coverage_comarca", "--release", "20200101T000000Z-00000000"], "is no release that is kept"),
        (["service_history", "--service", "S90001", "--ownership", "public"], "together"),
    ],
)
def test_what_the_mart_does_not_have_is_exit_2_and_named(released, words, said):
    answer = released("trace", *words)
    assert answer.code == 2
    assert said in answer.json["message"]


def test_a_lake_without_a_release_is_exit_2(tmp_path):
    answer = Command(str(tmp_path / "lake"), None)("trace", "population")
    assert (answer.code, "run `catalunya run` first" in answer.json["message"]) == (2, True)


@pytest.mark.parametrize("which", ["landing", "staging", "release"])
def test_verify_names_the_file_whose_bytes_are_not_those_that_were_recorded(released, which):
    found: dict[str, Any] = released(*COMARCA).json
    snapshot = found["snapshots"][0]
    file = {"landing": snapshot["landing"][0], "staging": snapshot["staging"], "release": found["files"][1]}
    path = Path(file[which]["address"])
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    answer = released(*COMARCA, "--verify")
    assert answer.code == 1
    assert [str(path) in fault for fault in answer.json["faults"]] == [True]


def test_the_remedy_that_verify_names_for_a_staged_file_works(released):
    staged = Path(released(*COMARCA).json["snapshots"][0]["staging"]["address"])
    staged.write_bytes(staged.read_bytes()[:-9])
    [fault] = released(*COMARCA, "--verify").json["faults"]
    assert str(staged) in fault and "`catalunya run --rebuild`" in fault
    rebuilt = released.run("--rebuild", now="2026-01-05T12:00:00Z")
    assert rebuilt.code == 0, rebuilt.stderr
    assert released(*COMARCA, "--verify").json["faults"] == []


def test_a_trace_of_demo_data_says_so(released):
    done = released.start("trace", "population", "--year", "2024")
    assert "DEMO DATA. Made by" in done.communicate(timeout=600)[1]


def test_a_snapshot_that_is_gone_is_named(released):
    snapshot = released(*COMARCA).json["snapshots"][0]
    Path(snapshot["landing"][0]["address"]).with_name("manifest.json").unlink()
    answer = released(*COMARCA)
    assert answer.code == 1
    assert snapshot["snapshot_id"] in answer.json["message"]


def test_a_release_that_does_not_say_what_its_marts_depend_on_names_every_dataset(released):
    release = Path(released("status").json["release"], "release.json")
    record = json.loads(release.read_text("utf-8"))
    del record["lineage"]
    release.write_text(json.dumps(record))
    answer = released(*COMARCA)
    assert answer.code == 0
    assert sorted(answer.json["built_from"]) == sorted(record["snapshots"])
