"""What a candidate is refused for by the figures of its marts, with small marts made by hand."""

from __future__ import annotations

import duckdb
import pytest

from catalunya.quality.findings import Finding
from catalunya.quality.mart_figures import compare_marts, declared_figures, mart_figures
from tests.project import ROOT

PROJECT = ROOT / "dbt" / "mart"


def marts(
    con: duckdb.DuckDBPyConnection, services: int = 1000, places: int = 30, unmatched: int = 20
) -> None:
    """Small marts of Catalonia's shape in the connection."""
    con.execute(
        f"""
        create or replace table service_history as
        select
            ['assisted_residence', 'home_residence', 'sheltered_housing', 'day_centre', 'other'][1 + i % 5] as
            service_group, ['public', 'social_initiative', 'mercantile', 'unknown'][1 + i % 4] as ownership,
            case when i % 1000 >= {unmatched} then '080018' end as municipality_id, {places} as places,
            true as is_current
        from range({services}) as t(i);
        create or replace table population as
        select lpad(i::varchar, 6, '0') as municipality_id, year, 1000 as people, 190 as people_aged_65_over
        from range(947) as t(i), range(2015, 2026) as y(year);
        create or replace table dim_municipality as
        select i as municipality_id, 41.0 as latitude, true as is_current from range(947) as t(i);
        create or replace table dim_comarca as select i as comarca_id from range(43) as t(i);
        create or replace table coverage_catalonia as
        select year, service_group, ownership, services, services * {places} as places
        from (
            select 2025 as year, service_group, 'all' as ownership, count(*) as services
            from service_history group by all
        );
        create or replace table coverage_comarca as
        select
            lpad(c::varchar, 2, '0') as comarca_id, year, service_group, ownership, 100 * c as people_aged_65_over,
            0 as municipalities_without_population
        from range(1, 44) as t(c), range(2015, 2026) as y(year),
            (select unnest(['assisted_residence', 'home_residence', 'sheltered_housing', 'day_centre']) as service_group),
            (select unnest(['public', 'social_initiative', 'mercantile', 'unknown', 'all']) as ownership)
        """
    )


def compared(alter: str, lifted: frozenset[str] = frozenset()) -> dict[str, Finding]:
    declared = declared_figures(PROJECT)
    with duckdb.connect() as con:
        marts(con)
        before = mart_figures(lambda name: name, con, declared)
        con.execute(alter)
        now = mart_figures(lambda name: name, con, declared)
    return {f.figures["figure"]: f for f in compare_marts(now, before, declared, lifted)}


def test_each_mart_is_fetched_once_for_all_its_figures():
    declared, fetched = declared_figures(PROJECT), []
    with duckdb.connect() as con:
        marts(con)
        mart_figures(lambda name: fetched.append(name) or name, con, declared)
    assert len(declared) > len(fetched)
    assert sorted(fetched) == sorted({figure.mart for figure in declared})


@pytest.mark.parametrize(
    ("alter", "figure"),
    [
        ("update service_history set places = 300", "service_history.places[assisted_residence]"),
        ("update service_history set places = null", "service_history.share_without_places"),
        (
            "delete from service_history where service_group = 'day_centre'",
            "service_history.services[day_centre]",
        ),
        ("update service_history set service_group = 'other'", "service_history.places[home_residence]"),
        (
            "update service_history set municipality_id = null where rowid % 2 = 0",
            "service_history.share_unmatched",
        ),
        (
            "update service_history set municipality_id = null where rowid % 2 = 0",
            "service_history.places_located",
        ),
        ("update service_history set ownership = 'unknown'", "service_history.share_unknown_ownership"),
        ("update population set people_aged_65_over = 380", "population.people_aged_65_over[2025]"),
        (
            "update population set people_aged_65_over = null where rowid % 3 = 0",
            "population.municipalities[2024]",
        ),
        ("update dim_municipality set latitude = null", "dim_municipality.share_without_latitude"),
        ("delete from dim_municipality where municipality_id < 100", "dim_municipality.municipalities"),
        ("delete from dim_comarca where comarca_id < 3", "dim_comarca.comarques"),
        ("update coverage_catalonia set places = places * 2", "coverage_catalonia.places[2025, day_centre]"),
        (
            "update coverage_comarca set people_aged_65_over = people_aged_65_over * 2 / 3 where comarca_id = '41'",
            "coverage_comarca.people_aged_65_over[2023, 41]",
        ),
    ],
)
def test_marts_that_changed_too_much_are_refused_with_figure_before_and_after(alter, figure):
    found = compared(alter)
    assert figure in found, list(found)
    finding = found[figure]
    assert (finding.severity, finding.gate, finding.dataset_id) == ("error", "marts", None)
    assert f"{figure} is {finding.figures['after']:.10g}, in the last release " in finding.message
    lifted = compared(alter, frozenset({"figures"}))
    assert {f.severity for f in lifted.values()} == {"warn"}
    assert lifted[figure].message.endswith(", accepted by hand")


