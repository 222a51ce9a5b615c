"""Rows of a release at the terminal: `show` and `query`. To be read only."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import duckdb
import pytest

from catalunya.lake.opening import open_lake
from catalunya.operations.query import Selection, query, select_rows
from tests.pipeline.command import Command

MARKED = "DEMO DATA: not real"


@pytest.fixture
def command(first_release) -> Command:
    return Command(str(first_release.lake), None)


@pytest.fixture
def release(first_release) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(first_release.folder / "catalunya.duckdb", read_only=True)


def printed(command: Command, *arguments: str) -> tuple[str, str]:
    """Standard output and standard error of the command without `--json`."""
    process = command.start(*arguments)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out, err


def test_the_rows_of_a_selection_are_those_of_the_mart(command, release):
    answer = command("show", "coverage_comarca", "--comarca", "11", "--year", "2024", "--ownership", "all")
    assert answer.code == 0, answer.stderr
    wanted = release.execute(
        "select comarca_id, service_group, services, places from marts.coverage_comarca "
        "where comarca_id = '11' and year = 2024 and ownership = 'all' order by all"
    ).fetchall()
    assert len(wanted) == answer.json["rows_found"] == 4
    assert [
        tuple(row[name] for name in ("comarca_id", "service_group", "services", "places"))
        for row in answer.json["rows"]
    ] == wanted
    types = {column["name"]: column["type"] for column in answer.json["columns"]}
    assert (types["comarca_id"], types["year"], types["division_on"]) == ("varchar", "integer", "date")


def test_csv_has_every_row_its_types_and_the_mark_of_demo_data(command, release):
    out, err = printed(command, "show", "dim_municipality", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == release.execute("select count(*) from marts.dim_municipality").fetchall()[0][0] > 900
    assert {row["demo_notice"] for row in rows} == {MARKED}
    assert {row["is_current"] for row in rows} <= {"true", "false"}
    assert all(len(row["municipality_id"]) == 6 for row in rows)
    assert "" in {row["valid_to"] for row in rows}
    assert "DEMO" not in err


def test_a_table_has_twenty_rows_and_says_how_many_there_are(command, release):
    out, err = printed(command, "show", "population")
    [(rows,)] = release.execute("select count(*) from marts.population").fetchall()
    assert len([line for line in out.splitlines() if line.startswith("│")]) == 20
    assert f"{rows:,} rows; these are the first 20" in err
    assert "DEMO DATA" in err


def test_a_query_answers_in_its_own_order(command, release):
    wanted = "select name, places from service_history where is_current order by places desc, name limit 3"
    answer = command("query", f"{wanted};")
    assert answer.code == 0, answer.stderr
    found = release.execute(wanted.replace("service_history", "marts.service_history")).fetchall()
    assert [tuple(row.values()) for row in answer.json["rows"]] == found


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1.5::decimal(5, 2)", 1.5),
        ("'nan'::double", "nan"),
        ("null", None),
        ("true", True),
        ("date '2024-02-29'", "2024-02-29"),
        ("[1, 2]", "[1, 2]"),
    ],
)
def test_every_type_is_valid_json(command, value, expected):
    assert command("query", f"select {value} as value").json["rows"] == [{"value": expected}]


def test_markup_in_a_value_is_shown_as_it_is(command):
    out, _ = printed(command, "query", "select '[red]x[/red] :cat:' as value")
    assert "[red]x[/red] :cat:" in out


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("drop table population", "one statement that reads is expected"),
        ("select 1; select 2", "one statement that reads is expected"),
        ("", "is empty"),
        ("set threads = 1", "one statement that reads is expected"),
        ("copy population to 'out.csv'", "one statement that reads is expected"),
        ("select * from read_csv('/etc/passwd')", "file system operations are disabled"),
        ("select * from 'https://example.org/a.parquet'", "disabled"),
        ("select * from nothing", "Table with name nothing does not exist"),
        ("select (", "syntax error"),
    ],
)
def test_a_query_reads_the_release_and_nothing_else(command, text, reason):
    answer = command("query", text)
    assert answer.code == 2
    assert reason in answer.json["message"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("show", "nothing"), "it has access_municipality"),
        (("show", "population", "--year", "1900"), "it has 20"),
        (("show", "population", "--comarca", "11"), "population has no column comarca_id"),
        (("show", "population", "--release", "x"), "kept are:"),
        (("show", "population", "--year", "99999999999999999999"), "it has 20"),
        (("show", "population", "--limit", "99999999999999999999999"), "'--limit'"),
        (("query", "select 1", "--limit", "99999999999999999999999"), "'--limit'"),
        (("query", "select 1", "--csv"), "exclude each other"),
    ],
)
def test_a_mistake_is_named_with_what_there_is(command, arguments, reason):
    answer = command(*arguments)
    assert answer.code == 2
    assert reason in answer.json["message"]


def test_a_reader_that_has_enough_is_no_error(command):
    """As `head` is: it closes the pipe while most of the rows are still to come."""
    process = command.start("show", "service_history", "--csv")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("service_id,")
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(600) == 0


@pytest.mark.parametrize(
    "arguments", [("show", "population"), ("query", "select 1"), ("trace", "population")]
)
def test_a_damaged_file_of_the_release_is_named(command, first_release, tmp_path, arguments):
    command.lake = str(shutil.copytree(first_release.lake, tmp_path / "lake"))
    [release] = Path(command.lake).glob("releases/*")
    for name in ("catalunya.duckdb", "parquet/population.parquet"):
        (release / name).chmod(0o600)
        (release / name).write_bytes(b"x" * 5000)
    answer = command(*arguments)
    assert answer.code == 1
    assert release.name in answer.json["message"]
    assert "`catalunya lake check`" in answer.json["message"]
    assert "Traceback" not in answer.stderr


def test_a_lake_without_a_release_says_what_to_do(tmp_path):
    answer = Command(str(tmp_path / "lake"), None)("query", "select 1")
    assert answer.code == 2
    assert "`catalunya run`" in answer.json["message"]


def test_an_older_release_can_be_asked_for_and_nothing_is_written(twice):
    status = twice("status").json
    older = status["releases"][0]
    storage = open_lake(str(twice.lake))
    rows = select_rows(storage, "data_quality", Selection(), release_id=older, limit=None)
    assert rows.release.release_id == older
    assert query(storage, "from data_quality", limit=None).found > rows.found
    assert not list(Path(twice.lake, "releases").rglob("*.tmp"))
