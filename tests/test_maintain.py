"""What keeps a lake in order: whole bytes, portals that are alive, nothing left behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from catalunya import maintain
from catalunya.lake import layout, snapshot
from catalunya.lake.storage import Storage
from tests.landing import CARDS, NOW, land, open_lake


@pytest.fixture
def lake(tmp_path: Path) -> Storage:
    return open_lake(tmp_path / "lake")


def test_every_landed_byte_is_compared_with_its_checksum(lake):
    manifest = land(lake, CARDS["population"], [[{"a": 1}], [{"a": 2}]])
    assert maintain.verify(lake, "population") == (2, [])
    key = layout.landing("population", manifest.snapshot_id, "page-00001.json")
    lake.put(key, b'[{"a": 3}]')
    looked, [fault] = maintain.verify(lake, "population")
    assert looked == 2
    assert lake.uri(key) in fault and "SHA-256" in fault
    lake.delete(key)
    assert "is missing" in maintain.verify(lake, "population")[1][0]


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
    manifest = land(lake, CARDS[dataset_id], [[]])
    told = manifest.model_copy(update={"validators": validators})
    key = layout.landing(dataset_id, manifest.snapshot_id, snapshot.MANIFEST)
    lake.put(key, told.model_dump_json().encode())
    now = NOW + timedelta(days=30)
    [found] = maintain.freshness(lake, CARDS, now)
    assert (found.dataset_id, found.updated_at, found.age_days) == (dataset_id, day, (now - day).days)
    assert found.silent is ((now - day).days > CARDS[dataset_id].cadence_days)


def test_what_an_abandoned_run_left_goes_after_two_days(lake):
    run_id = layout.make_id(NOW, "ab" * 4)
    lake.put(layout.part(run_id, "build"), b"{}")
    assert maintain.retain(lake, "x", 30, NOW + timedelta(days=1)) == []
    assert maintain.retain(lake, "x", 30, NOW + timedelta(days=3)) == [f"parts of run {run_id}"]
    assert lake.folders(layout.RUNS) == []
