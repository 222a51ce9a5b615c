"""What a build asks of S3 to read what is staged."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from catalunya import stage
from catalunya.lake import snapshot
from catalunya.lake.opening import open_lake
from catalunya.settings import Settings
from catalunya.warehouse.engines.duckdb import DATABASE, DuckDBEngine
from tests.factories import DEFINITIONS, NOW, land
from tests.lake.faulty_proxy import FaultyProxy

REGISTER = DEFINITIONS["social_services"]


def test_a_build_lists_a_dataset_once_and_asks_once_for_each_staged_file(
    proxy: FaultyProxy, tmp_path: Path
) -> None:
    lake = open_lake(proxy.lake_url)
    asked = []
    for number in range(8):
        rows = [{"registre": f"S{number}", "tipologia": "Servei"}]
        land(lake, REGISTER, [rows], now=NOW + timedelta(days=number))
        if number in {1, 7}:
            stage.stage(lake, REGISTER, run_id="r", now=NOW)
            snapshots = {REGISTER.id: tuple(snapshot.usable(lake, REGISTER.id))}
            work = tmp_path / str(number)
            work.mkdir()
            proxy.requests.clear()
            staged = DuckDBEngine(lake, Settings())._write_staging(
                {REGISTER.id: REGISTER}, snapshots, work / DATABASE, work
            )
            assert [record.rows_staged for record in staged] == [1] * (number + 1)
            asked.append([method for method, path in proxy.requests])
            listings = [path for method, path in proxy.requests if "list-type" in path]
            assert len(listings) == 1
    assert [set(methods) for methods in asked] == [{"GET"}, {"GET"}]
    assert [len(methods) for methods in asked] == [1 + 2, 1 + 8]
