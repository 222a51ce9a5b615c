"""Runs in production on Athena and on Trino: the release is DuckDB's, readers see it, and nothing else is touched."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from catalunya.demo import server
from catalunya.errors import UsageError
from catalunya.lake import layout
from catalunya.lake.opening import open_lake
from catalunya.settings import Settings
from catalunya.warehouse.engines import open_engine
from tests.engines.command import Command, client, new_bucket

pytestmark = pytest.mark.aws

ELSEWHERE = "landing/population/keep.json"


@pytest.fixture(scope="module")
def command(emulator) -> Command:
    return Command(emulator, new_bucket(emulator), {"ENVIRONMENT": "production"})


def objects(command: Command, prefix: str) -> dict[str, bytes]:
    s3 = client(command.emulator, "s3")
    found = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=command.bucket, Prefix=f"lake/{prefix}"):
        for entry in page.get("Contents", []):
            body = s3.get_object(Bucket=command.bucket, Key=entry["Key"])["Body"].read()
            found[entry["Key"].removeprefix(f"lake/{prefix}")] = body
    return found


def marts(command: Command, release: str) -> dict[str, bytes]:
    """The Parquet and CSV files of a release."""
    found = objects(command, release.removeprefix(f"{command.lake}/") + "/")
    return {name: data for name, data in found.items() if name.startswith(("parquet/", "csv/"))}


def read(command: Command, sql: str) -> list[tuple[Any, ...]]:
    from pyathena import connect

    with connect(
        s3_staging_dir=f"s3://{command.bucket}/readers/", schema_name=command.variables()["CATALUNYA_SCHEMA"],
        poll_interval=0.1,
    ) as con:  # fmt: skip
        return list(con.cursor().execute(sql).fetchall())


def databases(command: Command) -> set[str]:
    own = command.variables()["CATALUNYA_SCHEMA"]
    found = client(command.emulator, "glue").get_databases()["DatabaseList"]
    return {database["Name"] for database in found if database["Name"].startswith(own)}


def queries(command: Command) -> int:
    athena = client(command.emulator, "athena")
    pages = athena.get_paginator("list_query_executions").paginate(WorkGroup="primary")
    return sum(len(page["QueryExecutionIds"]) for page in pages)


def test_production_runs_on_athena_and_on_trino_end_in_duckdbs_release(command, demo, aws):
    command.read_from(demo.url)
    schema = command.variables()["CATALUNYA_SCHEMA"]

    first = command("run", CATALUNYA_ENGINE="athena")
    assert (first.code, first.json["status"]) == (0, "released"), first.stderr
    cost = first.json["cost"]
    assert cost["queries"] > 50 and cost["bytes_scanned"] > 1_000_000 and cost["usd"] > 0
    ledger = json.loads(objects(command, f"ledger/{first.json['run_id']}.json")[""])
    assert (ledger["engine"], ledger["cost"]) == ("athena", cost)
    assert databases(command) == {schema, f"{schema}_releases"}
    assert objects(command, "candidates/") == {}
    assert read(command, "select count(*) from data_quality") == [(5,)]
    [(rows,)] = read(command, "select count(*) from coverage_comarca")

    before = queries(command)
    again = command("run", CATALUNYA_ENGINE="athena")
    assert (again.json["status"], again.json["cost"]) == ("unchanged", None), again.stderr
    assert queries(command) == before

    demo.set_day(date(2026, 3, 2))
    second = command("run", CATALUNYA_ENGINE="trino")
    assert (second.code, second.json["status"]) == (0, "released"), second.stderr
    assert second.json["cost"]["bytes_scanned"] > 1_000_000 and second.json["cost"]["usd"] is None
    assert second.json["versions"]["dbt-trino"]
    assert read(command, "select count(*) from data_quality") == [(6,)]

    same = command("run", "--force", CATALUNYA_ENGINE="duckdb")
    assert same.json["status"] == "released", same.stderr
    assert marts(command, same.json["release"]) == marts(command, second.json["release"])

    back = command("rollback", "--to", first.json["release_id"], CATALUNYA_ENGINE="trino")
    assert back.code == 0, back.stderr
    assert read(command, "select count(*) from data_quality") == [(5,)]
    assert read(command, "select count(*) from coverage_comarca") == [(rows,)]


def test_a_refused_snapshot_leaves_readers_their_release_and_is_not_read_again(command, demo, aws):
    shown = read(command, "select snapshot_id from data_quality order by 1")
    with server.running(rows=4000, day=date(2026, 3, 2)) as shrunk:
        command.read_from(shrunk.url)
        answer = command("run", CATALUNYA_ENGINE="trino")
    assert (answer.code, answer.json["status"]) == (3, "refused"), answer.stderr
    [refused] = answer.json["refused"]
    assert read(command, "select snapshot_id from data_quality order by 1") == shown
    demo.set_day(date(2026, 5, 4))
    command.read_from(demo.url)
    healed = command("run", CATALUNYA_ENGINE="trino")
    assert (healed.code, healed.json["status"]) == (0, "released"), healed.stderr
    assert objects(command, layout.staged("social_services", refused))
    assert read(command, f"select count(*) from data_quality where snapshot_id = '{refused}'") == [(0,)]
    assert read(command, "select count(*) from data_quality")[0][0] > len(shown)
    assert objects(command, "candidates/") == {}


def test_a_refused_snapshot_is_left_out_and_another_that_changed_is_released_by_the_same_run(
    emulator, demo, aws
):
    command = Command(emulator, new_bucket(emulator), {"ENVIRONMENT": "production"})
    command.read_from(demo.url)
    first = command("run", CATALUNYA_ENGINE="duckdb")
    assert first.json["status"] == "released", first.stderr
    schema = command.variables()["CATALUNYA_SCHEMA"]
    with server.running(rows=4200, day=date(2026, 6, 1)) as shrunk:
        shrunk.faults.add("municipalities:new_column")
        command.read_from(shrunk.url)
        answer = command("run", CATALUNYA_ENGINE="trino")
    assert (answer.code, answer.json["status"]) == (0, "released"), answer.stderr
    [refused] = answer.json["refused"]
    stages = [stage["name"] for stage in answer.json["stages"]]
    assert stages == ["ingest", "stage", "build", "audit", "build", "audit", "publish"]
    names = "select dataset_id, snapshot_id from data_quality"
    shown = read(command, f"{names} where dataset_id in ('social_services', 'municipalities')")
    assert ("social_services", refused) not in shown
    new = answer.json["datasets"]["municipalities"]["snapshot_id"]
    assert ("municipalities", new) in shown
    assert objects(command, "candidates/") == {}
    assert databases(command) == {schema, f"{schema}_releases"}
    same = command("run", "--force", CATALUNYA_ENGINE="duckdb")
    assert same.json["status"] == "released", same.stderr
    assert marts(command, same.json["release"]) == marts(command, answer.json["release"])


@pytest.mark.parametrize("name", ["athena", "trino"])
def test_clean_up_touches_nothing_outside_the_runs_own_prefix(emulator, aws, monkeypatch, name):
    bucket = new_bucket(emulator)
    for variable, value in Command(emulator, bucket).variables().items():
        if variable.startswith("CATALUNYA_"):
            monkeypatch.setenv(variable, value)
    monkeypatch.setenv("CATALUNYA_ENGINE", name)
    settings = Settings.load()
    lake = open_lake(settings.lake)
    engine = open_engine(lake, settings)
    run, other = "20260105T060000Z-1a2b3c4d", "20260105T060000Z-1a2b3c4e"
    lake.put(f"candidates/{run}/tables/x", b"own")
    lake.put(f"candidates/{other}/tables/x", b"another run's")
    kept = {ELSEWHERE: b"{}", "releases/20260101T000000Z-00000000/parquet/population.parquet": b"PAR1"}
    for key, data in kept.items():
        lake.put(key, data)
    plant(emulator, engine.schema(run), "evil", f"{settings.lake}/landing/population", "MANAGED_TABLE")
    plant(emulator, engine.schema(run), "own", f"{settings.lake}/candidates/{run}/tables", "MANAGED_TABLE")
    plant(emulator, engine.staging_schema(run), "rows", f"{settings.lake}/releases", "EXTERNAL_TABLE")
    plant(
        emulator, engine.staging_schema(run), "evil", f"{settings.lake}/landing/population", "MANAGED_TABLE"
    )

    engine.discard(run)

    found = {entry.key: lake.read(entry.key) for entry in lake.list()}
    assert found == {**kept, f"candidates/{other}/tables/x": b"another run's"}
    for wrong in ("", ".", "..", "../releases", f"{run}/..", "20260105T060000Z-1a2b3c4d/../../landing"):
        with pytest.raises(UsageError):
            engine.discard(wrong)
    assert {entry.key for entry in lake.list()} == set(found)


def plant(emulator, schema: str, table: str, location: str, kind: str) -> None:
    """A table in a candidate's schema whose files lie somewhere else."""
    glue = client(emulator, "glue")
    if schema not in {database["Name"] for database in glue.get_databases()["DatabaseList"]}:
        glue.create_database(DatabaseInput={"Name": schema})
    glue.create_table(
        DatabaseName=schema,
        TableInput={
            "Name": table, "TableType": kind, "Parameters": {}, "PartitionKeys": [],
            "StorageDescriptor": {
                "Columns": [{"Name": "x", "Type": "string"}], "Location": location,
                "InputFormat": "org.apache.hadoop.mapred.TextInputFormat",
                "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
                "SerdeInfo": {"SerializationLibrary": "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe"},
            },
        },
    )  # fmt: skip


