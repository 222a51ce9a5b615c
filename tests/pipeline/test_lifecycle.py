"""The life of a snapshot: what is judged, what becomes history, what a person can correct, and what is deleted.

One module, because all cases begin with the same small release.
"""

from __future__ import annotations

import json
import shutil
from datetime import date, timedelta
from pathlib import Path

from catalunya.demo import server
from catalunya.lake import layout
from tests.pipeline.command import DAY, LATER, LATER_DAY, SMALL, Answer, Command, query

MONTH_LATER = "2026-04-02T06:00:00Z"
REGISTER = "social_services"


def releases(command: Command) -> list[str]:
    return sorted(path.name for path in Path(command.lake, "releases").iterdir())


def refused(command: Command, dataset_id: str = REGISTER) -> dict:
    return command("status").json["datasets"][dataset_id]["refused"]


def changes(answer: Answer) -> dict[str, int]:
    return dict(query(answer, "select change, count(*) from marts.service_changes group by change"))


def test_a_register_that_lost_rows_and_landed_without_an_audit_never_becomes_history(small):
    with server.running(rows=200, day=LATER_DAY) as torn:
        small.url = torn.url
        assert small("ingest").code == 0
    [pending] = small("status").json["datasets"][REGISTER]["pending"]
    with server.running(rows=SMALL + 3, day=LATER_DAY) as whole:
        small.url = whole.url
        answer = small.run(now="2026-03-03T06:00:00Z")
    assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr
    assert list(refused(small)) == [pending]
    assert answer.json["refused"].keys() == {pending}
    assert (
        pending
        not in json.loads(Path(answer.json["release"], "release.json").read_text())["snapshots"][REGISTER]
    )
    found = changes(answer)
    assert "reopened" not in found
    assert found.get("closed", 0) < 50


def test_a_register_that_is_whole_again_without_a_newer_date_is_read_again(small):
    with server.running(rows=200, day=LATER_DAY) as torn:
        small.url = torn.url
        assert small.run().code == 3
    with server.running(rows=SMALL + 3, day=LATER_DAY) as whole:
        small.url = whole.url
        answer = small.run(now="2026-03-02T12:00:00Z")
    assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr
    assert answer.json["datasets"][REGISTER]["rows_staged"] == SMALL + 3


def test_one_refused_dataset_does_not_hold_up_another_that_changed(small, demo):
    with server.running(rows=200, day=LATER_DAY) as torn:
        torn.faults.add("municipalities:new_column")
        small.url = torn.url
        answer = small.run()
    assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr
    assert [s["dataset_id"] for s in answer.json["stale"]] == [REGISTER]
    record = json.loads(Path(answer.json["release"], "release.json").read_text())
    assert len(record["snapshots"]["municipalities"]) == 2
    assert len(record["snapshots"][REGISTER]) == 1
    assert refused(small)


def test_a_source_that_drifted_does_not_hold_up_another_that_changed(small):
    with server.running(rows=SMALL + 3, day=LATER_DAY) as drifted:
        drifted.faults.add("social_services:missing_column=telefon")
        drifted.faults.add("municipalities:new_column")
        small.url = drifted.url
        answer = small.run()
        assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr
        [snapshot_id] = refused(small)
        assert answer.json["refused"].keys() == {snapshot_id}
        again = small.run(now="2026-03-02T12:00:00Z")
    assert (again.code, again.json["status"]) == (0, "unchanged")


