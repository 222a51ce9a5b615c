"""Origins: which snapshots the rows of a mart were read from, as far as the release itself tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import duckdb


@dataclass(frozen=True)
class Origin:
    """A snapshot and what the rows have of it."""

    dataset_id: str
    snapshot_id: str
    gives: str


_Found = list[tuple[str, str, str]]


def origins(
    con: duckdb.DuckDBPyConnection,
    mart: str,
    snapshots: Mapping[str, Sequence[str]],
    datasets: Sequence[str],
) -> list[Origin]:
    """The snapshots behind the table `picked`, which has the selected rows of `mart`.

    `con` has the release's tables `data_quality` and `population` too. `snapshots` are all of the release by
    dataset, oldest first; `datasets` those that the mart depends on. A mart that nothing is known of has the
    newest snapshot of each.
    """
    find = _FINDERS.get(mart)
    found = find(con, snapshots) if find else [(d, snapshots[d][-1], "all") for d in datasets if snapshots[d]]
    unique = dict.fromkeys(Origin(*origin) for origin in found)
    return sorted(unique, key=lambda origin: (origin.dataset_id, origin.snapshot_id, origin.gives))


def _query(con: duckdb.DuckDBPyConnection, dataset_id: str, gives: str, sql: str) -> _Found:
    return [(dataset_id, snapshot_id, gives) for (snapshot_id,) in con.execute(sql).fetchall() if snapshot_id]


def _newest(snapshots: Mapping[str, Sequence[str]], dataset_id: str, gives: str) -> _Found:
    return [(dataset_id, snapshot_id, gives) for snapshot_id in snapshots.get(dataset_id, ())[-1:]]


def _lists(snapshots: Mapping[str, Sequence[str]]) -> _Found:
    """The newest municipality list decides; older ones know names and comarques of before."""
    older = [
        ("municipalities", snapshot_id, "names and comarques of before")
        for snapshot_id in snapshots.get("municipalities", ())[:-1]
    ]
    return [*older, *_newest(snapshots, "municipalities", "names, comarques and seats of today")]


_REGISTER_OF_THE_YEARS = """
    with register as (
        select snapshot_id, snapshot_date from data_quality
        where dataset_id = 'social_services' and is_last_of_day
    ),
    years as (select distinct year from picked)
    select coalesce(
        (
            select max(snapshot_id) from register
            where snapshot_date <= make_date(cast(years.year as bigint), 12, 31)
                and years.year >= (select extract(year from min(snapshot_date)) from register)
        ),
        (select min(snapshot_id) from register)
    )
    from years
"""


def _coverage(con: duckdb.DuckDBPyConnection, snapshots: Mapping[str, Sequence[str]]) -> _Found:
    return [
        *_query(con, "social_services", "services, places and ownership", _REGISTER_OF_THE_YEARS),
        *_lists(snapshots),
        *_population(con, "select year from picked union select population_year_latest from picked"),
    ]


def _control(con: duckdb.DuckDBPyConnection, snapshots: Mapping[str, Sequence[str]]) -> _Found:
    return [
        *_query(con, "social_services", "services, places and ownership", _REGISTER_OF_THE_YEARS),
        *_lists(snapshots),
    ]


def _population(con: duckdb.DuckDBPyConnection, years: str) -> _Found:
    sql = f"select distinct snapshot_id from population where year in ({years})"
    return _query(con, "population", "people aged 65 and over", sql)


def _access(con: duckdb.DuckDBPyConnection, snapshots: Mapping[str, Sequence[str]]) -> _Found:
    return [
        *_newest(snapshots, "social_services", "services and places"),
        *_lists(snapshots),
        *_population(con, "select population_year_latest from access_municipality"),
    ]


def _history(con: duckdb.DuckDBPyConnection, snapshots: Mapping[str, Sequence[str]]) -> _Found:
    return [
        *_query(con, "social_services", "first to show it", "select distinct first_snapshot_id from picked"),
        *_query(con, "social_services", "last to show it", "select distinct last_snapshot_id from picked"),
        *_lists(snapshots),
    ]


def _changes(con: duckdb.DuckDBPyConnection, snapshots: Mapping[str, Sequence[str]]) -> _Found:
    before = """
        select distinct (
            select max(earlier.snapshot_id) from data_quality as earlier
            where earlier.dataset_id = 'social_services' and earlier.is_last_of_day
                and earlier.snapshot_date < picked.changed_on
        )
        from picked
    """
    return [
        *_query(con, "social_services", "shows the change", "select distinct snapshot_id from picked"),
        *_query(con, "social_services", "shows the state before", before),
        *_lists(snapshots),
    ]


def _periods(con: duckdb.DuckDBPyConnection, snapshots: Mapping[str, Sequence[str]]) -> _Found:
    lists = "select snapshot_id from data_quality where dataset_id = 'municipalities' and is_last_of_day"
    newest = _newest(snapshots, "municipalities", "has it still")
    return [
        *_query(
            con, "municipalities", "first to have it",
            f"{lists} and snapshot_date in (select valid_from from picked)",
        ),
        *_query(
            con, "municipalities", "first not to have it",
            f"{lists} and snapshot_date in (select valid_to from picked)",
        ),
        *(newest if con.execute("select 1 from picked where is_current limit 1").fetchall() else []),
    ]  # fmt: skip


def _named(dataset_id: str) -> Callable[[duckdb.DuckDBPyConnection, Mapping[str, Sequence[str]]], _Found]:
    """A mart whose rows name their snapshot themselves."""

    def find(con: duckdb.DuckDBPyConnection, _: Mapping[str, Sequence[str]]) -> _Found:
        return _query(con, dataset_id, "the figures", "select distinct snapshot_id from picked")

    return find


def _quality(con: duckdb.DuckDBPyConnection, _: Mapping[str, Sequence[str]]) -> _Found:
    found = con.execute("select distinct dataset_id, snapshot_id from picked").fetchall()
    return [(dataset_id, snapshot_id, "the rows that are counted") for dataset_id, snapshot_id in found]


def _kinds(_: duckdb.DuckDBPyConnection, snapshots: Mapping[str, Sequence[str]]) -> _Found:
    return [
        ("social_services", snapshot_id, "kinds of service") for snapshot_id in snapshots["social_services"]
    ]


def _division(_: duckdb.DuckDBPyConnection, snapshots: Mapping[str, Sequence[str]]) -> _Found:
    return _newest(snapshots, "municipalities", "the division of today")


_FINDERS: dict[str, Callable[[duckdb.DuckDBPyConnection, Mapping[str, Sequence[str]]], _Found]] = {
    "access_municipality": _access,
    "coverage_catalonia": _coverage,
    "coverage_comarca": _coverage,
    "coverage_municipality": _coverage,
    "data_quality": _quality,
    "dim_comarca": _division,
    "dim_municipality": _periods,
    "dim_service_type": _kinds,
    "places_control_catalonia": _control,
    "population": _named("population"),
    "residence_places_control": _control,
    "service_changes": _changes,
    "service_history": _history,
    "service_users": _named("service_users"),
}
