"""Reading a Socrata dataset: pages, counts, changes while it is read, errors.

One module, because all cases share the portal and the helpers at its top.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from catalunya.errors import SourceUnreadable
from catalunya.sources import Fetched, Http, socrata
from tests.sources.portals import REGISTER, Register, Reply, Request, Serve, Server, fetch

COLUMNS = ["registre", "nom", "capacitat"]


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"registre": f"S{number:05d}", "nom": f"Residència {number}", "capacitat": "12"}
        for number in range(count)
    ]


@pytest.fixture
def register() -> Register:
    return Register(rows(25), COLUMNS)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socrata, "PAGE_ROWS", 10)


def read(server: Server, http: Http, spool: Path, **more: Any) -> Fetched | None:
    more = {"key": ("registre",), "dataset": "social_services", **more}
    return fetch(REGISTER, server.url, http, spool, **more)


def fetched(server: Server, http: Http, spool: Path, **more: Any) -> Fetched:
    result = read(server, http, spool, **more)
    assert result is not None
    return result


def landed(result: Fetched, spool: Path) -> list[dict[str, Any]]:
    return [row for file in result.files for row in json.loads((spool / file.name).read_bytes())]


def page_requests(server: Server) -> list[tuple[int, int]]:
    queries = [one.query for one in server.requests if "$offset" in one.query]
    return [(int(query["$offset"]), int(query["$limit"])) for query in queries]


def test_every_row_is_landed_once_in_pages_in_order(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    server = serve(register)
    result = fetched(server, http, tmp_path)
    assert landed(result, tmp_path) == register.rows
    assert [(file.name, file.rows) for file in result.files] == [
        ("page-00000.json", 10),
        ("page-00001.json", 10),
        ("page-00002.json", 5),
    ]
    assert (result.rows_before, result.rows_after, result.rows) == (25, 25, 25)
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name for file in result.files]
    assert http.requests == len(server.requests) == 2 + 2 + 3
    assert not result.demo
    msgspec.json.encode([result.validators, result.request])


def test_columns_are_those_of_the_metadata_without_the_portals_own(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    result = fetched(serve(register), http, tmp_path)
    assert [(column.name, column.type) for column in result.columns] == [(n, "text") for n in COLUMNS]


def test_an_unchanged_dataset_costs_one_request(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    server = serve(register)
    previous = json.loads(json.dumps(fetched(server, http, tmp_path).validators))
    before = http.requests
    assert read(server, http, tmp_path, previous_validators=previous) is None
    assert http.requests == before + 1


@pytest.mark.parametrize("change", ["rows", "columns"])
def test_a_changed_dataset_is_read_again(
    serve: Serve, register: Register, http: Http, tmp_path: Path, change: str
) -> None:
    server = serve(register)
    previous = fetched(server, http, tmp_path).validators
    if change == "rows":
        register.updated = 1_700_000_001
    else:
        register.columns.append("nif")
    assert read(server, http, tmp_path, previous_validators=previous) is not None


def test_a_portal_that_gives_no_date_is_never_called_unchanged(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    register.updated = None
    server = serve(register)
    previous = fetched(server, http, tmp_path).validators
    assert read(server, http, tmp_path, previous_validators=previous) is not None


@pytest.mark.parametrize(
    "shape",
    [lambda n: [{"count": str(n)}], lambda n: [{"count_1": str(n)}], lambda n: n, lambda n: [{"c": n}]],
)
def test_the_count_is_understood_in_each_shape_that_servers_give(
    serve: Serve, register: Register, http: Http, tmp_path: Path, shape: Callable[[int], Any]
) -> None:
    register.count_as = shape
    assert fetched(serve(register), http, tmp_path).rows == 25


def test_an_empty_dataset_is_one_empty_page(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    register.rows = []
    result = fetched(serve(register), http, tmp_path)
    assert (result.rows, landed(result, tmp_path), len(result.files)) == (0, [], 1)


def test_a_server_that_gives_fewer_rows_than_asked_is_followed_at_its_pace(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    register.most = 4
    server = serve(register)
    result = fetched(server, http, tmp_path)
    assert landed(result, tmp_path) == register.rows
    assert len(page_requests(server)) == 8


def test_a_single_short_page_in_the_middle_is_completed(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    def answer(request: Request) -> Reply:
        reply = register(request)
        if request.query.get("$offset") == "10" and request.query["$limit"] == "10":
            reply.body = reply.body[:7]
        return reply

    server = serve(answer)
    assert landed(fetched(server, http, tmp_path), tmp_path) == register.rows
    assert (17, 3) in page_requests(server)


def test_pages_in_another_order_each_time_are_refused_with_both_counts(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    def shuffled(page: int, all_rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return random.Random(page).sample(all_rows, len(all_rows))

    register.view = shuffled
    with pytest.raises(SourceUnreadable, match=r"keys came twice among 25 rows.*read 4 times"):
        read(serve(register), http, tmp_path)


def test_pages_that_settle_are_read_again_until_they_fit(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    register.view = lambda page, all_rows: all_rows[::-1] if page == 1 else all_rows
    assert landed(fetched(serve(register), http, tmp_path), tmp_path) == register.rows


def test_rows_that_the_source_repeats_the_same_way_each_time_are_kept(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    register.rows = [*rows(12), *rows(3)]
    server = serve(register)
    result = fetched(server, http, tmp_path)
    assert landed(result, tmp_path) == register.rows
    # Two pages of a reading are asked for at once.
    assert sorted(page_requests(server)) == sorted([(0, 10), (10, 10), (0, 6), (6, 6), (12, 6)])


def test_pages_that_overlap_the_same_way_each_time_are_not_taken_for_repeated_rows(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    """Every page but the first begins one row too early: a row twice, the last one never."""

    def answer(request: Request) -> Reply:
        offset = int(request.query.get("$offset", 0))
        if offset:
            request.query["$offset"] = str(offset - 1)
            request.query["$limit"] = str(min(int(request.query["$limit"]), 24 - offset))
        return register(request)

    register.rows = rows(24)
    with pytest.raises(SourceUnreadable, match="rows come and go between pages"):
        read(serve(answer), http, tmp_path)


def test_pages_are_read_again_when_rows_vanish_meanwhile(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    def vanish(page: int, all_rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if page == 2:
            del register.rows[3:5]
        return register.rows

    register.view = vanish
    result = fetched(serve(register), http, tmp_path)
    assert (result.rows, landed(result, tmp_path)) == (23, register.rows)


def test_pages_are_read_again_when_rows_appear_meanwhile(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    def appear(page: int, all_rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if page == 2:
            register.rows[:0] = [{"registre": "S9", "nom": "Nova"}]
        return register.rows

    register.view = appear
    result = fetched(serve(register), http, tmp_path)
    assert (result.rows, landed(result, tmp_path)) == (26, register.rows)


def test_a_row_that_vanishes_while_another_appears_is_noticed_though_the_count_is_the_same(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    """The first page shows the new row, the last page still the old one: 25 rows, one of them twice."""

    def swap(page: int, all_rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [all_rows[-1], *all_rows[:-1]] if page % 3 == 1 else all_rows

    register.view = swap
    with pytest.raises(SourceUnreadable, match="rows come and go between pages"):
        read(serve(register), http, tmp_path)


def test_a_dataset_that_is_updated_while_it_is_read_is_read_again(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    def update(page: int, all_rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if page == 3:
            register.updated = 1_700_000_009
            register.rows[0]["nom"] = "Renamed"
        return register.rows

    register.view = update
    result = fetched(serve(register), http, tmp_path)
    assert result.validators["rows_updated_at"] == 1_700_000_009
    assert landed(result, tmp_path) == register.rows


def test_more_rows_than_the_count_end_with_the_figures(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    register.count_as = lambda n: [{"count": str(n - 2)}]
    with pytest.raises(SourceUnreadable, match=r"holds 5 rows, expected 3 .*23 rows counted"):
        read(serve(register), http, tmp_path)


def test_fewer_rows_than_the_count_end_with_the_figures(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    register.count_as = lambda n: [{"count": str(n + 10)}]
    with pytest.raises(SourceUnreadable, match=r"offset \d+ is empty, but 35 rows were counted"):
        read(serve(register), http, tmp_path)


def test_a_portal_that_ignores_the_limit_has_sent_everything_at_once(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    server = serve(lambda request: Reply(register.rows) if "$offset" in request.query else register(request))
    result = fetched(server, http, tmp_path)
    assert landed(result, tmp_path) == register.rows
    assert len(result.files) == 1


def test_a_page_with_more_rows_than_asked_is_refused(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    def answer(request: Request) -> Reply:
        if request.query.get("$offset") == "0":
            return Reply(register.rows[:12])
        return register(request)

    with pytest.raises(SourceUnreadable, match="offset 0 holds 12 rows, expected 10"):
        read(serve(answer), http, tmp_path)


def test_a_column_that_the_metadata_does_not_name_is_reported(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    register.rows[7]["coordenades"] = "41,2"
    register.rows[8][":@computed_region_x"] = "1"
    result = fetched(serve(register), http, tmp_path)
    assert [(column.name, column.type) for column in result.columns][-1] == ("coordenades", None)
    assert len(result.columns) == 4


@pytest.mark.parametrize("key", [("registre",), ("registre", "nom")])
def test_a_register_without_its_key_column_is_landed(
    serve: Serve, register: Register, http: Http, tmp_path: Path, key: tuple[str, ...]
) -> None:
    register.columns = ["numero", "nom", "capacitat"]
    register.rows = [{"numero": row["registre"], "nom": "x"} for row in register.rows]
    server = serve(register)
    result = fetched(server, http, tmp_path, key=key)
    assert [column.name for column in result.columns] == register.columns
    assert len(page_requests(server)) == 3


def test_rows_without_a_key_are_no_duplicates(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    for number in (2, 3):
        del register.rows[number]["registre"]
        register.rows[number + 2]["registre"] = None
    server = serve(register)
    assert fetched(server, http, tmp_path).rows == 25
    assert len(page_requests(server)) == 3


def test_keys_of_several_columns_and_of_any_type_are_compared(
    serve: Serve, http: Http, tmp_path: Path
) -> None:
    data = [{"any": 2015 + n // 5, "codi": {"code": n % 5}} for n in range(20)]
    server = serve(Register(data, ["any", "codi"]))
    assert fetched(server, http, tmp_path, key=("any", "codi")).rows == 20
    assert len(page_requests(server)) == 2


def test_progress_counts_up_to_all_rows(serve: Serve, register: Register, http: Http, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    fetched(serve(register), http, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (10, 25)
    assert seen[-1] == (25, 25)


def test_demo_data_are_known_by_their_header(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    register.headers = {"X-Catalunya-Demo": "true"}
    assert fetched(serve(register), http, tmp_path).demo


def test_the_token_goes_with_every_request_and_into_nothing_that_is_kept(
    serve: Serve, register: Register, tmp_path: Path
) -> None:
    server = serve(register)
    with Http(app_token="secret") as http:
        result = fetched(server, http, tmp_path)
    assert {request.headers.get("x-app-token") for request in server.requests} == {"secret"}
    assert "secret" not in str(result)


def test_a_dataset_that_is_gone_is_named_with_the_portals_message(
    serve: Serve, shared: Path, http: Http, tmp_path: Path
) -> None:
    body = (shared / "errors" / "socrata_404_not_found.json").read_bytes()
    server = serve(lambda request: Reply(body, status=404))
    with pytest.raises(SourceUnreadable, match=r"social_services: .*status 404, Not found.*no longer has"):
        read(server, http, tmp_path)
    assert len(server.requests) == 1


def test_an_error_body_in_place_of_rows_is_quoted(
    serve: Serve, register: Register, http: Http, tmp_path: Path
) -> None:
    def answer(request: Request) -> Reply:
        return Reply({"message": "Query timed out"}) if "$offset" in request.query else register(request)

    with pytest.raises(SourceUnreadable, match="Query timed out, expected a JSON list of rows"):
        read(serve(answer), http, tmp_path)


@pytest.mark.parametrize("fault", ["cut", "cut JSON", "html", "500"])
def test_a_page_that_fails_once_is_retried_and_counted_once(
    serve: Serve, register: Register, http: Http, tmp_path: Path, fault: str
) -> None:
    failed: list[str] = []

    def answer(request: Request) -> Reply:
        reply = register(request)
        if request.query.get("$offset") == "10" and not failed:
            failed.append(fault)
            return {
                "cut": Reply(reply.body, cut=30),
                "cut JSON": Reply(reply.encoded()[:-30]),
                "html": Reply(b"<html></html>"),
                "500": Reply(b"", status=500),
            }[fault]
        return reply

    result = fetched(serve(answer), http, tmp_path)
    assert landed(result, tmp_path) == register.rows


@pytest.mark.parametrize("page", ["623z-r97q", "jj6z-iyrp", "xuwf-dxjd"])
def test_a_real_page_of_the_portal_is_landed_byte_for_byte(
    serve: Serve, shared: Path, http: Http, tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socrata, "PAGE_ROWS", 50_000)
    body = (shared / "pages" / f"{page}.json").read_bytes()
    data = json.loads(body)
    portal = Register(data, list(data[0]))
    server = serve(lambda request: Reply(body) if "$offset" in request.query else portal(request))
    result = fetched(server, http, tmp_path, key=("data",))
    assert (tmp_path / result.files[0].name).read_bytes() == body
    assert result.rows == len(data)