def test_two_changed_datasets_and_a_failing_test_of_one_release_the_other(small, small_home):
    """The test fails by one snapshot alone; which one, the audit finds out by leaving each of them out."""
    rule = small_home / "dbt" / "mart" / "tests" / "no_new_column_in_the_list.sql"
    rule.write_text(
        "select municipality_id from {{ source('staging', 'municipalities') }} where raw like '%columna_nova%' "
        "and exists (select 1 from {{ ref('service_history') }})"
    )
    small.home = small_home
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        changed.faults.add("municipalities:new_column")
        small.url = changed.url
        answer = small.run()
    assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr
    [(snapshot_id, refusal)] = refused(small, "municipalities").items()
    assert refusal["gate"] == "dbt"
    assert "no_new_column_in_the_list" in refusal["reason"]
    record = json.loads(Path(answer.json["release"], "release.json").read_text())
    assert len(record["snapshots"][REGISTER]) == 2
    assert len(record["snapshots"]["municipalities"]) == 1

    accepted = small("accept", snapshot_id, "--why", "the column is welcome")
    assert accepted.code == 0
    final = small.run(now="2026-03-03T06:00:00Z")
    assert (final.code, final.json["status"]) == (0, "released"), final.stderr
    assert any("no_new_column_in_the_list" in warning for warning in final.json["warnings"])
    noted = json.loads(Path(final.json["release"], "release.json").read_text())["accepted_by_hand"]
    assert noted == {snapshot_id: "the column is welcome"}


def test_a_bad_snapshot_before_the_first_release_does_not_hold_up_the_good_one_that_follows(
    small_home, tmp_path
):
    """Without a release to go back to nothing is refused; the newest snapshots pass without the older one."""
    rule = small_home / "dbt" / "mart" / "tests" / "no_new_column_in_the_list.sql"
    rule.write_text(
        "select municipality_id from {{ source('staging', 'municipalities') }} where raw like '%columna_nova%'"
    )
    with server.running(rows=SMALL, day=DAY) as running:
        command = Command(str(tmp_path / "lake"), running.url, home=small_home)
        running.faults.add("municipalities:new_column")
        first = command.run()
        assert (first.code, first.json["status"], first.json["refused"]) == (3, "refused", {}), first.stderr
        assert "There is no release yet" in first.json["message"]
        running.faults.clear()
        answer = command.run(now="2026-01-06T06:00:00Z")
    assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr
    [(_, refusal)] = refused(command, "municipalities").items()
    assert (refusal["gate"], answer.json["refused"].keys()) == (
        "dbt",
        refused(command, "municipalities").keys(),
    )


def test_a_refusal_ends_when_the_definition_that_made_it_is_corrected(small, small_home):
    small.home = small_home
    with server.running(rows=SMALL + 3, day=LATER_DAY) as drifted:
        drifted.faults.add("social_services:missing_column=telefon")
        small.url = drifted.url
        answer = small.run()
        assert (answer.code, answer.json["status"]) == (3, "refused")
        assert "datasets/social_services.yml" in answer.json["message"]
        definition = small_home / "datasets" / "social_services.yml"
        before, _, after = definition.read_text("utf-8").partition("  - name: phone\n")
        definition.write_text(before + after[after.index("  - name:") :], "utf-8")
        assert small("datasets", "generate").code == 0
        corrected = small.run(now="2026-03-02T12:00:00Z")
    assert (corrected.code, corrected.json["status"]) == (0, "released"), corrected.stderr
    assert refused(small) == {}
    record = json.loads(Path(corrected.json["release"], "release.json").read_text())
    assert len(record["snapshots"][REGISTER]) == 2


def test_declaring_a_new_column_keeps_all_observed_history(small, small_home):
    small.home = small_home
    with server.running(rows=SMALL + 3, day=LATER_DAY) as grown:
        grown.faults.add("ivft-vegh:new_column")
        small.url = grown.url
        first = small.run()
        assert first.json["status"] == "released"
        assert any("new column columna_nova" in warning for warning in first.json["warnings"])
        history = query(first, "select * from marts.service_history order by all")
        definition = small_home / "datasets" / "social_services.yml"
        column = (
            "  - name: nova\n    source: columna_nova\n    type: string\n    description: New.\n"
            "    constraints: {required: true}\n"
        )
        definition.write_text(definition.read_text("utf-8") + column, "utf-8")
        assert small("datasets", "generate").code == 0
        second = small.run(now="2026-03-02T12:00:00Z")
        third = small.run(now="2026-03-03T06:00:00Z")
    assert (second.code, second.json["status"]) == (0, "released"), second.stderr
    assert (third.code, third.json["status"]) == (0, "unchanged")
    assert refused(small) == {}
    assert query(second, "select * from marts.service_history order by all") == history


