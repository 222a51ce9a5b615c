"""What the search of the site reads: the places with every name that the matching accepts, and the services."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

from catalunya.site.facts import GROUPS, OWNERSHIPS, Facts
from catalunya.site.language import slug
from catalunya.site.pages import SEARCH, cut


def search_files(facts: Facts, names: dict[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Return the two files of the search, the same for all languages.

    A place is its part of an address, its name, its comarca (empty for a comarca itself), and its other names. A service
    is its part of an address, its name, its municipality, the number of its group and of its ownership, and its places.
    """
    places = [
        [
            f"{place.code}-{slug(place.name)}",
            place.name,
            place.comarca_id,
            *sorted(names.get(place.code, set()) - {place.name}),
        ]
        for place in (*facts.comarques.values(), *facts.municipalities.values())
    ]
    yield SEARCH["places"], _compact(places)
    services = [
        [
            service.path,
            cut(service.state.name),
            municipality_id or "",
            GROUPS.index(service.state.group),
            OWNERSHIPS.index(service.state.ownership),
            service.state.places,
        ]
        for municipality_id, found in facts.services.items()
        for service in found
    ]
    yield SEARCH["services"], _compact({"groups": GROUPS, "ownerships": OWNERSHIPS, "services": services})


def read_other_names(con: duckdb.DuckDBPyConnection, seeds: Path) -> dict[str, set[str]]:
    """Return the names that the matching accepts of each municipality and comarca, by its code.

    They are those of the lists in `dim_municipality`, and those of the seeds of former names, of abolished municipalities
    (for their successor) and of comarques. `con` has the database of a release.
    """
    found: dict[str, set[str]] = defaultdict(set)
    listed = set()
    for code, name, comarca_id, comarca_name, is_current in con.execute(
        "select municipality_id, display_name, comarca_id, comarca_name, is_current from dim_municipality"
    ).fetchall():
        found[code].add(name)
        if comarca_id and comarca_name:
            found[comarca_id].add(comarca_name)
        if is_current:
            listed.add(code)
    for row in _seed(seeds, "municipality_former_names"):
        found[row["municipality_id"]].add(row["former_name"])
    for row in _seed(seeds, "comarca_names"):
        found[row["comarca_id"]].add(row["name"])
    for row in _seed(seeds, "municipality_successions"):
        if row["municipality_id"] not in listed:
            found[row["successor_id"]] |= {row["name"]} | found.pop(row["municipality_id"], set())
    return dict(found)


def _seed(seeds: Path, name: str) -> list[dict[str, str]]:
    with (seeds / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
