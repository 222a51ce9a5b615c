from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalunya.errors import SourceUnreadable
from catalunya.sources import Fetched, Http
from tests.sources.portals import FILES, Files, Reply, Request, Serve, Server, fetch


def read(server: Server, http: Http, spool: Path, previous: dict[str, Any] | None = None) -> Fetched | None:
    return fetch(FILES, server.url, http, spool, previous_validators=previous, dataset="boundaries")


def test_files_are_landed_whole_with_their_features_and_properties(
    serve: Serve, http: Http, tmp_path: Path
) -> None:
    portal = Files()
    result = read(serve(portal), http, tmp_path)
    assert result is not None
    assert [(file.name, file.rows) for file in result.files] == [
        ("page-00000.json", 2),
        ("page-00001.json", 1),
    ]
    assert json.loads((tmp_path / result.files[1].name).read_bytes()) == portal.files["/municipis.json"]
    assert [c.name for c in result.columns] == ["level", "geometry", "CODICOMAR", "NOMCOMAR", "CODIMUNI"]
    assert (result.rows, result.rows_before, result.rows_after) == (3, None, None)


def test_unchanged_files_cost_one_conditional_request_each(serve: Serve, http: Http, tmp_path: Path) -> None:
    server = serve(Files())
    first = read(server, http, tmp_path)
    assert first is not None
    previous = json.loads(json.dumps(first.validators))
    assert read(server, http, tmp_path, previous) is None
    assert len(server.requests) == http.requests == 4
    assert server.requests[3].headers["if-none-match"] == '"b"'
    assert server.requests[3].headers["if-modified-since"] == "Tue, 20 Jan 2026 08:00:00 GMT"


def test_when_one_file_changed_both_are_landed(serve: Serve, http: Http, tmp_path: Path) -> None:
    portal = Files()
    server = serve(portal)
    first = read(server, http, tmp_path / "1")
    assert first is not None
    portal.tags["/municipis.json"] = '"c"'
    second = read(server, http, tmp_path / "2", first.validators)
    assert second is not None
    assert [file.sha256 for file in second.files] == [file.sha256 for file in first.files]
    assert all((tmp_path / "2" / file.name).is_file() for file in second.files)
    assert second.validators["files"]["/municipis.json"]["etag"] == '"c"'


def test_a_server_without_validators_is_read_every_time(serve: Serve, http: Http, tmp_path: Path) -> None:
    portal = Files()
    portal.tags = {}
    server = serve(portal)
    first = read(server, http, tmp_path)
    assert first is not None
    assert read(server, http, tmp_path, first.validators) is not None


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"<html>Not today</html>", "a page of HTML"),
        (b'{"type": "FeatureCollection", "features": [{"type"', "cut off"),
        ({"type": "Topology", "objects": {}}, "expected a GeoJSON FeatureCollection"),
        ({"type": "Other", "features": []}, "of type 'Other'"),
        ({"type": "FeatureCollection", "features": []}, "without features"),
        ([1], "expected a GeoJSON FeatureCollection"),
    ],
)
def test_anything_but_a_feature_collection_is_retried_and_then_refused(
    serve: Serve, http: Http, tmp_path: Path, body: Any, found: str
) -> None:
    server = serve(lambda request: Reply(body))
    with pytest.raises(SourceUnreadable, match=f"boundaries: .*comarques.json.*{found}"):
        read(server, http, tmp_path)
    assert len(server.requests) == 5


def test_a_missing_file_is_named(serve: Serve, http: Http, tmp_path: Path) -> None:
    server = serve(lambda request: Reply(b"", status=404))
    with pytest.raises(SourceUnreadable, match=r"comarques\.json: status 404, expected 200"):
        read(server, http, tmp_path)


def test_the_real_divisions_are_read(serve: Serve, shared: Path, http: Http, tmp_path: Path) -> None:
    folder = shared / "boundaries"

    def answer(request: Request) -> Reply:
        return Reply((folder / f"{request.path[1:-5]}_500000_2026-01.geojson").read_bytes())

    result = read(serve(answer), http, tmp_path)
    assert result is not None
    assert [file.rows for file in result.files] == [43, 947]
    assert {"CODIMUNI", "NOMMUNI", "CODICOMAR", "NOMCOMAR"} <= {column.name for column in result.columns}
