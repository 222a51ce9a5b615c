"""Municipalities that were abolished, years that are not whole, and the division that a published table is on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from .warehouse import Row, Warehouse, municipality, people, query_of, service

pytestmark = pytest.mark.xdist_group("dbt")

LIST = [
    municipality("080142", "Aiguafreda", "24", "Osona"),
    municipality("081496", "Olost", "24", "Osona"),
    municipality("080962", "Granollers", "41", "Vallès Oriental"),
    municipality("080015", "Alella", "21", "Maresme"),
]
MERGED = municipality("082598", "Vila Antiga, la", "41", "Vallès Oriental")
LEFT = municipality("080237", "Bola", "21", "Maresme")
SUCCESSION = ("082598", "Vila Antiga, la", "081496", "2024-06-01", "a decree")
WARNING = "municipalities_that_left_the_list_have_a_successor"
REGISTER = [
    service("FREDA", municipality_name="Aiguafreda", comarca_name="Osona", places=60),
    service("OLOST", municipality_name="Olost", comarca_name="Osona", places=100),
    service("MERGED", municipality_name="la Vila Antiga", comarca_name="Vallès Oriental", places=7),
    service("LEFT", municipality_name="Bola", comarca_name="Maresme", places=11),
    service("NOWHERE", municipality_name="Enlloc", comarca_name="Garraf", places=900),
]


def warehouse_of(
    folder: Path,
    work: Path,
    lists: Iterable[tuple[str, list[Row]]],
    population: list[Row],
    successions: Iterable[tuple[str, ...]] = (),
    updated_on: date | None = None,
) -> Warehouse:
    """A warehouse of one register, with rows added to the seed of successions."""
    warehouse = Warehouse(folder / "candidate.duckdb", work)
    for moment, rows in lists:
        warehouse.add("municipalities", moment, rows, updated_on=updated_on)
    warehouse.add("social_services", "2024-01-10", REGISTER)
    warehouse.add("social_services", "2026-03-10", REGISTER)
    warehouse.add("population", "2026-01-02", population)
    for dataset_id in ("boundaries", "service_users"):
        warehouse.add(dataset_id, "2026-01-02", [])
    warehouse.seed()
    return rebuilt(warehouse, successions)


def rebuilt(warehouse: Warehouse, successions: Iterable[tuple[str, ...]] = ()) -> Warehouse:
    """The warehouse with the snapshots that were added, and with these rows added to the seed of successions."""
    with duckdb.connect(warehouse.path) as con:
        for row in successions:
            con.execute("insert into reference.municipality_successions values (?, ?, ?, ?, ?)", row)
    return warehouse.build(seeds=False)


def coverage(warehouse: Warehouse, mart: str, which: str, *columns: str) -> list[tuple[Any, ...]]:
    """Columns of the residences of all owners, by year."""
    return warehouse.rows(
        f"select year, {', '.join(columns)} from marts.{mart} where {which} "
        "and service_group = 'assisted_residence' and ownership = 'all' order by year"
    )


POPULATION = [
    people("080142", 2023, 50), people("081496", 2023, 200), people("080962", 2023, 900), people("080015", 2023, 400),
    people("082598", 2023, 30), people("080237", 2023, 20),
    people("080142", 2024, 51), people("081496", 2024, 210), people("080962", 2024, 910), people("080015", 2024, 410),
    people("082598", 2024, 31), people("080237", 2024, 21),
    people("080142", 2025, 52), people("081496", 2025, 250), people("080962", 2025, 920), people("080015", 2025, 430),
    people("080962", 2026, 930),
]  # fmt: skip


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory, work: Path) -> Warehouse:
    """One municipality that is merged into another, by the seed, and one that left the list."""
    lists = [("2024-01-01", [*LIST, MERGED, LEFT]), ("2026-02-01", LIST)]
    folder = tmp_path_factory.mktemp("merged")
    return warehouse_of(folder, work, lists, POPULATION, [SUCCESSION], date(2025, 11, 30))


def test_people_of_a_merged_municipality_count_in_its_successor_before_the_merger(merged: Warehouse) -> None:
    assert coverage(
        merged, "coverage_municipality", "municipality_id = '081496'", "people_aged_65_over", "places"
    ) == [(2023, 230, 107), (2024, 241, 107), (2025, 250, 107), (2026, None, 107)]
    assert coverage(merged, "coverage_municipality", "municipality_id = '082598'", "places") == []
    assert coverage(merged, "coverage_comarca", "comarca_id = '24'", "people_aged_65_over", "places") == [
        (2023, 280, 167), (2024, 292, 167), (2025, 302, 167), (2026, None, 167),
    ]  # fmt: skip


def test_services_of_a_merged_municipality_are_its_successors_in_all_their_history(merged: Warehouse) -> None:
    assert merged.rows(
        "select distinct municipality_id, comarca_id, municipality_match, comarca_contradicts "
        "from marts.service_history where service_id = 'MERGED'"
    ) == [("081496", "24", "former_name", False)]


def test_a_municipality_that_left_the_list_stays_in_its_comarca_and_in_catalonia(merged: Warehouse) -> None:
    assert merged.rows(
        "select distinct municipality_id, comarca_id from marts.service_history where service_id = 'LEFT'"
    ) == [("080237", "21")]
    assert coverage(merged, "coverage_comarca", "comarca_id = '21'", "people_aged_65_over", "places") == [
        (2023, 420, 11), (2024, 431, 11), (2025, 430, 11), (2026, None, 11),
    ]  # fmt: skip
    assert coverage(merged, "coverage_catalonia", "true", "people_aged_65_over", "places", "places_unmatched") == [
        (2023, 1600, 178, 900), (2024, 1633, 178, 900), (2025, 1652, 178, 900), (2026, 930, 178, 900),
    ]  # fmt: skip
    assert coverage(merged, "coverage_municipality", "municipality_id = '080237'", "places") == [
        (2023, 11), (2024, 11), (2025, 11), (2026, 11),
    ]  # fmt: skip


def test_a_municipality_that_left_the_list_is_warned_of_by_name(merged: Warehouse) -> None:
    assert merged.results[WARNING] == "warn"
    assert merged.failures[WARNING] == 1
    assert merged.rows(query_of(WARNING)) == [("Bola", "080237", "Maresme", date(2026, 2, 1), None)]


def test_without_a_row_in_the_seed_nothing_of_the_past_is_lost(
    tmp_path_factory: pytest.TempPathFactory, work: Path, merged: Warehouse
) -> None:
    lists = [("2024-01-01", [*LIST, MERGED, LEFT]), ("2026-02-01", LIST)]
    unknown = warehouse_of(tmp_path_factory.mktemp("unknown"), work, lists, POPULATION)
    columns = ("people_aged_65_over", "places", "places_unmatched")
    assert coverage(unknown, "coverage_catalonia", "true", *columns) == coverage(
        merged, "coverage_catalonia", "true", *columns
    )
    assert coverage(unknown, "coverage_comarca", "comarca_id = '41'", "people_aged_65_over", "places") == [
        (2023, 930, 7), (2024, 941, 7), (2025, 920, 7), (2026, 930, 7),
    ]  # fmt: skip
    assert unknown.failures[WARNING] == 2


def test_a_municipality_that_left_the_list_and_then_the_population_of_all_years_is_missing_in_its_comarca(
    tmp_path_factory: pytest.TempPathFactory, work: Path
) -> None:
    """It is missing in the years that began before it left the list, until the seed names its successor."""
    second = municipality("080237", "Bola", "41", "Vallès Oriental")
    gone = {second["municipality_id"], MERGED["municipality_id"]}
    lists = [("2024-01-01", [*LIST, MERGED, second]), ("2025-06-01", LIST)]
    warehouse = warehouse_of(tmp_path_factory.mktemp("gone"), work, lists, POPULATION)
    columns = (
        "people_aged_65_over", "municipalities_without_population", "places_per_100_aged_65_over",
        "population_year_latest", "places_per_100_aged_65_over_latest",
    )  # fmt: skip

    def of_comarca() -> list[tuple[Any, ...]]:
        return coverage(warehouse, "coverage_comarca", "comarca_id = '41'", *columns)

    assert of_comarca() == [
        (2023, 950, 0, 1.8947, 2023, 1.8947),
        (2024, 962, 0, 1.8711, 2024, 1.8711),
        (2025, 920, 0, 1.9565, 2025, 1.9565),
        (2026, 930, 0, 1.9355, 2026, 1.9355),
    ]
    staying = [row for row in POPULATION if row["municipality_id"] not in gone]
    warehouse.add("population", "2026-01-03", staying)
    rebuilt(warehouse)
    assert warehouse.failures[WARNING] == 2
    assert of_comarca() == [
        (2023, 900, 2, None, None, None),
        (2024, 910, 2, None, None, None),
        (2025, 920, 2, None, None, None),
        (2026, 930, 0, 1.9355, 2026, 1.9355),
    ]
    assert coverage(
        warehouse,
        "coverage_catalonia",
        "true",
        "municipalities_without_population",
        "places_per_100_aged_65_over",
        "population_year_latest",
    ) == [(2023, 2, None, None), (2024, 2, None, None), (2025, 2, None, None), (2026, 3, None, None)]
    rebuilt(warehouse, [(code, "Abolished", "080962", "2025-03-01", "a decree") for code in sorted(gone)])
    assert of_comarca() == [
        (2023, 900, 0, 2.0, 2023, 2.0),
        (2024, 910, 0, 1.978, 2024, 1.978),
        (2025, 920, 0, 1.9565, 2025, 1.9565),
        (2026, 930, 0, 1.9355, 2026, 1.9355),
    ]


def test_a_year_of_one_municipality_alone_is_no_year_of_its_comarca_or_of_catalonia(
    merged: Warehouse,
) -> None:
    rates = (
        "municipalities_without_population", "places_per_100_aged_65_over", "population_year_latest",
        "people_aged_65_over_latest", "places_per_100_aged_65_over_latest",
    )  # fmt: skip
    assert coverage(merged, "coverage_catalonia", "true", *rates)[2:] == [
        (2025, 0, 10.7748, 2025, 1652, 10.7748),
        (2026, 3, None, 2025, 1652, 10.7748),
    ]
    assert coverage(merged, "coverage_comarca", "comarca_id = '41'", *rates)[2:] == [
        (2025, 0, 0.0, 2025, 920, 0.0),
        (2026, 0, 0.0, 2026, 930, 0.0),
    ]
    assert merged.rows(
        "select municipality_id, population_year_latest, people_aged_65_over_latest "
        "from marts.access_municipality where service_group = 'assisted_residence' order by 1"
    ) == [("080015", 2025, 430), ("080142", 2025, 52), ("080962", 2026, 930), ("081496", 2025, 250)]


def test_a_year_is_not_whole_when_a_merged_municipality_lacks_its_people(
    tmp_path_factory: pytest.TempPathFactory, work: Path
) -> None:
    lists = [("2024-01-01", [*LIST, MERGED]), ("2026-02-01", LIST)]
    partial = [row for row in POPULATION if (row["municipality_id"], row["year"]) != ("082598", 2024)]
    warehouse = warehouse_of(tmp_path_factory.mktemp("partial"), work, lists, partial, [SUCCESSION])
    assert warehouse.results[WARNING] == "pass"
    assert coverage(
        warehouse,
        "coverage_comarca",
        "comarca_id = '24'",
        "people_aged_65_over",
        "municipalities_without_population",
        "places_per_100_aged_65_over",
        "population_year_latest",
    ) == [
        (2023, 280, 0, 59.6429, 2023),
        (2024, 261, 1, None, 2023),
        (2025, 302, 0, 55.298, 2025),
        (2026, None, 2, None, 2025),
    ]
    assert coverage(
        warehouse, "coverage_municipality", "municipality_id = '081496'", "places_per_100_aged_65_over"
    )[1] == (2024, None)


def test_a_municipality_that_is_back_in_the_list_is_its_own_again_whatever_the_seed_says(
    tmp_path_factory: pytest.TempPathFactory, work: Path
) -> None:
    lists = [("2024-01-01", LIST), ("2026-02-01", [*LIST, MERGED])]
    warehouse = warehouse_of(tmp_path_factory.mktemp("back"), work, lists, POPULATION, [SUCCESSION])
    assert warehouse.rows(
        "select distinct municipality_id, municipality_match from marts.service_history where service_id = 'MERGED'"
    ) == [("082598", "name_in_comarca")]
    assert coverage(warehouse, "coverage_municipality", "municipality_id = '081496'", "people_aged_65_over")[
        0
    ] == (2023, 200)


def test_a_succession_in_two_steps_has_to_name_the_last_successor(
    tmp_path_factory: pytest.TempPathFactory, work: Path
) -> None:
    warehouse = Warehouse(tmp_path_factory.mktemp("steps") / "candidate.duckdb", work)
    warehouse.dbt("seed", "--select", "municipality_successions")
    with duckdb.connect(warehouse.path) as con:
        con.execute(
            "insert into reference.municipality_successions values ('1', 'A', '2', '2020-01-01', 's')"
        )
        con.execute(
            "insert into reference.municipality_successions values ('2', 'B', '3', '2021-01-01', 's')"
        )
    name = "successors_are_not_abolished_themselves"
    assert warehouse.dbt("test", "--select", name) == {name: "fail"}


def test_the_division_is_of_the_publishers_day_where_it_gives_one(
    merged: Warehouse, smallest: Warehouse
) -> None:
    for mart in ("dim_comarca", "coverage_municipality", "coverage_comarca", "coverage_catalonia"):
        assert merged.column(f"select distinct division_on from marts.{mart}") == [date(2025, 11, 30)]
        assert smallest.column(f"select distinct division_on from marts.{mart}") == [date(2026, 9, 1)]


def control(warehouse: Warehouse, comarca_id: str) -> list[tuple[Any, ...]]:
    return warehouse.rows(
        "select places_official, places_computed, difference_reason, division_on from marts.residence_places_control "
        f"where year = 2024 and ownership = 'public' and comarca_id = '{comarca_id}'"
    )


def test_a_published_total_is_compared_on_the_division_of_its_year(merged: Warehouse) -> None:
    """Aiguafreda went from Vallès Oriental to Osona in 2025, Vila Antiga is in Olost."""
    assert control(merged, "41") == [(148, 60, "unexplained", date(2024, 12, 31))]
    assert control(merged, "24")[0][1] == 107
    assert coverage(merged, "coverage_comarca", "comarca_id = '41'", "places")[1] == (2024, 0)


def test_unmatched_places_explain_only_what_their_own_comarca_lacks(
    tmp_path_factory: pytest.TempPathFactory, work: Path, merged: Warehouse
) -> None:
    assert control(merged, "24")[0][2] == "unexplained"
    lists = [("2024-01-01", [*LIST, municipality("080002", "Sitges", "17", "Garraf")])]
    garraf = warehouse_of(tmp_path_factory.mktemp("garraf"), work, lists, POPULATION)
    assert control(garraf, "17")[0][1:3] == (0, "unmatched_services")
    assert control(garraf, "24")[0][2] == "unexplained"
