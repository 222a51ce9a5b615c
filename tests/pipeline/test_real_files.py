"""A run against the real files: the full municipality list, the population of 2019, 27 rows of the register."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from catalunya.demo import server
from tests.pipeline.command import Answer, Command, ReleasedLake, query, shared_once


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> ReleasedLake:
    def make(lake: Path) -> Answer:
        with server.running(files=shared) as files:
            return Command(str(lake), files.url).run()

    return shared_once(tmp_path_factory, "real", make)


def test_every_row_is_accounted_for(real):
    counts = real.answer.json["datasets"]
    rows_in = {name: d["rows_in"] for name, d in counts.items()}
    assert rows_in == {
        "municipalities": 949,
        "population": 947,
        "social_services": 27,
        "service_users": 422,
        "boundaries": 990,
    }
    for d in counts.values():
        assert d["rows_in"] == d["rows_staged"] + d["rows_quarantined"] + d["rows_duplicated"]


def test_the_two_rows_that_are_no_municipalities_are_quarantined_with_the_reason(real):
    pattern = f"{real.lake}/quarantine/municipalities/*/*.parquet"
    rows = duckdb.sql(
        f"select json_extract_string(raw, '$.codi'), reason from read_parquet('{pattern}') order by 1"
    ).fetchall()
    assert [code for code, _ in rows] == ["999998", "999999"]
    assert all("municipality_id" in reason for _, reason in rows)
    [(municipalities, comarques)] = query(
        real.folder,
        """
        select count(*) filter (is_current), (select count(*) from marts.dim_comarca)
        from marts.dim_municipality
        """,
    )
    assert (municipalities, comarques) == (947, 43)


def test_people_of_65_and_over_in_2019_are_the_published_sum(real):
    [(people, rows)] = query(
        real.folder, "select sum(people_aged_65_over), count(*) from marts.population where year = 2019"
    )
    assert (people, rows) == (1_442_754, 947)


def test_all_27_services_have_their_municipality(real):
    rows = query(
        real.folder,
        "select municipality_match, count(*), count(municipality_id) from marts.service_history "
        "where is_current group by 1",
    )
    assert sum(total for _, total, _ in rows) == 27
    assert sum(matched for _, _, matched in rows) == 27
    assert "unmatched" not in {match for match, _, _ in rows}


def test_a_release_of_real_files_is_not_called_demo(real):
    folder = real.folder
    assert json.loads((folder / "release.json").read_text("utf-8"))["demo"] is False
    assert "DEMO" not in (folder / "dictionary.md").read_text("utf-8")


def test_what_a_definition_expects_in_absolute_numbers_only_warns(real):
    assert any("27 rows, expected are" in warning for warning in real.answer.json["warnings"])
