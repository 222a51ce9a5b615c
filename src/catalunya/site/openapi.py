"""The description of the API after OpenAPI 3.1: what `/api/v1/openapi.json` says."""

from __future__ import annotations

from typing import Any

from catalunya.site.facts import GROUPS, OWNERSHIPS
from catalunya.site.language import CODES, language
from catalunya.site.pages import Content


def openapi(content: Content) -> dict[str, Any]:
    """Return the description; the `components` are the JSON Schemas of the files."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": language("en").text("site"),
            "version": "1",
            "summary": language("en").text("data.api_about"),
            "description": (
                "Static files, made anew with each release. Names of fields and their meaning are those of the tables "
                f"({content.url}/data/dictionary.md). A field may be added; none is removed or changes its meaning "
                "without a new version of the address."
            ),
            "license": {"name": "Licences of the sources", "url": f"{content.url}/data/LICENCES.md"},
        },
        "servers": [{"url": f"{content.url}/api/v1"}],
        "paths": {
            "/index.json": _path("index", "Where everything is, and which release it is", "Index"),
            "/catalonia.json": _path("catalonia", "Figures of Catalonia", "Catalonia"),
            "/comarques.json": _path("comarques", "Every comarca", "Comarques"),
            "/comarques/{comarca_id}.json": _path("comarca", "Figures of a comarca", "Comarca", "comarca_id"),
            "/municipalities.json": _path("municipalities", "Every municipality", "Municipalities"),
            "/municipalities/{municipality_id}.json": _path(
                "municipality", "Figures of a municipality", "Municipality", "municipality_id"
            ),
        },
        "components": {"schemas": _schemas()},
    }


def _path(operation: str, summary: str, schema: str, parameter: str | None = None) -> dict[str, Any]:
    answer = {
        "description": summary,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }
    get: dict[str, Any] = {"operationId": operation, "summary": summary, "responses": {"200": answer}}
    if parameter:
        schema_of_id = {"$ref": f"#/components/schemas/{parameter}"}
        get["parameters"] = [{"name": parameter, "in": "path", "required": True, "schema": schema_of_id}]
        get["responses"]["404"] = {"description": "No territory has this code"}
    return {"get": get}


_TEXT = {"type": "string"}
_ADDRESS = {"type": "string", "format": "uri"}
_YEAR = {"type": "integer"}
_COUNT = {"type": "integer", "minimum": 0}
_NUMBER_OR_NULL = {"type": ["number", "null"], "minimum": 0}
_MUNICIPALITY_ID = {"$ref": "#/components/schemas/municipality_id"}
_COMARCA_ID = {"$ref": "#/components/schemas/comarca_id"}
_GROUP = {"enum": [*GROUPS]}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def _many(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema}


def _schemas() -> dict[str, Any]:
    notice = {
        "type": ["string", "null"],
        "description": "What has to be said of demo data; null where the data are real.",
    }
    coverage = _object(
        year=_YEAR,
        service_group=_GROUP,
        ownership={
            "enum": ["all", *OWNERSHIPS],
            "description": "One without services is left out; all is there.",
        },
        basis={"enum": ["observed", "inscription"]},
        services=_COUNT,
        places=_COUNT,
        places_per_100_aged_65_over=_NUMBER_OR_NULL,
        places_per_100_aged_65_over_latest=_NUMBER_OR_NULL,
    )
    access = _object(
        service_group=_GROUP,
        nearest_km=_NUMBER_OR_NULL,
        nearest_municipality_id={"oneOf": [_MUNICIPALITY_ID, {"type": "null"}]},
        accessibility_ratio=_NUMBER_OR_NULL,
        services_in_catchment=_COUNT,
        places_in_catchment=_COUNT,
        catchment_km=_COUNT,
    )
    pages = _object(**dict.fromkeys(CODES, _ADDRESS))
    figures = {
        "population": _many(_object(year=_YEAR, people_aged_65_over=_COUNT)),
        "coverage": _many(coverage),
    }
    comarca = {"comarca_id": _COMARCA_ID, "name": _TEXT}
    municipality = {"municipality_id": _MUNICIPALITY_ID, "name": _TEXT, "comarca_id": _COMARCA_ID}
    return {
        "comarca_id": {"type": "string", "pattern": "^[0-9]{2}$"},
        "municipality_id": {"type": "string", "pattern": "^[0-9]{6}$"},
        "Index": _object(
            demo_notice=notice, title=_TEXT, release_id=_TEXT, released_at={"type": "string", "format": "date-time"},
            licences=_ADDRESS, documentation=_ADDRESS, catalonia=_ADDRESS, comarques=_ADDRESS, municipalities=_ADDRESS,
        ),
        "Catalonia": _object(demo_notice=notice, name=_TEXT, **figures),
        "Comarques": _object(demo_notice=notice, comarques=_many(_object(**comarca, url=_ADDRESS))),
        "Comarca": _object(demo_notice=notice, **comarca, pages=pages, **figures),
        "Municipalities": _object(demo_notice=notice, municipalities=_many(_object(**municipality, url=_ADDRESS))),
        "Municipality": _object(demo_notice=notice, **municipality, pages=pages, **figures, access=_many(access)),
    }  # fmt: skip
