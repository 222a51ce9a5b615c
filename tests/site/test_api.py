"""The JSON of each territory: as its description says, with the figures of the marts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import jsonschema_rs
import pytest
from openapi_spec_validator import validate

from catalunya.publication import demo_notice

FILES = {
    "Index": "index.json",
    "Catalonia": "catalonia.json",
    "Comarques": "comarques.json",
    "Comarca": "comarques/*.json",
    "Municipalities": "municipalities.json",
    "Municipality": "municipalities/*.json",
}


@pytest.fixture(scope="module")
def api(site: Path) -> Path:
    return site / "api" / "v1"


@pytest.fixture(scope="module")
def description(api: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((api / "openapi.json").read_text("utf-8"))
    return found


def test_the_description_is_valid(description: dict[str, Any]) -> None:
    validate(description)
    assert description["openapi"].startswith("3.1")
    paths = {
        path.replace("{comarca_id}", "*").replace("{municipality_id}", "*")[1:]
        for path in description["paths"]
    }
    assert paths == set(FILES.values())


@pytest.mark.parametrize("schema", FILES)
def test_every_file_is_as_described(api: Path, description: dict[str, Any], schema: str) -> None:
    document = {"$ref": f"#/components/schemas/{schema}", "components": description["components"]}
    validator = jsonschema_rs.validator_for(
        {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}
    )
    found = sorted(api.glob(FILES[schema]))
    assert len(found) == {"Comarca": 43, "Municipality": 947}.get(schema, 1)
    for path in found:
        read = json.loads(path.read_text("utf-8"))
        validator.validate(read)
        assert read["demo_notice"] == demo_notice.NOTICE
        assert path.stat().st_size < 300_000
    wrong = {**read, "surprise": 1}
    assert not validator.is_valid(wrong)


@pytest.mark.parametrize(
    ("level", "mart", "key"),
    [
        ("municipalities", "coverage_municipality", "municipality_id"),
        ("comarques", "coverage_comarca", "comarca_id"),
    ],
)
def test_the_figures_are_those_of_the_marts(
    api: Path, marts: duckdb.DuckDBPyConnection, level: str, mart: str, key: str
) -> None:
    columns = (
        "year, service_group, ownership, basis, services, places, places_per_100_aged_65_over, "
        "places_per_100_aged_65_over_latest"
    )
    names = columns.split(", ")
    expected: dict[str, list[dict[str, Any]]] = {}
    for code, *row in marts.execute(
        f"select {key}, {columns} from {mart} where ownership = 'all' or services > 0 "
        f"order by {key}, year, service_group, ownership"
    ).fetchall():
        expected.setdefault(code, []).append(dict(zip(names, row, strict=True)))
    people = marts.execute(
        f"select distinct {key}, year, people_aged_65_over from {mart} where people_aged_65_over is not null"
    ).fetchall()
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in (api / level).glob("*.json")}
    assert {code: file["coverage"] for code, file in found.items()} == {
        code: expected[code] for code in found
    }
    assert {
        (code, row["year"], row["people_aged_65_over"])
        for code, file in found.items()
        for row in file["population"]
    } == {row for row in people if row[0] in found}


def test_how_near_services_are_is_that_of_the_mart(api: Path, marts: duckdb.DuckDBPyConnection) -> None:
    rows = marts.execute(
        "select municipality_id, service_group, nearest_km, nearest_municipality_id, accessibility_ratio "
        "from access_municipality order by all"
    ).fetchall()
    found = [
        (
            path.stem,
            one["service_group"],
            one["nearest_km"],
            one["nearest_municipality_id"],
            one["accessibility_ratio"],
        )
        for path in sorted((api / "municipalities").glob("*.json"))
        for one in json.loads(path.read_text("utf-8"))["access"]
    ]
    assert found == rows


def test_the_lists_lead_to_every_file_and_the_files_to_their_pages(site: Path, api: Path) -> None:
    base = "http://127.0.0.1:8081/"
    for level in ("comarques", "municipalities"):
        listed = json.loads((api / f"{level}.json").read_text("utf-8"))[level]
        assert len(listed) == len(list((api / level).glob("*.json")))
        for entry in listed:
            file = json.loads((site / entry["url"].removeprefix(base)).read_text("utf-8"))
            assert file["name"] == entry["name"]
            for page in file["pages"].values():
                assert (site / page.removeprefix(base) / "index.html").is_file()
    index = json.loads((api / "index.json").read_text("utf-8"))
    for name in ("licences", "documentation", "catalonia", "comarques", "municipalities"):
        assert (site / index[name].removeprefix(base)).is_file()


def test_a_territory_says_nothing_of_the_release_as_a_whole(api: Path) -> None:
    index = json.loads((api / "index.json").read_text("utf-8"))
    for path in (api / "municipalities").glob("08*.json"):
        assert index["release_id"] not in path.read_text("utf-8")
