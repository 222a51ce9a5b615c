"""Which municipality a service is in: every spelling that the real register is known to use, one test each."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .warehouse import PROJECT, Warehouse, municipality, service

pytestmark = pytest.mark.xdist_group("dbt")

TODAY = [
    municipality("080235", "Bigues i Riells del Fai", "41", "Vallès Oriental"),
    municipality("080288", "Cabrera d'Anoia", "06", "Anoia"),
    municipality("080826", "Fogars de la Selva", "34", "Selva"),
    municipality("081017", "Hospitalet de Llobregat, l'", "13", "Barcelonès"),
    municipality("081496", "Olost", "43", "Lluçanès"),
    municipality("081691", "Prat de Llobregat, el", "11", "Baix Llobregat"),
    municipality("081944", "Sant Adrià de Besòs", "13", "Barcelonès"),
    municipality("082541", "Esquirol, l'", "24", "Osona"),
    municipality("170221", "Bisbal d'Empordà, la", "10", "Baix Empordà"),
    municipality("170963", "Llosses, les", "31", "Ripollès"),
    municipality("171096", "Montagut i Oix", "19", "Garrotxa"),
    municipality("170280", "Brunyola i Sant Martí Sapresa", "34", "Selva"),
    municipality("170293", "Boadella i les Escaules", "02", "Alt Empordà"),
    municipality("170340", "Calonge i Sant Antoni", "10", "Baix Empordà"),
    municipality("170486", "Castell d'Aro, Platja d'Aro i s'Agaró", "10", "Baix Empordà"),
    municipality("171002", "Masarac i Vilarnadal", "02", "Alt Empordà"),
    municipality("171870", "Saus, Camallera i Llampaies", "02", "Alt Empordà"),
    municipality("252234", "Torà", "35", "Solsonès"),
    municipality("252430", "Vielha e Mijaran", "39", "Aran"),
    municipality("430271", "Bisbal de Montsant, la", "29", "Priorat"),
    municipality("430350", "Cabacés", "29", "Priorat"),
    municipality("430287", "Bisbal del Penedès, la", "12", "Baix Penedès"),
    municipality("431016", "Passanant i Belltall", "16", "Conca de Barberà"),
    municipality("431055", "Piles de Gaià, les", "16", "Conca de Barberà"),
    municipality("431310", "Roda de Berà", "36", "Tarragonès"),
    municipality("431362", "Ràpita, la", "22", "Montsià"),
    municipality("431763", "Vimbodí i Poblet", "16", "Conca de Barberà"),
]
SEED = list(csv.DictReader((PROJECT / "seeds" / "municipality_former_names.csv").open(encoding="utf-8")))
STATED: dict[str, dict[str, Any]] = {
    "article behind": {"municipality_name": "Prat de Llobregat, el", "comarca_name": "Baix Llobregat"},
    "article in front": {"municipality_name": "el Prat de Llobregat", "comarca_name": "Baix Llobregat"},
    "capitals": {"municipality_name": "EL PRAT DE LLOBREGAT", "comarca_name": "BAIX LLOBREGAT"},
    "no comarca": {"municipality_name": "el Prat de Llobregat", "comarca_name": None},
    "la Bisbal": {"municipality_name": "Bisbal d'Empordà, la", "comarca_name": "Baix Empordà"},
    "la Bisbal, other apostrophe": {
        "municipality_name": "La Bisbal d’Empordà",
        "comarca_name": "Baix Empordà",
    },
    "Val d'Aran": {"municipality_name": "Vielha e Mijaran", "comarca_name": "Val d'Aran"},
    "Aran": {"municipality_name": "Vielha e Mijaran", "comarca_name": "Aran"},
    "Lluçanès was Osona": {"municipality_name": "Olost", "comarca_name": "Osona"},
    "Torà was Segarra": {"municipality_name": "Torà", "comarca_name": "Segarra"},
    "wrong comarca": {"municipality_name": "Olost", "comarca_name": "Priorat", "postal_code": "08516"},
    "other postal code": {"municipality_name": "Olost", "comarca_name": "Lluçanès", "postal_code": "17003"},
    "both wrong": {"municipality_name": "Olost", "comarca_name": "Priorat", "postal_code": "43360"},
    "postal code alone": {"municipality_name": None, "comarca_name": None, "postal_code": "08820"},
    "part of a name": {"municipality_name": "la Bisbal", "comarca_name": "Baix Empordà"},
    "Hospitalet without article": {
        "municipality_name": "HOSPITALET DE LLOBREGAT",
        "comarca_name": "Barcelonès",
    },
    "Prat without article": {"municipality_name": "Prat de Llobregat", "comarca_name": "Baix Llobregat"},
    "former name without article": {"municipality_name": "Bisbal de Falset", "comarca_name": "Priorat"},
    "without article, other comarca": {
        "municipality_name": "Prat de Llobregat",
        "comarca_name": "Barcelonès",
    },
    "without article, no comarca": {"municipality_name": "Prat de Llobregat", "comarca_name": None},
    "without article, other province": {
        "municipality_name": "Prat de Llobregat",
        "comarca_name": "Baix Llobregat",
        "postal_code": "43360",
    },
    "Palmerola": {"municipality_name": "Palmerola", "comarca_name": "Ripollès"},
    "typing error": {"municipality_name": "Prat de Llobregatt, el", "comarca_name": "Baix Llobregat"},
}


@dataclass(frozen=True)
class Match:
    """Where a service is, by the place that it states."""

    municipality_id: str | None
    comarca_id: str | None
    municipality_match: str
    unmatched_reason: str | None = None
    comarca_contradicts: bool = False
    postal_code_contradicts: bool = False


@pytest.fixture(scope="module")
def matched(work: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Match]:
    """The match of every stated place, with nothing but today's list and the seeds to go by."""
    warehouse = Warehouse(tmp_path_factory.mktemp("matching") / "candidate.duckdb", work)
    warehouse.add("municipalities", "2026-09-01", TODAY)
    stated = STATED | {
        row["former_name"]: {"municipality_name": row["former_name"], "comarca_name": None} for row in SEED
    }
    warehouse.add("social_services", "2026-09-01", [service(key, **places) for key, places in stated.items()])
    warehouse.build(tests=False)
    return {
        key: Match(*found)
        for key, *found in warehouse.rows(
            "select service_id, municipality_id, comarca_id, municipality_match, unmatched_reason, "
            "comarca_contradicts, postal_code_contradicts from marts.service_history where is_current"
        )
    }