def test_a_workgroup_that_enforces_its_location_is_refused_before_anything_is_made(emulator):
    command = Command(emulator, new_bucket(emulator))
    client(emulator, "athena").create_work_group(
        Name="enforced",
        Configuration={
            "ResultConfiguration": {"OutputLocation": f"s3://{command.bucket}/results/"},
            "EnforceWorkGroupConfiguration": True,
        },
    )
    answer = command("build", CATALUNYA_ENGINE="athena", CATALUNYA_ATHENA_WORKGROUP="enforced")
    assert answer.code == 2
    assert "CATALUNYA_ATHENA_WORKGROUP: enforced" in answer.json["message"]
    assert databases(command) == set()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"CATALUNYA_ENGINE": "trino", "CATALUNYA_TRINO_URL": ""}, "CATALUNYA_TRINO_URL"),
        ({"CATALUNYA_ENGINE": "trino", "CATALUNYA_LAKE": "./data"}, "CATALUNYA_LAKE"),
        ({"CATALUNYA_ENGINE": "trino", "CATALUNYA_TRINO_PASSWORD": "x"}, "CATALUNYA_TRINO_PASSWORD"),
    ],
)
def test_an_engine_that_lacks_a_setting_says_which(emulator, variables, message):
    answer = Command(emulator, new_bucket(emulator))("build", **{"ENVIRONMENT": "development", **variables})
    assert answer.code == 2
    assert message in answer.json["message"]