def test_a_definition_that_was_edited_and_put_back_while_staging_was_killed_changes_nothing(
    small, small_home
):
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        small.url = changed.url
        first = small.run()
    expected = query(first, "select * from marts.service_changes order by all")
    definition = small_home / "datasets" / "social_services.yml"
    text = definition.read_text("utf-8")
    edited = text.replace("type: integer", "type: string", 1)
    assert edited != text
    small.home = small_home
    definition.write_text(text.replace("source: nom\n", "source: entitat_titular\n"), "utf-8")
    for share in (0.3, 0.6, 0.9):
        small("stage", kill_after=share * 3)
    definition.write_text(text, "utf-8")
    answer = small.run("--force", "--dataset", "boundaries", now=MONTH_LATER)
    assert answer.code in (0, 4), answer.stderr
    final = small.run("--rebuild", now="2026-04-03T06:00:00Z") if answer.code else answer
    assert query(final, "select * from marts.service_changes order by all") == expected


def test_a_rollback_names_what_came_with_the_release_and_no_later_run_brings_it_back(small):
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        small.url = changed.url
        bad = small.run()
        assert bad.json["status"] == "released"
        came = bad.json["datasets"][REGISTER]["snapshot_id"]
        back = small("rollback")
        assert (back.code, back.json["refused"][came]) == (0, REGISTER)
        assert f"catalunya accept {came}" in back.stderr
        changed.faults.add("municipalities:new_column")
        answer = small.run(now="2026-03-03T06:00:00Z")
        assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr
        record = json.loads(Path(answer.json["release"], "release.json").read_text())
        assert came not in record["snapshots"][REGISTER]
        assert small("accept", came, "--why", "it was right").code == 0
        again = small.run(now="2026-03-04T06:00:00Z")
    assert again.json["datasets"][REGISTER]["snapshot_id"] == came


def test_what_a_rollback_took_out_of_use_is_published_once_it_is_accepted_though_nothing_else_is_new(small):
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        small.url = changed.url
        came = small.run().json["datasets"][REGISTER]["snapshot_id"]
        back = small("rollback")
        assert small.run(now="2026-03-03T06:00:00Z").json["status"] == "unchanged"
        for snapshot_id in back.json["refused"]:
            assert small("accept", snapshot_id, "--why", "it was right").code == 0
        answer = small.run(now="2026-03-04T06:00:00Z")
    assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr
    assert answer.json["datasets"][REGISTER]["snapshot_id"] == came


def test_a_published_snapshot_that_a_person_refuses_is_gone_from_the_next_release(small):
    before = releases(small)
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        small.url = changed.url
        wrong = small.run().json["datasets"][REGISTER]["snapshot_id"]
        answer = small("refuse", wrong, "--why", "the register of that day was a test")
        assert (answer.code, answer.json["dataset_id"]) == (0, REGISTER)
        final = small.run(now="2026-03-02T12:00:00Z")
        assert (final.code, final.json["status"]) == (0, "released"), final.stderr
        assert query(final, "select count(*) from marts.service_changes") == [(0,)]
        assert small.run(now="2026-03-02T18:00:00Z").json["status"] == "unchanged"
    assert len(releases(small)) == len(before) + 2
    unknown = small("refuse", "20260101T000000Z-00000000", "--why", "x")
    assert (unknown.code, "is not a snapshot" in unknown.json["message"]) == (2, True)


