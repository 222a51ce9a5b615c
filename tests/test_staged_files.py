"""How the engines read staged and quarantine files into the schema `staging`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from catalunya import sql, stage
from catalunya.datasets.model import Dataset
from catalunya.errors import BuildFailed, LakeCorrupt
from catalunya.lake import layout, snapshot
from catalunya.lake.staged import Staged
from catalunya.lake.storage import Storage
from catalunya.settings import Settings
from catalunya.staging import row_sql
from catalunya.warehouse.engines import staged_tables
from catalunya.warehouse.engines.duckdb import DATABASE, DuckDBEngine
from tests.factories import DEFINITIONS, NOW, land, local_lake

REGISTER, POPULATION = DEFINITIONS["social_services"], DEFINITIONS["population"]
KIND = "Servei de centre de dia per a gent gran de caràcter temporal o permanent"
FOLDERS = ["year=2026", "name=prova", "places=1/name=x", "json=1", "raw=2", "snapshot_id=3", "n=1"]


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "registre": f"S{number:05d}",
        "nom": f"Casa {number}",
        "tipologia": KIND,
        "capacitat": "10",
        **fields,
    }


def staged_lake(folder: Path, *snapshots: list[dict[str, Any]]) -> Storage:
    """A lake with these snapshots of the register, a day apart, staged."""
    lake = local_lake(folder)
    for number, rows in enumerate(snapshots):
        land(lake, REGISTER, [rows], now=NOW + timedelta(days=number))
    stage.stage(lake, REGISTER, run_id="r", now=NOW)
    return lake


def opened(lake: Storage, work: Path, *datasets: Dataset) -> tuple[duckdb.DuckDBPyConnection, list[Staged]]:
    """The schema `staging` of a build, and the records of the staged files."""
    engine = DuckDBEngine(lake, Settings())
    snapshots = {d.id: tuple(snapshot.usable(lake, d.id)) for d in datasets}
    work.mkdir(exist_ok=True)
    staged = engine._write_staging({d.id: d for d in datasets}, snapshots, work / DATABASE, work)
    return duckdb.connect(work / DATABASE), staged


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_lake_in_a_folder_that_names_a_column_is_read_as_in_any_other(tmp_path: Path, folder: str) -> None:
    found = []
    for base in ("plain", folder):
        lake = staged_lake(tmp_path / base / "lake", [row(1), row(2, capacitat="7")], [row(1, nom="Nova")])
        con, staged = opened(lake, tmp_path / f"work-{base.replace('/', '-')}", REGISTER)
        with con:
            rows = con.execute("select * from staging.social_services order by all").fetchall()
        found.append((rows, [(s.snapshot_id, s.rows_in, s.rows_staged) for s in staged]))
    assert found[0] == found[1]
    assert {r[1] for r in found[1][0]} == {"Casa 1", "Casa 2", "Nova"}


@pytest.mark.parametrize("name", ["a[b]c", "a*", "a?c", "[x", "it's [1]", "x=1/[y]"])
def test_a_path_is_read_by_exactly_its_name(tmp_path: Path, name: str) -> None:
    for folder, value in ((name, 1), ("abc", 2), ("ab", 2)):
        (tmp_path / folder).mkdir(parents=True)
        target = sql.quote(str(tmp_path / folder / "f-1.parquet"))
        duckdb.execute(
            f"copy (select {value} as x) to {target} (format parquet, kv_metadata {{k: '{value}'}})"
        )
        (tmp_path / folder / "f.json").write_text(f'[{{"x":{value}}}]')
    path = tmp_path / name / "f-1.parquet"
    assert duckdb.sql(f"from {sql.read_parquet(path)}").fetchall() == [(1,)]
    assert duckdb.sql(f"from {sql.read_parquet([path, path])}").fetchall() == [(1,), (1,)]
    assert duckdb.sql(f"from {sql.read_parquet(path.parent, 'f-*.parquet')}").fetchall() == [(1,)]
    metadata = f"select decode(value) from parquet_kv_metadata({sql.quote_paths([path])})"
    assert duckdb.sql(metadata).fetchall() == [("1",)]
    objects = sql.read_json_objects(path.parent / "f.json", shape="array", largest=1000)
    assert duckdb.sql(f"from {objects}").fetchall() == [('{"x":1}',)]


def test_a_snapshot_that_another_definition_staged_is_not_built_from(tmp_path: Path) -> None:
    lake = staged_lake(tmp_path / "lake", [row(1)])
    other = REGISTER.model_copy(update={"columns": REGISTER.columns[:-1]})
    with pytest.raises(
        BuildFailed,
        match=r"social_services: snapshot 2026.* was staged by other rules or another definition; run `catalunya stage`",
    ):
        opened(lake, tmp_path / "work", other)


def test_a_snapshot_that_is_not_staged_is_named(tmp_path: Path) -> None:
    lake = staged_lake(tmp_path / "lake", [row(1)])
    land(lake, REGISTER, [[row(2)]], now=NOW + timedelta(days=5))
    with pytest.raises(BuildFailed, match=r"snapshot 20260110T.* is not staged; run `catalunya stage` first"):
        opened(lake, tmp_path / "work", REGISTER)


def test_a_staged_file_without_its_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "20260105T000000Z-00000000.parquet"
    duckdb.execute(f"copy (select 1 as x) to '{path}' (format parquet)")
    with pytest.raises(
        LakeCorrupt, match=r"without a record of their rows: .*20260105T000000Z-00000000\.parquet"
    ):
        staged_tables.records(duckdb.connect(), [path])


def record(dataset: Dataset, number: int, quarantined: int, **more: Any) -> Staged:
    moment = NOW + timedelta(days=number)
    snapshot_id = layout.make_id(moment, "00000000")
    return Staged(
        dataset_id=dataset.id,
        snapshot_id=snapshot_id,
        taken_at=moment,
        rows_in=quarantined,
        rows_staged=0,
        rows_quarantined=quarantined,
        rows_duplicated=0,
        demo=False,
        digest=row_sql.digest(dataset),
        **more,
    )


def write_quarantine(lake: Storage, staged: Staged, select: str) -> None:
    path = lake.scratch() / "quarantine.parquet"
    duckdb.execute(
        f"copy (select 'r' as reason, '{{}}' as raw, '{staged.snapshot_id}' as snapshot_id, * from ({select})) "
        f"to '{path}' (format parquet)"
    )
    lake.put_file(layout.quarantined(staged.dataset_id, staged.snapshot_id), path)


def tables(lake: Storage, work: Path, *staged: Staged) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("create schema staging")
    staged_tables.create_tables(con, lake, DEFINITIONS, list(staged), work)
    return con


def test_whole_keys_of_quarantined_rows_are_known_each_once(tmp_path: Path) -> None:
    lake = local_lake(tmp_path / "year=2026" / "lake")
    one, old, other, gone, whole = (
        record(POPULATION, 0, 4), record(POPULATION, 1, 1), record(REGISTER, 0, 1), record(REGISTER, 1, 1),
        record(POPULATION, 2, 0),
    )  # fmt: skip
    values = "(2024, '080018'), (2024, '080018'), (null, '080018'), (2025, null)"
    write_quarantine(lake, one, f"select * from (values {values}) as t (year, municipality_id)")
    write_quarantine(lake, old, "select 1 as before_keys_were_kept")
    write_quarantine(lake, other, "select 'S1' as service_id")
    write_quarantine(lake, whole, "select 2024 as year, '999999' as municipality_id")
    with tables(lake, tmp_path, one, old, other, gone, whole) as con:
        found = con.execute("select * from staging.quarantined order by all").fetchall()
    assert found == [
        ("population", one.snapshot_id, "080018/2024"),
        ("social_services", other.snapshot_id, "S1"),
    ]


def test_quarantine_files_without_keys_have_none(tmp_path: Path) -> None:
    lake = local_lake(tmp_path / "lake")
    old = record(REGISTER, 0, 1)
    write_quarantine(lake, old, "select 1 as before_keys_were_kept")
    with tables(lake, tmp_path, old) as con:
        assert con.execute("select count(*) from staging.quarantined").fetchall() == [(0,)]


def test_a_quarantine_file_that_cannot_be_read_is_named_and_may_be_deleted(tmp_path: Path) -> None:
    lake = local_lake(tmp_path / "lake")
    broken = record(REGISTER, 0, 1)
    key = layout.quarantined(REGISTER.id, broken.snapshot_id)
    lake.put(key, b"torn")
    with pytest.raises(
        LakeCorrupt, match=rf"(?s){broken.snapshot_id}.*delete it: a quarantine file that is missing"
    ):
        tables(lake, tmp_path, broken)
    lake.delete(key)
    tables(lake, tmp_path, broken).close()


def test_invalid_values_are_reported_by_snapshot_and_column(tmp_path: Path) -> None:
    staged = record(REGISTER, 0, 0, invalid_values={"places": 2, "registered_on": 1, "name": 0})
    with tables(local_lake(tmp_path / "lake"), tmp_path, staged) as con:
        assert con.execute(
            "select * exclude (snapshot_id) from staging.invalid_values order by all"
        ).fetchall() == [
            ("social_services", "places", 2),
            ("social_services", "registered_on", 1),
        ]


def test_the_keys_that_staging_puts_into_quarantine_are_those_that_the_build_reads(tmp_path: Path) -> None:
    bad = row(3)
    del bad["tipologia"]
    lake = staged_lake(tmp_path / "lake", [row(1), bad, row(2, inscripcio="soon")])
    con, _ = opened(lake, tmp_path / "work", REGISTER)
    with con:
        assert con.execute("select row_key from staging.quarantined").fetchall() == [("S00003",)]
        assert con.execute("select column_name, rows from staging.invalid_values").fetchall() == [
            ("registered_on", 1)
        ]
