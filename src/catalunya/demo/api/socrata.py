"""The Socrata protocol: `/resource/<id>.json`, `/resource/<id>.csv` and `/api/views/<id>.json`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from catalunya.demo.api import soql
from catalunya.demo.api.conditional import answer, etag_of
from catalunya.demo.api.pages import Table
from catalunya.demo.data.datasets import Dataset
from catalunya.demo.data.service import Row
from catalunya.demo.faults.paging import PageDisorder
from catalunya.demo.faults.rows import distorted
from catalunya.demo.faults.switches import Faults


class Shown:
    """A dataset as it is shown now: its rows rendered, and the orders that were asked for."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.table = Table.of(dataset)
        self._orders: dict[tuple[tuple[str, bool], ...], Sequence[int]] = {}

    def indexes(self, query: soql.Query) -> Sequence[int]:
        """Return the places of the rows that the query selects, in its order, before limit and offset."""
        ordered = self._ordered(query.order)
        if not query.conditions:
            return ordered
        return [
            index
            for index in ordered
            if all(condition(self.whole_row(index)) for condition in query.conditions)
        ]

    def whole_row(self, index: int) -> Row:
        """Return a row with its system fields."""
        return self.table.system_fields(index) | self.table.row(index)

    def _ordered(self, order: tuple[tuple[str, bool], ...]) -> Sequence[int]:
        if not order:
            return self.table.default_order
        if order[0][0] == ":id":
            count = len(self.table)
            return range(count - 1, -1, -1) if order[0][1] else range(count)
        if order not in self._orders:
            self._orders[order] = self._sorted(order)
        return self._orders[order]

    def _sorted(self, order: tuple[tuple[str, bool], ...]) -> Sequence[int]:
        types = {column.field: column.type for column in self.dataset.columns}
        indexes = list(self.table.default_order)
        rows = {index: self.whole_row(index) for index in indexes}
        for field, descending in reversed(order):
            kind = types.get(field, "text")
            indexes.sort(key=lambda index: soql.sort_key(rows[index], field, kind), reverse=descending)
        return indexes


class SocrataPortal:
    """Answers requests for the datasets given; what is rendered is kept until the data or faults change."""

    def __init__(self, datasets: dict[str, Dataset], faults: Faults) -> None:
        self._datasets = datasets
        self._faults = faults
        self._shown: dict[tuple[str, object], Shown] = {}
        self._disorder: dict[str, PageDisorder] = {}

    def show(self, dataset_id: str) -> Shown | None:
        """Return the dataset with its present faults in it, None where the portal has no such dataset."""
        if dataset_id not in self._datasets:
            return None
        key = (dataset_id, self._faults.of_data(dataset_id))
        if key not in self._shown:
            self._shown[key] = Shown(distorted(self._datasets[dataset_id], key[1]))
        return self._shown[key]

    async def resource(self, request: Request) -> Response:
        """Answer `/resource/<id>.<json or csv>`."""
        dataset_id, _, form = str(request.path_params["name"]).partition(".")
        shown = self.show(dataset_id)
        if shown is None or form not in ("", "json", "csv"):
            return not_found(dataset_id)
        parameters = dict(parse_qsl(request.url.query, keep_blank_values=True))
        try:
            query = soql.parse(parameters, shown.dataset.columns)
        except soql.NoSuchColumn as error:
            return no_such_column(error, soql.as_text(parameters, shown.dataset.columns))
        except soql.Malformed as error:
            return malformed(error, soql.as_text(parameters, shown.dataset.columns))
        return self._respond(request, shown, query, form or "json")

    def _respond(self, request: Request, shown: Shown, query: soql.Query, form: str) -> Response:
        dataset = shown.dataset
        disorder = self._disorder.setdefault(dataset.id, PageDisorder())
        disorder.look(self._faults, dataset.id, page=not query.aggregates)
        indexes = disorder.applied(shown.indexes(query))
        etag = etag_of(
            dataset.id, dataset.updated, self._faults.of_data(dataset.id), disorder, request.url.query, form
        )
        modified = dataset.updated + timedelta(minutes=disorder.changes)
        fields = _fields_of(query, dataset)
        types = {column.field: column.type for column in dataset.columns}
        headers = {
            "X-SODA2-Fields": json.dumps(fields),
            "X-SODA2-Types": json.dumps([types.get(name, "text") for name in fields]),
            "X-SODA2-Truth-Last-Modified": modified.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        }
        if query.aggregates:
            pieces: list[bytes | memoryview] = [_rendered([_aggregated(shown, query, indexes)])]
        else:
            page = indexes[query.offset : query.offset + query.limit]
            last = query.offset + len(page) >= len(indexes)
            pieces = disorder.newcomers(_page(shown, query, page), last=last)
        media_type = "application/json; charset=utf-8"
        if form == "csv":
            pieces, media_type = [_as_csv(pieces, fields)], "text/csv; charset=utf-8"
        return answer(request, pieces, etag=etag, modified=modified, media_type=media_type, headers=headers)

    async def view(self, request: Request) -> Response:
        """Answer `/api/views/<id>.json`."""
        shown = self.show(str(request.path_params["name"]).removesuffix(".json"))
        if shown is None:
            return not_found(str(request.path_params["name"]).removesuffix(".json"))
        return self._metadata(request, shown, self._view_of(shown))

    async def columns(self, request: Request) -> Response:
        """Answer `/api/views/<id>/columns.json`."""
        shown = self.show(str(request.path_params["name"]))
        if shown is None:
            return not_found(str(request.path_params["name"]))
        return self._metadata(request, shown, self._view_of(shown)["columns"])

    def _metadata(self, request: Request, shown: Shown, body: object) -> Response:
        encoded = msgspec.json.encode(body)
        return answer(request, [encoded], etag=etag_of(encoded), modified=shown.dataset.updated)

    def _view_of(self, shown: Shown) -> dict[str, object]:
        dataset = shown.dataset
        disorder = self._disorder.get(dataset.id)
        updated = int(dataset.updated.timestamp()) + 60 * (disorder.changes if disorder else 0)
        number = int.from_bytes(dataset.id.encode()[:3])
        return {
            "id": dataset.id,
            "name": dataset.name,
            "assetType": "dataset",
            "attribution": dataset.attribution,
            "displayType": "table",
            "licenseId": "SEE_TERMS_OF_USE",
            "newBackend": True,
            "provenance": "official",
            "publicationStage": "published",
            "rowsUpdatedAt": updated,
            "viewLastModified": updated,
            "viewType": "tabular",
            "columns": [
                {
                    "id": number * 100 + position,
                    "name": column.name,
                    "dataTypeName": column.type,
                    "fieldName": column.field,
                    "position": position,
                    "renderTypeName": column.type,
                    "tableColumnId": number * 10 + position,
                    "format": {},
                }
                for position, column in enumerate(dataset.columns, start=1)
            ],
            "license": {"name": dataset.licence},
            "rights": ["read"],
            "tags": [],
        }