def test_a_damaged_pointer_costs_no_release_and_a_command_puts_it_back(small):
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        small.url = changed.url
        newest = small.run().json["release_id"]
        kept = releases(small)
        Path(small.lake, "current.json").write_bytes(b'{"release_id"')
        broken = small.run(now="2026-03-02T12:00:00Z")
        assert (broken.code, "catalunya repair" in broken.json["message"]) == (1, True)
        status = small("status")
        assert (status.code, status.json["newest_whole_release"]) == (0, newest)
        assert any("catalunya repair" in fault for fault in status.json["faults"])
        assert small("repair").json["release_id"] == newest
        assert small.run(now="2026-03-02T18:00:00Z").json["status"] == "unchanged"
        Path(small.lake, "current.json").unlink()
        without = small.run(now="2026-03-03T06:00:00Z")
    assert (without.code, without.json["status"]) == (0, "released"), without.stderr
    assert set(kept) < set(releases(small))
    assert query(without, "select count(*) from marts.service_changes where change = 'reopened'") == [(0,)]


def test_a_rollback_by_two_and_an_ordinary_run_delete_no_release_and_no_folder_of_a_person(small):
    first = releases(small)[0]
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        small.url = changed.url
        small.run()
        changed.faults.add("municipalities:new_column")
        small.run(now="2026-03-03T06:00:00Z")
        Path(small.lake, "releases", "backup").mkdir()
        Path(small.lake, "releases", "latest").symlink_to(first)
        Path(small.lake, "releases", "note.txt").write_text("mine")
        kept = releases(small)
        assert small("rollback", "--to", first).code == 0
        answer = small.run(now="2026-03-04T06:00:00Z")
    assert (answer.code, answer.json["release_id"]) == (0, first)
    assert releases(small) == kept
    for name in ("backup", "note.txt"):
        assert any(f"{name} is no release" in warning for warning in answer.json["warnings"])


def test_a_rollback_or_repair_without_a_name_passes_over_releases_with_what_a_person_refused(small):
    [good] = releases(small)
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        small.url = changed.url
        wrong = small.run().json
        snapshot_id = wrong["datasets"][REGISTER]["snapshot_id"]
        assert small("refuse", snapshot_id, "--why", "a test of the portal").code == 0
        assert small.run(now="2026-03-02T12:00:00Z").json["status"] == "released"
    Path(small.lake, "current.json").unlink()
    newest = small("status").json["newest_whole_release"]
    assert newest == releases(small)[-1]
    assert small("repair", "--to", wrong["release_id"]).json["release_id"] == wrong["release_id"]
    Path(small.lake, "current.json").unlink()
    assert small("repair").json["release_id"] == newest
    assert small("rollback").json["release_id"] == good
    nothing = small("rollback")
    assert (nothing.code, "nothing to roll back to" in nothing.json["message"]) == (2, True)
    assert small("rollback", "--to", wrong["release_id"]).json["release_id"] == wrong["release_id"]
    record = json.loads(Path(small.lake, "releases", good, "release.json").read_text())
    assert small("refuse", record["snapshots"][REGISTER][0], "--why", "a test of the portal too").code == 0
    held = small("rollback")
    assert (held.code, f"kept are: {good}" in held.json["message"]) == (2, True)


def test_without_a_pointer_releases_of_a_clock_that_was_ahead_are_passed_over(small):
    [good] = releases(small)
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        small.url = changed.url
        ahead = small.run(now="2036-03-02T06:00:00Z").json["release_id"]
    small.now = LATER
    Path(small.lake, "current.json").unlink()
    assert small("status").json["newest_whole_release"] == good
    assert small("repair").json["release_id"] == good
    assert ahead in releases(small)


