"""Which snapshots the rows of each mart were read from, in plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from .coverage import Year
from .kept import Kept, Row

Pairs = Iterable[tuple[str, str]]
"""A value of the column, and a snapshot that rows with it were read from."""
Origin = tuple[str, str, str, Pairs]
"""Dataset, role, column, and the values of the column with their snapshots; `*` stands for every row."""
DATASETS = ("boundaries", "municipalities", "population", "service_users", "social_services")


def provenance(
    kept: Kept, years: Iterable[Year], population: list[Row], coverage: Iterable[Row]
) -> Iterator[Row]:
    """One row per mart, dataset, role, column, value and snapshot; `coverage` are the rows of the municipalities."""
    register = kept.counting("social_services")
    by_year = [
        (
            str(year.year),
            register[0].snapshot_id
            if year.basis == "inscription"
            else [snapshot for snapshot in register if snapshot.day <= year.day][-1].snapshot_id,
        )
        for year in years
    ]
    people_by_year = {(str(row["year"]), row["snapshot_id"]) for row in population}
    services: Origin = ("social_services", "services, places and ownership", "year", by_year)
    lists: list[Origin] = [
        ("municipalities", "names and comarques of before", "*", _earlier(kept, "municipalities")),
        ("municipalities", "names, comarques and seats of today", "*", _newest(kept, "municipalities")),
    ]
    people: list[Origin] = [
        ("population", "people aged 65 and over", column, people_by_year)
        for column in ("year", "population_year_latest")
    ]
    rows = list(coverage)
    newest_year = max(row["year"] for row in rows)
    latest = {str(row["population_year_latest"]) for row in rows if row["year"] == newest_year}
    listed = _by_day(kept, "municipalities")
    origins: dict[str, list[Origin]] = {
        "coverage_municipality": [services, *lists, *people],
        "coverage_comarca": [services, *lists, *people],
        "coverage_catalonia": [services, *lists, *people],
        "residence_places_control": [services, *lists],
        "places_control_catalonia": [services, *lists],
        "access_municipality": [
            ("social_services", "services and places", "*", _newest(kept, "social_services")),
            *lists,
            (
                "population",
                "people aged 65 and over",
                "*",
                {("*", s) for year, s in people_by_year if year in latest},
            ),
        ],
        "service_history": [
            ("social_services", "first to show it", "first_snapshot_id", _all(kept, "social_services")),
            ("social_services", "last to show it", "last_snapshot_id", _all(kept, "social_services")),
            *lists,
        ],
        "service_changes": [
            ("social_services", "shows the change", "snapshot_id", _all(kept, "social_services")),
            (
                "social_services",
                "shows the state before",
                "changed_on",
                [(str(later.day), earlier.snapshot_id) for earlier, later in pairwise(register)],
            ),
            *lists,
        ],
        "dim_municipality": [
            ("municipalities", "first to have it", "valid_from", listed),
            ("municipalities", "first not to have it", "valid_to", listed),
            (
                "municipalities",
                "has it still",
                "is_current",
                [("true", s) for _, s in _newest(kept, "municipalities")],
            ),
        ],
        "dim_comarca": [("municipalities", "the division of today", "*", _newest(kept, "municipalities"))],
        "dim_service_type": [
            (
                "social_services",
                "kinds of service",
                "*",
                [("*", snapshot.snapshot_id) for snapshot in register],
            )
        ],
        "population": [("population", "the figures", "snapshot_id", _all(kept, "population"))],
        "service_users": [("service_users", "the figures", "snapshot_id", _all(kept, "service_users"))],
        "data_quality": [
            (name, "the rows that are counted", "snapshot_id", _all(kept, name)) for name in DATASETS
        ],
        "provenance": [(name, "the snapshot itself", "snapshot_id", _all(kept, name)) for name in DATASETS],
    }
    for mart, found in origins.items():
        for dataset_id, role, column, pairs in found:
            for value, snapshot_id in pairs:
                yield {
                    "mart": mart,
                    "dataset_id": dataset_id,
                    "role": role,
                    "column_name": column,
                    "value": value,
                    "snapshot_id": snapshot_id,
                }


def _all(kept: Kept, dataset_id: str) -> list[tuple[str, str]]:
    return [(s.snapshot_id, s.snapshot_id) for s in kept.snapshots if s.dataset_id == dataset_id]


def _by_day(kept: Kept, dataset_id: str) -> list[tuple[str, str]]:
    return [(str(s.day), s.snapshot_id) for s in kept.counting(dataset_id)]


def _newest(kept: Kept, dataset_id: str) -> list[tuple[str, str]]:
    return [("*", kept.newest(dataset_id).snapshot_id)]


def _earlier(kept: Kept, dataset_id: str) -> list[tuple[str, str]]:
    return [("*", s.snapshot_id) for s in kept.counting(dataset_id)[:-1]]
