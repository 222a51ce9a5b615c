from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from catalunya.demo.errors import FilesIncomplete
from catalunya.demo.server import running


@pytest.fixture(scope="module")
def real(shared: Path) -> Iterator[httpx.Client]:
    with running(files=shared) as portal, httpx.Client(base_url=portal.url) as client:
        yield client


def test_real_rows_are_served_as_they_are(real: httpx.Client, shared: Path) -> None:
    served = real.get("/resource/yavr-pn8q.json", params={"$order": "any,codi", "$select": ":id,*"}).json()
    file = json.loads((shared / "services" / "attended_by_comarca_2015_2024.json").read_text())
    system = {":version", ":created_at", ":updated_at"}
    expected = sorted(
        ({k: v for k, v in row.items() if k not in system} for row in file),
        key=lambda row: (row["any"], row["codi"]),
    )
    assert served == expected
    plain = real.get("/resource/yavr-pn8q.json").json()
    assert not any(name.startswith(":") for row in plain for name in row)


def test_the_register_has_all_fourteen_fields_and_the_missing_ones_are_left_out(
    real: httpx.Client, shared: Path
) -> None:
    assert len(real.get("/api/views/ivft-vegh.json").json()["columns"]) == 14
    rows = real.get("/resource/ivft-vegh.json", params={"$order": "registre"}).json()
    with (shared / "services" / "ivft-vegh_sample27_2026-09.csv").open(encoding="utf-8", newline="") as file:
        assert rows == sorted(csv.DictReader(file), key=lambda row: row["registre"])


def test_the_export_of_the_municipalities_keeps_its_metadata(real: httpx.Client) -> None:
    view = real.get("/api/views/9aju-tpwc.json").json()
    assert (view["name"], view["rowsUpdatedAt"]) == ("Municipis Catalunya Geo", 1734602306)
    assert all(column["dataTypeName"] != "meta_data" for column in view["columns"])
    rows = real.get("/resource/9aju-tpwc.json", params={"codi": "999998"}).json()
    assert rows[0]["nom"] == "No consta"
    assert None not in rows[0].values()
    assert real.get("/resource/9aju-tpwc.json", params={"$select": "count(*)"}).json() == [{"count": "949"}]


def test_people_by_age_are_served_as_the_table_of_2019(real: httpx.Client) -> None:
    asked = {"SEX": "TOTAL", "AGE": "TOTAL,Y_GE065"}
    body = real.get("/taules/v2/censph/540/19948/mun/data", params=asked).json()
    assert body["size"] == [1, 948, 1, 2]
    assert body["dimension"]["YEAR"]["category"]["index"] == ["2019"]
    assert body["value"][:2] == [7_675_217, 1_442_754]


def test_borders_are_the_bytes_of_the_file_and_nothing_is_marked_as_demo(
    real: httpx.Client, shared: Path
) -> None:
    path = "/datacloud/divisions-administratives/vigent/json_unzip/divisions-administratives-municipis-100000.json"
    response = real.get(path)
    assert response.content == (shared / "boundaries" / "municipis_500000_2026-01.geojson").read_bytes()
    assert "X-Catalunya-Demo" not in response.headers


def test_what_is_missing_is_named(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(FilesIncomplete, match="no folder"), running(files=tmp_path / "nowhere"):
        pass
    shutil.copytree(shared / "services", tmp_path / "services")
    with (
        pytest.raises(FilesIncomplete, match=r"9aju-tpwc.*b4rr-d25b.*comarques.*municipis"),
        running(files=tmp_path),
    ):
        pass


def test_a_file_that_is_no_json_is_named(shared: Path, tmp_path: Path) -> None:
    shutil.copytree(shared, tmp_path / "data")
    broken = tmp_path / "data" / "municipalities" / "9aju-tpwc_2024-12.rows.json"
    broken.chmod(0o644)
    broken.write_text("{broken")
    with pytest.raises(FilesIncomplete, match=broken.name), running(files=tmp_path / "data"):
        pass