def test_snapshots_of_a_clock_that_was_ahead_are_named_and_can_be_left_out(small):
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        small.url = changed.url
        ahead = small.run(now="2036-03-02T06:00:00Z")
        assert ahead.json["status"] == "released"
        wrong = [d["snapshot_id"] for d in ahead.json["datasets"].values() if d["snapshot_id"] > "2030"]
        broken = small.run(now="2026-03-02T06:00:00Z")
        assert broken.code == 2
        assert "CATALUNYA_NOW" in broken.json["message"] and wrong[0] in broken.json["message"]
        for snapshot_id in wrong:
            assert small("refuse", snapshot_id, "--why", "the clock was wrong").code == 0
        answer = small.run()
        assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr
        assert answer.json["datasets"][REGISTER]["snapshot_id"] < "2027"
        assert answer.json["release_id"] < "2027"
        assert query(answer, "select max(snapshot_date) < '2030-01-01' from marts.data_quality") == [(True,)]
        assert query(answer, "select max(changed_on) from marts.service_changes") == [(date(2026, 3, 2),)]
        assert small.run(now="2026-03-02T12:00:00Z").json["status"] == "unchanged"


def test_a_corrected_rule_of_the_code_makes_a_new_release(small, small_home):
    small.home = small_home
    with server.running(rows=SMALL, day=DAY) as same:
        small.url = same.url
        (small_home / "dbt" / "mart" / "macros" / "per_100.sql").open("a").write("{# corrected #}\n")
        assert small.run().json["status"] == "released"
        assert small.run(now="2026-03-02T12:00:00Z").json["status"] == "unchanged"


