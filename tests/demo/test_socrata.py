from __future__ import annotations

import json
import shutil
import subprocess
from datetime import date
from pathlib import Path

import httpx
import pytest
from sodapy import Socrata

from catalunya.demo.server import RunningPortal

REGISTER = "/resource/ivft-vegh.json"


def count(http: httpx.Client, dataset: str = "ivft-vegh") -> int:
    return int(http.get(f"/resource/{dataset}.json", params={"$select": "count(*)"}).json()[0]["count"])


def pages(http: httpx.Client, size: int = 3_000, **parameters: str) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    while True:
        asked = {"$limit": size, "$offset": len(rows), "$select": ":*,*", **parameters}
        page = http.get(REGISTER, params=asked).raise_for_status().json()
        rows += page
        if len(page) < size:
            return rows


def test_sodapy_gets_every_row_exactly_once(portal: RunningPortal, http: httpx.Client) -> None:
    client = Socrata(portal.url.removeprefix("http://"), None)
    client.uri_prefix = "http://"
    for dataset in ("9aju-tpwc", "yavr-pn8q", "ivft-vegh"):
        rows = list(client.get_all(dataset, order=":id", select=":id", limit=500))
        assert len({row[":id"] for row in rows}) == len(rows) == count(http, dataset)
    assert client.get_metadata("9aju-tpwc")["columns"][0]["fieldName"] == "codi"


def test_curl_gets_every_row_exactly_once(portal: RunningPortal, http: httpx.Client) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    rows: list[dict[str, str]] = []
    for offset in range(0, 12_000, 4_000):
        url = f"{portal.url}{REGISTER}?$order=:id&$limit=4000&$offset={offset}&$select=:*,*"
        rows += json.loads(subprocess.run(["curl", "-sfg", url], capture_output=True, check=True).stdout)
    assert len({row[":id"] for row in rows}) == len(rows) == count(http)


def test_the_order_without_order_is_another_one_but_complete(http: httpx.Client) -> None:
    ordered, unordered = pages(http, **{"$order": ":id"}), pages(http)
    assert ordered != unordered
    assert sorted(row[":id"] for row in unordered) == [row[":id"] for row in ordered]


def test_a_page_has_one_row_a_line_strings_only_and_no_nulls(http: httpx.Client) -> None:
    text = http.get(REGISTER, params={"$limit": "50"}).text
    lines = text.splitlines()
    assert text.startswith("[{") and text.endswith("}]\n") and len(lines) == 50
    assert all(line.startswith(",{") for line in lines[1:])
    rows = json.loads(text)
    assert all(isinstance(value, str) for row in rows for value in row.values())
    assert not any(name.startswith(":") for row in rows for name in row)


def test_a_page_has_1000_rows_unless_more_are_asked_for_and_never_more_than_50000(http: httpx.Client) -> None:
    assert len(http.get(REGISTER).json()) == 1_000
    assert len(http.get(REGISTER, params={"$limit": "9999999"}).json()) == count(http)
    assert http.get(REGISTER, params={"$offset": "999999"}).json() == []


def test_rows_are_filtered_ordered_and_projected(http: httpx.Client) -> None:
    osona = http.get(REGISTER, params={"comarca": "Osona", "$limit": "5000"}).json()
    assert osona and {row["comarca"] for row in osona} == {"Osona"}
    where = {"$where": "comarca = 'Osona' and capacitat is not null", "$select": "count(*)"}
    some = int(http.get(REGISTER, params=where).json()[0]["count"])
    assert 0 < some < len(osona)
    order = {"$order": "registre desc", "$select": "registre,nom", "$limit": "3"}
    rows = http.get(REGISTER, params=order).json()
    assert [row["registre"] for row in rows] == ["S90105", "S90104", "S90103"]
    assert set(rows[0]) == {"registre", "nom"}
    quoted = {"$where": "municipi = 'L''HOSPITALET DE LLOBREGAT'"}
    assert http.get(REGISTER, params=quoted).json()


def test_rows_can_be_walked_by_identifier(http: httpx.Client) -> None:
    first = http.get(REGISTER, params={"$order": ":id", "$limit": "2", "$select": ":id"}).json()
    after = {"$order": ":id", "$limit": "1", "$select": ":id", "$where": f":id > '{first[0][':id']}'"}
    assert http.get(REGISTER, params=after).json() == first[1:]


def test_the_csv_has_the_rows_of_the_json(http: httpx.Client) -> None:
    text = http.get("/resource/yavr-pn8q.csv", params={"$order": ":id"}).text
    assert text.startswith('"any","codi","comarca"')
    assert len(text.splitlines()) == 423