@pytest.mark.parametrize("spelling", ["article behind", "article in front", "capitals"])
def test_el_prat_de_llobregat_is_found_however_it_is_spelled(matched, spelling):
    assert matched[spelling] == Match("081691", "11", "name_in_comarca")


@pytest.mark.parametrize("spelling", ["la Bisbal", "la Bisbal, other apostrophe"])
def test_la_bisbal_d_emporda_is_found_and_no_other_bisbal(matched, spelling):
    assert matched[spelling] == Match("170221", "10", "name_in_comarca")


@pytest.mark.parametrize("spelling", ["Val d'Aran", "Aran"])
def test_aran_is_one_comarca_under_both_its_names(matched, spelling):
    assert matched[spelling] == Match("252430", "39", "name_in_comarca")


@pytest.mark.parametrize(
    ("spelling", "municipality_id", "comarca_id"),
    [
        ("Hospitalet without article", "081017", "13"),
        ("Prat without article", "081691", "11"),
        ("former name without article", "430271", "29"),
    ],
)
def test_a_name_without_its_article_is_found_in_its_comarca(matched, spelling, municipality_id, comarca_id):
    assert matched[spelling] == Match(municipality_id, comarca_id, "name_without_article")


@pytest.mark.parametrize("spelling", ["without article, other comarca", "without article, no comarca"])
def test_a_name_without_its_article_is_not_found_outside_its_comarca(matched, spelling):
    assert matched[spelling] == Match(None, None, "unmatched", "unknown_name", False, False)


def test_a_postal_code_casts_doubt_on_a_name_without_its_article(matched):
    assert matched["without article, other province"].municipality_id == "081691"
    assert matched["without article, other province"].postal_code_contradicts


def test_palmerola_is_les_llosses_which_it_was_merged_into(matched):
    assert matched["Palmerola"] == Match("170963", "31", "former_name")


def test_castell_platja_d_aro_is_castell_d_aro_platja_d_aro_i_s_agaro(matched):
    assert matched["Castell-Platja d'Aro"] == Match("170486", "10", "former_name")


def test_masarac_is_masarac_i_vilarnadal(matched):
    assert matched["Masarac"] == Match("171002", "02", "former_name")


def test_la_bisbal_de_falset_is_la_bisbal_de_montsant(matched):
    assert matched["la Bisbal de Falset"] == Match("430271", "29", "former_name")


def test_sant_carles_de_la_rapita_is_la_rapita(matched):
    assert matched["Sant Carles de la Ràpita"] == Match("431362", "22", "former_name")


def test_bigues_i_riells_is_bigues_i_riells_del_fai(matched):
    assert matched["Bigues i Riells"] == Match("080235", "41", "former_name")


@pytest.mark.parametrize(
    ("spelling", "municipality_id", "comarca_id"),
    [("Lluçanès was Osona", "081496", "43"), ("Torà was Segarra", "252234", "35")],
)
def test_a_service_that_states_the_comarca_of_before_is_in_that_of_today(
    matched, spelling, municipality_id, comarca_id
):
    assert matched[spelling] == Match(municipality_id, comarca_id, "name_in_former_comarca")


def test_a_name_that_is_unique_in_catalonia_needs_no_comarca(matched):
    assert matched["no comarca"] == Match("081691", "11", "name_unique")


def test_a_wrong_comarca_alone_casts_doubt(matched):
    assert matched["wrong comarca"] == Match("081496", "43", "name_unique", None, True, False)


def test_a_postal_code_of_another_province_alone_casts_doubt(matched):
    assert matched["other postal code"] == Match("081496", "43", "name_in_comarca", None, False, True)


def test_comarca_and_postal_code_together_refuse_a_name(matched):
    assert matched["both wrong"] == Match(None, None, "unmatched", "contradicted", True, True)


def test_a_postal_code_is_never_the_only_evidence(matched):
    assert matched["postal code alone"] == Match(None, None, "unmatched", "no_name")


@pytest.mark.parametrize("spelling", ["part of a name", "typing error"])
def test_a_name_that_is_nearly_right_is_not_guessed(matched, spelling):
    assert matched[spelling] == Match(None, None, "unmatched", "unknown_name")


@pytest.mark.parametrize("row", SEED, ids=lambda row: row["former_name"])
def test_every_name_of_the_seed_finds_its_municipality(matched, row):
    assert matched[row["former_name"]].municipality_id == row["municipality_id"]
    assert row["source"].startswith(("http", "in INE", "in Socrata", "in ICGC", "Resolució"))
