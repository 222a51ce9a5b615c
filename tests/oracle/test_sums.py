"""Coverage has each territory once and agrees at every level; and dbt's tests notice when it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from catalunya.warehouse import dbt
from catalunya.warehouse.code import code_digest
from tests.project import ROOT

from .built import BuiltWarehouse

pytestmark = pytest.mark.xdist_group("dbt")

SUMS = [
    "coverage_sums_agree",
    "coverage_has_every_territory_once",
    "coverage_counts_every_service_once",
    "coverage_municipality_all_is_the_sum",
    "coverage_comarca_all_is_the_sum",
    "coverage_catalonia_all_is_the_sum",
]
ONE = "year = 2024 and service_group = 'day_centre' and ownership = 'public'"
NOBODY = f"municipality_id = (select min(municipality_id) from marts.coverage_municipality where {ONE} and places = 0)"
LAST = "year = (select max(year) from marts.coverage_catalonia) and service_group = 'day_centre'"
BROKEN = {
    "a municipality without services is missing": (
        f"delete from marts.coverage_municipality where {ONE} and {NOBODY}",
        "coverage_has_every_territory_once",
    ),
    "a municipality without services is there twice": (
        f"insert into marts.coverage_municipality select * from marts.coverage_municipality where {ONE} and {NOBODY}",
        "coverage_has_every_territory_once",
    ),
    "one municipality stands in the place of another": (
        f"update marts.coverage_municipality set municipality_id = '080193' where {ONE} and {NOBODY}",
        "coverage_has_every_territory_once",
    ),
    "a year is missing at every level": (
        "delete from marts.coverage_municipality where year = 2024; delete from marts.coverage_comarca where year = 2024;"
        "delete from marts.coverage_catalonia where year = 2024",
        "coverage_has_every_territory_once",
    ),
    "a comarca has a place more": (
        f"update marts.coverage_comarca set places = places + 1 where comarca_id = '11' and {ONE}",
        "coverage_sums_agree",
    ),
    "a comarca has a service more and Catalonia too": (
        f"update marts.coverage_comarca set services = services + 1 where comarca_id = '11' and {ONE};"
        f"update marts.coverage_catalonia set services = services + 1 where {ONE}",
        "coverage_sums_agree",
    ),
    "a municipality has a person more": (
        f"update marts.coverage_municipality set people_aged_65_over = people_aged_65_over + 1 "
        f"where municipality_id = '080193' and {ONE}",
        "coverage_sums_agree",
    ),
    "all owners of a municipality are not their sum": (
        "update marts.coverage_municipality set services = services + 1 where municipality_id = '080193' "
        "and ownership = 'all'",
        "coverage_municipality_all_is_the_sum",
    ),
    "all owners of a comarca are not their sum": (
        "update marts.coverage_comarca set places = places + 1 where comarca_id = '11' and ownership = 'all'",
        "coverage_comarca_all_is_the_sum",
    ),
    "all owners of Catalonia are not their sum": (
        "update marts.coverage_catalonia set places = places - 1 where ownership = 'all'",
        "coverage_catalonia_all_is_the_sum",
    ),
    "a service is lost at every level": (
        f"update marts.coverage_catalonia set services = services - 1 where {LAST} and ownership in ('all', 'public')",
        "coverage_counts_every_service_once",
    ),
}


@pytest.fixture(scope="module")
def queries(built: BuiltWarehouse) -> dict[str, str]:
    """The compiled SQL of the tests that sum: its rows are what is wrong."""
    project, digest = ROOT / "dbt" / "mart", code_digest(ROOT)
    target = replace(dbt.DUCKDB, variables=(("CATALUNYA_CANDIDATE", str(built.path)),))
    command = ["compile", "--select", *SUMS]
    dbt.invoke(command, project=project, digest=digest, target=target, sample=lambda query, most: ())
    nodes = dbt.parse(project, digest, target).manifest.nodes.values()
    return {node.name: node.compiled_code for node in nodes if node.name in SUMS}


@pytest.fixture(scope="module")
def opened(
    built: BuiltWarehouse, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A copy of the warehouse to break; whoever breaks it rolls it back."""
    path = tmp_path_factory.mktemp("broken") / built.path.name
    path.write_bytes(Path(built.path).read_bytes())
    with duckdb.connect(path) as con:
        yield con


def test_each_year_has_every_municipality_with_figures_43_comarques_and_none_twice(
    built: BuiltWarehouse,
) -> None:
    """947 municipalities are in the newest list, and one left it without a successor."""
    for mart, territory, count in (
        ("coverage_municipality", "municipality_id", 948),
        ("coverage_comarca", "comarca_id", 43),
    ):
        found = built.rows(
            f"select year, count(*), count(distinct {territory}) from marts.{mart} "
            "group by year, service_group, ownership"
        )
        assert {(total, different) for _, total, different in found} == {(count, count)}
        assert {year for year, *_ in found} == set(range(2019, 2028))
        assert len(found) == 9 * 4 * 5


def test_sums_agree_at_each_level(opened: duckdb.DuckDBPyConnection, queries: dict[str, str]) -> None:
    assert set(queries) == set(SUMS)
    wrong = {name: opened.execute(query).fetchall() for name, query in queries.items()}
    assert wrong == {name: [] for name in SUMS}


@pytest.mark.parametrize("what", BROKEN)
def test_sums_that_disagree_fail_their_test(
    opened: duckdb.DuckDBPyConnection, queries: dict[str, str], what: str
) -> None:
    command, test = BROKEN[what]
    opened.execute("begin")
    try:
        opened.execute(command)
        assert opened.execute(queries[test]).fetchall()
    finally:
        opened.execute("rollback")
