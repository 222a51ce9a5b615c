"""The dbt project itself: its tests notice what they are for, and its documentation is whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from catalunya.datasets.loader import load
from catalunya.warehouse import dbt, dbt_models
from tests.project import ROOT

from .warehouse import Warehouse, kept_models, run_tests

pytestmark = pytest.mark.xdist_group("dbt")

BROKEN = [
    "unique_combination_of_columns_dim_comarca_comarca_id",
    "periods_do_not_overlap_dim_municipality_municipality_id",
    "periods_do_not_overlap_service_history_service_id",
    "relationships_service_history_municipality_id__municipality_id__ref_dim_municipality_",
    "coverage_sums_agree",
    "coverage_comarca_all_is_the_sum",
    "coverage_municipality_all_is_the_sum",
    "coverage_counts_every_service_once",
    "rows_are_all_accounted_for",
    "access_shares_out_every_place_once",
    "every_municipality_has_a_row_per_category",
]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_fails_its_test(corrupted: Warehouse, name: str) -> None:
    assert corrupted.results[name] == "fail"


def test_duckdb_alone_builds_the_tables_that_dbt_builds(history: Warehouse, tmp_path: Path) -> None:
    """Every seed, view and table, row for row, with the types of its columns; each is built again from its staged rows."""
    copy = tmp_path / dbt.CANDIDATE
    relations = history.rows(
        "select table_schema, table_name, table_type from information_schema.tables order by all"
    )
    shutil.copy(history.path, copy)
    with duckdb.connect(copy) as con:
        for schema in ("marts", "intermediate", "reference"):
            con.execute(f"drop schema {schema} cascade")
        for schema, name, kind in relations:
            if kind == "VIEW":
                con.execute(f"drop view {schema}.{name}")
    with duckdb.connect(copy) as con:
        outcome = dbt_models.run_models(con, kept_models(), threads=2)
        con.execute("set TimeZone = 'UTC'")
        con.execute(f"attach '{history.path}' as of_dbt (read_only)")
        assert {result.name: result.status for result in outcome.results} == {
            name: status for name, status in history.results.items() if status == "success"
        }
        for schema, name, _ in relations:
            here, there = f"candidate.{schema}.{name}", f"of_dbt.{schema}.{name}"
            assert con.execute(f"describe {here}").fetchall() == con.execute(f"describe {there}").fetchall()
            rows = f"select * from {here} except all select * from {there}"
            missing = f"select * from {there} except all select * from {here}"
            assert con.execute(f"({rows}) union all ({missing})").fetchall() == [], name


RULES = {
    "coverage_catalonia": "basis is not accepted",
    "population": "people is negative",
    "dim_municipality": "latitude is out of range",
    "service_changes": "change is not accepted",
    "dim_service_type": "name is null",
}


@pytest.fixture(scope="module")
def tested(corrupted: Warehouse) -> tuple[dbt.NodeResult, ...]:
    """The same tests, compiled by dbt and run by DuckDB alone, as the audit runs them."""
    with duckdb.connect(corrupted.path, read_only=True) as con:
        con.execute("set TimeZone = 'UTC'")
        return run_tests(con)


def test_duckdb_alone_gives_every_test_the_result_that_dbt_gives_it(
    corrupted: Warehouse, tested: tuple[dbt.NodeResult, ...]
) -> None:
    assert {result.name.split(" (")[0]: result.status for result in tested} == {
        name: status for name, status in corrupted.results.items() if status != "success"
    }
    assert {"pass", "warn", "fail"} == {result.status for result in tested}


@pytest.mark.parametrize(("model", "rule"), RULES.items())
def test_a_broken_rule_of_columns_is_named(tested: tuple[dbt.NodeResult, ...], model: str, rule: str) -> None:
    [found] = [result for result in tested if result.name == f"valid_columns_{model} ({rule})"]
    assert found.status == "fail"
    assert found.node_id.startswith(f"test.mart.valid_columns_{model}.")
    assert found.node_id.endswith(f" {rule}")
    assert found.failures >= len(found.examples) >= 1
    assert all(example.startswith(f"rule={rule}") for example in found.examples)


def test_a_correction_that_is_no_longer_needed_is_warned_of(history: Warehouse, corrupted: Warehouse) -> None:
    assert history.results["corrections_are_still_needed"] == "pass"
    assert corrupted.results["corrections_are_still_needed"] == "warn"


def test_a_difference_beyond_tolerance_only_warns(corrupted: Warehouse) -> None:
    assert corrupted.results["residence_places_agree_with_the_published_table"] == "warn"


def test_a_difference_in_an_observed_year_of_catalonia_is_warned_of(
    history: Warehouse, corrupted: Warehouse
) -> None:
    assert history.results["places_of_catalonia_agree_with_the_published_table"] == "pass"
    assert corrupted.results["places_of_catalonia_agree_with_the_published_table"] == "warn"


def test_every_model_states_its_grain_and_describes_every_column(history: Warehouse) -> None:
    """Intermediate models do not repeat columns of the register, which `stg_social_services` describes."""
    manifest = history.manifest
    register = {column.name for column in load(ROOT / "datasets")["social_services"].columns}
    models = {n["name"]: n for n in manifest["nodes"].values() if n["resource_type"] == "model"}
    for name, node in models.items():
        assert node["description"].startswith("One row per "), name
        schema = node["schema"]
        actual = history.column(
            "select column_name from information_schema.columns "
            f"where table_schema = '{schema}' and table_name = '{name}' order by ordinal_position"
        )
        described = set(node["columns"])
        assert list(node["columns"]) == actual or schema != "marts", name
        assert described <= set(actual), name
        assert set(actual) - described <= (register if name.startswith("int_service_") else set()), name
        assert all(column["description"].strip() for column in node["columns"].values()), name


def marts_of(manifest: dict[str, Any]) -> dict[str, Any]:
    return {
        key: node
        for key, node in manifest["nodes"].items()
        if node["resource_type"] == "model" and node["schema"] == "marts"
    }


def test_the_exposure_names_every_mart(history: Warehouse) -> None:
    [release] = history.manifest["exposures"].values()
    assert set(release["depends_on"]["nodes"]) == set(marts_of(history.manifest))


def test_every_mart_declares_the_snapshots_of_datasets_that_it_depends_on(history: Warehouse) -> None:
    for key, node in marts_of(history.manifest).items():
        declared = node["config"]["meta"]["provenance"]
        datasets = {
            name for entry in declared for name in ([entry["dataset"]] if entry["dataset"] != "*" else [])
        }
        assert declared
        assert datasets <= upstream_sources(history.manifest, key), key
        in_table = history.column(f"select distinct role from marts.provenance where mart = '{node['name']}'")
        assert set(in_table) == {entry["role"] for entry in declared}, key


def upstream_sources(manifest: dict[str, Any], key: str) -> set[str]:
    parents = manifest["parent_map"].get(key, [])
    own = {parent.rsplit(".", 1)[-1] for parent in parents if parent.startswith("source.")}
    return own.union(*(upstream_sources(manifest, parent) for parent in parents))
