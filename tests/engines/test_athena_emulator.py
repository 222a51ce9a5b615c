"""The emulator answers the clients of Athena as Athena does, and refuses what Athena refuses.

One module, because all cases share one running emulator.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.engines.command import CLEAN, client, new_bucket
from tests.project import ROOT
from tools.athena_emulator import results, unsupported

pytestmark = pytest.mark.aws

Execute = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def bucket(emulator) -> str:
    return new_bucket(emulator)


@pytest.fixture(scope="module")
def execute(emulator, bucket) -> Execute:
    """Run a statement by boto3 and return its execution when it has ended."""
    athena = client(emulator, "athena")
    client(emulator, "glue").create_database(DatabaseInput={"Name": "shop"})

    def run(sql: str, group: str = "primary", **more: Any) -> dict[str, Any]:
        query_id = athena.start_query_execution(
            QueryString=sql,
            WorkGroup=group,
            QueryExecutionContext={"Database": "shop", "Catalog": "AwsDataCatalog"},
            ResultConfiguration={"OutputLocation": f"s3://{bucket}/results/"},
            **more,
        )["QueryExecutionId"]
        while True:
            found = athena.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]
            if found["Status"]["State"] not in {"QUEUED", "RUNNING"}:
                return found
            time.sleep(0.05)

    return run


@pytest.fixture(scope="module")
def rows(emulator, execute) -> Callable[..., list[list[str | None]]]:
    """Rows of a statement, as text."""
    athena = client(emulator, "athena")

    def run(sql: str, **more: Any) -> list[list[str | None]]:
        found = execute(sql, **more)
        assert found["Status"]["State"] == "SUCCEEDED", found["Status"]
        answer = athena.get_query_results(QueryExecutionId=found["QueryExecutionId"])
        return [[value.get("VarCharValue") for value in row["Data"]] for row in answer["ResultSet"]["Rows"]]

    return run


@pytest.fixture(scope="module")
def table(bucket, execute) -> str:
    """A table made from a query, as dbt-athena makes them."""
    made = execute(
        f"""
        create table "awsdatacatalog"."shop"."places" with (
            table_type='hive', is_external=true, external_location='s3://{bucket}/shop/places', format='parquet'
        ) as
        select * from (values ('01', 'Lluçanès', 1.5e0, date '2026-01-05'), ('02', null, 12345678.9e0, null))
            as t (id, name, share, since)
        """
    )
    assert made["Status"]["State"] == "SUCCEEDED", made["Status"]
    assert made["SubstatementType"] == "CREATE_TABLE_AS_SELECT"
    return "places"


def test_values_come_as_text_in_athenas_forms(rows, table):
    assert rows("select * from places order by id") == [
        ["id", "name", "share", "since"],
        ["01", "Lluçanès", "1.5", "2026-01-05"],
        ["02", None, "1.23456789E7", None],
    ]


def test_a_result_lies_as_csv_at_the_output_location_and_says_what_was_scanned(
    emulator, execute, table, bucket
):
    found = execute("select id, name from places order by id")
    where = found["ResultConfiguration"]["OutputLocation"]
    assert where == f"s3://{bucket}/results/{found['QueryExecutionId']}.csv"
    body = client(emulator, "s3").get_object(Bucket=bucket, Key=where.removeprefix(f"s3://{bucket}/"))["Body"]
    assert body.read().decode() == '"id","name"\n"01","Lluçanès"\n"02",\n'
    files = client(emulator, "s3").list_objects_v2(Bucket=bucket, Prefix="shop/places")["Contents"]
    assert 0 < found["Statistics"]["DataScannedInBytes"] <= 2 * sum(file["Size"] for file in files)
    assert execute("select 1")["Statistics"]["DataScannedInBytes"] == 0


def test_columns_are_described_and_pages_follow_each_other(emulator, execute, table):
    athena = client(emulator, "athena")
    query_id = execute("select n, n * 1e0 as x from unnest(sequence(1, 2500)) as t (n)")["QueryExecutionId"]
    pages = list(athena.get_paginator("get_query_results").paginate(QueryExecutionId=query_id))
    assert [len(page["ResultSet"]["Rows"]) for page in pages] == [1000, 1000, 501]
    columns = pages[0]["ResultSet"]["ResultSetMetadata"]["ColumnInfo"]
    assert [(column["Name"], column["Type"]) for column in columns] == [("n", "bigint"), ("x", "double")]


def test_a_view_is_found_again(execute, rows, table):
    execute("create or replace view shop.named as select id, name from shop.places where name is not null")
    assert rows("select * from named") == [["id", "name"], ["01", "Lluçanès"]]


def test_a_table_over_csv_files_is_made_in_hives_dialect(emulator, execute, rows, bucket):
    client(emulator, "s3").put_object(Bucket=bucket, Key="seed/x.csv", Body='a,b\n01,"x, à"\n'.encode())
    made = execute(
        "-- a comment\ncreate external table `shop`.`seed` (`a` string, `b` string) "
        "row format serde 'org.apache.hadoop.hive.serde2.OpenCSVSerde' "
        f"location 's3://{bucket}/seed/' tblproperties ('skip.header.line.count'='1')"
    )
    assert made["Status"]["State"] == "SUCCEEDED", made["Status"]
    assert rows("select * from seed") == [["a", "b"], ["01", "x, à"]]


def test_iceberg_tables_are_written_and_changed(execute, rows, bucket):
    for sql in (
        f"create table shop.ice with (table_type='iceberg', is_external=false, location='s3://{bucket}/ice') as select 1 x",
        "insert into shop.ice values (2)",
        "delete from shop.ice where x = 1",
    ):
        found = execute(sql)
        assert found["Status"]["State"] == "SUCCEEDED", found["Status"]
    assert rows("select * from ice") == [["x"], ["2"]]


def test_partitions_are_added_to_a_table_and_found_by_repair(emulator, execute, rows, bucket):
    for day, name in (
        ("2026-01-05", "elsewhere"),
        ("2026-02-02", "parts/d=2026-02-02"),
        ("2026-03-02", "parts/d=2026-03-02"),
    ):
        client(emulator, "s3").put_object(Bucket=bucket, Key=f"{name}/x.csv", Body=f"{day[5:7]}\n".encode())
    for sql in (
        "create external table if not exists shop.parts (x string comment 'the month') partitioned by (d date) "
        f"location 's3://{bucket}/parts/'",
        f"alter table shop.parts add partition (d='2026-01-05') location 's3://{bucket}/elsewhere/' "
        "partition (d='2026-02-02')",
        "msck repair table `shop`.`parts`",
        "alter table `shop`.`parts` set tblproperties ('classification'='csv')",
    ):
        found = execute(sql)
        assert found["Status"]["State"] == "SUCCEEDED", found["Status"]
    assert rows("select x, d from parts order by d")[1:] == [
        ["01", "2026-01-05"], ["02", "2026-02-02"], ["03", "2026-03-02"],
    ]  # fmt: skip
    athena = client(emulator, "athena")
    described = athena.get_table_metadata(
        CatalogName="AwsDataCatalog", DatabaseName="shop", TableName="parts"
    )
    assert described["TableMetadata"]["Parameters"]["classification"] == "csv"
    with pytest.raises(athena.exceptions.MetadataException, match="nowhere"):
        athena.get_table_metadata(CatalogName="AwsDataCatalog", DatabaseName="shop", TableName="nowhere")


def test_an_iceberg_table_is_made_from_columns_in_hives_dialect(execute, rows, bucket):
    for sql in (
        "create table shop.events (`at` timestamp, kind string, n int) partitioned by (day(`at`), kind) "
        f"location 's3://{bucket}/events/' tblproperties ('table_type'='iceberg')",
        "insert into shop.events values (timestamp '2026-01-05 06:00:00', 'x', 1)",
    ):
        found = execute(sql)
        assert found["Status"]["State"] == "SUCCEEDED", found["Status"]
    assert rows("select kind, n from events") == [["kind", "n"], ["x", "1"]]


@pytest.mark.parametrize(
    "sql",
    [
        "create external table shop.broken (x string)",
        "create external table shop.broken (x string) stored as nothing location 's3://nowhere/x/'",
        "create external table shop.broken x string location 's3://nowhere/x/'",
        "create table shop.broken with (table_type='iceberg') as select 1 x",
        "create schema",
        "msck repair table places",
    ],
)
def test_a_definition_that_cannot_be_read_fails(execute, sql):
    assert execute(sql)["Status"]["State"] == "FAILED"


def test_a_schema_is_made_once_or_if_it_does_not_exist(emulator, execute, bucket):
    sql = f"create {{}} `store` location 's3://{bucket}/store/'"
    states = [
        execute(sql.format(kind))["Status"]["State"]
        for kind in ("schema", "database if not exists", "schema")
    ]
    assert states == ["SUCCEEDED", "SUCCEEDED", "FAILED"]
    database = client(emulator, "glue").get_database(Name="store")["Database"]
    assert database["LocationUri"] == f"s3://{bucket}/store/"


@pytest.mark.parametrize(("partitions", "state"), [(100, "SUCCEEDED"), (101, "FAILED")])
def test_a_statement_writes_a_hundred_partitions_and_no_more(execute, bucket, partitions, state):
    found = execute(
        f"create table shop.p{partitions} with (external_location='s3://{bucket}/p{partitions}', "
        f"partitioned_by=array['k']) as select 1 x, n as k from unnest(sequence(1, {partitions})) as t (n)"
    )
    assert found["Status"]["State"] == state
    if state == "FAILED":
        assert "HIVE_TOO_MANY_OPEN_PARTITIONS" in found["Status"]["StateChangeReason"]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("select any_value(id) from places", "FUNCTION_NOT_FOUND"),
        ("create or replace table t as select 1 x", "NOT_SUPPORTED"),
        ("create table t (x int)", "NOT_SUPPORTED"),
        ("call system.sync_partition_metadata('shop', 'places', 'ADD')", "NOT_SUPPORTED"),
        ("select nothing from places", "COLUMN_NOT_FOUND"),
        ("selec 1", "SYNTAX_ERROR"),
    ],
)
def test_what_athena_does_not_know_fails_with_its_reason(execute, table, sql, reason):
    found = execute(sql)
    assert found["Status"]["State"] == "FAILED"
    assert reason in found["Status"]["StateChangeReason"]


def test_a_place_that_is_not_empty_is_not_written_to(execute, table, bucket):
    found = execute(
        f"create table shop.again with (external_location='s3://{bucket}/shop/places') as select 1 x"
    )
    assert "HIVE_PATH_ALREADY_EXISTS" in found["Status"]["StateChangeReason"]


def test_a_query_that_scans_more_than_its_workgroup_allows_is_broken_off(emulator, execute, table, bucket):
    athena = client(emulator, "athena")
    athena.create_work_group(
        Name="thrifty",
        Configuration={
            "ResultConfiguration": {"OutputLocation": f"s3://{bucket}/thrifty/"},
            "EnforceWorkGroupConfiguration": True,
            "BytesScannedCutoffPerQuery": 10_000_000,
        },
    )
    assert execute("select * from places", group="thrifty")["Status"]["State"] == "SUCCEEDED"
    made = execute(
        f"create table shop.big with (external_location='s3://{bucket}/big', write_compression='NONE') as "
        "select cast(random() as varchar) || cast(random() as varchar) as x "
        "from unnest(sequence(1, 1000)) as a (i), unnest(sequence(1, 600)) as b (j)"
    )
    assert made["Status"]["State"] == "SUCCEEDED", made["Status"]
    found = execute("select count(distinct x) from big", group="thrifty")
    assert found["Status"]["State"] == "CANCELLED"
    assert "limit was exceeded" in found["Status"]["StateChangeReason"]
    assert found["ResultConfiguration"]["OutputLocation"].startswith(f"s3://{bucket}/thrifty/")


def test_a_workgroup_that_enforces_its_location_takes_no_table_with_another(emulator, execute, bucket):
    client(emulator, "athena").create_work_group(
        Name="readers",
        Configuration={
            "ResultConfiguration": {"OutputLocation": f"s3://{bucket}/readers/"},
            "EnforceWorkGroupConfiguration": True,
        },
    )
    sql = "create table shop.{} with ({}format='parquet') as select 1 x"
    refused = execute(sql.format("here", f"external_location='s3://{bucket}/here', "), group="readers")
    assert "enforces a centralized output location" in refused["Status"]["StateChangeReason"]
    assert execute(sql.format("there", ""), group="readers")["Status"]["State"] == "SUCCEEDED"


def test_a_workgroup_that_was_made_in_the_emulator_is_known(emulator, bucket):
    import boto3

    beside = boto3.client(
        "athena", endpoint_url=emulator.aws, region_name=emulator.region, aws_access_key_id="x", aws_secret_access_key="x"
    )  # fmt: skip
    place = f"s3://{bucket}/deployed/"
    beside.create_work_group(
        Name="deployed",
        Configuration={
            "ResultConfiguration": {"OutputLocation": place},
            "EnforceWorkGroupConfiguration": False,
            "BytesScannedCutoffPerQuery": 10_000_000,
        },
    )
    athena = client(emulator, "athena")
    found = athena.get_work_group(WorkGroup="deployed")["WorkGroup"]["Configuration"]
    assert found["ResultConfiguration"]["OutputLocation"] == place
    assert (found["EnforceWorkGroupConfiguration"], found["BytesScannedCutoffPerQuery"]) == (
        False,
        10_000_000,
    )
    query = athena.start_query_execution(QueryString="select 1", WorkGroup="deployed")["QueryExecutionId"]
    described = athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]
    assert described["ResultConfiguration"]["OutputLocation"].startswith(place)
    with pytest.raises(athena.exceptions.InvalidRequestException, match="nobody"):
        athena.get_work_group(WorkGroup="nobody")


def test_a_query_is_stopped_on_demand_and_one_token_starts_one_query(emulator, execute, bucket):
    athena = client(emulator, "athena")
    slow = "select count(*) from unnest(sequence(1, 10000)) as a (i), unnest(sequence(1, 10000)) as b (j)"
    same = {
        "QueryString": slow,
        "ResultConfiguration": {"OutputLocation": f"s3://{bucket}/results/"},
        "ClientRequestToken": uuid.uuid4().hex,
    }
    first, second = (athena.start_query_execution(**same)["QueryExecutionId"] for _ in range(2))
    assert first == second
    athena.stop_query_execution(QueryExecutionId=first)
    deadline = time.monotonic() + 20
    state = ""
    while state != "CANCELLED" and time.monotonic() < deadline:
        time.sleep(0.1)
        [found] = athena.batch_get_query_execution(QueryExecutionIds=[first])["QueryExecutions"]
        state = found["Status"]["State"]
    assert state == "CANCELLED"
    assert first in athena.list_query_executions()["QueryExecutionIds"]


def test_a_query_without_a_place_for_its_result_is_not_started(emulator):
    athena = client(emulator, "athena")
    with pytest.raises(athena.exceptions.InvalidRequestException, match="output location"):
        athena.start_query_execution(QueryString="select 1")
    assert athena.get_work_group(WorkGroup="primary")["WorkGroup"]["State"] == "ENABLED"
    assert athena.list_data_catalogs()["DataCatalogsSummary"][0]["CatalogName"] == "AwsDataCatalog"


def test_pyathena_reads_rows_with_their_types_and_parameters(aws, execute, table, bucket):
    import datetime

    from pyathena import connect

    with connect(s3_staging_dir=f"s3://{bucket}/pyathena/", schema_name="shop", poll_interval=0.1) as con:
        cursor = con.cursor()
        cursor.execute("select id, share, since from places where id = %(id)s", {"id": "01"})
        assert cursor.fetchall() == [("01", 1.5, datetime.date(2026, 1, 5))]
        cursor.execute("select count(*) from places where id = ?", ["'02'"], paramstyle="qmark")
        assert cursor.fetchall() == [(1,)]


def test_airflows_operator_waits_for_a_query_and_fails_with_it(aws, table, bucket, tmp_path):
    program = f"""
