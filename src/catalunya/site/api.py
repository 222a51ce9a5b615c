"""A file of JSON for each territory, under addresses that stay: `/api/v1/…`.

A territory's file has the figures of the marts by their names and nothing of the release as a whole, so that it changes only
with its figures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

from catalunya.publication import demo_notice
from catalunya.site.facts import Territory
from catalunya.site.language import CODES, language
from catalunya.site.openapi import openapi
from catalunya.site.pages import Content, address

FOLDER = "api/v1"
_LEVELS = {
    "municipalities": ("coverage_municipality", "municipality_id"),
    "comarques": ("coverage_comarca", "comarca_id"),
}
_COVERAGE = """
    to_json(list({
        'year': year, 'service_group': service_group, 'ownership': ownership, 'basis': basis, 'services': services,
        'places': places, 'places_per_100_aged_65_over': places_per_100_aged_65_over,
        'places_per_100_aged_65_over_latest': places_per_100_aged_65_over_latest
    } order by year, service_group, ownership) filter (ownership = 'all' or services > 0))
"""
_POPULATION = """
    to_json(list({'year': year, 'people_aged_65_over': people_aged_65_over} order by year) filter (
        people_aged_65_over is not null and ownership = 'all' and service_group = 'assisted_residence'
    ))
"""
_ACCESS = """
    to_json(list({
        'service_group': service_group, 'nearest_km': nearest_km, 'nearest_municipality_id': nearest_municipality_id,
        'accessibility_ratio': accessibility_ratio, 'services_in_catchment': services_in_catchment,
        'places_in_catchment': places_in_catchment, 'catchment_km': catchment_km
    } order by service_group))
"""


def api(content: Content, database: Path) -> Iterator[tuple[str, str]]:
    """Return file and text of every file of the API; `database` is that of the release."""
    facts = content.facts
    with duckdb.connect(database, read_only=True) as con:
        con.execute("set search_path = 'catalunya.marts'")
        for level, territories in (("comarques", facts.comarques), ("municipalities", facts.municipalities)):
            mart, key = _LEVELS[level]
            figures = _figures(con, mart, key)
            access = _access(con) if level == "municipalities" else {}
            for code, territory in territories.items():
                found = {**figures.get(code, _NOTHING), **access.get(code, {})}
                yield f"{FOLDER}/{level}/{code}.json", _text(_territory(content, level, territory) | found)
            listed = [_entry(content, level, territory) for territory in territories.values()]
            yield f"{FOLDER}/{level}.json", _text({**_notice(content), level: listed})
        catalonia = {
            **_notice(content),
            "name": facts.catalonia.name,
            **_figures(con, "coverage_catalonia", "''")[""],
        }
        yield f"{FOLDER}/catalonia.json", _text(catalonia)
    yield f"{FOLDER}/index.json", _text(_index(content))
    yield f"{FOLDER}/openapi.json", json.dumps(openapi(content), ensure_ascii=False, indent=1) + "\n"


_NOTHING: dict[str, Any] = {"population": [], "coverage": []}


def _figures(con: duckdb.DuckDBPyConnection, mart: str, key: str) -> dict[str, dict[str, Any]]:
    rows = con.execute(f"select {key}, {_POPULATION}, {_COVERAGE} from {mart} group by all").fetchall()
    return {
        code: {"population": json.loads(population or "[]"), "coverage": json.loads(coverage or "[]")}
        for code, population, coverage in rows
    }


def _access(con: duckdb.DuckDBPyConnection) -> dict[str, dict[str, Any]]:
    rows = con.execute(f"select municipality_id, {_ACCESS} from access_municipality group by all").fetchall()
    return {code: {"access": json.loads(access)} for code, access in rows}


def _notice(content: Content) -> dict[str, Any]:
    return {"demo_notice": demo_notice.NOTICE if content.release.demo else None}


def _territory(content: Content, level: str, territory: Territory) -> dict[str, Any]:
    pages = {code: content.url + address(code, level, territory) for code in CODES}
    more: dict[str, Any] = {"access": []} if level == "municipalities" else {}
    return {**_notice(content), **_names(level, territory), "pages": pages, **more}


def _entry(content: Content, level: str, territory: Territory) -> dict[str, Any]:
    return {**_names(level, territory), "url": f"{content.url}/{FOLDER}/{level}/{territory.code}.json"}


def _names(level: str, territory: Territory) -> dict[str, Any]:
    if level == "comarques":
        return {"comarca_id": territory.code, "name": territory.name}
    return {"municipality_id": territory.code, "name": territory.name, "comarca_id": territory.comarca_id}


def _index(content: Content) -> dict[str, Any]:
    base = f"{content.url}/{FOLDER}"
    return {
        **_notice(content),
        "title": language("en").text("site"),
        "release_id": content.release.release_id,
        "released_at": content.release.released_at.isoformat(),
        "licences": f"{content.url}/data/LICENCES.md",
        "documentation": f"{base}/openapi.json",
        "catalonia": f"{base}/catalonia.json",
        "comarques": f"{base}/comarques.json",
        "municipalities": f"{base}/municipalities.json",
    }


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"
