"""A difference between two engines is found, whatever kind it is, and named with key, column and both values."""

from __future__ import annotations

import duckdb
import pytest

from catalunya.errors import UsageError
from catalunya.operations.parity import SHOWN, compare, parse_engines


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    for schema in ("one", "other"):
        connection.execute(f"create schema {schema}")
        connection.execute(
            f"create table {schema}.places (id varchar, year integer, places bigint, share double)"
        )
        connection.execute(
            f"insert into {schema}.places values ('01', 2024, 10, 1.5), ('01', 2025, null, 0.1), ('02', null, 3, null)"
        )
    return connection


def found(con: duckdb.DuckDBPyConnection, key: tuple[str, ...] = ("id", "year")) -> list[str]:
    count, differences = compare(con, "places", key, ("one", "other"))
    assert count >= len(differences)
    return [str(difference) for difference in differences]


def test_equal_tables_have_no_difference_whatever_the_order_of_rows(con):
    con.execute("create or replace table other.places as from other.places order by id desc, year")
    assert found(con) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            "update other.places set places = 11 where year = 2024",
            "places (id=01, year=2024) places: one has 10, other has 11",
        ),
        (
            "update other.places set share = 0.30000000000000004 where year = 2025",
            "places (id=01, year=2025) share: one has 0.1, other has 0.30000000000000004",
        ),
        (
            "update other.places set places = 0 where year = 2025",
            "places (id=01, year=2025) places: one has None, other has 0",
        ),
        (
            "update other.places set places = null where id = '02'",
            "places (id=02, year=None) places: one has 3, other has None",
        ),
        (
            "delete from other.places where id = '02'",
            "places (id=02, year=None) the whole row: one has it, other has nothing",
        ),
        (
            "insert into other.places values ('03', 2024, 1, 1)",
            "places (id=03, year=2024) the whole row: one has nothing, other has it",
        ),
        (
            "insert into other.places select * from other.places where year = 2024",
            "places () rows that are there more than once: one has 3 rows, other has 4 rows",
        ),
        (
            "alter table other.places alter places type integer",
            "places () the columns: one has id VARCHAR, year INTEGER, places BIGINT, share DOUBLE, "
            "other has id VARCHAR, year INTEGER, places INTEGER, share DOUBLE",
        ),
    ],
)
def test_each_kind_of_difference_is_named(con, change, sentence):
    con.execute(change)
    assert found(con) == [sentence]


def test_without_a_key_rows_are_matched_whole(con):
    con.execute("update other.places set places = 11 where year = 2024")
    assert [sentence.split(":")[0] for sentence in found(con, ())] == [
        "places (id=01, year=2024, places=10, share=1.5) the whole row",
        "places (id=01, year=2024, places=11, share=1.5) the whole row",
    ]


def test_of_many_differences_the_first_are_named_and_all_are_counted(con):
    con.execute("insert into one.places select n, 2000, n, n from range(100, 200) as t (n)")
    count, named = compare(con, "places", ("id", "year"), ("one", "other"))
    assert (count, len(named)) == (100, SHOWN)


@pytest.mark.parametrize("text", ["duckdb", "duckdb,duckdb", "duckdb,spark", ""])
def test_engines_are_two_known_ones_at_least(text):
    with pytest.raises(UsageError, match="--engines"):
        parse_engines(text)
    assert parse_engines("trino, duckdb") == ("trino", "duckdb")