def same_shape(found: object, real: object) -> bool:
    if isinstance(real, dict):
        return (
            isinstance(found, dict)
            and found.keys() == real.keys()
            and all(same_shape(found[k], real[k]) for k in real)
        )
    return type(found) is type(real)


@pytest.mark.parametrize(
    ("file", "query", "status"),
    [
        ("socrata_400_no_such_column.json", {"definitely_not_a_field": "x"}, 400),
        ("socrata_400_malformed.json", {"$where": "?$where=municipi = 'Girona'"}, 400),
    ],
)
def test_errors_have_the_real_shape(
    http: httpx.Client, shared: Path, file: str, query: dict[str, str], status: int
) -> None:
    response = http.get(REGISTER, params=query)
    assert response.status_code == status
    assert same_shape(response.json(), json.loads((shared / "errors" / file).read_text()))


def test_an_unknown_dataset_is_answered_as_the_real_portal_does(http: httpx.Client, shared: Path) -> None:
    real = json.loads((shared / "errors" / "socrata_404_not_found.json").read_text())
    for path in ("/resource/xxxx-yyyy.json", "/api/views/xxxx-yyyy.json"):
        response = http.get(path)
        assert (response.status_code, response.json()) == (404, real)


def test_unknown_columns_are_refused_wherever_they_stand(http: httpx.Client) -> None:
    for query in ({"$order": "foo"}, {"$select": "foo"}, {"$where": "foo = 'x'"}, {"foo": "x"}):
        assert http.get(REGISTER, params=query).json()["errorCode"] == "query.soql.no-such-column"
    for query in ({"$group": "nom"}, {"$limit": "many"}, {"$where": "nom ="}, {"$order": "nom sideways"}):
        assert http.get(REGISTER, params=query).json()["code"] == "query.compiler.malformed"


def test_the_view_describes_the_columns_and_says_that_it_is_demo_data(http: httpx.Client) -> None:
    view = http.get("/api/views/ivft-vegh.json").json()
    fields = [column["fieldName"] for column in view["columns"]]
    assert fields[:5] == ["registre", "nom", "tipologia", "inscripcio", "capacitat"] and len(fields) == 14
    assert "demostració" in view["name"]
    assert view["columns"] == http.get("/api/views/ivft-vegh/columns.json").json()
    soda = json.loads(http.get(REGISTER, params={"$limit": "1"}).headers["X-SODA2-Fields"])
    assert soda == fields


def test_a_client_that_has_the_version_gets_304(http: httpx.Client) -> None:
    paths = (
        REGISTER,
        "/api/views/ivft-vegh.json",
        "/taules/v2/censph/540/19948/mun",
        "/datacloud/divisions-administratives/vigent/json_unzip/divisions-administratives-comarques-1000000.json",
    )
    for path in paths:
        first = http.get(path)
        assert first.headers["X-Catalunya-Demo"] == "true"
        for header, value in (
            ("If-None-Match", first.headers["ETag"]),
            ("If-Modified-Since", first.headers["Last-Modified"]),
        ):
            again = http.get(path, headers={header: value})
            assert (again.status_code, again.content) == (304, b"")
        assert http.get(path, headers={"If-None-Match": 'W/"other"'}).status_code == 200


def test_gzip_comes_only_when_asked_for(http: httpx.Client) -> None:
    plain = http.get(REGISTER, headers={"Accept-Encoding": "identity"})
    packed = http.get(REGISTER, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.content == packed.content
    assert int(plain.headers["content-length"]) == len(plain.content)


def test_another_day_shows_another_register_and_another_validator(
    portal: RunningPortal, http: httpx.Client
) -> None:
    before, updated = count(http), http.get("/api/views/ivft-vegh.json").json()["rowsUpdatedAt"]
    etag = http.get(REGISTER).headers["ETag"]
    portal.set_day(date(2025, 7, 16))
    try:
        assert count(http) > before
        assert http.get("/api/views/ivft-vegh.json").json()["rowsUpdatedAt"] > updated
        assert http.get(REGISTER, headers={"If-None-Match": etag}).status_code == 200
        assert http.get("/taules/v2/censph/540/19948/mun").json()["size"][0] == 10
    finally:
        portal.set_day(date(2024, 12, 31))
    assert count(http) == before


def test_the_log_tells_every_request(portal: RunningPortal, http: httpx.Client) -> None:
    http.get("/resource/9aju-tpwc.json?$limit=1")
    http.get("/resource/xxxx-yyyy.json")
    assert portal.log == [
        ("GET", "/resource/9aju-tpwc.json?$limit=1", 200),
        ("GET", "/resource/xxxx-yyyy.json", 404),
    ]