import sys
from airflow.providers.amazon.aws.operators.athena import AthenaOperator
def run(sql):
    operator = AthenaOperator(task_id="q", query=sql, database="shop", output_location="s3://{bucket}/airflow/",
        aws_conn_id=None, region_name="eu-west-1", sleep_time=1, deferrable=False)
    return operator.execute({{}}), operator.hook
query_id, hook = run("select count(*) from places")
assert hook.check_query_status(query_id) == "SUCCEEDED"
assert hook.get_query_results(query_id)["ResultSet"]["Rows"][1]["Data"][0]["VarCharValue"] == "2"
try:
    run("select any_value(id) from places")
except Exception as error:
    assert "FAILED" in str(error), error
else:
    sys.exit("a failed query went unnoticed")
"""
    env = {**CLEAN, **aws.variables(), "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_statement_is_asked_again_until_trino_knows_a_node(monkeypatch):
    from trino.exceptions import TrinoQueryError

    from tools.athena_emulator import trino_client

    page = SimpleNamespace(
        columns=None, rows=[[1]], update_type=None, update_count=None, stats={}, next_uri=None
    )
    answers: list[Any] = [TrinoQueryError({"errorName": "NO_NODES_AVAILABLE"}), page]

    def process(_: object) -> Any:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    request = SimpleNamespace(post=lambda _: None, process=process)
    monkeypatch.setattr(trino_client, "TrinoRequest", lambda *_, **__: request)
    more = {"catalog": "hive", "schema": "shop", "session": {}, "stop": threading.Event(), "on_progress": id}
    assert trino_client.run("http://127.0.0.1:9", "select 1", **more).rows == [[1]]
    answers += [TrinoQueryError({"errorName": "SYNTAX_ERROR"})]
    with pytest.raises(TrinoQueryError):
        trino_client.run("http://127.0.0.1:9", "select", **more)


def test_it_goes_down_with_all_its_processes(tmp_path):
    lines = tmp_path / "env"
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.athena_emulator", "--memory", "1000M", "--env", str(lines)],
        env=CLEAN, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    began = time.monotonic()
    while not lines.exists() and process.poll() is None and time.monotonic() < began + 600:
        time.sleep(0.2)
    assert lines.exists()
    urls = [line.split("=", 1)[1] for line in lines.read_text().split() if "=http" in line]
    assert urls and all(url.startswith("http://127.0.0.1:") for url in urls)
    children = _children(process.pid)
    assert len(children) == 2
    process.send_signal(signal.SIGTERM)
    assert process.wait(40) == 0
    assert not any(_alive(child) for child in children)
    for url in urls:
        with pytest.raises(OSError), urllib.request.urlopen(url, timeout=2):
            pass


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0.0"), (1.0, "1.0"), (-2.5, "-2.5"), (9999999.0, "9999999.0"), (1e7, "1.0E7"), (0.001, "0.001"),
        (0.00012345, "1.2345E-4"), (1.5e-10, "1.5E-10"), (-1.23e25, "-1.23E25"), (123456789.125, "1.23456789125E8"),
        (float("inf"), "Infinity"), (float("nan"), "NaN"),
    ],
)  # fmt: skip
def test_a_double_is_written_as_java_writes_it(value, written):
    assert results.as_text(value, "double") == written


def test_names_in_strings_and_comments_are_not_functions():
    unsupported.check_statement("select 'any_value(x)' as x -- any_value(y)\nfrom t /* it's call() */")


def test_a_request_holds_one_statement_that_is_not_too_long():
    unsupported.check_request("-- it's one;\nselect ';' as x;")
    for sql in ("", "-- nothing", "select 1; select 2", f"select '{'x' * unsupported.MAX_QUERY_BYTES}'"):
        with pytest.raises(unsupported.InvalidRequest):
            unsupported.check_request(sql)


def test_partitions_are_added_at_places_of_their_own():
    from tools.athena_emulator import translate

    statement = translate.translate(
        "alter table `shop`.`t` add if not exists partition (d='2026-01-05') location 's3://b/x/' "
        "partition (d='2026-02-02')",
        "s3://b/y",
    )
    assert statement == translate.AddPartitions(
        translate.Table("shop", "t"), ((("2026-01-05",), "s3://b/x"), (("2026-02-02",), None))
    )
