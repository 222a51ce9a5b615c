"""What must hold when a source has hardly anything."""

from __future__ import annotations

import pytest

from .warehouse import Warehouse

pytestmark = pytest.mark.xdist_group("dbt")


def test_a_portal_without_names_of_comarques_gets_the_official_ones(smallest: Warehouse) -> None:
    assert smallest.rows("select comarca_id, name from marts.dim_comarca order by 1") == [
        ("11", "Baix Llobregat"),
        ("35", "Solsonès"),
        ("43", "Lluçanès"),
    ]


def test_a_former_comarca_is_known_without_an_older_list(smallest: Warehouse) -> None:
    assert smallest.column("select distinct municipality_match from marts.service_history") == [
        "name_in_former_comarca"
    ]


def test_coverage_is_dense_without_any_population(smallest: Warehouse) -> None:
    assert smallest.value("select count(*) from marts.coverage_municipality") == 3 * 4 * 5
    assert smallest.rows(
        "select sum(services), count(people_aged_65_over), count(places_per_100_aged_65_over_latest) "
        "from marts.coverage_municipality where ownership = 'all'"
    ) == [(1, 0, 0)]
