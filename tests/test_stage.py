from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalunya import stage
from catalunya.errors import LakeCorrupt, Refused
from catalunya.lake import layout, snapshot
from catalunya.lake.storage import Storage
from catalunya.stage import Staged
from tests.landing import CARDS, NOW, declared, land, open_lake

REGISTER = CARDS["social_services"]
KIND = "Servei de centre de dia per a gent gran de caràcter temporal o permanent"


@pytest.fixture
def lake(tmp_path: Path) -> Storage:
    return open_lake(tmp_path / "lake")


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {"registre": f"S{number:05d}", "tipologia": KIND, "capacitat": "10", **fields}


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


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"capacitat": "n/d"}, 'places: "n/d" is not an integer'),
        ({"capacitat": "7.5"}, 'places: "7.5" is not an integer'),
        ({"capacitat": "-3"}, 'places: "-3" is below 0'),
        ({"capacitat": "99999999999999999999"}, 'places: "99999999999999999999" is not an integer'),
        ({"inscripcio": "2011-02-30"}, 'registered_on: "2011-02-30" is not a date (YYYY-MM-DD)'),
        ({"inscripcio": "03/02/2011"}, 'registered_on: "03/02/2011" is not a date (YYYY-MM-DD)'),
        ({"registre": None}, "service_id is missing"),
        ({"nom": {"ca": "x"}}, 'name: "{"ca":"x"}" is not text'),
        (
            {"capacitat": "x", "inscripcio": "y"},
            'registered_on: "y" is not a date (YYYY-MM-DD); places: "x" is not an integer',
        ),
    ],
)
def test_a_row_that_breaks_the_declaration_is_set_aside_with_its_reason(lake, fields, reason):
    staged = stage_rows(lake, [row(1), row(2, **fields)])
    assert counts(staged) == (2, 1, 1, 0)
    assert quarantine(lake, staged) == [reason]


def test_doubled_rows_are_counted_and_kept_once_across_pages(lake):
    staged = stage_rows(lake, [row(1), row(2)], [row(2), row(3), row(1), row(1)])
    assert counts(staged) == (6, 3, 0, 3)
    assert staged_rows(lake, staged, "service_id") == [("S00001",), ("S00002",), ("S00003",)]


def test_of_rows_with_one_key_and_other_contents_the_first_is_kept(lake):
    staged = stage_rows(lake, [row(1, nom="first")], [row(1, nom="second"), row(1, nom="first")])
    assert counts(staged) == (3, 1, 1, 1)
    assert staged_rows(lake, staged, "name") == [("first",)]
    assert "service_id = S00001 came first" in quarantine(lake, staged)[0]


def test_the_kept_row_of_a_key_is_a_sound_one(lake):
    staged = stage_rows(lake, [row(1, capacitat="n/d"), row(1, nom="sound")])
    assert staged_rows(lake, staged, "name") == [("sound",)]


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
    snapshot.accept(lake, CARDS, bad.snapshot_id, "the portal dropped telephones", NOW)
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


def test_bytes_that_changed_in_the_lake_are_not_staged(lake):
    manifest = land(lake, REGISTER, [[row(1)]])
    lake.put(layout.landing(REGISTER.id, manifest.snapshot_id, "page-00000.json"), b"[]")
    with pytest.raises(LakeCorrupt, match=r"page-00000\.json: SHA-256 is"):
        stage.stage(lake, REGISTER, run_id="r", now=NOW)


def test_a_staged_snapshot_is_not_staged_again_until_its_card_changes(lake):
    stage_rows(lake, [row(1)])
    assert stage.stage(lake, REGISTER, run_id="r", now=NOW) == []
    stricter = REGISTER.model_copy(update={"columns": REGISTER.columns[:-1]})
    assert len(stage.stage(lake, stricter, run_id="r", now=NOW)) == 1


def test_the_counts_travel_with_the_staged_file(lake):
    staged = stage_rows(lake, [row(1), row(1), row(2, capacitat="x")])
    found = stage.staged_record(lake, REGISTER.id, staged.snapshot_id)
    assert found == dataclasses.replace(staged, controls=(), warnings=staged.warnings)


def test_two_runs_stage_the_same_bytes(tmp_path):
    rows = [row(n, nom=f"n{n % 7}") for n in range(500)]
    contents = []
    for name in ("a", "b"):
        lake = open_lake(tmp_path / name)
        staged = stage_rows(lake, rows[:250], rows[250:])
        contents.append(lake.read(layout.staged(REGISTER.id, staged.snapshot_id)))
    assert contents[0] == contents[1]


def test_rows_too_large_for_the_memory_bound_are_staged_without_it(lake, monkeypatch):
    monkeypatch.setattr(stage, "_MEMORY", "20MB")
    staged = stage_rows(lake, [row(n, nom="x" * 20_000) for n in range(2_000)])
    assert counts(staged) == (2_000, 2_000, 0, 0)


def test_features_of_each_level_become_areas(lake):
    dataset = CARDS["boundaries"]
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
    lake = open_lake(tmp_path_factory.mktemp("lake"))
    staged = stage_rows(lake, rows)
    assert staged.rows_in == len(rows)
    assert staged.rows_in == staged.rows_staged + staged.rows_quarantined + staged.rows_duplicated
    assert len(staged_rows(lake, staged, "service_id")) == staged.rows_staged
    assert len(quarantine(lake, staged)) == staged.rows_quarantined
