from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest

from catalunya.errors import SourceDrift, SourceUnreadable
from catalunya.sources import Fetched, Http, PublishedTotal, idescat, idescat_rows
from tests.sources.portals import TABLE, WANTED, Reply, Request, Serve, Server, Tables, fetch


def read(server: Server, http: Http, spool: Path, **more: Any) -> Fetched | None:
    more = {"wanted": WANTED, "dataset": "population", **more}
    return fetch(TABLE, server.url, http, spool, **more)


def fetched(server: Server, http: Http, spool: Path, **more: Any) -> Fetched:
    result = read(server, http, spool, **more)
    assert result is not None
    return result


def rows(result: Fetched, spool: Path) -> list[dict[str, Any]]:
    tables = [idescat_rows.load(spool / file.name) for file in result.files]
    return [row for table in tables for row in idescat_rows.rows(table, TABLE)]


EXPECTED = [
    {"YEAR": "2021", "MUN": "080018", "MUN.label": "Abrera", "AGE.Y_GE065": 20211, "AGE.TOTAL": 21211},
    {
        "YEAR": "2021",
        "MUN": "080023",
        "MUN.label": "Aguilar de Segarra",
        "AGE.Y_GE065": 20212,
        "AGE.TOTAL": 21212,
    },
    {
        "YEAR": "2021",
        "MUN": "171220",
        "MUN.label": "Palmerola",
        "AGE.Y_GE065": None,
        "AGE.TOTAL": None,
        "status": "..",
    },
]


def test_rows_are_municipalities_and_years_without_the_total(
    serve: Serve, http: Http, tmp_path: Path
) -> None:
    result = fetched(serve(Tables()), http, tmp_path)
    found = rows(result, tmp_path)
    assert found[:3] == EXPECTED
    assert len(found) == result.rows == 9
    assert [column.name for column in result.columns] == [
        "YEAR",
        "MUN",
        "MUN.label",
        "AGE.Y_GE065",
        "AGE.TOTAL",
    ]
    assert result.files[0].name == "page-00000.json"


def test_the_published_total_is_a_control_and_no_row(serve: Serve, http: Http, tmp_path: Path) -> None:
    result = fetched(serve(Tables()), http, tmp_path)
    found = list(idescat_rows.controls(idescat_rows.load(tmp_path / result.files[0].name), TABLE))
    assert found[:2] == [
        PublishedTotal("AGE.Y_GE065", "2021", 20214),
        PublishedTotal("AGE.TOTAL", "2021", 21214),
    ]
    assert len(found) == 6


def test_filters_are_sent_in_the_query(serve: Serve, http: Http, tmp_path: Path) -> None:
    server = serve(Tables())
    fetched(server, http, tmp_path)
    assert [request.query for request in server.requests] == [
        {"SEX": "TOTAL"},
        {"SEX": "TOTAL", "AGE": "Y_GE065,TOTAL", "YEAR": "2021,2022,2023"},
    ]


@pytest.mark.parametrize("index_as_object", [False, True])
@pytest.mark.parametrize("value_as_object", [False, True])
@pytest.mark.parametrize("status", [None, [], ".."], ids=["by position", "list", "one for all"])
@pytest.mark.parametrize("order", [["YEAR", "MUN", "SEX", "AGE"], ["AGE", "SEX", "MUN", "YEAR"]])
def test_every_form_of_json_stat_gives_the_same_rows(
    serve: Serve,
    http: Http,
    tmp_path: Path,
    index_as_object: bool,
    value_as_object: bool,
    status: Any,
    order: list[str],
) -> None:
    tables = Tables()
    tables.index_as_object, tables.value_as_object = index_as_object, value_as_object
    tables.status, tables.order = status, order
    assert rows(fetched(serve(tables), http, tmp_path), tmp_path)[:3] == EXPECTED


def test_an_unchanged_table_costs_one_request(serve: Serve, http: Http, tmp_path: Path) -> None:
    server = serve(Tables())
    previous = json.loads(json.dumps(fetched(server, http, tmp_path).validators))
    assert read(server, http, tmp_path, previous_validators=previous) is None
    assert len(server.requests) == 3