def test_marts_that_changed_by_some_percent_and_a_new_year_pass():
    assert compared("delete from service_history where rowid % 20 = 0") == {}
    assert (
        compared(
            "insert into population select municipality_id, 2026, 1010, 195 from population where year = 2025"
        )
        == {}
    )
    assert (
        compared("insert into coverage_catalonia select 2026, * exclude (year) from coverage_catalonia") == {}
    )


ONE_COMARCA = "update coverage_comarca set people_aged_65_over = {people} where comarca_id = '{comarca_id}'"


def test_a_comarca_that_lost_a_third_of_its_people_of_65_and_over_is_refused_in_each_of_three_years():
    found = compared(ONE_COMARCA.format(people="people_aged_65_over * 2 / 3", comarca_id="41"))
    assert {name: finding.severity for name, finding in found.items()} == {
        f"coverage_comarca.people_aged_65_over[{year}, 41]": "error" for year in (2023, 2024, 2025)
    }
    finding = found["coverage_comarca.people_aged_65_over[2025, 41]"]
    assert (finding.figures["before"], round(finding.figures["after"])) == (4100, 2733)


@pytest.mark.parametrize(
    ("comarca_id", "before", "after"),
    [("24", 28747, 27476), ("32", 4044, 3703), ("35", 2789, 3130)],
    ids=["Osona", "Segarra", "Solsonès"],
)
def test_the_moves_between_comarques_of_2023_pass(comarca_id, before, after):
    """People of 2019, on the lists of May 2023 and December 2024: eight and two municipalities moved."""
    ratio = f"people_aged_65_over * {after / before}"
    assert compared(ONE_COMARCA.format(people=ratio, comarca_id=comarca_id)) == {}


def test_a_comarca_whose_years_are_no_longer_complete_has_no_figure_and_is_not_refused():
    halved = ONE_COMARCA.format(people="people_aged_65_over / 2", comarca_id="41")
    missing = "update coverage_comarca set municipalities_without_population = 2 where comarca_id = '41'"
    assert len(compared(halved)) == 3
    assert compared(f"{halved}; {missing}") == {}
    assert compared("delete from coverage_comarca where comarca_id = '43'") == {}


def test_each_comarca_has_one_figure_of_people_in_each_of_the_newest_three_complete_years():
    with duckdb.connect() as con:
        marts(con)
        con.execute(
            "insert into coverage_comarca select comarca_id, 2026, service_group, ownership, 1, 9 "
            "from coverage_comarca where year = 2025"
        )
        found = mart_figures(lambda name: name, con, declared_figures(PROJECT))
    people = {name: value for name, value in found.items() if name.startswith("coverage_comarca.")}
    assert people == {
        f"coverage_comarca.people_aged_65_over[{year}, {comarca:02}]": 100 * comarca
        for year in (2023, 2024, 2025)
        for comarca in range(1, 44)
    }


def test_a_first_release_has_no_marts_to_be_compared_with():
    assert compare_marts({"service_history.places_located": 1.0}, None, declared_figures(PROJECT)) == []
