"""What staging makes of the rows of a snapshot: values, keys, duplicates, quarantine, refusals.

One module, because all cases share the builders of rows at its top.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalunya import stage
from catalunya.datasets.model import Column, Constraints
from catalunya.errors import Refused
from catalunya.lake import layout, snapshot
from catalunya.lake.staged import Staged, staged_record
from catalunya.lake.storage import Storage
from catalunya.staging import row_sql, snapshot_typing
from tests.factories import DEFINITIONS, NOW, declared, land, local_lake
from tests.oracle.typed import typed
from tests.project import ROOT

REGISTER = DEFINITIONS["social_services"]
TOWNS = DEFINITIONS["municipalities"]
KIND = "Servei de centre de dia per a gent gran de caràcter temporal o permanent"


@pytest.fixture
def lake(tmp_path: Path) -> Storage:
    return local_lake(tmp_path / "lake")


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {"registre": f"S{number:05d}", "tipologia": KIND, "capacitat": "10", **fields}


def town(number: int, **fields: Any) -> dict[str, Any]:
    known = {
        "codi": f"08{number:04}",
        "nom": f"Vila {number}",
        "codi_comarca": "01",
        "nom_comarca": "Alt Camp",
    }
    return {**known, "longitud": "2.1", "latitud": "41.5", **fields}


def stage_towns(lake: Storage, towns: list[dict[str, Any]]) -> Staged:
    land(lake, TOWNS, [towns])
    return stage.stage(lake, TOWNS, run_id="r", now=NOW)[0]


def stage_rows(lake: Storage, *pages: Any, columns: dict[str, str | None] | None = None) -> Staged:
    land(lake, REGISTER, pages, columns=columns)
    return stage.stage(lake, REGISTER, run_id="r", now=NOW)[0]


def staged_rows(lake: Storage, staged: Staged, columns: str) -> list[tuple[Any, ...]]:
    path = lake.uri(layout.staged(staged.dataset_id, staged.snapshot_id))
    return duckdb.sql(f"select {columns} from '{path}' order by all").fetchall()


def quarantine(lake: Storage, staged: Staged) -> list[str]:
    path = lake.uri(layout.quarantined(staged.dataset_id, staged.snapshot_id))
    return [reason for (reason,) in duckdb.sql(f"select reason from '{path}' order by all").fetchall()]


def counts(staged: Staged) -> tuple[int, int, int, int]:
    return (staged.rows_in, staged.rows_staged, staged.rows_quarantined, staged.rows_duplicated)


def test_names_that_differ_in_case_alone_are_two_fields_and_the_first_that_is_sent_counts(lake):
    names = {"name": ("nom", "NOM"), "address": ("NOM",)}
    columns = (c.model_copy(update={"source": names.get(c.name, c.source)}) for c in REGISTER.columns)
    renamed = REGISTER.model_copy(update={"columns": tuple(columns)})
    land(lake, renamed, [[row(1, nom="old", NOM="new"), row(2, NOM="  new ")]])
    [staged] = stage.stage(lake, renamed, run_id="r", now=NOW)
    assert staged_rows(lake, staged, "name, address") == [("new", "new"), ("old", "new")]


def test_a_key_that_is_sent_twice_is_one_field_and_changes_no_other(lake):
    page = (
        b'[{"registre": "S1", "tipologia": "%b", "capacitat": "10", "nom": "first", "nom": "second",'
        b' "capacitat": "11", "registre": "S2"}]' % KIND.encode()
    )
    staged = stage_rows(lake, page)
    assert counts(staged) == (1, 1, 0, 0)
    [(service_id, name, places)] = staged_rows(lake, staged, "service_id, name, places")
    assert (service_id, name, places) in {("S1", "first", 10), ("S2", "second", 11)}


@pytest.mark.parametrize("value", ["null", "NULL", "Null", "", "   ", None, "\u00a0"])
def test_every_way_of_saying_nothing_is_null(lake, value):
    staged = stage_rows(lake, [row(1, qualificacio=value)])
    assert staged_rows(lake, staged, "ownership_name") == [(None,)]


def test_an_omitted_field_is_null_and_the_row_is_kept(lake):
    staged = stage_rows(lake, [{"registre": "S1", "tipologia": KIND}])
    assert staged_rows(lake, staged, "service_id, places, name, registered_on") == [("S1", None, None, None)]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("Residència  de   dia", "Residència de dia"),
        ("  Girona\t", "Girona"),
        ("Vila\u00a0real", "Vila real"),
        ("Cassa\u0300 de la Selva", "Cassà de la Selva"),
        ("nullet", "nullet"),
        ("Nul", "Nul"),
        ("a\x1fb", "a b"),
        ("l\u200eHospitalet\u200f", "lHospitalet"),
        ("Sant\u00ad Cugat", "Sant Cugat"),
        ("\ufeffOlot\u200b", "Olot"),
        ("Vic\ufe0f\u2060\u2066\u061c\u180e\ufff9\U000e0041", "Vic"),
        ("Sant\u2028Celoni\u2029", "Sant Celoni"),
        ("Sant\u202f\u1680\u205f\u0085Celoni", "Sant Celoni"),
        ("a\u007fb\u009fc\u3000d\u2800e", "a b c d e"),
        ("Cassa\u200d\u0300", "Cassà"),
        ("Paral\u0387lel", "Paral·lel"),
        ("nu\u200bll", None),
        ("\u200b\u2060", None),
        ("Plaça Major, 1 – 3 · 4º “B” €", "Plaça Major, 1 – 3 · 4º “B” €"),
    ],
)
def test_text_is_folded_and_composed_while_raw_keeps_what_was_sent(lake, sent, kept):
    staged = stage_rows(lake, [row(1, nom=sent)])
    assert staged_rows(lake, staged, "name, json_extract_string(raw, '$.nom')") == [(kept, sent)]


def test_dates_come_with_and_without_a_time(lake):
    staged = stage_rows(lake, [row(1, inscripcio="2011-02-03"), row(2, inscripcio="2011-02-03T00:00:00.000")])
    assert [str(day) for (day,) in staged_rows(lake, staged, "registered_on")] == ["2011-02-03"] * 2


def test_numbers_may_be_sent_as_numbers_or_with_a_zero_fraction(lake):
    staged = stage_rows(lake, [row(1, capacitat=7), row(2, capacitat="7.0"), row(3, capacitat="0")])
    assert staged_rows(lake, staged, "places") == [(0,), (7,), (7,)]


GOOD_INTEGERS = [("12", 12), ("12.0", 12), ("12.00", 12), ("12.0000", 12), ("1234.000", 1234), ("+3", 3), (" 7\u200e", 7),
    ("0012", 12), (12, 12), (12.0, 12), (1e3, 1000)]  # fmt: skip
BAD_INTEGERS = [
    "1.000", "12.000", "1,000", "1 000", "1\u202f000", "74 places", "1e3", "12.5", "0x10", "1_000", "१२", "٣", "１２",
    "+-5", "5-", "12.", ".0", "nan", "-3", "100001", "2147483648", "9" * 5_000, 12.5, 1e30, True, {"n": 1}, [1],
]  # fmt: skip


@pytest.mark.parametrize(("sent", "kept"), GOOD_INTEGERS, ids=repr)
def test_an_unambiguous_whole_number_is_an_integer(lake, sent, kept):
    staged = stage_rows(lake, [row(1, capacitat=sent)])
    assert staged_rows(lake, staged, "places") == [(kept,)]
    assert staged.invalid_values == {}


@pytest.mark.parametrize("sent", BAD_INTEGERS, ids=lambda value: repr(value)[:20])
def test_a_number_that_is_not_unambiguous_or_out_of_range_is_null_and_counted(lake, sent):
    staged = stage_rows(lake, [row(1, capacitat=sent), row(2)])
    assert counts(staged) == (2, 2, 0, 0)
    assert staged_rows(lake, staged, "service_id, places") == [("S00001", None), ("S00002", 10)]
    assert staged.invalid_values == {"places": 1}


def test_a_json_number_is_taken_by_its_value(lake):
    page = json.dumps([row(1, capacitat="?")]).replace('"?"', "1.000").encode()
    assert staged_rows(lake, stage_rows(lake, page), "places") == [(1,)]


def test_a_json_number_of_five_thousand_digits_is_null(lake):
    page = json.dumps([row(1, capacitat="?")]).replace('"?"', "9" * 5_000).encode()
    staged = stage_rows(lake, page)
    assert (staged_rows(lake, staged, "places"), staged.invalid_values) == ([(None,)], {"places": 1})


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("41.383", 41.383), ("4.1383e1", 41.383), ("41", 41.0), (41.383, 41.383), ("41,383", None), ("inf", None),
     ("nan", None), ("4_1", None), ("0x29", None), ("41.383°", None), ("1e999", None), ("4" * 5_000, None)],
)  # fmt: skip
def test_a_coordinate_has_a_decimal_point(lake, sent, kept):
    towns = [town(1, latitud=sent), town(2)]
    staged = stage_towns(lake, towns)
    assert staged_rows(lake, staged, "latitude")[0] == ((kept,) if kept else (41.5,))
    assert staged.invalid_values == ({} if kept else {"latitude": 1})
    assert staged.rows_staged == 2


@pytest.mark.parametrize(
    "sent",
    ["2011-02-30", "03/02/2011", "2011/02/03", "2011-2-3", "20110203", "2011-02-03 00:00", "2011-02-03T25:00",
     "infinity", "epoch", "0001-01-01", "1899-12-31", "9999-12-31", "2199-01-01", "2026-01-06", "12026-01-01"],
)  # fmt: skip
def test_a_day_that_is_none_or_lies_outside_of_1900_and_the_snapshot_is_null(lake, sent):
    staged = stage_rows(lake, [row(1, inscripcio=sent), row(2, inscripcio="2026-01-05")])
    assert [str(day) for (day,) in staged_rows(lake, staged, "registered_on")] == ["2026-01-05", "None"]
    assert staged.invalid_values == {"registered_on": 1}


def test_the_future_begins_after_the_snapshot_whatever_the_clock_says(lake):
    tomorrow = row(1, inscripcio="2026-01-06")
    land(lake, REGISTER, [[tomorrow]])
    land(lake, REGISTER, [[tomorrow]], now=NOW + timedelta(days=1))
    first, second = stage.stage(lake, REGISTER, run_id="r", now=NOW + timedelta(days=900))
    assert (first.invalid_values, second.invalid_values) == ({"registered_on": 1}, {})


@pytest.mark.parametrize(
    ("year", "sound"),
    [
        ("2027", True),
        ("1900", True),
        ("2028", False),
        ("2199", False),
        ("1899", False),
        ("99999999999", False),
    ],
)
def test_a_year_is_at_most_the_one_after_the_snapshot(lake, year, sound):
    dataset = DEFINITIONS["service_users"]
    land(lake, dataset, [[{"any": year, "codi": "01"}]])
    [staged] = stage.stage(lake, dataset, run_id="r", now=NOW)
    assert counts(staged) == ((1, 1, 0, 0) if sound else (1, 0, 1, 0))


@pytest.mark.parametrize(
    ("fields", "columns", "sentence"),
    [
        (
            {"capacitat": "n/d"},
            {"places": 1},
            '1 value of places is not an integer and was set to null, such as "n/d"',
        ),
        (
            {"capacitat": "-3"},
            {"places": 1},
            '1 value of places is below 0 and was set to null, such as "-3"',
        ),
        (
            {"inscripcio": "2026-02-01"},
            {"registered_on": 1},
            "1 value of registered_on is after the day of the snapshot, 2026-01-05 and was set to null, such as "
            '"2026-02-01"',
        ),
        (
            {"nom": {"ca": "x"}},
            {"name": 1},
            '1 value of name is not text and was set to null, such as "{"ca":"x"}"',
        ),
        (
            {"capacitat": "x", "inscripcio": "y"},
            {"registered_on": 1, "places": 1},
            '1 value of places is not an integer and was set to null, such as "x"',
        ),
    ],
)
def test_a_bad_value_that_its_row_can_do_without_is_null_counted_and_named(lake, fields, columns, sentence):
    staged = stage_rows(lake, [row(1), row(2, **fields)])
    assert counts(staged) == (2, 2, 0, 0)
    assert staged.invalid_values == columns
    assert f"social_services: {sentence}" in staged.warnings
    names = ", ".join(columns)
    assert staged_rows(lake, staged, f"service_id, {names}")[1] == ("S00002", *[None] * len(columns))
    [(raw,)] = [found for found in staged_rows(lake, staged, "raw") if "S00002" in found[0]]
    assert json.loads(raw) == row(2, **fields)


def test_an_object_is_no_text_however_the_json_is_laid_out(lake):
    page = json.dumps([row(1), row(2, nom={"ca": "x"})], separators=(",", ":")).replace(":{", ":\n{").encode()
    assert stage_rows(lake, page).invalid_values == {"name": 1}


def test_a_warning_counts_the_bad_values_of_a_column_and_names_the_first(lake):
    bad = ["41,3833", "99", "41,5"]
    staged = stage_towns(
        lake, [*(town(n, latitud=value) for n, value in enumerate(bad)), *map(town, range(3, 9))]
    )
    assert staged.warnings == (
        "municipalities: 3 values of latitude are not a number or are above 43 and were set to null, such as "
        '"41,3833"',
    )
    assert staged.invalid_values == {"latitude": 3}


@pytest.mark.parametrize(
    ("fields", "reason", "cause"),
    [
        ({"registre": None}, "service_id is missing", "service_id is missing"),
        ({"tipologia": "null"}, "service_type is missing", "service_type is missing"),
        ({"tipologia": ["x"]}, 'service_type: "["x"]" is not text', "service_type: … is not text"),
        (
            {"tipologia": "", "registre": {"a": 'b"c'}, "capacitat": "x"},
            'service_id: "{"a":"b\\"c"}" is not text; service_type is missing',
            "service_id: … is not text; service_type is missing",
        ),
    ],
)
def test_a_row_without_a_value_that_it_needs_is_set_aside_with_its_reason(lake, fields, reason, cause):
    staged = stage_rows(lake, [row(1), row(2, **fields)])
    assert counts(staged) == (2, 1, 1, 0)
    assert quarantine(lake, staged) == [reason]
    assert staged.reasons == {cause: 1}
    assert (staged.invalid_values, staged.warnings) == ({}, ())


def test_quarantined_rows_carry_their_typed_keys_where_the_key_itself_is_sound(lake):
    dataset = DEFINITIONS["service_users"]
    rows = [
        {"any": "2024.0", "codi": "1"},
        {"any": "2199", "codi": "02"},
        {"any": "x", "codi": " 03 "},
        {"any": "2020", "codi": "04", "total": "5"},
        {"any": "2020", "codi": "04", "total": "6"},
        *({"any": "2020", "codi": f"{n:02}"} for n in range(10, 20)),
    ]
    land(lake, dataset, [rows])
    [staged] = stage.stage(lake, dataset, run_id="r", now=NOW)
    path = lake.uri(layout.quarantined(dataset.id, staged.snapshot_id))
    found = duckdb.sql(f"from read_parquet('{path}', hive_partitioning = false)")
    assert found.columns == ["reason", "raw", "snapshot_id", "year", "comarca_id"]
    assert [str(kind) for kind in found.types[3:]] == ["INTEGER", "VARCHAR"]
    assert duckdb.sql(f"select year, comarca_id from '{path}' order by all").fetchall() == [
        (2020, "04"), (2024, None), (None, "02"), (None, "03"),
    ]  # fmt: skip


def test_duplicate_rows_are_counted_and_kept_once_across_pages(lake):
    staged = stage_rows(lake, [row(1), row(2)], [row(2), row(3), row(1), row(1)])
    assert counts(staged) == (6, 3, 0, 3)
    assert staged_rows(lake, staged, "service_id") == [("S00001",), ("S00002",), ("S00003",)]


def test_of_rows_with_one_key_the_same_is_kept_in_whatever_order_they_come(lake):
    rows = [
        row(1, nom="a"),
        row(1, nom="b", capacitat="x"),
        row(1),
        row(1, nom="b"),
        row(1, nom="a", capacitat=10),
    ]
    others = [row(n) for n in range(2, 6)]
    for day, order in enumerate(list(permutations(rows))[::13]):
        land(lake, REGISTER, [order[:2], [*order[2:], *others]], now=NOW + timedelta(days=day))
    found = stage.stage(lake, REGISTER, run_id="r", now=NOW)
    assert len(found) == 10
    for staged in found:
        assert counts(staged) == (9, 5, 3, 1)
        assert staged_rows(lake, staged, "service_id, name, places")[0] == ("S00001", "a", 10)
        assert set(quarantine(lake, staged)) == {
            "key used twice: another row with service_id = S00001 was kept"
        }
        assert staged.reasons == {"key used twice": 3}


def test_a_row_without_bad_values_is_kept_before_one_with_them(lake):
    staged = stage_rows(lake, [row(1, nom="a", capacitat="n/d"), row(1, nom="sound")])
    assert staged_rows(lake, staged, "name, places") == [("sound", 10)]
    assert (counts(staged), staged.invalid_values) == ((2, 1, 1, 0), {})


@pytest.mark.parametrize("again", ["2024.0", 2024, 2024.0, "+2024", "\u200e2024 ", "02024"])
def test_keys_that_are_typed_alike_are_one_key(lake, again):
    dataset = DEFINITIONS["service_users"]
    rows = [
        {"any": "2024", "codi": "01"},
        {"any": again, "codi": "01"},
        {"any": again, "codi": "01", "total": "7"},
    ]
    land(lake, dataset, [rows])
    [staged] = stage.stage(lake, dataset, run_id="r", now=NOW)
    assert counts(staged) == (3, 1, 1, 1)
    assert staged_rows(lake, staged, "year, comarca_id, people") == [(2024, "01", 7)]


def test_text_keys_that_are_equal_once_cleaned_are_one_key(lake):
    staged = stage_rows(
        lake,
        [row(1), {**row(1), "registre": "S00\u200b001\u00a0"}, {**row(1), "registre": " S00001", "nom": "x"}],
    )
    assert counts(staged) == (3, 1, 1, 1)


def test_broken_rows_that_differ_are_no_duplicates(lake):
    staged = stage_rows(lake, [row(1, tipologia=[1]), row(1, tipologia=[2]), row(1, tipologia=[2])])
    assert counts(staged) == (3, 0, 2, 1)


def test_a_snapshot_without_rows_is_staged_empty(lake):
    assert counts(stage_rows(lake, [])) == (0, 0, 0, 0)


def test_a_new_column_is_warned_of_and_kept_in_raw(lake):
    columns = {**declared(REGISTER), "correu": "text", ":@computed_region_x": "number"}
    staged = stage_rows(lake, [row(1, correu="a@b.cat")], columns=columns)
    assert len(staged.warnings) == 1
    assert "new column correu" in staged.warnings[0]
    assert staged_rows(lake, staged, "json_extract_string(raw, '$.correu')") == [("a@b.cat",)]


def test_a_missing_column_refuses_the_snapshot_and_the_next_one_is_staged(lake):
    columns = declared(REGISTER)
    del columns["capacitat"]
    bad = land(lake, REGISTER, [[row(1)]], columns=columns)
    with pytest.raises(Refused, match=r"capacitat.*missing"):
        stage.stage(lake, REGISTER, run_id="r", now=NOW)
    refusal = snapshot.refused(lake, REGISTER.id)[bad.snapshot_id]
    assert refusal.gate == "schema"
    assert refusal.figures["missing"] == ["capacitat"]
    good = land(lake, REGISTER, [[row(1)]], now=NOW + timedelta(days=1))
    assert [s.snapshot_id for s in stage.stage(lake, REGISTER, run_id="r", now=NOW)] == [good.snapshot_id]


def test_a_refused_snapshot_is_staged_once_it_is_accepted(lake):
    columns = declared(REGISTER)
    del columns["telefon"]
    bad = land(lake, REGISTER, [[row(1)]], columns=columns)
    with pytest.raises(Refused):
        stage.stage(lake, REGISTER, run_id="r", now=NOW)
    snapshot.accept(lake, DEFINITIONS, bad.snapshot_id, "the portal dropped telephones", NOW)
    assert [s.snapshot_id for s in stage.stage(lake, REGISTER, run_id="r", now=NOW)] == [bad.snapshot_id]


def test_a_column_whose_type_changed_since_the_last_snapshot_is_refused(lake):
    stage_rows(lake, [row(1)])
    columns = {**declared(REGISTER), "capacitat": "number"}
    land(lake, REGISTER, [[row(2)]], now=NOW + timedelta(days=1), columns=columns)
    with pytest.raises(Refused, match="capacitat is retyped: now 'number', was 'text'"):
        stage.stage(lake, REGISTER, run_id="r", now=NOW)


def test_a_column_of_an_impossible_type_is_refused_at_first_sight(lake):
    land(lake, REGISTER, [[row(1)]], columns={**declared(REGISTER), "capacitat": "point"})
    with pytest.raises(Refused, match="capacitat is retyped"):
        stage.stage(lake, REGISTER, run_id="r", now=NOW)


def test_values_that_mostly_have_another_type_are_a_retyped_column_not_bad_rows(lake):
    rows = [row(n, capacitat="vint") for n in range(6)] + [row(n) for n in range(6, 9)]
    land(lake, REGISTER, [rows])
    with pytest.raises(Refused, match="6 of 9 values are not of the declared type integer"):
        stage.stage(lake, REGISTER, run_id="r", now=NOW)


def test_values_that_are_mostly_invalid_are_a_changed_source_not_bad_rows(lake):
    towns = [town(n, latitud="4580000.5") for n in range(6)] + [town(n) for n in range(6, 11)]
    land(lake, TOWNS, [towns])
    with pytest.raises(
        Refused, match=r'latitud is mostly invalid: 6 of 11 values of latitude .*"4580000.5" is above 43'
    ):
        stage.stage(lake, TOWNS, run_id="r", now=NOW)
    [refusal] = snapshot.refused(lake, TOWNS.id).values()
    assert refusal.figures == {"column": "latitud", "declared": "number", "wrong": 6, "values": 11}


def test_values_that_are_invalid_by_half_are_nulled(lake):
    towns = [town(n, latitud="4580000.5") for n in range(5)] + [town(n) for n in range(5, 10)]
    staged = stage_towns(lake, towns)
    assert (staged.rows_staged, staged.invalid_values) == (10, {"latitude": 5})


def test_a_source_that_is_mostly_quarantined_is_refused_also_at_first_and_passes_once_accepted(lake):
    rows = (
        [row(n, tipologia=None) for n in range(3)]
        + [row(1, nom=name) for name in "abc"]
        + [row(n) for n in range(4, 7)]
    )
    bad = land(lake, REGISTER, [rows])
    with pytest.raises(
        Refused, match=r"5 of 9 rows would be quarantined, tolerated are 50% \(3 rows: service_type is"
    ):
        stage.stage(lake, REGISTER, run_id="r", now=NOW)
    refusal = snapshot.refused(lake, REGISTER.id)[bad.snapshot_id]
    assert refusal.figures == {
        "rows_in": 9, "rows_quarantined": 5, "reasons": {"service_type is missing": 3, "key used twice": 2},
    }  # fmt: skip
    snapshot.accept(lake, DEFINITIONS, bad.snapshot_id, "known", NOW)
    [staged] = stage.stage(lake, REGISTER, run_id="r", now=NOW)
    assert counts(staged) == (9, 4, 5, 0)


def test_a_source_whose_rows_are_one_broken_row_many_times_is_refused(lake):
    land(lake, REGISTER, [[row(1, tipologia=None)] * 6])
    with pytest.raises(Refused, match="1 of 1 rows would be quarantined"):
        stage.stage(lake, REGISTER, run_id="r", now=NOW)


def test_a_source_that_is_quarantined_by_half_or_hardly_has_rows_is_staged(lake):
    half = [row(n, tipologia=None) for n in range(3)] + [row(n) for n in range(3, 6)]
    assert counts(stage_rows(lake, half)) == (6, 3, 3, 0)
    land(lake, REGISTER, [[row(n, tipologia=None) for n in range(4)]], now=NOW + timedelta(days=1))
    assert counts(stage.stage(lake, REGISTER, run_id="r", now=NOW)[0]) == (4, 0, 4, 0)


def test_the_share_that_may_be_quarantined_is_that_of_the_definition(lake):
    strict = REGISTER.model_copy(
        update={"tolerance": REGISTER.tolerance.model_copy(update={"quarantine_ratio": 0.1})}
    )
    land(lake, REGISTER, [[row(1, tipologia=None), *map(row, range(2, 9))]])
    with pytest.raises(Refused, match="1 of 8 rows would be quarantined, tolerated are 10%"):
        stage.stage(lake, strict, run_id="r", now=NOW)


def test_a_column_that_an_accepted_snapshot_lacks_is_null_there_and_not_required(lake):
    columns = declared(REGISTER)
    del columns["tipologia"], columns["capacitat"]
    bad = land(lake, REGISTER, [[{"registre": f"S{n}", "nom": "x"} for n in range(8)]], columns=columns)
    with pytest.raises(Refused, match=r"tipologia.*missing.*capacitat.*missing"):
        stage.stage(lake, REGISTER, run_id="r", now=NOW)
    snapshot.accept(lake, DEFINITIONS, bad.snapshot_id, "as it was then", NOW)
    [staged] = stage.stage(lake, REGISTER, run_id="r", now=NOW)
    assert counts(staged) == (8, 8, 0, 0)
    assert staged_rows(lake, staged, "distinct name, service_type, places") == [("x", None, None)]


def test_a_key_is_needed_even_where_the_snapshot_lacks_its_column(lake):
    columns = declared(REGISTER)
    del columns["registre"]
    bad = land(lake, REGISTER, [[{"tipologia": KIND}]], columns=columns)
    with pytest.raises(Refused):
        stage.stage(lake, REGISTER, run_id="r", now=NOW)
    snapshot.accept(lake, DEFINITIONS, bad.snapshot_id, "as it was then", NOW)
    [staged] = stage.stage(lake, REGISTER, run_id="r", now=NOW)
    assert (counts(staged), staged.reasons) == ((1, 0, 1, 0), {"service_id is missing": 1})


def test_bytes_that_changed_in_the_lake_are_not_staged(lake):
    manifest = land(lake, REGISTER, [[row(1)]])
    lake.put(layout.landing(REGISTER.id, manifest.snapshot_id, "page-00000.json"), b"[]")
    with pytest.raises(Refused, match=r"page-00000\.json: SHA-256 is") as refusal:
        stage.stage(lake, REGISTER, run_id="r", now=NOW)
    assert (
        list(refusal.value.snapshots) == list(snapshot.refused(lake, REGISTER.id)) == [manifest.snapshot_id]
    )


def test_a_staged_snapshot_is_not_staged_again_until_its_definition_changes(lake):
    stage_rows(lake, [row(1)])
    assert stage.stage(lake, REGISTER, run_id="r", now=NOW) == []
    stricter = REGISTER.model_copy(update={"columns": REGISTER.columns[:-1]})
    assert len(stage.stage(lake, stricter, run_id="r", now=NOW)) == 1


def test_the_digest_changes_with_the_definition_and_with_the_code_that_types(monkeypatch):
    known = row_sql.digest(REGISTER)
    strict = REGISTER.model_copy(update={"columns": (*REGISTER.columns[:-1], retyped(REGISTER.columns[-1]))})
    reworded = REGISTER.columns[0].model_copy(update={"description": "Other words."})
    described = REGISTER.model_copy(
        update={"title": TOWNS.title, "columns": (reworded, *REGISTER.columns[1:])}
    )
    assert row_sql.digest(described) == known != row_sql.digest(strict)
    monkeypatch.setattr(row_sql, "rules_digest", lambda: "other code")
    assert row_sql.digest(REGISTER) != known


def retyped(column: Column) -> Column:
    return column.model_copy(update={"constraints": Constraints(pattern="^[A-Z]")})


@pytest.mark.parametrize(
    "module",
    [
        "staging/row_sql.py",
        "staging/polygons.py",
        "staging/row_problems.py",
        "staging/snapshot_typing.py",
        "staging/schema_drift.py",
        "sources/idescat.py",
        "sources/idescat_rows.py",
        "sources/jsonstat.py",
    ],
)
def test_a_change_of_any_module_that_types_rows_changes_the_digest_line_ends_do_not(tmp_path, module):
    def digest_in(folder: Path) -> str:
        code = "from catalunya.staging import row_sql; print(row_sql.__file__, row_sql.rules_digest())"
        env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        found = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        file, digest = found.stdout.split()
        assert file.startswith(str(folder))
        return digest

    package = ROOT / "src" / "catalunya"
    shutil.copytree(package, tmp_path / "a" / "catalunya", ignore=shutil.ignore_patterns("__pycache__"))
    text = (package / module).read_bytes()
    changed = tmp_path / "a" / "catalunya" / module
    changed.write_bytes(text.replace(b"\n", b"\r\n"))
    assert digest_in(tmp_path / "a") == row_sql.rules_digest()
    changed.write_bytes(text + b"\n_ = 0\n")
    archive = shutil.make_archive(str(tmp_path / "functions"), "zip", tmp_path / "a")
    assert digest_in(Path(archive)) == digest_in(tmp_path / "a") != row_sql.rules_digest()


def test_the_counts_travel_with_the_staged_file(lake):
    staged = stage_rows(lake, [row(1), row(1), row(2, capacitat="x")])
    found = staged_record(lake, REGISTER.id, staged.snapshot_id)
    assert found == dataclasses.replace(staged, controls=(), warnings=staged.warnings)


def test_two_runs_stage_the_same_bytes(tmp_path):
    rows = [row(n, nom=f"n{n % 7}") for n in range(500)]
    contents = []
    for name in ("a", "b"):
        lake = local_lake(tmp_path / name)
        staged = stage_rows(lake, rows[:250], rows[250:])
        contents.append(lake.read(layout.staged(REGISTER.id, staged.snapshot_id)))
    assert contents[0] == contents[1]


def test_rows_too_large_for_the_memory_bound_are_staged_without_it(lake, monkeypatch):
    monkeypatch.setattr(snapshot_typing, "_MEMORY", "20MB")
    staged = stage_rows(lake, [row(n, nom="x" * 20_000) for n in range(2_000)])
    assert counts(staged) == (2_000, 2_000, 0, 0)


def test_features_of_each_level_become_areas(lake):
    dataset = DEFINITIONS["boundaries"]
    square = {"type": "Polygon", "coordinates": [[[1, 41], [1, 42], [2, 42], [1, 41]]]}
    pages = [
        {
            "type": "FeatureCollection",
            "features": [{"type": "Feature", "properties": properties, "geometry": square}],
        }
        for properties in (
            {"CODICOMAR": "01", "NOMCOMAR": "Alt Camp"},
            {"CODIMUNI": "080018", "NOMMUNI": "Abrera", "CODICOMAR": "11", "NOMCOMAR": "Baix Llobregat"},
        )
    ]
    land(lake, dataset, pages)
    staged = stage.stage(lake, dataset, run_id="r", now=NOW)[0]
    assert staged_rows(lake, staged, "level, area_id, name, comarca_id, comarca_name") == [
        ("comarca", "01", "Alt Camp", "01", "Alt Camp"),
        ("municipality", "080018", "Abrera", "11", "Baix Llobregat"),
    ]


def population_page(municipalities, values):
    def dimension(*codes):
        return {"category": {"index": list(codes), "label": {code: code for code in codes}}}

    return {
        "class": "dataset",
        "id": ["YEAR", "MUN", "SEX", "AGE"],
        "size": [1, len(municipalities), 1, 2],
        "dimension": {
            "YEAR": dimension("2024"),
            "MUN": dimension(*municipalities),
            "SEX": dimension("TOTAL"),
            "AGE": dimension("Y_GE065", "TOTAL"),
        },
        "value": values,
    }


def test_a_snapshot_without_the_totals_that_its_definition_names_is_warned_of(tmp_path):
    def warnings(name, *pages):
        lake = local_lake(tmp_path / name)
        land(lake, DEFINITIONS["population"], pages)
        staged = stage.stage(lake, DEFINITIONS["population"], run_id="r", now=NOW)[0]
        assert staged.rows_staged == 1
        return [warning for warning in staged.warnings if "MUN=TOTAL" in warning]

    total, municipality = population_page(["TOTAL"], [10, 100]), population_page(["080018"], [10, 100])
    assert warnings("whole", population_page(["080018", "TOTAL"], [10, 100, 10, 100])) == []
    assert warnings("in parts", municipality, total) == []
    (warning,) = warnings("gone", municipality)
    assert warning.startswith("population: the source has no total MUN=TOTAL")
    assert len(warnings("not a number", population_page(["080018", "TOTAL"], [10, 100, "..", ".."]))) == 1


RING = [[1, 41], [1, 42], [2, 42], [1, 41]]
GOOD_BORDERS = {
    "polygon": {"type": "Polygon", "coordinates": [RING]},
    "parts": {"type": "MultiPolygon", "coordinates": [[RING], [RING, RING]]},
    "heights": {"type": "Polygon", "coordinates": [[[*position, 12.5] for position in RING]]},
    "a height at times": {"type": "Polygon", "coordinates": [[[1, 41, 5], [1, 42], [2, 42], [1, 41]]]},
}
NO_POLYGON, NO_RINGS = "is not a Polygon or MultiPolygon", "are not closed rings of at least four positions"
BAD_BORDERS = {
    "point": ({"type": "Point", "coordinates": [1, 41]}, NO_POLYGON),
    "line": ({"type": "LineString", "coordinates": RING}, NO_POLYGON),
    "collection": ({"type": "GeometryCollection", "geometries": [GOOD_BORDERS["polygon"]]}, NO_POLYGON),
    "no type": ({"coordinates": [RING]}, NO_POLYGON),
    "type in lower case": ({"type": "polygon", "coordinates": [RING]}, NO_POLYGON),
    "unknown type": ({"type": "Banana", "coordinates": [RING]}, NO_POLYGON),
    "type is a number": ({"type": 5, "coordinates": [RING]}, NO_POLYGON),
    "empty": ({}, NO_POLYGON),
    "text": ("POINT(1 41)", NO_POLYGON),
    "list": ([RING], NO_POLYGON),
    "null": (None, "geometry is missing"),
    "no coordinates": ({"type": "Polygon"}, NO_RINGS),
    "coordinates are null": ({"type": "Polygon", "coordinates": None}, NO_RINGS),
    "no polygon": ({"type": "MultiPolygon", "coordinates": []}, NO_RINGS),
    "no ring": ({"type": "Polygon", "coordinates": []}, NO_RINGS),
    "empty ring": ({"type": "Polygon", "coordinates": [RING, []]}, NO_RINGS),
    "unclosed": ({"type": "Polygon", "coordinates": [[*RING[:-1], [2, 41]]]}, NO_RINGS),
    "three positions": ({"type": "Polygon", "coordinates": [[RING[0], RING[1], RING[0]]]}, NO_RINGS),
    "polygon too deep": ({"type": "Polygon", "coordinates": [[RING]]}, NO_RINGS),
    "polygon too flat": ({"type": "Polygon", "coordinates": RING}, NO_RINGS),
    "parts too flat": ({"type": "MultiPolygon", "coordinates": [RING]}, NO_RINGS),
    "parts too deep": ({"type": "MultiPolygon", "coordinates": [[[RING]]]}, NO_RINGS),
    "boolean": ({"type": "Polygon", "coordinates": [[[True, 41], *RING[1:-1], [True, 41]]]}, NO_RINGS),
    "boolean height": ({"type": "Polygon", "coordinates": [[RING[0], [1, 42, True], *RING[2:]]]}, NO_RINGS),
    "text as number": ({"type": "Polygon", "coordinates": [[["1", 41], *RING[1:]]]}, NO_RINGS),
    "empty position": ({"type": "Polygon", "coordinates": [[RING[0], [], *RING[1:]]]}, NO_RINGS),
    "null position": ({"type": "Polygon", "coordinates": [[RING[0], None, *RING[1:]]]}, NO_RINGS),
    "longitude alone": ({"type": "Polygon", "coordinates": [[RING[0], [1], *RING[1:]]]}, NO_RINGS),
}


def stage_borders(lake, geometries):
    def page(*areas):
        features = [
            {"type": "Feature", "properties": properties, "geometry": geometry}
            for properties, geometry in areas
        ]
        return {"type": "FeatureCollection", "features": features}

    municipalities = [
        ({"CODIMUNI": f"08{n:04d}", "NOMMUNI": "A", "CODICOMAR": "11", "NOMCOMAR": "B"}, geometry)
        for n, geometry in enumerate(geometries)
    ]
    comarca = ({"CODICOMAR": "11", "NOMCOMAR": "B"}, GOOD_BORDERS["polygon"])
    land(lake, DEFINITIONS["boundaries"], [page(comarca), page(*municipalities)])
    return stage.stage(lake, DEFINITIONS["boundaries"], run_id="r", now=NOW)[0]


def test_borders_of_closed_rings_are_staged_with_heights_or_without(lake):
    staged = stage_borders(lake, GOOD_BORDERS.values())
    assert (staged.rows_staged, staged.rows_quarantined) == (1 + len(GOOD_BORDERS), 0)


@pytest.mark.parametrize(("geometry", "reason"), BAD_BORDERS.values(), ids=BAD_BORDERS)
def test_a_border_that_cannot_be_drawn_is_quarantined_and_the_others_are_staged(lake, geometry, reason):
    staged = stage_borders(lake, [geometry, GOOD_BORDERS["polygon"]])
    assert staged_rows(lake, staged, "area_id") == [("080001",), ("11",)]
    assert [cause for cause in staged.reasons if reason in cause and cause.startswith("geometry")]
    assert staged.rows_quarantined == 1


ANYTHING = st.one_of(
    st.none(),
    st.text(max_size=12),
    st.integers(-5, 10**6),
    st.sampled_from(["null", "2011-02-03", "12", "7,5", "  "]),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.fixed_dictionaries(
            {"registre": st.sampled_from(["S1", "S2", "S3", None]), "tipologia": st.just("x")},
            optional={"capacitat": ANYTHING, "nom": ANYTHING, "inscripcio": ANYTHING},
        ),
        max_size=4,
    )
)
def test_no_row_is_lost_whatever_is_sent(tmp_path_factory, rows):
    lake = local_lake(tmp_path_factory.mktemp("lake"))
    staged = stage_rows(lake, rows)
    assert staged.rows_in == len(rows)
    assert staged.rows_in == staged.rows_staged + staged.rows_quarantined + staged.rows_duplicated
    assert len(staged_rows(lake, staged, "service_id")) == staged.rows_staged
    assert len(quarantine(lake, staged)) == staged.rows_quarantined


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            ["12", ".0", ".000", "1,5", "-", "+", "e3", "2011-02-03", "T00:00", "null", " ", "  ", "é", "Z"]
        ),
        st.characters(codec="utf-8"),
        st.sampled_from("\u00ad\u200b\u200e\u2028\u202f\u0301\u0387\u2800\ufeff\ufe0f\u0085\x00\u212a"),
    ),
    max_size=4,
).map("".join)
SENT = st.one_of(
    PIECES, st.none(), st.integers(), st.floats(-1e6, 1e6).map(lambda x: round(x, 2)), st.just({"a": 1})
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "registre": st.one_of(st.sampled_from(["S1", "S2"]), PIECES),
                "tipologia": st.one_of(PIECES, st.just("x")),
            },
            optional={"capacitat": SENT, "nom": st.one_of(PIECES, st.just([1])), "inscripcio": SENT},
        ),
        max_size=4,
    )
)
def test_rows_are_typed_as_plain_python_types_them(tmp_path_factory, rows):
    lake = local_lake(tmp_path_factory.mktemp("lake"))
    staged = stage_rows(lake, rows)
    plain = typed(REGISTER.id, rows, NOW.date())
    names = [column.name for column in REGISTER.columns]
    found = staged_rows(lake, staged, ", ".join(names))
    assert sorted(map(repr, found)) == sorted(
        repr(tuple(kept[name] for name in names)) for kept in plain.rows
    )
    assert counts(staged) == (len(rows), len(plain.rows), plain.quarantined, plain.duplicated)
    assert staged.invalid_values == plain.invalid
