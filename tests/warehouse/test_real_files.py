"""The marts of the real files: names that must be found, lists that changed, counts that must not multiply."""

from __future__ import annotations

import pytest

from .warehouse import Warehouse

pytestmark = pytest.mark.xdist_group("warehouse")


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


def test_the_real_lists_differ_in_thirteen_municipalities(real: Warehouse) -> None:
    assert real.value("select count(*) from marts.dim_municipality where is_current") == 947
    assert real.value("select count(*) from marts.dim_municipality where not is_current") == 13
    assert real.value("select count(distinct municipality_id) from marts.dim_municipality") == 947
    assert real.value("select count(*) from marts.dim_comarca") == 43


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
