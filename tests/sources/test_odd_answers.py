"""What no portal should send, and what becomes of it: one explained error for its source."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalunya import sources, stage
from catalunya.datasets.sources import DownloadSource
from catalunya.errors import SnapshotUnreadable, SourceDrift, SourceUnreadable
from catalunya.ingest import ingest
from catalunya.lake import snapshot
from catalunya.settings import PORTAL_VARIABLES, Settings
from catalunya.sources import Http, download, idescat, socrata
from catalunya.sources.http import InvalidResponse, _Utf8
from catalunya.staging.snapshot_typing import stage_snapshot
from tests.factories import DEFINITIONS, NOW, land, local_lake

from .conftest import Answering, Asked, Register, Reply, Server
from .test_download import SOURCE as FILES
from .test_download import Files, geojson
from .test_idescat import SOURCE as TABLE
from .test_idescat import WANTED, Tables

Serve = Callable[[Answering], Server]
InTurn = Callable[..., Answering]
ROWS = [{"registre": f"S{number:05d}", "nom": "Residència", "tipologia": "x"} for number in range(40)]
DEEP = b"[" * 5000 + b"]" * 5000


@pytest.fixture(autouse=True)
def straight(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Http, "pause", lambda *_: None)


def settings(url: str) -> Settings:
    values: dict[str, Any] = dict.fromkeys(PORTAL_VARIABLES, url)
    return Settings(**values, CATALUNYA_HTTP_ATTEMPTS=1, CATALUNYA_HTTP_TIMEOUT=20)


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
def test_a_page_that_cannot_be_decoded_is_asked_for_again_and_then_named(
    serve: Serve, http: Http, tmp_path: Path, odd: bytes, found: str
) -> None:
    portal = Register([{"registre": "S1", "nom": "a"}], ["registre", "nom"])
    server = serve(lambda asked: Reply(odd) if "$offset" in asked.query else portal(asked))
    with pytest.raises(SourceUnreadable, match=found):
        socrata.fetch(
            DEFINITIONS["social_services"].source,  # type: ignore[arg-type]
            base_url=server.url,
            http=http,
            spool=tmp_path,
            key=("registre",),
        )
    assert sum("$offset" in asked.query for asked in server.asked) == 5


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
def test_odd_metadata_are_asked_for_again_and_then_named(
    serve: Serve, http: Http, tmp_path: Path, change: dict[str, Any]
) -> None:
    good = {"rowsUpdatedAt": 1, "columns": [{"fieldName": "registre", "dataTypeName": "text"}]}
    server = serve(lambda asked: Reply({**good, **change}))
    with pytest.raises(SourceUnreadable, match="tried 5 times"):
        socrata.fetch(DEFINITIONS["social_services"].source, base_url=server.url, http=http, spool=tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", ["9" * 5000, 10**18, -1, 1.5, "many", {"a": {}}])
def test_a_count_that_no_dataset_has_is_no_count(
    serve: Serve, http: Http, tmp_path: Path, count: object
) -> None:
    portal = Register(ROWS, ["registre", "nom"])
    portal.count_as = lambda _: [{"count": count}]
    with pytest.raises(SourceUnreadable, match="where the number of rows is due"):
        socrata.fetch(
            DEFINITIONS["social_services"].source,  # type: ignore[arg-type]
            base_url=serve(portal).url,
            http=http,
            spool=tmp_path,
        )


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
def test_json_stat_of_wrong_types_is_asked_for_again_and_then_named(
    serve: Serve, http: Http, tmp_path: Path, damage: Callable[[dict[str, Any]], object]
) -> None:
    tables = Tables()

    def answer(asked: Asked) -> Reply:
        reply = tables(asked)
        if asked.path.endswith("/data"):
            damage(reply.body)
        return reply

    with pytest.raises(SourceUnreadable, match="tried 5 times"):
        idescat.fetch(TABLE, base_url=serve(answer).url, http=http, spool=tmp_path, wanted=WANTED)


def test_a_table_of_more_cells_than_can_be_meant_is_not_read(
    serve: Serve, http: Http, tmp_path: Path
) -> None:
    tables = Tables()
    tables.categories |= {name: [f"{name}{n}" for n in range(4_000)] for name in ("YEAR", "MUN")}
    with pytest.raises(SourceUnreadable, match=r"categories for 32,000,000 cells, more than the 10,000,000"):
        idescat.fetch(TABLE, base_url=serve(tables).url, http=http, spool=tmp_path, wanted=WANTED)


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


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("urn:ogc:def:crs:OGC:1.3:CRS84", True),
        ("urn:ogc:def:crs:EPSG::4326", True),
        ("EPSG:4326", True),
        ("http://www.opengis.net/def/crs/EPSG/0/4326", True),
        ("urn:ogc:def:crs:EPSG::25831", False),
        ("EPSG:43260", False),
        ("EPSG:14326", False),
        ({"href": "x"}, False),
    ],
)
def test_a_download_that_names_another_crs_is_drift(
    serve: Serve, http: Http, tmp_path: Path, name: object, fits: bool
) -> None:
    portal = Files()
    portal.files["/municipis.json"]["crs"] = {"type": "name", "properties": {"name": name}}
    server = serve(portal)

    def read() -> object:
        return download.fetch(FILES, base_url=server.url, http=http, spool=tmp_path, dataset="boundaries")

    if fits:
        assert read() is not None
    else:
        with pytest.raises(SourceDrift, match=r"boundaries: found coordinates in .*expected .*EPSG:4326"):
            read()


UTM = {"type": "Polygon", "coordinates": [[[420_000, 4_600_000], [1, 41]]]}


def test_coordinates_in_metres_are_drift_at_fetch_and_unreadable_when_they_had_landed(
    serve: Serve, http: Http, tmp_path: Path
) -> None:
    portal = Files()
    portal.files["/municipis.json"]["features"][0]["geometry"] = UTM
    with pytest.raises(SourceDrift, match=r"found the position \[420000, 4600000\], expected longitude"):
        download.fetch(FILES, base_url=serve(portal).url, http=http, spool=tmp_path, dataset="boundaries")
    lake, dataset = local_lake(tmp_path / "lake"), DEFINITIONS["boundaries"]
    manifest = land(lake, dataset, list(portal.files.values()))
    with pytest.raises(SnapshotUnreadable, match=r"page-00001\.json: .*4600000.*EPSG:4326"):
        stage_snapshot(lake, dataset, manifest)


@pytest.mark.parametrize(
    "geometry",
    [
        "POINT(1 41)",
        {"coordinates": "1 41"},
        {"coordinates": [1]},
        {"coordinates": [["1", "41"]]},
        {"geometries": 5},
    ],
)
def test_a_geometry_that_is_none_is_asked_for_again_and_then_named(
    serve: Serve, http: Http, tmp_path: Path, geometry: object
) -> None:
    portal = Files()
    portal.files["/municipis.json"]["features"][0]["geometry"] = geometry
    with pytest.raises(SourceUnreadable, match="tried 5 times"):
        download.fetch(FILES, base_url=serve(portal).url, http=http, spool=tmp_path, dataset="boundaries")


def landed(folder: Path, body: object) -> list[Path]:
    path = folder / "page-00000.json"
    path.write_bytes(body if isinstance(body, bytes) else json.dumps(body).encode())
    return [path]


def one_file(url: str = "http://x/comarques.json", role: str | None = None) -> list[snapshot.LandedFile]:
    return [snapshot.LandedFile(name="page-00000.json", url=url, size=1, sha256="", role=role)]


@pytest.mark.parametrize(
    "body",
    [b"\xff", DEEP, b"{", b"1" * 5000, b"[]", b'{"id": ["\xe8"]}'],
    ids=["byte", "deep", "cut", "digits", "list", "label"],
)
@pytest.mark.parametrize("source", [FILES, TABLE], ids=["download", "idescat"])
def test_landed_bytes_that_cannot_be_decoded_are_an_unreadable_snapshot_that_names_the_file(
    tmp_path: Path, source: Any, body: bytes
) -> None:
    with pytest.raises(SnapshotUnreadable, match=r"page-00000\.json: found"):
        list(sources.rows(source, one_file(), landed(tmp_path, body), {}))
    if source is TABLE:
        with pytest.raises(SnapshotUnreadable, match=r"page-00000\.json: found"):
            sources.controls(source, one_file(), landed(tmp_path, body))


def test_a_landed_file_is_what_it_was_landed_as_whatever_the_order_in_the_definition(tmp_path: Path) -> None:
    turned = DownloadSource(protocol="download", files=FILES.files[::-1])
    paths = landed(tmp_path, geojson({"CODICOMAR": "01"}))
    for source in (FILES, turned):
        for files in (one_file(role="comarca"), one_file("http://x/prefix/comarques.json?v=1")):
            assert [row["level"] for row in sources.rows(source, files, paths, {})] == ["comarca"]
    moved = {"urls": ["http://x/municipis.json"]}
    found = list(sources.rows(turned, one_file("http://cdn/a"), paths, moved))
    assert [row["level"] for row in found] == ["municipality"]


def test_a_landed_file_that_nothing_in_the_definition_names_is_unreadable_with_a_remedy(
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

    def answer(asked: Asked) -> Reply:
        if "comarques" in asked.path:
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

    def answer(asked: Asked) -> Reply:
        name = "/comarques.json" if "comarques" in asked.path else "/municipis.json"
        return portal(Asked(name, asked.query, asked.headers))

    url = serve(answer).url
    assert ingest(lake, wrong, settings(url), run_id="r", now=NOW).outcome == "new"
    assert ingest(lake, wrong, settings(url), run_id="r", now=NOW).outcome == "unchanged"
    assert ingest(lake, definition, settings(url), run_id="r", now=NOW).outcome == "new"


def test_a_property_with_a_name_of_the_definition_does_not_override_it(tmp_path: Path) -> None:
    body = geojson({"level": "5", "geometry": "none", "CODICOMAR": "01"})
    (row,) = sources.rows(FILES, one_file(role="comarca"), landed(tmp_path, body), {})
    assert row["level"] == "comarca"
    assert json.loads(bytes(row["geometry"]))["type"] == "Point"
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
        download.fetch(
            FILES,
            base_url=serve(lambda asked: Reply(odd[member])).url,
            http=http,
            spool=tmp_path,
            dataset="boundaries",
        )


_BYTES = st.one_of(
    st.sampled_from(
        [b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80"]
    ),
    st.text("aé·’€😀\u0080\u07ff\u0800\uffff").map(str.encode),
    st.sampled_from(
        [bytes([n]) for n in (0x80, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5, 0xFF)]
    ),
)


@given(st.lists(_BYTES, max_size=12).map(b"".join), st.integers(1, 9))
def test_bytes_in_pieces_are_utf_8_exactly_when_python_decodes_them_as_a_whole(
    body: bytes, size: int
) -> None:
    def decodes() -> bool:
        try:
            body.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True

    def passes() -> bool:
        check = _Utf8()
        try:
            for start in range(0, len(body), size):
                check.feed(body[start : start + size])
            check.finish()
        except InvalidResponse:
            return False
        return True

    with patch("catalunya.sources.http._SMALL_PIECE", 0):
        assert passes() == decodes()
    assert passes() == decodes()
