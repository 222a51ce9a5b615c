from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

TABLE = "/taules/v2/censph/540/19948/mun"
FOLDER = "/datacloud/divisions-administratives/vigent/json_unzip/divisions-administratives-"


def test_the_table_is_found_by_walking_the_collections(http: httpx.Client) -> None:
    url = "/taules/v2"
    while (body := http.get(url).json())["class"] == "collection":
        url = body["link"]["item"][0]["href"]
    assert url.endswith(TABLE)
    assert (body["id"], body["version"]) == (["YEAR", "MUN", "SEX", "AGE"], "2.0")
    assert "value" not in body
    assert "demostració" in body["label"]


def test_values_are_in_row_major_order(http: httpx.Client) -> None:
    body = http.get(f"{TABLE}/data", params={"SEX": "TOTAL", "AGE": "Y_GE065,TOTAL", "YEAR": "2019"}).json()
    assert body["size"] == [1, 949, 1, 2]
    assert list(body["dimension"]["AGE"]["category"]["index"]) == ["TOTAL", "Y_GE065"]
    everyone, aged = body["value"][0::2], body["value"][1::2]
    assert (everyone[0], aged[0]) == (7_675_217, 1_442_754)
    assert sum(value or 0 for value in aged[1:]) == 1_442_754


def test_an_abolished_municipality_has_no_figures_and_a_status(http: httpx.Client) -> None:
    body = http.get(f"{TABLE}/data", params={"SEX": "TOTAL", "AGE": "TOTAL", "YEAR": "2019"}).json()
    position = body["dimension"]["MUN"]["category"]["index"].index("171220")
    assert body["value"][position] is None
    assert body["status"] == {str(position): ".."}


def test_a_misspelt_filter_is_ignored_in_silence(http: httpx.Client) -> None:
    asked = {"SEXE": "TOTAL", "AGE": "TOTAL", "YEAR": "2019", "MUN": "080193"}
    body = http.get(f"{TABLE}/data", params=asked).json()
    assert body["size"] == [1, 1, 3, 1]
    assert http.get(TABLE, params=asked).json()["size"] == [1, 1, 3, 1]


def test_more_than_20000_cells_are_refused_with_the_real_body(http: httpx.Client, shared: Path) -> None:
    real = json.loads((shared / "errors" / "idescat_416_too_many_cells.json").read_text())
    refused = http.get(f"{TABLE}/data", params={"SEX": "TOTAL"})
    assert (refused.status_code, refused.json()) == (416, real)
    assert http.get(f"{TABLE}/data", params={"SEX": "TOTAL", "AGE": "TOTAL,Y_GE065"}).status_code == 200
    assert http.get(TABLE).status_code == 200


@pytest.mark.parametrize(
    ("level", "code", "areas"), [("comarques", "CODICOMAR", 43), ("municipis", "CODIMUNI", 947)]
)
@pytest.mark.parametrize("scale", ["5000", "50000", "100000", "250000", "500000", "1000000"])
def test_every_scale_has_every_area_once(
    http: httpx.Client, level: str, code: str, areas: int, scale: str
) -> None:
    body = http.get(f"{FOLDER}{level}-{scale}.json").json()
    assert f"-{level}-{scale}-" in body["name"] and "demo" in body["name"]
    assert (
        len({feature["properties"][code] for feature in body["features"]}) == len(body["features"]) == areas
    )
    rings = [
        ring for feature in body["features"] for shape in feature["geometry"]["coordinates"] for ring in shape
    ]
    assert all(len(ring) >= 4 and ring[0] == ring[-1] for ring in rings)


def test_properties_are_those_of_the_real_files(http: httpx.Client, shared: Path) -> None:
    for level in ("comarques", "municipis"):
        real = json.loads((shared / "boundaries" / f"{level}_500000_2026-01.geojson").read_text())
        made = http.get(f"{FOLDER}{level}-500000.json").json()
        names = set(real["features"][0]["properties"])
        assert names <= set(made["features"][0]["properties"])


def test_a_scale_that_does_not_exist_is_not_found(http: httpx.Client) -> None:
    assert http.get(f"{FOLDER}comarques-7.json").status_code == 404
