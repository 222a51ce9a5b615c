"""Idescat's Tables v2: JSON-stat collections down to one table, its metadata and its data."""

from __future__ import annotations

from collections.abc import Callable
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
    """Answers requests for one table, whatever `table` returns at present."""

    def __init__(self, table: Callable[[], PopulationTable]) -> None:
        self._table = table

    async def answer(self, request: Request) -> Response:
        """Answer any address under `/taules/v2`."""
        path = str(request.path_params.get("path", "")).strip("/")
        table = self._table()
        if path in LEVELS:
            body = _collection(path, f"{request.url.scheme}://{request.url.netloc}/taules/v2")
        elif path in (TABLE, f"{TABLE}/data"):
            dimensions = _filtered(table, dict(parse_qsl(request.url.query, keep_blank_values=True)))
            body = _metadata(table, dimensions)
            if path != TABLE:
                if prod(map(len, dimensions.values())) > MAXIMUM_CELLS:
                    return _error(416, "05", "Nombre màxim de dades superat.")
                body |= _values(table, dimensions)
        else:
            return _error(404, "01", "No s'ha trobat el recurs sol·licitat.")
        encoded = msgspec.json.encode(body)
        modified = datetime.combine(table.updated, time(7, 0), UTC)
        return answer(request, [encoded], etag=etag_of(encoded), modified=modified)


def _filtered(table: PopulationTable, parameters: dict[str, str]) -> dict[str, dict[str, str]]:
    """Apply the filters that name a dimension; any other is ignored in silence, as Idescat does."""
    wanted = {name.upper(): value.upper().replace(" ", "").split(",") for name, value in parameters.items()}
    dimensions = {
        "YEAR": {str(year): str(year) for year in table.years},
        "MUN": dict(table.territories),
        "SEX": SEXES,
        "AGE": AGES,
    }
    for name, categories in dimensions.items():
        kept = {code: label for code, label in categories.items() if code in wanted.get(name, ())}
        dimensions[name] = kept or categories
    return dimensions


def _metadata(table: PopulationTable, dimensions: dict[str, dict[str, str]]) -> dict[str, object]:
    return {
        "version": "2.0",
        "class": "dataset",
        "href": f"{PUBLIC_URL}/{TABLE}/data",
        "label": table.label,
        "source": "Idescat. Cens de població i habitatges.",
        "updated": table.updated.isoformat(),
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
            "alternate": [{"type": "text/html", "href": f"https://www.idescat.cat/dades/taules/v2/{TABLE}"}],
            "describedby": [{"type": "application/json", "href": f"{PUBLIC_URL}/{TABLE}"}],
        },
    }


def _values(table: PopulationTable, dimensions: dict[str, dict[str, str]]) -> dict[str, object]:
    values = [
        of_sex(table.value(int(year), territory, age), sex)
        for year, territory, sex, age in product(*dimensions.values())
    ]
    status = {str(position): ".." for position, value in enumerate(values) if value is None}
    return {"value": values} | ({"status": status} if status else {})


def _collection(path: str, base: str) -> dict[str, object]:
    label, child, child_label = LEVELS[path]
    address = f"{base}/{path}".rstrip("/")
    kind = "dataset" if path == "censph/540/19948" else "collection"
    return {
        "version": "2.0",
        "class": "collection",
        "href": address,
        "label": label,
        "link": {"item": [{"class": kind, "href": f"{address}/{child}", "label": child_label}]},
    }


def _error(status: int, identifier: str, label: str) -> Response:
    body = {"version": "2.0", "class": "error", "status": str(status), "id": identifier, "label": label}
    return JSONResponse(body, status_code=status)