def test_landed_bytes_that_rotted_before_they_were_staged_hold_up_nothing_and_can_be_restored(small):
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        changed.faults.add("municipalities:new_column")
        small.url = changed.url
        assert small("ingest").code == 0
        [snapshot_id] = small("status").json["datasets"][REGISTER]["pending"]
        page = Path(small.lake, layout.landing(REGISTER, snapshot_id, "page-00000.json"))
        good = page.read_bytes()
        page.write_bytes(good[: len(good) // 2])
        answer = small.run()
        assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr
        assert refused(small)[snapshot_id]["gate"] == "unreadable"
        page.write_bytes(good)
        assert small("accept", snapshot_id, "--why", "restored from the backup").code == 0
        final = small.run(now="2026-03-03T06:00:00Z")
    assert (final.code, final.json["datasets"][REGISTER]["snapshot_id"]) == (0, snapshot_id), final.stderr


def test_an_index_that_is_lost_or_damaged_is_made_again(small):
    with server.running(rows=200, day=LATER_DAY) as torn:
        small.url = torn.url
        assert small.run().code == 3
        before = small("status").json["datasets"]
        for path in Path(small.lake, "staging").glob("*/_index.json"):
            path.write_bytes(b"{" if path.parent.name == REGISTER else b"")
        assert small("status").json["datasets"] == before
        again = small.run(now=(LATER_DAY + timedelta(days=1)).isoformat() + "T06:00:00Z")
    assert (again.code, again.json["status"]) == (0, "unchanged"), again.stderr
    assert small("status").json["datasets"].keys() == before.keys()
    assert list(refused(small)) == list(before[REGISTER]["refused"])


def test_staged_files_that_are_lost_or_empty_are_made_again_before_a_build(small):
    first, *_ = sorted(Path(small.lake, "staging", "population").glob("*/*.parquet"))
    second, *_ = sorted(Path(small.lake, "staging", REGISTER).glob("*/*.parquet"))
    first.write_bytes(b"")
    second.unlink()
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        small.url = changed.url
        answer = small.run()
    assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr
    for dataset_id in ("population", REGISTER):
        assert any(f"{dataset_id}: the staged files of" in warning for warning in answer.json["warnings"])
    assert query(answer, "select count(*) > 8000 from marts.population") == [(True,)]


def test_what_is_no_snapshot_in_landing_is_ignored(small):
    folder = Path(small.lake, "landing", REGISTER)
    [snapshot_id] = [path.name for path in folder.iterdir()]
    shutil.copytree(folder / snapshot_id, folder / f"{snapshot_id}.bad")
    (folder / "20270101T000000Z-1234567").mkdir()
    (folder / "note.txt").write_text("mine")
    (folder / "loop").symlink_to(folder / "loop")
    for index in Path(small.lake, "staging").glob("*/_index.json"):
        index.unlink()
    with server.running(rows=SMALL, day=DAY) as same:
        small.url = same.url
        answer = small.run(now="2026-01-06T06:00:00Z")
    assert (answer.code, answer.json["status"]) == (0, "unchanged"), answer.stderr
    assert small("status").json["datasets"][REGISTER]["snapshots"] == 1
    assert (folder / f"{snapshot_id}.bad").is_dir()


def test_a_damaged_manifest_is_corrected_by_moving_its_folder_away_as_the_message_says(small, tmp_path):
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        small.url = changed.url
        assert small("ingest").code == 0
        [snapshot_id] = small("status").json["datasets"][REGISTER]["pending"]
        folder = Path(small.lake, "landing", REGISTER, snapshot_id)
        (folder / "manifest.json").write_bytes(b"{")
        broken = small.run()
        assert any("move the snapshot's folder away" in text for text in broken.json["warnings"]), (
            broken.stderr
        )
        shutil.move(folder, tmp_path / "away")
        answer = small.run(now="2026-03-03T06:00:00Z")
    assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr
    assert answer.json["datasets"][REGISTER]["rows_staged"] == SMALL + 3


def test_a_damaged_manifest_of_a_pending_snapshot_is_refused_and_the_next_answer_takes_its_place(small):
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        small.url = changed.url
        assert small("ingest").code == 0
        [snapshot_id] = small("status").json["datasets"][REGISTER]["pending"]
        Path(small.lake, "landing", REGISTER, snapshot_id, "manifest.json").write_bytes(b"{")
        small.run()
        assert refused(small)[snapshot_id]["gate"] == "unreadable"
        answer = small.run(now="2026-03-03T06:00:00Z")
    assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr
    assert answer.json["datasets"][REGISTER]["rows_staged"] == SMALL + 3
    assert snapshot_id not in str(answer.json["stale"])


def test_an_accepted_snapshot_that_can_no_longer_be_staged_stops_the_run_until_a_person_decides(small):
    with server.running(rows=SMALL + 3, day=LATER_DAY) as changed:
        small.url = changed.url
        assert small.run().json["status"] == "released"
        oldest = sorted(Path(small.lake, "landing", REGISTER).iterdir())[0]
        page = oldest / "page-00000.json"
        page.write_bytes(page.read_bytes()[:1000])
        broken = small.run("--rebuild", now="2026-03-03T06:00:00Z")
        assert (broken.code, f"catalunya refuse {oldest.name}" in broken.json["message"]) == (1, True)
        assert refused(small) == {}
        assert small("refuse", oldest.name, "--why", "its bytes are lost").code == 0
        answer = small.run("--rebuild", now="2026-03-04T06:00:00Z")
    assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr


def test_code_that_was_rolled_back_publishes_nothing_until_it_changes_or_a_person_insists(small, small_home):
    model = small_home / "dbt" / "mart" / "models" / "marts" / "population.sql"
    good = model.read_text("utf-8")
    with server.running(rows=SMALL, day=DAY) as same:
        small.url = same.url
        small.home = small_home
        first = small("status").json["release_id"]
        model.write_text(f"{good} and people > 100", "utf-8")
        assert small.run().json["status"] == "released"
        back = small("rollback", "--to", first)
        assert (back.code, back.json["refused"]) == (0, {})
        same.faults.add("municipalities:new_column")
        held = small.run(now="2026-03-03T06:00:00Z")
        assert (held.code, held.json["status"], held.json["release_id"]) == (0, "unchanged", first)
        assert any("rolled back" in warning for warning in held.json["warnings"])
        model.write_text(f"{good} and people > 10", "utf-8")
        answer = small.run(now="2026-03-04T06:00:00Z")
    assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr
