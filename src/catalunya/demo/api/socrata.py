"""The Socrata protocol: `/resource/<id>.json`, `/resource/<id>.csv` and `/api/views/<id>.json`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from email.utils import format_datetime
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from catalunya.demo.api import soql
from catalunya.demo.api.conditional import JSON, answer, etag_of
from catalunya.demo.api.pages import RenderedTable
from catalunya.demo.data.datasets import PortalDataset
from catalunya.demo.data.service import Row
from catalunya.demo.faults.paging import PageFaults
from catalunya.demo.faults.rows import with_faults
from catalunya.demo.faults.switches import Faults


class PublishedDataset:
    """A dataset with its present faults: its rows rendered, and the orders that were asked for."""

    def __init__(self, dataset: PortalDataset) -> None:
        self.dataset = dataset
        self.table = RenderedTable.of(dataset)
        self.types = {column.field: column.type for column in dataset.columns}
        self._orders: dict[tuple[tuple[str, bool], ...], Sequence[int]] = {}

    def indexes(self, query: soql.Query) -> Sequence[int]:
        """Return the places of the rows that the query selects, in its order, before limit and offset."""
        ordered = self._ordered(query.order)
        if not query.conditions:
            return ordered
        rows = ((index, self.table.row(index)) for index in ordered)
        return [index for index, row in rows if all(condition(row) for condition in query.conditions)]

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
        indexes = list(self.table.default_order)
        rows = {index: self.table.row(index) for index in indexes}
        for field, descending in reversed(order):
            kind = self.types.get(field, "text")
            indexes.sort(key=lambda index: soql.sort_key(rows[index], field, kind), reverse=descending)
        return indexes


class SocrataPortal:
    """Answers requests for the present datasets; what is rendered is kept while data and faults stay the same."""

    def __init__(self, datasets: Callable[[], dict[str, PortalDataset]], faults: Faults) -> None:
        self._datasets = datasets
        self._faults = faults
        self._published: dict[tuple[PortalDataset, object], PublishedDataset] = {}
        self._page_faults: dict[str, PageFaults] = {}

    def publish(self, dataset_id: str) -> PublishedDataset | None:
        """Return the dataset with its present faults, None where the portal has no such dataset."""
        dataset = self._datasets().get(dataset_id)
        if dataset is None:
            return None
        faults = self._faults.of_data(dataset_id)
        if (dataset, faults) not in self._published:
            self._published[dataset, faults] = PublishedDataset(with_faults(dataset, faults))
        return self._published[dataset, faults]

    async def resource(self, request: Request) -> Response:
        """Answer `/resource/<id>.<json or csv>`."""
        dataset_id, _, form = str(request.path_params["name"]).partition(".")
        published = self.publish(dataset_id)
        if published is None or form not in ("", "json", "csv"):
            return not_found(dataset_id)
        parameters = dict(parse_qsl(request.url.query, keep_blank_values=True))
        columns = published.dataset.columns
        try:
            query = soql.parse(parameters, columns)
        except soql.NoSuchColumn as error:
            return no_such_column(error, soql.as_text(parameters, columns))
        except soql.Malformed as error:
            return malformed(error, soql.as_text(parameters, columns))
        return self._respond(request, published, query, form or "json")

    def _respond(
        self, request: Request, published: PublishedDataset, query: soql.Query, form: str
    ) -> Response:
        dataset = published.dataset
        page_faults = self._page_faults.setdefault(dataset.id, PageFaults())
        page_faults.count_request(self._faults, dataset.id, page=query.count is None)
        indexes = page_faults.applied(published.indexes(query))
        modified = dataset.updated + timedelta(minutes=page_faults.changes)
        fields = _fields_of(query, dataset)
        if query.count is not None:
            parts: list[bytes | memoryview] = [_rendered([{query.count: str(len(indexes))}])]
        else:
            page = indexes[query.offset : query.offset + query.limit]
            last = query.offset + len(page) >= len(indexes)
            parts = page_faults.with_new_rows(_page(published.table, query, fields, page), last=last)
        media_type = JSON
        if form == "csv":
            parts, media_type = [_as_csv(parts, fields)], "text/csv; charset=utf-8"
        return answer(
            request,
            parts,
            etag=etag_of(
                dataset.id,
                dataset.updated,
                self._faults.of_data(dataset.id),
                page_faults,
                request.url.query,
                form,
            ),
            modified=modified,
            media_type=media_type,
            headers={
                "X-SODA2-Fields": json.dumps(fields),
                "X-SODA2-Types": json.dumps([published.types.get(name, "text") for name in fields]),
                "X-SODA2-Truth-Last-Modified": format_datetime(modified, usegmt=True),
            },
        )

    async def view(self, request: Request) -> Response:
        """Answer `/api/views/<id>.json`."""
        return self._describe(request, str(request.path_params["name"]).removesuffix(".json"))

    async def columns(self, request: Request) -> Response:
        """Answer `/api/views/<id>/columns.json`."""
        return self._describe(request, str(request.path_params["name"]), "columns")

    def _describe(self, request: Request, dataset_id: str, part: str | None = None) -> Response:
        published = self.publish(dataset_id)
        if published is None:
            return not_found(dataset_id)
        view = self._view_of(published.dataset)
        body = msgspec.json.encode(view if part is None else view[part])
        return answer(request, [body], etag=etag_of(body), modified=published.dataset.updated)

    def _view_of(self, dataset: PortalDataset) -> dict[str, object]:
        page_faults = self._page_faults.get(dataset.id, PageFaults())
        updated = int(dataset.updated.timestamp()) + 60 * page_faults.changes
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


def _fields_of(query: soql.Query, dataset: PortalDataset) -> list[str]:
    if query.count is not None:
        return [query.count]
    fields = [column.field for column in dataset.columns] if query.fields is None else list(query.fields)
    return [*soql.SYSTEM_FIELDS, *fields] if query.system_fields else fields


def _page(
    table: RenderedTable, query: soql.Query, fields: Sequence[str], page: Sequence[int]
) -> list[bytes | memoryview]:
    if query.fields is None:
        return (table.with_system_fields if query.system_fields else table).page(page)
    rows = map(table.row, page)
    return [_rendered({name: row[name] for name in fields if name in row} for row in rows)]


def _rendered(rows: Iterable[Row]) -> bytes:
    return b"[" + b"\n,".join(map(msgspec.json.encode, rows)) + b"]\n"


def _as_csv(parts: Sequence[bytes | memoryview], fields: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, quoting=csv.QUOTE_ALL, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(msgspec.json.decode(b"".join(parts), type=list[dict[str, object]]))
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
