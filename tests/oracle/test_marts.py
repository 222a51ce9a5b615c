"""Every mart equals what plain Python makes of the same bytes, row for row and column for column."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

import pytest

from tests.project import ROOT

from .access import access_municipality
from .built import BuiltWarehouse
from .compare import differences, report
from .coverage import Coverage, years
from .history import Histories, dim_service_type
from .portals import LEFT, MERGED, SUCCESSOR
from .provenance import provenance
from .quality import data_quality, service_users
from .territory import dim_comarca, dim_municipality, gazetteer, population

pytestmark = pytest.mark.xdist_group("dbt")

Row = dict[str, Any]
COVERAGE = ("year", "service_group", "ownership")
KEYS = {
    "dim_municipality": ("municipality_id", "valid_from"),
    "dim_comarca": ("comarca_id",),
    "dim_service_type": ("service_type_id",),
    "population": ("municipality_id", "year"),
    "service_history": ("service_id", "valid_from"),
    "service_changes": ("service_id", "changed_on", "change"),
    "coverage_municipality": ("municipality_id", *COVERAGE),
    "coverage_comarca": ("comarca_id", *COVERAGE),
    "coverage_catalonia": COVERAGE,
    "access_municipality": ("municipality_id", "service_group"),
    "data_quality": ("dataset_id", "snapshot_id"),
    "service_users": ("comarca_id", "year"),
    "residence_places_control": ("year", "comarca_id", "ownership"),
    "places_control_catalonia": ("year", "facility", "ownership"),
    "provenance": ("mart", "dataset_id", "role", "column_name", "value", "snapshot_id"),
}
MARTS = [mart for mart in KEYS if (ROOT / "dbt" / "mart" / "models" / "marts" / f"{mart}.sql").is_file()]


@pytest.fixture(scope="module")
def plain(built: BuiltWarehouse) -> dict[str, Callable[[], Iterable[Row]]]:
    """The plain computation of each mart."""
    return plain_computation(built)


def plain_computation(built: BuiltWarehouse) -> dict[str, Callable[[], Iterable[Row]]]:
    """By the name of the mart."""
    kept = built.kept
    heeds_postal_code = "postal_code_contradicts" in built.columns("service_history")
    explains_differences = "difference_reason" in built.columns("residence_places_control")
    places = gazetteer(kept)
    people = list(population(kept))
    histories = Histories(kept, places, heeds_postal_code=heeds_postal_code)
    coverage = Coverage(kept, histories.service_history(), people)
    return {
        "dim_municipality": lambda: dim_municipality(kept),
        "dim_comarca": lambda: dim_comarca(kept),
        "dim_service_type": lambda: dim_service_type(kept),
        "population": lambda: people,
        "service_history": histories.service_history,
        "service_changes": histories.service_changes,
        "coverage_municipality": coverage.municipalities,
        "coverage_comarca": coverage.comarques,
        "coverage_catalonia": coverage.catalonia,
        "access_municipality": lambda: access_municipality(
            kept, histories.service_history(), coverage.municipalities()
        ),
        "data_quality": lambda: data_quality(
            kept,
            places,
            coverage.residence_places_control() if explains_differences else [],
            heeds_postal_code=heeds_postal_code,
        ),
        "service_users": lambda: service_users(kept),
        "residence_places_control": coverage.residence_places_control,
        "places_control_catalonia": coverage.places_control_catalonia,
        "provenance": lambda: provenance(kept, years(kept, people), people, coverage.municipalities()),
    }


@pytest.mark.parametrize("mart", MARTS)
def test_a_mart_equals_the_plain_computation(
    built: BuiltWarehouse, plain: dict[str, Callable[[], Iterable[Row]]], mart: str
) -> None:
    columns = built.columns(mart)
    found = built.rows(f"select * from marts.{mart}")
    told = differences(mart, KEYS[mart], columns, found, plain[mart]())
    assert not told, report(told)
    assert found


def test_coverage_equals_the_plain_computation_when_one_that_left_the_list_has_no_people_in_any_year(
    thin: BuiltWarehouse,
) -> None:
    plain = plain_computation(thin)
    for mart in ("coverage_municipality", "coverage_comarca", "coverage_catalonia"):
        found = thin.rows(f"select * from marts.{mart}")
        told = differences(mart, KEYS[mart], thin.columns(mart), found, plain[mart]())
        assert not told, report(told)
    assert thin.rows(
        "select year, municipalities_without_population, count(places_per_100_aged_65_over) from marts.coverage_comarca "
        "where comarca_id = '25' and year > 2018 group by all order by year"
    ) == [*((year, 1, 0) for year in range(2019, 2026)), (2026, 14, 0), (2027, 13, 0)]


def test_no_mart_goes_without_a_plain_computation(built: BuiltWarehouse) -> None:
    found = built.rows("select table_name from information_schema.tables where table_schema = 'marts'")
    assert {name for (name,) in found} <= set(KEYS)


def test_the_snapshots_hold_every_case_that_the_marts_tell_apart(built: BuiltWarehouse) -> None:
    changes = {
        "opened",
        "closed",
        "reopened",
        "capacity_changed",
        "moved",
        "owner_changed",
        "type_changed",
        "renamed",
    }
    matches = {
        "name_in_comarca",
        "name_in_former_comarca",
        "former_name",
        "name_without_article",
        "name_unique",
        "unmatched",
    }
    found = {
        column: {value for (value,) in built.rows(f"select distinct {column} from marts.{mart}")}
        for mart, column in [
            ("service_changes", "change"),
            ("service_history", "municipality_match"),
            ("service_history", "unmatched_reason"),
            ("service_history", "basis"),
        ]
    }
    assert found["change"] == changes
    assert found["municipality_match"] == matches
    assert found["unmatched_reason"] >= {None, "no_name", "unknown_name", "ambiguous_name"}
    assert found["basis"] == {"observed", "inscription"}
    assert built.rows("select count(distinct service_id) > 11000 from marts.service_history") == [(True,)]
    assert len(built.kept.counting("social_services")) == 6
    assert len(built.kept.counting("municipalities")) == 3
    quality = (
        "select dataset_id, sum(rows_carried_forward) > 0, sum(values_invalid) > 0 from marts.data_quality"
    )
    assert set(built.rows(f"{quality} group by dataset_id")) >= {
        ("social_services", True, True),
        ("municipalities", True, True),
        ("population", True, False),
    }
    first, second, *_ = built.kept.counting("social_services")
    assert first.typed.unusable & {(row["service_id"],) for row in second.typed.rows}


def test_the_snapshots_hold_municipalities_that_were_abolished_and_years_that_are_not_whole(
    built: BuiltWarehouse,
) -> None:
    assert built.rows(
        "select distinct municipality_id, municipality_match, comarca_id from marts.service_history "
        f"where stated_municipality_name = 'Palmerola' or municipality_id in ('{LEFT}', '{MERGED}') order by all"
    ) == [(SUCCESSOR, "former_name", "31"), (LEFT, "former_name", "25")]
    aged = "select sum(people_aged_65_over) from marts.population where year = 2019 and municipality_id"
    assert built.rows(
        f"select distinct people_aged_65_over - ({aged} = '{SUCCESSOR}') from marts.coverage_municipality "
        f"where municipality_id = '{SUCCESSOR}' and year = 2019"
    ) == [(11,)]
    assert built.rows(
        f"select count(*) from marts.coverage_municipality where municipality_id = '{MERGED}'"
    ) == [(0,)]
    assert built.rows(
        "select year, municipalities_without_population, count(places_per_100_aged_65_over) > 0, "
        "population_year_latest from marts.coverage_catalonia where year between 2022 and 2026 group by all order by 1"
    ) == [
        (2022, 0, True, 2022),
        (2023, 0, True, 2023),
        (2024, 1, False, 2023),
        (2025, 0, True, 2025),
        (2026, 947, False, 2025),
    ]
    assert built.rows("select distinct division_on from marts.coverage_comarca") == [(date(2026, 1, 20),)]


def test_a_population_that_misses_its_published_total_is_warned_of_in_one_place(
    built: BuiltWarehouse,
) -> None:
    findings = built.audit().findings
    told = [(f.figures["published"], f.figures["computed"]) for f in findings if f.gate == "control"]
    assert sorted(told) == built.rows(
        "select published, computed from staging.controls join marts.data_quality using (dataset_id, snapshot_id) "
        "where is_newest and published <> computed order by all"
    )
    assert told
    # The gate `figures` compares one snapshot with another; all else that names the total is the control.
    others = [
        f for f in findings if f.gate != "figures" and "population" in f.message and "total" in f.message
    ]
    assert len(others) == len(told)
    assert not [w for staged in built.candidate.staged for w in staged.warnings if "sum to" in w]
