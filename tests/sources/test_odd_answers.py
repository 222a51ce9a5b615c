"""Invalid answers of portals: each is one explained error of its source."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalunya import sources, stage
from catalunya.datasets.sources import DownloadSource
from catalunya.errors import SnapshotUnreadable, SourceDrift, SourceUnreadable
from catalunya.ingest import ingest
from catalunya.lake import snapshot
from catalunya.sources import Http
from catalunya.staging.snapshot_typing import stage_snapshot
from tests.factories import DEFINITIONS, NOW, land, local_lake
from tests.sources.portals import (
    FILES,
    REGISTER,
    TABLE,
    WANTED,
    Files,
    Register,
    Reply,
    Request,
    Serve,
    Tables,
    fetch,
    geojson,
    settings,
)

ROWS = [{"registre": f"S{number:05d}", "nom": "Residència", "tipologia": "x"} for number in range(40)]
DEEP = b"[" * 5000 + b"]" * 5000


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Http, "pause", lambda *_: None)


def read_register(url: str, http: Http, spool: Path) -> object:
    return fetch(REGISTER, url, http, spool, dataset="social_services", key=("registre",))


def read_table(url: str, http: Http, spool: Path) -> object:
    return fetch(TABLE, url, http, spool, dataset="population", wanted=WANTED)


def read_files(url: str, http: Http, spool: Path) -> object:
    return fetch(FILES, url, http, spool, dataset="boundaries")


@pytest.mark.parametrize(
    ("odd", "found"),
    [
        (b'[{"registre":"S1","nom":"Resid\xe8ncia"}]', r"not UTF-8 .*byte 0xe8"),
        (b'[{"registre":"S1","nom":"\xed\xa0\x80"}]', "not UTF-8"),
        (b'[{"registre":"S1","nom":"a"}\n,{"registre":"S\xff"}]', "not UTF-8"),
        (b'[{"registre":"S1","nom":"' + b"a" * 700_000 + b'\xc3"}]', "not UTF-8"),
        (b'[{"registre":"S1","nom":"\xc3', "not UTF-8"),
        (b'[{"registre":"S1","nom":' + DEEP + b"}]", "nested too deeply"),
        (b'[{"registre":' + b"1" * 5000 + b"}]", "found"),
        (b'[{"registre":NaN}]', "broken"),
        ('[{"registre":"S1"}]'.encode("utf-16"), "not UTF-8"),
        (b'\xef\xbb\xbf[{"registre":"S1"}]', "broken"),
    ],
    ids=["Latin-1", "surrogate", "key", "late", "cut", "deep", "5,000 digits", "NaN", "UTF-16", "BOM"],
)
def test_a_page_that_cannot_be_decoded_is_retried_and_then_named(
    serve: Serve, http: Http, tmp_path: Path, odd: bytes, found: str
) -> None:
    portal = Register([{"registre": "S1", "nom": "a"}], ["registre", "nom"])
    server = serve(lambda request: Reply(odd) if "$offset" in request.query else portal(request))
    with pytest.raises(SourceUnreadable, match=found):
        read_register(server.url, http, tmp_path)
    assert sum("$offset" in request.query for request in server.requests) == 5


@pytest.mark.parametrize(
    "change",
    [
        {"rowsUpdatedAt": {"day": 1}},
        {"rowsUpdatedAt": 10**30},
        {"rowsUpdatedAt": -1},
        {"rowsUpdatedAt": True},
        {"columns": [{"fieldName": "registre", "dataTypeName": 5}]},
        {"columns": [{"fieldName": "registre"}, {"fieldName": "registre"}]},
        {"columns": {"registre": 1}},
    ],
)
def test_invalid_metadata_are_retried_and_then_named(
    serve: Serve, http: Http, tmp_path: Path, change: dict[str, Any]
) -> None:
    good = {"rowsUpdatedAt": 1, "columns": [{"fieldName": "registre", "dataTypeName": "text"}]}
    server = serve(lambda request: Reply({**good, **change}))
    with pytest.raises(SourceUnreadable, match="tried 5 times"):
        read_register(server.url, http, tmp_path)


@pytest.mark.parametrize("count", ["9" * 5000, 10**18, -1, 1.5, "many", {"a": {}}])
def test_an_impossible_count_is_refused(serve: Serve, http: Http, tmp_path: Path, count: object) -> None:
    portal = Register(ROWS, ["registre", "nom"])
    portal.count_as = lambda _: [{"count": count}]
    with pytest.raises(SourceUnreadable, match="expected the number of rows"):
        read_register(serve(portal).url, http, tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda table: table.update(updated={"day": 1}),
        lambda table: table.update(size=None),
        lambda table: table.update(size=[-1, "3", 1.5, {}]),
        lambda table: table.update(id=["YEAR", "YEAR", "SEX", "AGE"]),
        lambda table: table["dimension"]["MUN"]["category"]["label"].update({"080018": {"ca": "Abrera"}}),
        lambda table: table["dimension"]["MUN"]["category"].update(index=[1, 2, 3, 4]),
        lambda table: table["dimension"]["MUN"]["category"].update(index={"080018": 0, "080023": 0}),
        lambda table: table.update(value={"-1": 1, "1_0": 2}),
        lambda table: table.update(value={"9" * 5000: 1}),
        lambda table: table["value"].__setitem__(0, {"a": 1}),
        lambda table: table.update(status={"1": ["x"]}),
        lambda table: table.update(status=5),
        lambda table: table.update(dimension=[]),
    ],
)
def test_json_stat_of_wrong_types_is_retried_and_then_named(
    serve: Serve, http: Http, tmp_path: Path, damage: Callable[[dict[str, Any]], object]
) -> None:
    tables = Tables()

    def answer(request: Request) -> Reply:
        reply = tables(request)
        if request.path.endswith("/data"):
            damage(reply.body)
        return reply

    with pytest.raises(SourceUnreadable, match="tried 5 times"):
        read_table(serve(answer).url, http, tmp_path)


def test_a_table_of_too_many_cells_is_not_read(serve: Serve, http: Http, tmp_path: Path) -> None:
    tables = Tables()
    tables.categories |= {name: [f"{name}{n}" for n in range(4_000)] for name in ("YEAR", "MUN")}
    with pytest.raises(SourceUnreadable, match=r"categories for 32,000,000 cells, more than the 10,000,000"):
        read_table(serve(tables).url, http, tmp_path)


@pytest.mark.parametrize("year", ["2023p", "2023.0"])
def test_a_provisional_year_lands_its_rows_are_quarantined_and_its_total_is_no_control(
    serve: Serve, tmp_path: Path, year: str
) -> None:
    tables = Tables()
    tables.categories["YEAR"] = ["2021", "2022", year]
    tables.value = lambda cell: ".." if cell["MUN"] == "TOTAL" and cell["YEAR"] == "2021" else 5  # type: ignore[method-assign]
    lake, dataset = local_lake(tmp_path / "lake"), DEFINITIONS["population"]
    assert ingest(lake, dataset, settings(serve(tables).url), run_id="r", now=NOW).outcome == "new"
    staged = stage.stage(lake, dataset, run_id="r", now=NOW)[0]
    assert staged.rows_in == 9
    assert {(c.period, c.published) for c in staged.controls} <= {("2022", 5), ("2023.0", 5)}
    assert {c.period for c in staged.controls} == {"2022"}


def files_in(crs: object) -> Files:
    portal = Files()
    portal.files["/municipis.json"]["crs"] = {"type": "name", "properties": {"name": crs}}
    return portal


@pytest.mark.parametrize(
    "crs",
    [
        "urn:ogc:def:crs:OGC:1.3:CRS84",
        "urn:ogc:def:crs:EPSG::4326",
        "EPSG:4326",
        "http://www.opengis.net/def/crs/EPSG/0/4326",
    ],
)
def test_a_download_in_longitude_and_latitude_is_read(
    serve: Serve, http: Http, tmp_path: Path, crs: str
) -> None:
    assert read_files(serve(files_in(crs)).url, http, tmp_path) is not None


@pytest.mark.parametrize("crs", ["urn:ogc:def:crs:EPSG::25831", "EPSG:43260", "EPSG:14326", {"href": "x"}])
def test_a_download_in_another_crs_is_drift(serve: Serve, http: Http, tmp_path: Path, crs: object) -> None:
    with pytest.raises(SourceDrift, match=r"boundaries: found coordinates in .*expected .*EPSG:4326"):
        read_files(serve(files_in(crs)).url, http, tmp_path)


UTM = {"type": "Polygon", "coordinates": [[[420_000, 4_600_000], [1, 41]]]}


def test_coordinates_in_metres_are_drift(serve: Serve, http: Http, tmp_path: Path) -> None:
    portal = Files()
    portal.files["/municipis.json"]["features"][0]["geometry"] = UTM
    with pytest.raises(SourceDrift, match=r"found the position \[420000, 4600000\], expected longitude"):
        read_files(serve(portal).url, http, tmp_path)


def test_coordinates_in_metres_that_had_landed_are_an_unreadable_snapshot(tmp_path: Path) -> None:
    portal = Files()
    portal.files["/municipis.json"]["features"][0]["geometry"] = UTM
    lake, dataset = local_lake(tmp_path / "lake"), DEFINITIONS["boundaries"]
    manifest = land(lake, dataset, list(portal.files.values()))
    with pytest.raises(SnapshotUnreadable, match=r"page-00001\.json: .*4600000.*EPSG:4326"):
        stage_snapshot(lake, dataset, manifest)


@pytest.mark.parametrize("geometry", [None, "POINT(1 41)", {"coordinates": [["1", "41"]]}, {"geometries": 5}])
def test_a_geometry_of_another_form_does_not_hold_up_the_other_features(
    serve: Serve, http: Http, tmp_path: Path, geometry: object
) -> None:
    portal = Files()
    portal.files["/municipis.json"]["features"][0]["geometry"] = geometry
    assert read_files(serve(portal).url, http, tmp_path) is not None


def landed(folder: Path, body: object) -> list[Path]:
    path = folder / "page-00000.json"
    path.write_bytes(body if isinstance(body, bytes) else json.dumps(body).encode())
    return [path]


def one_file(url: str = "http://x/comarques.json", role: str | None = None) -> list[snapshot.LandedFile]:
    return [snapshot.LandedFile(name="page-00000.json", url=url, size=1, sha256="", role=role)]


UNREADABLE = {
    "byte": b"\xff",
    "deep": DEEP,
    "cut": b"{",
    "digits": b"1" * 5000,
    "list": b"[]",
    "label": b'{"id": ["\xe8"]}',
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("source", [FILES, TABLE], ids=["download", "idescat"])
def test_landed_bytes_that_cannot_be_decoded_are_an_unreadable_snapshot_that_names_the_file(
    tmp_path: Path, source: Any, body: bytes
) -> None:
    with pytest.raises(SnapshotUnreadable, match=r"page-00000\.json: found"):
        list(sources.rows(source, one_file(), landed(tmp_path, body), {}))


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_controls_in_landed_bytes_that_cannot_be_decoded_name_the_file(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(SnapshotUnreadable, match=r"page-00000\.json: found"):
        sources.controls(TABLE, one_file(), landed(tmp_path, body))


def test_a_landed_file_keeps_its_level_when_the_order_in_the_definition_changes(tmp_path: Path) -> None:
    turned = DownloadSource(protocol="download", files=FILES.files[::-1])
    paths = landed(tmp_path, geojson({"CODICOMAR": "01"}))
    for source in (FILES, turned):
        for files in (one_file(role="comarca"), one_file("http://x/prefix/comarques.json?v=1")):
            assert [row["level"] for row in sources.rows(source, files, paths, {})] == ["comarca"]
    moved = {"urls": ["http://x/municipis.json"]}
    found = list(sources.rows(turned, one_file("http://cdn/a"), paths, moved))
    assert [row["level"] for row in found] == ["municipality"]


def test_a_landed_file_that_the_definition_does_not_name_is_unreadable_with_a_hint(
    tmp_path: Path,
) -> None:
    paths = landed(tmp_path, geojson({"CODICOMAR": "01"}))
    with pytest.raises(SnapshotUnreadable, match=r"http://x/other\.json.*name that address under `files`"):
        list(sources.rows(FILES, one_file("http://x/other.json"), paths, {}))


def test_a_new_order_of_files_in_the_definition_keeps_every_level(serve: Serve, tmp_path: Path) -> None:
    definition = DEFINITIONS["boundaries"]
    turned = definition.model_copy(
        update={"source": DownloadSource(protocol="download", files=definition.source.files[::-1])}  # type: ignore[union-attr]
    )
    lake = local_lake(tmp_path / "lake")

    def answer(request: Request) -> Reply:
        if "comarques" in request.path:
            return Reply(geojson({"CODICOMAR": "01", "NOMCOMAR": "Alt Camp"}))
        return Reply(geojson({"CODIMUNI": "080018", "NOMMUNI": "A", "CODICOMAR": "11", "NOMCOMAR": "B"}))

    url = serve(answer).url
    for dataset in (definition, turned):
        ingest(lake, dataset, settings(url), run_id="r", now=NOW)
        for staged in stage.stage(lake, dataset, run_id="r", now=NOW, force=True):
            assert (staged.rows_staged, staged.rows_quarantined) == (2, 0)


def test_a_level_that_is_corrected_in_the_definition_is_read_and_landed_anew(
    serve: Serve, tmp_path: Path
) -> None:
    definition = DEFINITIONS["boundaries"]
    files = [file.model_copy(update={"level": "municipality"}) for file in definition.source.files]  # type: ignore[union-attr]
    wrong = definition.model_copy(update={"source": DownloadSource(protocol="download", files=tuple(files))})
    lake, portal = local_lake(tmp_path / "lake"), Files()

    def answer(request: Request) -> Reply:
        name = "/comarques.json" if "comarques" in request.path else "/municipis.json"
        return portal(Request(name, request.query, request.headers))

    url = serve(answer).url
    assert ingest(lake, wrong, settings(url), run_id="r", now=NOW).outcome == "new"
    assert ingest(lake, wrong, settings(url), run_id="r", now=NOW).outcome == "unchanged"
    assert ingest(lake, definition, settings(url), run_id="r", now=NOW).outcome == "new"


def test_a_property_with_a_name_of_the_definition_does_not_override_it(tmp_path: Path) -> None:
    body = geojson({"level": "5", "geometry": "none", "CODICOMAR": "01"})
    (row,) = sources.rows(FILES, one_file(role="comarca"), landed(tmp_path, body), {})
    assert row["level"] == "comarca"
    assert json.loads(bytes(row["geometry"]))["type"] == "Polygon"
    assert list(row) == ["level", "CODICOMAR", "geometry"]


@pytest.mark.parametrize("member", ["geometry", "crs"])
def test_a_number_of_5000_digits_in_a_member_that_is_decoded_on_its_own_is_named(
    serve: Serve, http: Http, tmp_path: Path, member: str
) -> None:
    huge = b'{"coordinates": [' + b"1" * 5000 + b", 41]}"
    odd = {
        "geometry": b'{"type":"FeatureCollection","features":[{"type":"Feature","geometry":' + huge + b"}]}",
        "crs": b'{"type":"FeatureCollection","features":[{"type":"Feature"}],"crs":' + huge + b"}",
    }
    with pytest.raises(SourceUnreadable, match="out of range"):
        read_files(serve(lambda request: Reply(odd[member])).url, http, tmp_path)
