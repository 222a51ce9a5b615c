"""What a release says of itself, for demo data and for real data."""

from __future__ import annotations

import csv
from pathlib import Path

import duckdb
import pytest

from catalunya import publish
from catalunya.publication import catalogue
from catalunya.warehouse.dbt import Mart, MartColumn
from tests.factories import DEFINITIONS

MART = Mart("population", "Inhabitants.", (MartColumn("year", "integer", "Year."),))


class Tables:
    """A workspace with one table."""

    def relation(self, con: duckdb.DuckDBPyConnection, mart: Mart) -> str:
        return "(values (2024), (2025)) as t(year)"


@pytest.mark.parametrize("demo", [True, False])
def test_csv_schema_and_dictionary_have_the_demo_column_for_demo_data_alone(tmp_path: Path, demo: bool):
    rows, marts = publish._export(Tables(), (MART,), tmp_path, demo=demo)  # type: ignore[arg-type]
    with (tmp_path / "csv" / "population.csv").open(newline="") as file:
        header, *found = csv.reader(file)
    wanted = ["year", "demo_notice"] if demo else ["year"]
    assert (rows, header) == ({"population": 2}, wanted)
    assert found == [[year, *(["DEMO DATA: not real"] if demo else [])] for year in ("2024", "2025")]
    package = catalogue.data_package(
        marts,
        DEFINITIONS.values(),
        release_id="x",
        created="y",
        files={"csv/population.csv": (1, "z")},
        demo=demo,
    )
    assert [field["name"] for field in package["resources"][0]["schema"]["fields"]] == wanted
    text = catalogue.dictionary(marts, demo=demo)
    assert ("demo_notice" in text) == ("DEMO" in text) == demo
    assert duckdb.read_parquet(str(tmp_path / "parquet" / "population.parquet")).columns == ["year"]
