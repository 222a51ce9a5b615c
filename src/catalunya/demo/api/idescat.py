"""Idescat's Tables v2: JSON-stat collections down to one table, its metadata and its data."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time
from itertools import product
from math import prod
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from catalunya.demo.api.conditional import answer, etag_of
from catalunya.demo.data.population import AGES, SEXES, PopulationTable, of_sex

MAXIMUM_CELLS = 20_000
TABLE = "censph/540/19948/mun"
PUBLIC_URL = "https://api.idescat.cat/taules/v2"
"""A table names its public address wherever it is served, so that the same table has the same bytes."""
LEVELS = {
    "": ("Taules estadístiques", "censph", "Cens de població i habitatges"),
    "censph": ("Cens de població i habitatges", "540", "Població"),
    "censph/540": ("Població", "19948", "Població. Per sexe i edat en grans grups"),
    "censph/540/19948": ("Població. Per sexe i edat en grans grups", "mun", "Per municipis"),
}
DIMENSION_LABELS = {"YEAR": "any", "MUN": "municipi", "SEX": "sexe", "AGE": "edat"}


class IdescatPortal:
    """Answers requests for one table; what was rendered is kept."""

    def __init__(self, table: PopulationTable) -> None:
        self._table = table
        self._modified = datetime.combine(table.updated, time(7, 0), UTC)
        self._rendered: dict[str, bytes] = {}

    async def answer(self, request: Request) -> Response:
        """Answer any address under `/taules/v2`."""
        path = str(request.path_params.get("path", "")).strip("/")
        base = f"{request.url.scheme}://{request.url.netloc}/taules/v2"
        if path in LEVELS:
            return self._send(request, msgspec.json.encode(_collection(path, base)))
        if path not in (TABLE, f"{TABLE}/data"):
            return JSONResponse(_error("404", "01", "No s'ha trobat el recurs sol·licitat."), status_code=404)
        dimensions = self._filtered(dict(parse_qsl(request.url.query, keep_blank_values=True)))
        if path == TABLE:
            return self._send(request, msgspec.json.encode(self._dataset(dimensions)))
        if prod(len(categories) for categories in dimensions.values()) > MAXIMUM_CELLS:
            return JSONResponse(_error("416", "05", "Nombre màxim de dades superat."), status_code=416)
        query = request.url.query
        if query not in self._rendered:
            self._rendered[query] = msgspec.json.encode(self._dataset(dimensions) | self._values(dimensions))
        return self._send(request, self._rendered[query])

    def _send(self, request: Request, body: bytes) -> Response:
        return answer(request, [body], etag=etag_of(body), modified=self._modified)

    def _categories(self) -> dict[str, dict[str, str]]:
        return {
            "YEAR": {str(year): str(year) for year in self._table.years},
            "MUN": dict(self._table.territories),
            "SEX": SEXES,
            "AGE": AGES,
        }

    def _filtered(self, parameters: dict[str, str]) -> dict[str, dict[str, str]]:
        """Apply the filters that name a dimension; any other is ignored in silence, as Idescat does."""
        wanted = {
            name.upper(): {part.strip().upper() for part in value.split(",")}
            for name, value in parameters.items()
        }
        dimensions = {}
        for name, categories in self._categories().items():
            kept = {code: label for code, label in categories.items() if code in wanted.get(name, ())}
            dimensions[name] = kept or categories
        last = parameters.get("_LAST_", "")
        if last.isdigit() and int(last):
            dimensions["YEAR"] = dict(list(dimensions["YEAR"].items())[-int(last) :])
        return dimensions

    def _dataset(self, dimensions: dict[str, dict[str, str]]) -> dict[str, object]:
        return {
            "version": "2.0",
            "class": "dataset",
            "href": f"{PUBLIC_URL}/{TABLE}/data",
            "label": self._table.label,
            "source": "Idescat. Cens de població i habitatges.",
            "updated": self._table.updated.isoformat(),
            "id": list(dimensions),
            "size": [len(categories) for categories in dimensions.values()],
            "role": {"time": ["YEAR"], "geo": ["MUN"]},
            "dimension": {
                name: {
                    "label": DIMENSION_LABELS[name],
                    "category": {"index": list(categories), "label": categories},
                }
                for name, categories in dimensions.items()
            },
            "link": {
                "alternate": [
                    {"type": "text/html", "href": "https://www.idescat.cat/dades/taules/v2/" + TABLE},
                ],
                "describedby": [{"type": "application/json", "href": f"{PUBLIC_URL}/{TABLE}"}],
            },
        }

    def _values(self, dimensions: dict[str, dict[str, str]]) -> dict[str, object]:
        values = [
            of_sex(self._table.value(int(year), territory, age), sex)
            for year, territory, sex, age in product(*dimensions.values())
        ]
        status = {str(position): ".." for position, value in enumerate(values) if value is None}
        return {"value": values} | ({"status": status} if status else {})


def _collection(path: str, base: str) -> dict[str, object]:
    label, child, child_label = LEVELS[path]
    href = "/".join(part for part in (base, path, child) if part)
    kind = "dataset" if path == "censph/540/19948" else "collection"
    items: Sequence[dict[str, str]] = [{"class": kind, "href": href, "label": child_label}]
    return {
        "version": "2.0",
        "class": "collection",
        "href": "/".join(part for part in (base, path) if part),
        "label": label,
        "link": {"item": items},
    }


def _error(status: str, identifier: str, label: str) -> dict[str, str]:
    return {"version": "2.0", "class": "error", "status": status, "id": identifier, "label": label}
