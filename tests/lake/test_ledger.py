"""The newest record of the ledger."""

from __future__ import annotations

from datetime import UTC, datetime

from catalunya.lake import layout
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from catalunya.runs.record import RunRecord, newest
from tests.lake.faulty_proxy import FaultyProxy


def record_of(run_id: str) -> bytes:
    moment = layout.moment_of(run_id)
    return (
        RunRecord(run_id=run_id, environment="demo", engine="duckdb", lake="x", started_at=moment)
        .model_dump_json()
        .encode()
    )


def test_the_newest_record_is_the_newest_whole_one_that_is_not_from_the_future(lake: Storage) -> None:
    now = datetime(2026, 1, 10, tzinfo=UTC)
    lake.put("ledger/20251001T000000Z-00000000.json", record_of("20251001T000000Z-00000000"))
    assert newest(lake, now).run_id == "20251001T000000Z-00000000"  # type: ignore[union-attr]
    lake.put("ledger/20260105T000000Z-00000000.json", record_of("20260105T000000Z-00000000"))
    lake.put("ledger/20260106T000000Z-00000000.json", b"")
    lake.put("ledger/20260107T000000Z-00000000.json", record_of("20260107T000000Z-00000000")[:40])
    lake.put("ledger/zz.json", b"{}")
    lake.put("ledger/notes", b"x")
    lake.put("ledger/20360101T000000Z-00000000.json", record_of("20360101T000000Z-00000000"))
    assert newest(lake, now).run_id == "20260105T000000Z-00000000"  # type: ignore[union-attr]
    assert len(lake.ignored) == 5
    assert newest(lake).run_id == "20360101T000000Z-00000000"  # type: ignore[union-attr]


def test_the_newest_record_of_a_long_ledger_costs_one_short_listing_and_one_reading(
    proxy: FaultyProxy,
) -> None:
    storage = open_lake(proxy.lake_url)
    for day in range(1, 29):
        storage.put(
            f"ledger/202512{day:02}T000000Z-00000000.json", record_of(f"202512{day:02}T000000Z-00000000")
        )
    proxy.requests.clear()
    assert newest(storage, datetime(2025, 12, 28, 12, tzinfo=UTC)).run_id == "20251228T000000Z-00000000"  # type: ignore[union-attr]
    assert [method for method, _ in proxy.requests] == ["GET", "GET"]
