"""What keeps a lake in order: whole bytes, portals that are alive, nothing left behind."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from catalunya.errors import LakeCorrupt
from catalunya.lake import layout, snapshot
from catalunya.lake.lock import lake_lock
from catalunya.lake.storage import Storage
from catalunya.operations import maintenance
from catalunya.operations.integrity.files import staged_faults
from catalunya.runs import record
from catalunya.stage import stage
from tests.factories import DEFINITIONS, NOW, land, local_lake


@pytest.fixture
def lake(tmp_path: Path) -> Storage:
    return local_lake(tmp_path / "lake")


def test_every_landed_byte_is_compared_with_its_checksum(lake):
    manifest = land(lake, DEFINITIONS["population"], [[{"a": 1}], [{"a": 2}]])
    assert maintenance.verify(lake, "population") == (2, [])
    key = layout.landing("population", manifest.snapshot_id, "page-00001.json")
    lake.put(key, b'[{"a": 3}]')
    looked, [fault] = maintenance.verify(lake, "population")
    assert looked == 2
    assert lake.uri(key) in fault and "SHA-256" in fault
    lake.delete(key)
    assert "is missing" in maintenance.verify(lake, "population")[1][0]


@pytest.mark.parametrize(
    ("dataset_id", "validators", "day"),
    [
        ("social_services", {"rows_updated_at": 1735624800}, datetime(2024, 12, 31, 6, tzinfo=UTC)),
        ("population", {"updated": "2024-01-01"}, datetime(2024, 1, 1, tzinfo=UTC)),
        (
            "boundaries",
            {"files": {"/a": {"last_modified": "Mon, 15 Jan 2024 08:00:00 GMT"}, "/b": {"etag": "x"}}},
            NOW,
        ),
        (
            "boundaries",
            {"files": {"/a": {"last_modified": "Mon, 15 Jan 2024 08:00:00 GMT"}}},
            datetime(2024, 1, 15, 8, tzinfo=UTC),
        ),
        ("population", {"updated": "soon"}, NOW),
    ],
)
def test_a_source_is_as_fresh_as_it_says_itself(lake, dataset_id, validators, day):
    manifest = land(lake, DEFINITIONS[dataset_id], [[]])
    told = manifest.model_copy(update={"validators": validators})
    key = layout.landing(dataset_id, manifest.snapshot_id, snapshot.MANIFEST)
    lake.put(key, told.model_dump_json().encode())
    now = NOW + timedelta(days=30)
    [found] = maintenance.freshness(lake, DEFINITIONS, now)
    assert (found.dataset_id, found.updated_at, found.age_days) == (dataset_id, day, (now - day).days)
    assert found.silent is ((now - day).days > DEFINITIONS[dataset_id].cadence_days)


def test_freshness_ignores_a_folder_that_was_moved_away_and_writes_nothing(lake):
    kept = land(lake, DEFINITIONS["population"], [[]])
    moved = land(lake, DEFINITIONS["population"], [[1]], now=NOW + timedelta(days=1))
    lake.delete_folder(f"{layout.LANDING}/population/{moved.snapshot_id}")
    before = lake.read(layout.index("population"))
    [found] = maintenance.freshness(lake, DEFINITIONS, NOW + timedelta(days=30))
    assert found.snapshot_id == kept.snapshot_id
    assert lake.read(layout.index("population")) == before


def test_the_state_of_an_abandoned_run_is_deleted_after_two_days(lake):
    run_id = layout.make_id(NOW, "ab" * 4)
    lake.put(layout.part(run_id, "build"), b"{}")
    assert maintenance.retain(lake, "x", 30, NOW + timedelta(days=1)) == []
    assert maintenance.retain(lake, "x", 30, NOW + timedelta(days=3)) == [f"steps of run {run_id}"]
    assert lake.folders(layout.RUNS) == []


@pytest.mark.parametrize("count", [0, 1, 20, 45, 601, 5000])
def test_a_day_checks_a_share_of_the_snapshots_that_has_the_newest_and_thirty_days_check_all(count):
    ids = [f"{place:05d}" for place in range(count)]
    days = [date(2026, 1, 5) + timedelta(days=n) for n in range(30)]
    shares = [maintenance.due(ids, day) for day in days]
    assert {name for share in shares for name in share} == set(ids)
    for share in shares:
        assert share == sorted(set(share)) and share[-1:] == ids[-1:]
        assert len(share) <= count // 30 + 2
    assert maintenance.due(ids, days[0]) == shares[0]
    # A new snapshot moves no other to another day.
    assert set(shares[3]) - {*ids[-1:]} <= set(maintenance.due([*ids, "99999"], days[3]))


def test_a_damaged_byte_is_found_on_the_day_of_its_snapshot_and_by_a_full_check(lake):
    manifests = [
        land(lake, DEFINITIONS["population"], [[{"a": place}]], now=NOW + timedelta(hours=place))
        for place in range(50)
    ]
    lake.put(layout.landing("population", manifests[0].snapshot_id, "page-00000.json"), b"damaged")
    found = {}
    for n in range(30):
        day = date(2026, 3, 1) + timedelta(days=n)
        looked, wrong = maintenance.verify(lake, "population", day=day)
        assert looked in {1, 2, 3}
        found[day] = len(wrong)
    assert [day.toordinal() % 30 for day, count in found.items() if count] == [0]
    looked, wrong = maintenance.verify(lake, "population")
    assert (looked, len(wrong)) == (50, 1)


def test_the_newest_snapshot_is_compared_every_day(lake):
    for place in range(50):
        newest = land(lake, DEFINITIONS["population"], [[{"a": place}]], now=NOW + timedelta(hours=place))
    lake.put(layout.landing("population", newest.snapshot_id, "page-00000.json"), b"damaged")
    for n in range(30):
        assert len(maintenance.verify(lake, "population", day=date(2026, 3, 1) + timedelta(days=n))[1]) == 1


def users(year: int) -> dict[str, str]:
    definition = DEFINITIONS["service_users"]
    row = {column.source[0]: "1" for column in definition.columns}
    return {**row, "any": str(year), "codi": "11", "comarca": "Baix Llobregat"}


@pytest.fixture
def staged_file(lake: Storage) -> Path:
    manifest = land(lake, DEFINITIONS["service_users"], [[users(2015), users(2016), users(2017)]])
    stage(lake, DEFINITIONS["service_users"], run_id=layout.make_id(NOW, "ab" * 4), now=NOW)
    path = Path(lake.uri(layout.staged("service_users", manifest.snapshot_id)))
    assert staged_faults(lake, "service_users", path.stem) == []
    return path


def test_a_flipped_byte_anywhere_in_a_staged_file_is_found(lake, staged_file):
    good = staged_file.read_bytes()
    for place in range(0, len(good), 97):
        staged_file.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        [fault] = staged_faults(lake, "service_users", staged_file.stem)
        assert str(staged_file) in str(fault)
        assert "SHA-256" in fault.found and "catalunya run --rebuild" in fault.hint
    staged_file.write_bytes(good)
    assert staged_faults(lake, "service_users", staged_file.stem) == []
    staged_file.unlink()
    assert staged_faults(lake, "service_users", staged_file.stem)[0].found == "is missing"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path, other: path.write_bytes(b""), "has no record that can be read"),
        (lambda path, other: path.write_bytes(path.read_bytes()[:-9]), "has no record that can be read"),
        (lambda path, other: path.write_bytes(other.read_bytes()), "is the staged file of snapshot"),
    ],
    ids=["empty", "cut", "of another snapshot"],
)
def test_a_staged_file_that_the_index_does_not_know_is_compared_with_its_own_record(
    lake, staged_file, change, said
):
    land(lake, DEFINITIONS["service_users"], [[users(2018)]], now=NOW + timedelta(days=1))
    stage(
        lake, DEFINITIONS["service_users"], run_id=layout.make_id(NOW, "ab" * 4), now=NOW + timedelta(days=1)
    )
    [other] = [p for p in staged_file.parents[1].glob("*/*.parquet") if p != staged_file]
    lake.delete(layout.index("service_users"))
    change(staged_file, other)
    [fault] = staged_faults(lake, "service_users", staged_file.stem)
    assert said in fault.found


def put_record(lake: Storage, days_ago: float, message: str = "nothing new", number: int = 0) -> str:
    run_id = layout.make_id(NOW - timedelta(days=days_ago), f"{number:08x}")
    found = {
        "run_id": run_id, "message": message, "environment": "demo", "engine": "duckdb", "lake": lake.url,
        "started_at": NOW.isoformat(),
    }  # fmt: skip
    lake.put(layout.ledger(run_id), json.dumps(found, indent=1).encode())
    return run_id


def fold(lake: Storage) -> maintenance.Folded:
    with lake_lock(lake, "x") as lock:
        return maintenance.fold_ledger(lake, NOW, lock)


def alone_of(lake: Storage) -> list[str]:
    return sorted(path.stem for path in Path(lake.uri(layout.LEDGER)).glob("*.json"))


def archived(lake: Storage) -> dict[str, list[str]]:
    folder = Path(lake.uri(layout.LEDGER), "archive")
    return {
        path.stem: [json.loads(line)["run_id"] for line in path.read_text("utf-8").splitlines()]
        for path in sorted(folder.glob("*.jsonl"))
    }


def test_old_records_of_the_ledger_are_folded_by_month_and_the_newest_is_still_read(lake):
    old = [put_record(lake, days) for days in (130, 120, 100)]
    kept = [put_record(lake, days) for days in (90, 1)]
    assert fold(lake).folded == {"2025-08": 1, "2025-09": 2}
    assert archived(lake) == {"2025-08": old[:1], "2025-09": old[1:]}
    assert alone_of(lake) == kept
    newest = record.newest(lake)
    assert newest is not None and newest.run_id == kept[-1]
    before = archived(lake)
    assert fold(lake) == maintenance.Folded({}, ())
    assert archived(lake) == before


def test_of_many_young_records_the_newest_thousand_stay(lake, monkeypatch):
    monkeypatch.setattr(maintenance, "LEDGER_RECORDS", 3)
    ids = [put_record(lake, days) for days in (5, 4, 3, 2, 1)]
    fold(lake)
    assert alone_of(lake) == ids[2:]
    assert archived(lake) == {"2025-12": ids[:1], "2026-01": ids[1:2]}


def test_the_newest_record_stays_however_old_it_is(lake):
    first, last = put_record(lake, 300), put_record(lake, 200)
    fold(lake)
    assert (archived(lake), alone_of(lake)) == ({"2025-03": [first]}, [last])


def test_folding_that_was_killed_between_archive_and_deletion_loses_and_repeats_nothing(lake):
    ids = [put_record(lake, days) for days in (121, 120, 119)]
    last = put_record(lake, 1)
    whole = {name: json.loads(lake.read(layout.ledger(name))) for name in ids}
    maintenance.archive_records(lake, "2025-09", {ids[0]: whole[ids[0]], ids[1]: whole[ids[1]]})
    lake.delete(layout.ledger(ids[0]))
    fold(lake)
    assert (archived(lake), alone_of(lake)) == ({"2025-09": ids}, [last])
    text = lake.read(layout.ledger_archive("2025-09")).decode()
    assert [json.loads(line) for line in text.splitlines()] == list(whole.values())


def test_a_record_that_was_written_again_replaces_its_line_in_the_archive(lake):
    run_id = put_record(lake, 120, "failed")
    put_record(lake, 1)
    fold(lake)
    assert put_record(lake, 120, "released") == run_id
    fold(lake)
    [line] = lake.read(layout.ledger_archive("2025-09")).decode().splitlines()
    assert json.loads(line)["message"] == "released"


def test_damaged_records_and_unknown_files_of_the_ledger_are_left_alone_and_named(lake):
    whole, torn, strange = (put_record(lake, 120, number=number) for number in range(3))
    put_record(lake, 1)
    lake.put(layout.ledger(torn), lake.read(layout.ledger(torn))[:-9])
    lake.put(layout.ledger(strange), lake.read(layout.ledger(whole)))
    lake.put("ledger/notes.txt", b"mine")
    found = fold(lake)
    assert archived(lake) == {"2025-09": [whole]}
    assert {torn, strange} <= set(alone_of(lake))
    assert [name in " ".join(found.left) for name in (torn, strange, "notes.txt")] == [True, True, True]


def test_a_damaged_archive_stays_as_it_is_with_the_records_that_would_go_into_it(lake):
    run_id = put_record(lake, 120)
    put_record(lake, 1)
    lake.put(layout.ledger_archive("2025-09"), b'{"run_id": "x"}\n{"run_i')
    with pytest.raises(LakeCorrupt, match="line 2"):
        maintenance.archive_records(lake, "2025-09", {})
    found = fold(lake)
    assert "2025-09.jsonl: line 2" in found.left[0]
    assert run_id in alone_of(lake)
    assert lake.read(layout.ledger_archive("2025-09")) == b'{"run_id": "x"}\n{"run_i'


def test_retention_folds_the_ledger_and_reports_it(lake):
    put_record(lake, 120)
    put_record(lake, 1)
    [said] = maintenance.retain(lake, "x", 30, NOW)
    assert said.startswith("single records of the ledger: 1 are in") and said.endswith("2025-09.jsonl now")