def _fields_of(query: soql.Query, dataset: Dataset) -> list[str]:
    if query.aggregates:
        return [aggregate.alias for aggregate in query.aggregates]
    fields = [column.field for column in dataset.columns] if query.fields is None else list(query.fields)
    return [*soql.SYSTEM_FIELDS, *fields] if query.system_fields else fields


def _page(shown: Shown, query: soql.Query, page: Sequence[int]) -> list[bytes | memoryview]:
    if query.fields is None:
        table = shown.table.with_system_fields if query.system_fields else shown.table
        return table.page(page)
    wanted = _fields_of(query, shown.dataset)
    rows = (shown.whole_row(index) for index in page)
    return [_rendered({name: row[name] for name in wanted if name in row} for row in rows)]


def _rendered(rows: Iterator[Row] | list[Row]) -> bytes:
    return b"[" + b"\n,".join(msgspec.json.encode(row) for row in rows) + b"]\n"


def _aggregated(shown: Shown, query: soql.Query, indexes: Sequence[int]) -> Row:
    row: Row = {}
    for aggregate in query.aggregates:
        if aggregate.field == "*":
            row[aggregate.alias] = str(len(indexes))
            continue
        values = [
            value for index in indexes if (value := shown.whole_row(index).get(aggregate.field)) is not None
        ]
        if aggregate.function == "count":
            row[aggregate.alias] = str(len(values))
        elif values:
            row[aggregate.alias] = (min if aggregate.function == "min" else max)(map(str, values))
    return row


def _as_csv(pieces: Sequence[bytes | memoryview], fields: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, quoting=csv.QUOTE_ALL, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(msgspec.json.decode(b"".join(pieces), type=list[dict[str, object]]))
    return text.getvalue().encode()


def not_found(dataset_id: str) -> Response:
    """Return the portal's 404 for a dataset it does not have."""
    body = {"code": "not_found", "error": True, "message": "Not found", "data": {"id": dataset_id}}
    return JSONResponse(body, status_code=404)


def no_such_column(error: soql.NoSuchColumn, query: str) -> Response:
    """Return the portal's 400 for a column that the dataset does not have."""
    line = f"{query}\n ^"
    column = max(1, query.find(error.column))
    message = (
        "Query coordinator error: query.soql.no-such-column; No such column: "
        f"{error.column}; position: Map(row -> 1, column -> {column}, line -> {json.dumps(line)})"
    )
    data = {
        "column": error.column,
        "dataset": "bravo.22645",
        "position": {"row": 1, "column": column, "line": line},
    }
    return JSONResponse(
        {"message": message, "errorCode": "query.soql.no-such-column", "data": data}, status_code=400
    )


def malformed(error: soql.Malformed, query: str) -> Response:
    """Return the portal's 400 for a query that it cannot parse."""
    body = {
        "code": "query.compiler.malformed",
        "error": True,
        "message": f'Could not parse SoQL query "{query}" at line 1 character {error.position}: {error}',
        "data": {"query": query, "position": {}},
    }
    return JSONResponse(body, status_code=400)
