"""The marts of the real files: names that must be found, lists that changed, counts that must not multiply."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import pytest

from .warehouse import Warehouse

pytestmark = pytest.mark.xdist_group("dbt")


def test_every_real_service_finds_its_municipality(real: Warehouse) -> None:
    assert real.rows(
        "select count(*), count(municipality_id), count(comarca_id) from marts.service_history"
    ) == [(27, 27, 27)]
    assert real.rows(
        "select distinct municipality_id, comarca_id from marts.service_history where stated_municipality_name "
        "in ('Castell d''Aro, Platja d''Aro i s''Agaró', 'Bisbal d''Empordà, la') order by 1"
    ) == [("170221", "10"), ("170486", "10")]


def test_real_kinds_of_service_are_listed_and_grouped(real: Warehouse) -> None:
    cut_short_in_the_list = ["Servei temporal de llar residència per a persones afectades pel virus VIH/SIDA"]
    assert real.column("select name from marts.dim_service_type where not is_listed") == cut_short_in_the_list
    assert real.rows(
        "select service_group, count(*), sum(places) from marts.service_history group by 1 order by 1"
    ) == real.rows(
        "select case when service_type like 'Servei de residència assistida%' then 'assisted_residence' "
        "when service_type like 'Servei de llar residència per a gent gran%' then 'home_residence' else 'other' end, "
        "count(*), sum(places) from staging.social_services group by 1 order by 1"
    )


TO_LLUCANES = {
    "080044": "Alpens", "081094": "Lluçà", "081496": "Olost", "081516": "Oristà", "081607": "Perafita",
    "081712": "Prats de Lluçanès", "082251": "Sant Martí d'Albars", "082711": "Sobremunt",
}  # fmt: skip
TO_SOLSONES = {"250557": "Biosca", "252234": "Torà"}
RENAMED = {
    "170486": ("Castell-Platja d'Aro", "Castell d'Aro, Platja d'Aro i s'Agaró"),
    "171002": ("Masarac", "Masarac i Vilarnadal"),
    "430271": ("Bisbal de Falset, la", "Bisbal de Montsant, la"),
}
OLD, NEW = date(2023, 5, 15), date(2024, 12, 19)


def municipality_periods(warehouse: Warehouse, which: str) -> list[tuple[Any, ...]]:
    return warehouse.rows(
        "select municipality_id, name, comarca_id, comarca_name, valid_from, valid_to, is_current "
        f"from marts.dim_municipality where {which} order by municipality_id, valid_from"
    )


def test_the_real_lists_differ_in_thirteen_municipalities_and_no_other(real: Warehouse) -> None:
    assert real.value("select count(*) from marts.dim_municipality where is_current") == 947
    assert set(real.column("select municipality_id from marts.dim_municipality where not is_current")) == {
        *TO_LLUCANES, *TO_SOLSONES, *RENAMED,
    }  # fmt: skip
    assert real.value("select count(distinct municipality_id) from marts.dim_municipality") == 947
    assert real.value("select count(*) from marts.dim_comarca") == 43


def test_eight_municipalities_of_osona_form_llucanes(real: Warehouse) -> None:
    assert municipality_periods(real, f"municipality_id in {tuple(TO_LLUCANES)}") == [
        period
        for code, name in TO_LLUCANES.items()
        for period in (
            (code, name, "24", "Osona", OLD, NEW, False),
            (code, name, "43", "Lluçanès", NEW, None, True),
        )
    ]
    assert real.value("select municipalities from marts.dim_comarca where comarca_id = '43'") == 8


def test_biosca_and_tora_go_from_segarra_to_solsones(real: Warehouse) -> None:
    assert municipality_periods(real, f"municipality_id in {tuple(TO_SOLSONES)}") == [
        period
        for code, name in TO_SOLSONES.items()
        for period in (
            (code, name, "32", "Segarra", OLD, NEW, False),
            (code, name, "35", "Solsonès", NEW, None, True),
        )
    ]


def test_three_municipalities_are_renamed_where_they_are(real: Warehouse) -> None:
    found = municipality_periods(real, f"municipality_id in {tuple(RENAMED)}")
    assert {(code, name) for code, name, *_ in found} == {
        (code, name) for code, names in RENAMED.items() for name in names
    }
    assert len({(code, comarca_id) for code, _, comarca_id, *_ in found}) == len(RENAMED)


def test_aiguafreda_is_reported_because_list_and_borders_disagree_and_the_list_decides(
    real: Warehouse,
) -> None:
    assert real.rows(
        "select comarca_id, comarca_name from marts.dim_municipality where municipality_id = '080142'"
    ) == [("41", "Vallès Oriental")]
    assert real.value("select rows_unmatched from marts.data_quality where dataset_id = 'boundaries'") == 1
    assert real.results["boundaries_agree_with_the_municipality_list"] == "warn"
    assert real.failures["boundaries_agree_with_the_municipality_list"] == 1
    assert real.rows(
        "select area_id, name, comarca_id, comarca_id_listed from intermediate.int_contradicting_boundaries"
    ) == [("080142", "Aiguafreda", "24", "41")]


def test_series_by_comarca_are_on_the_newest_division_and_say_of_which_day(real: Warehouse) -> None:
    assert real.column("select distinct division_on from marts.coverage_comarca") == [NEW]
    assert real.value(
        "select distinct people_aged_65_over from marts.coverage_comarca where comarca_id = '43' and year = 2019"
    ) == real.value(
        "select sum(people_aged_65_over) from marts.population "
        f"where year = 2019 and municipality_id in {tuple(TO_LLUCANES)}"
    )


def metres(a: tuple[float, float], b: tuple[float, float]) -> int:
    """Great-circle distance by the spherical law of cosines, another formula than that of the warehouse."""
    (north_a, east_a), (north_b, east_b) = (tuple(map(math.radians, point)) for point in (a, b))
    cosine = math.sin(north_a) * math.sin(north_b) + math.cos(north_a) * math.cos(north_b) * math.cos(
        east_b - east_a
    )
    return round(6_371_008.8 * math.acos(min(1.0, cosine)))


def test_distances_between_real_centres_are_those_of_another_formula(real: Warehouse) -> None:
    centres = {
        code: (north, east)
        for code, north, east in real.rows(
            "select municipality_id, latitude, longitude from marts.dim_municipality where is_current"
        )
    }
    sites = set(real.column("select municipality_id from intermediate.int_service_sites"))
    found = real.rows(
        "select municipality_id, other_municipality_id, distance_m from intermediate.int_municipality_distances"
    )
    assert {(origin, site) for origin, site, _ in found} == {
        (origin, site) for origin in centres for site in sites
    }
    assert len(found) == 947 * len(sites) > 4000
    assert max(abs(metres(centres[origin], centres[site]) - m) for origin, site, m in found) <= 1
    assert metres(centres["080193"], centres["170792"]) // 1000 == 85


def test_the_nearest_residence_of_each_municipality_is_the_nearest_by_hand(real: Warehouse) -> None:
    sites = set(
        real.column(
            "select municipality_id from marts.service_history "
            "where is_current and service_group = 'assisted_residence'"
        )
    )
    centres = {
        code: (north, east)
        for code, north, east in real.rows(
            "select municipality_id, latitude, longitude from marts.dim_municipality where is_current"
        )
    }
    found = real.rows(
        "select municipality_id, nearest_km, nearest_municipality_id, register_on "
        "from marts.access_municipality where service_group = 'assisted_residence'"
    )
    assert len(found) == 947
    for code, nearest_km, nearest_id, register_on in found:
        assert nearest_id in sites
        assert abs(min(metres(centres[code], centres[site]) for site in sites) - nearest_km * 1000) <= 1
        assert (nearest_km == 0) == (code in sites)
        assert register_on == date(2026, 9, 1)
    assert real.value(
        "select count(*) from marts.access_municipality where service_group = 'day_centre' and nearest_km is null"
    ) == 947  # fmt: skip


def test_no_join_doubles_or_loses_a_municipality(real: Warehouse) -> None:
    assert real.rows(
        "select min(n), max(n) from (select count(*) as n, count(distinct municipality_id) as d "
        "from marts.coverage_municipality group by year, service_group, ownership) where n = d"
    ) == [(947, 947)]
    assert real.column(
        "select distinct people_aged_65_over from marts.coverage_catalonia where year = 2019"
    ) == [1_442_754]
    assert real.column("select distinct year from marts.coverage_catalonia order by 1") == list(
        range(2019, 2027)
    )


def test_an_article_behind_the_name_is_shown_in_front(real: Warehouse) -> None:
    shown = dict(
        real.rows(
            "select name, display_name from marts.dim_municipality where is_current and name like '%,%'"
        )
    )
    assert shown["Hospitalet de Llobregat, l'"] == "l'Hospitalet de Llobregat"
    assert shown["Bòrdes, Es"] == "Es Bòrdes"
    unchanged = {name for name, display in shown.items() if name == display}
    assert unchanged == {
        "Castell d'Aro, Platja d'Aro i s'Agaró",
        "Cruïlles, Monells i Sant Sadurní de l'Heura",
        "Saus, Camallera i Llampaies",
    }
    assert len(shown) - len(unchanged) == 132