@pytest.mark.parametrize("change", ["updated", "category"])
def test_a_table_with_a_new_date_or_category_is_read_again(
    serve: Serve, http: Http, tmp_path: Path, change: str
) -> None:
    tables = Tables()
    server = serve(tables)
    previous = fetched(server, http, tmp_path).validators
    if change == "updated":
        tables.updated = "2026-06-01"
    else:
        tables.categories["YEAR"].append("2024")
    assert read(server, http, tmp_path, previous_validators=previous) is not None


def test_a_table_without_a_date_is_never_called_unchanged(serve: Serve, http: Http, tmp_path: Path) -> None:
    tables = Tables()
    tables.updated = None
    server = serve(tables)
    previous = fetched(server, http, tmp_path).validators
    assert read(server, http, tmp_path, previous_validators=previous) is not None


def test_a_filter_that_is_ignored_is_noticed(serve: Serve, http: Http, tmp_path: Path) -> None:
    tables = Tables()
    tables.ignored = {"AGE"}
    server = serve(tables)
    with pytest.raises(SourceUnreadable, match=r"4 categories of AGE .*asked for 2 .*not obeyed"):
        read(server, http, tmp_path)
    assert len(server.requests) == 6


def test_a_table_is_split_below_the_limit_of_cells(
    serve: Serve, http: Http, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows(fetched(serve(Tables()), http, tmp_path / "whole"), tmp_path / "whole")
    tables = Tables()
    tables.limit = 16
    server = serve(tables)
    monkeypatch.setattr(idescat, "MOST_CELLS", 16)
    result = fetched(server, http, tmp_path / "parts")
    assert len(result.files) == 2
    assert [file.rows for file in result.files] == [6, 3]
    assert rows(result, tmp_path / "parts") == whole


def test_a_year_that_is_too_large_is_split_by_municipality(
    serve: Serve, http: Http, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows(fetched(serve(Tables()), http, tmp_path / "whole"), tmp_path / "whole")
    tables = Tables()
    tables.limit = 5
    server = serve(tables)
    monkeypatch.setattr(idescat, "MOST_CELLS", 5)
    result = fetched(server, http, tmp_path / "parts")
    assert len(result.files) == 6
    assert rows(result, tmp_path / "parts") == whole
    assert "MUN" in server.requests[1].query


def test_parts_are_below_both_limits_for_a_table_of_any_size() -> None:
    selected: idescat.Chunk = {
        "YEAR": tuple(str(year) for year in range(1981, 2027)),
        "MUN": tuple(f"{code:06d}" for code in range(25_000)),
        "SEX": ("TOTAL",),
        "AGE": ("TOTAL", "Y_GE065"),
    }
    parts = idescat.chunks(selected, TABLE, 20_000, 6_000)
    assert max(prod(map(len, part.values())) for part in parts) <= 20_000
    assert max(len(",".join(part["MUN"])) for part in parts) <= 6_000
    cells = sum(prod(map(len, part.values())) for part in parts)
    assert cells == prod(map(len, selected.values()))


def test_the_portals_message_is_quoted_when_too_many_cells_are_requested(
    serve: Serve, http: Http, tmp_path: Path
) -> None:
    tables = Tables()
    tables.limit = 3
    with pytest.raises(SourceUnreadable, match=r"status 416, Nombre màxim de dades superat.*ask for less"):
        read(serve(tables), http, tmp_path)


def test_a_wanted_category_that_is_missing_is_missing_in_the_columns(
    serve: Serve, http: Http, tmp_path: Path
) -> None:
    tables = Tables()
    tables.categories["AGE"] = ["Y_LE015", "Y_GE066", "TOTAL"]
    result = fetched(serve(tables), http, tmp_path)
    assert [column.name for column in result.columns] == ["YEAR", "MUN", "MUN.label", "AGE.TOTAL"]


@pytest.mark.parametrize(
    ("dimension", "codes", "found"),
    [
        ("AGE", ["Y_LE015"], "none of AGE=TOTAL,Y_GE065 is there"),
        ("SEX", ["F", "M"], "category SEX=TOTAL is missing"),
        ("ORIGIN", ["A", "B"], "dimension ORIGIN that the definition does not name"),
    ],
)
def test_a_table_that_lacks_what_every_row_needs_is_drift(
    serve: Serve, http: Http, tmp_path: Path, dimension: str, codes: list[str], found: str
) -> None:
    tables = Tables()
    tables.categories[dimension] = codes
    if dimension not in tables.order:
        tables.order.append(dimension)
    with pytest.raises(SourceDrift, match=f"population: .*{found}.*correct the definition"):
        read(serve(tables), http, tmp_path)


def test_a_row_dimension_that_is_gone_is_drift(serve: Serve, http: Http, tmp_path: Path) -> None:
    tables = Tables()
    tables.order = ["YEAR", "SEX", "AGE"]
    with pytest.raises(SourceDrift, match="dimension MUN is missing"):
        read(serve(tables), http, tmp_path)


def test_a_table_that_is_updated_between_its_parts_is_read_again(
    serve: Serve, http: Http, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = Tables()
    calls: list[Request] = []

    def answer(request: Request) -> Reply:
        calls.append(request)
        if len(calls) == 3:
            tables.updated = "2026-07-01"
        return tables(request)

    monkeypatch.setattr(idescat, "MOST_CELLS", 16)
    result = fetched(serve(answer), http, tmp_path)
    assert result.validators["updated"] == "2026-07-01"
    assert result.rows == 9


@pytest.mark.parametrize(
    ("metadata", "data", "same"),
    [
        ("2026-02-19", "2026-02-19T09:00:00Z", True),
        ("20260219", "2026-02-19T09:00:00", True),
        ("2026-02-19T09:00:00Z", "2026-02-19", True),
        ("2026-02-19T10:00:00+01:00", "2026-02-19T09:00:00Z", True),
        ("2026-02-19T09:00:00", "2026-02-19T09:00:00.000Z", True),
        ("February", "February", True),
        ("2026-02-19", "2026-02-20T09:00:00Z", False),
        ("2026-02-19T09:00:00Z", "2026-02-19T10:00:00Z", False),
        ("February", "February 19", False),
        ("February", "2026-02-19", False),
        ("2026-02-19", None, False),
    ],
)
def test_dates_of_update_are_compared_as_moments_or_days_not_as_texts(
    serve: Serve, http: Http, tmp_path: Path, metadata: str, data: str | None, same: bool
) -> None:
    tables = Tables()

    def answer(request: Request) -> Reply:
        tables.updated = data if request.path.endswith("/data") else metadata
        return tables(request)

    server = serve(answer)
    if same:
        assert fetched(server, http, tmp_path).validators["updated"] == metadata
    else:
        with pytest.raises(SourceUnreadable, match="the table was updated while it was read"):
            read(server, http, tmp_path)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda table: table["value"].pop(), "values for 24 cells"),
        (lambda table: table["size"].__setitem__(0, 9), "not those of the categories"),
        (lambda table: table.pop("dimension"), "expected a JSON-stat dataset"),
        (lambda table: table.pop("value"), "without values"),
    ],
)
def test_a_damaged_table_is_retried_and_then_refused(
    serve: Serve, http: Http, tmp_path: Path, damage: Callable[[dict[str, Any]], object], found: str
) -> None:
    tables = Tables()

    def answer(request: Request) -> Reply:
        reply = tables(request)
        if request.path.endswith("/data"):
            damage(reply.body)
        return reply

    server = serve(answer)
    with pytest.raises(SourceUnreadable, match=found):
        read(server, http, tmp_path)
    assert len(server.requests) == 6


def test_the_real_error_body_with_status_200_is_no_table(
    serve: Serve, shared: Path, http: Http, tmp_path: Path
) -> None:
    body = (shared / "errors" / "idescat_416_too_many_cells.json").read_bytes()
    with pytest.raises(SourceUnreadable, match="Nombre màxim de dades superat"):
        read(serve(lambda request: Reply(body)), http, tmp_path)
