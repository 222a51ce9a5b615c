"""The history of services and municipalities, learnt from successive snapshots."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from .register import DAYS
from .warehouse import Row, Warehouse

pytestmark = pytest.mark.xdist_group("dbt")

D = [datetime.date.fromisoformat(day) for day in DAYS]
INSCRIBED = datetime.date(2020, 6, 1)


def periods(warehouse: Warehouse, service_id: str) -> list[tuple[Any, ...]]:
    return warehouse.rows(
        "select basis, valid_from, valid_to, places, is_current from marts.service_history "
        f"where service_id = '{service_id}' order by valid_from"
    )


def changes(warehouse: Warehouse, service_id: str) -> list[tuple[Any, ...]]:
    return warehouse.rows(
        "select changed_on, change, before, after from marts.service_changes "
        f"where service_id = '{service_id}' order by changed_on, change"
    )


def test_a_service_that_never_changes_has_one_observed_period_after_its_inscription(
    history: Warehouse,
) -> None:
    assert periods(history, "STAYS") == [
        ("inscription", INSCRIBED, D[0], 10, False),
        ("observed", D[0], None, 10, True),
    ]
    assert changes(history, "STAYS") == []


def test_only_the_last_snapshot_of_a_day_counts(history: Warehouse) -> None:
    assert periods(history, "NEVER") == []
    assert history.value("select count(*) from marts.service_history where places = 999") == 0
    assert history.rows(
        "select is_last_of_day from marts.data_quality where dataset_id = 'social_services' "
        f"and snapshot_date = date '{DAYS[0]}' order by snapshot_id"
    ) == [(False,), (True,)]


def test_a_change_ends_one_period_and_begins_the_next(history: Warehouse) -> None:
    assert periods(history, "GROWS")[1:] == [
        ("observed", D[0], D[1], 10, False),
        ("observed", D[1], None, 12, True),
    ]
    assert changes(history, "GROWS") == [
        (D[1], "capacity_changed", "10", "12"),
        (D[1], "owner_changed", "Ajuntament (public)", "Ajuntament (mercantile)"),
    ]


def test_a_service_that_leaves_is_closed_on_the_first_day_without_it(history: Warehouse) -> None:
    assert periods(history, "LEAVES")[-1] == ("observed", D[0], D[1], 10, False)
    assert changes(history, "LEAVES") == [(D[1], "closed", "Residència LEAVES", None)]


def test_a_service_that_returns_has_a_gap_and_is_reopened(history: Warehouse) -> None:
    assert periods(history, "RETURNS")[1:] == [
        ("observed", D[0], D[2], 10, False),
        ("observed", D[3], None, 10, True),
    ]
    assert [(day, change) for day, change, *_ in changes(history, "RETURNS")] == [
        (D[2], "closed"),
        (D[3], "reopened"),
    ]


def test_a_later_service_is_opened_and_its_inscription_is_not_read_back(history: Warehouse) -> None:
    assert periods(history, "OPENS") == [("observed", D[1], None, 10, True)]
    assert changes(history, "OPENS") == [(D[1], "opened", None, "Residència OPENS")]


def test_another_spelling_of_the_same_municipality_is_no_change(history: Warehouse) -> None:
    assert periods(history, "WORDED")[1:] == [("observed", D[0], None, 10, True)]
    assert changes(history, "WORDED") == []


def test_a_service_without_municipality_is_kept_and_counted_apart(history: Warehouse) -> None:
    assert history.rows(
        "select municipality_match, unmatched_reason, comarca_id from marts.service_history "
        "where service_id = 'LOST' and is_current"
    ) == [("unmatched", "unknown_name", None)]
    assert history.rows(
        "select services_unmatched, places_unmatched from marts.coverage_catalonia "
        "where year = 2026 and service_group = 'assisted_residence' and ownership = 'public'"
    ) == [(1, 7)]
    assert history.value(
        "select rows_unmatched from marts.data_quality where dataset_id = 'social_services' and is_newest"
    ) == 1  # fmt: skip


def test_years_before_the_register_count_inscriptions_and_later_ones_observations(history: Warehouse) -> None:
    assert history.rows("select distinct year, basis from marts.coverage_catalonia order by year") == [
        (2024, "inscription"),
        (2025, "inscription"),
        (2026, "observed"),
    ]


def test_all_years_use_the_division_of_the_newest_list(history: Warehouse) -> None:
    assert history.column("select comarca_id from marts.dim_comarca order by 1") == ["11", "43"]
    assert history.value(
        "select count(distinct (year, service_group, ownership)) from marts.coverage_comarca where comarca_id = '43'"
    ) == 3 * 4 * 5  # fmt: skip
    assert history.value("select count(*) from marts.coverage_comarca where comarca_id = '24'") == 0
    assert history.column("select distinct division_on from marts.coverage_comarca") == [
        datetime.date(2026, 3, 1)
    ]


def test_a_municipality_that_moves_or_vanishes_ends_its_period(history: Warehouse) -> None:
    assert history.rows(
        "select municipality_id, comarca_id, valid_from, valid_to, is_current from marts.dim_municipality "
        "where municipality_id <> '081691' order by 1, 3"
    ) == [
        ("081496", "24", datetime.date(2025, 1, 1), datetime.date(2026, 3, 1), False),
        ("081496", "43", datetime.date(2026, 3, 1), None, True),
        ("171220", "31", datetime.date(2025, 1, 1), datetime.date(2026, 3, 1), False),
    ]


def test_boundaries_that_contradict_the_list_are_counted_and_warned_of(history: Warehouse) -> None:
    assert history.value("select rows_unmatched from marts.data_quality where dataset_id = 'boundaries'") == 1
    assert history.results["boundaries_agree_with_the_municipality_list"] == "warn"


def test_population_is_null_where_it_is_not_published_and_carried_beside(history: Warehouse) -> None:
    assert history.rows(
        "select year, people_aged_65_over, population_year_latest, people_aged_65_over_latest "
        "from marts.coverage_municipality where municipality_id = '081691' and ownership = 'all' "
        "and service_group = 'day_centre' order by year"
    ) == [(2024, 4000, 2024, 4000), (2025, None, 2024, 4000), (2026, None, 2024, 4000)]


def test_no_change_is_derived_from_a_row_in_quarantine(history: Warehouse) -> None:
    assert periods(history, "UNREAD") == [
        ("inscription", INSCRIBED, D[0], 10, False),
        ("observed", D[0], D[2], 10, False),
        ("observed", D[2], None, 11, True),
    ]
    assert changes(history, "UNREAD") == [(D[2], "capacity_changed", "10", "11")]
    assert periods(history, "UNREAD-LAST")[1:] == [("observed", D[0], None, 10, True)]
    assert changes(history, "UNREAD-LAST") == []


def test_a_service_in_quarantine_is_closed_when_it_is_gone(history: Warehouse) -> None:
    assert periods(history, "UNREAD-THEN-GONE")[1:] == [("observed", D[0], D[2], 10, False)]
    assert [(day, change) for day, change, *_ in changes(history, "UNREAD-THEN-GONE")] == [(D[2], "closed")]


def test_a_service_that_begins_in_quarantine_is_unknown_until_it_can_be_read(history: Warehouse) -> None:
    assert periods(history, "UNREAD-FIRST") == [
        ("inscription", INSCRIBED, D[0], 10, False),
        ("observed", D[1], None, 10, True),
    ]
    assert changes(history, "UNREAD-FIRST") == []
    assert periods(history, "UNREAD-NEW") == [("observed", D[2], None, 10, True)]
    assert [(day, change) for day, change, *_ in changes(history, "UNREAD-NEW")] == [(D[2], "opened")]
    assert periods(history, "UNREAD-NEVER") == []


def test_a_municipality_and_its_people_do_not_vanish_with_a_row_in_quarantine(history: Warehouse) -> None:
    assert history.rows(
        "select name, valid_to from marts.dim_municipality where municipality_id = '081691'"
    ) == [("Prat de Llobregat, el", None)]
    assert history.rows(
        "select municipality_id, year, people_aged_65_over, left(snapshot_id, 8) from marts.population order by 1, 2"
    ) == [
        ("081496", 2024, 205, "20260202"),
        ("081496", 2025, 215, "20260202"),
        ("081691", 2024, 4000, "20260102"),
    ]


def test_rows_carried_forward_and_invalid_values_are_counted_beside_the_rows_of_their_own(
    history: Warehouse,
) -> None:
    counts = "rows_staged, rows_quarantined, rows_carried_forward, values_invalid, values_invalid_by_column"
    found = history.rows(
        f"select rows_in - rows_staged, {counts} from marts.data_quality "
        "where dataset_id = 'social_services' and is_last_of_day order by snapshot_id"
    )
    assert [(gone, *rest) for gone, _, *rest in found[:4]] == [
        (2, 2, 0, 0, None),
        (4, 4, 3, 3, "places: 1, registered_on: 2"),
        (2, 2, 1, 0, None),
        (1, 1, 1, 0, None),
    ]
    assert history.rows(
        "select rows_staged, rows_quarantined, rows_carried_forward from marts.data_quality "
        "where dataset_id = 'population' order by snapshot_id"
    ) == [(3, 0, 0), (2, 2, 1)]


def test_random_histories_equal_those_of_a_plain_loop(
    history: Warehouse, random_register: list[list[Row]]
) -> None:
    expected_periods, expected_changes = plain_history(random_register)
    found_periods = history.rows(
        "select service_id, valid_from, valid_to from marts.service_history "
        "where basis = 'observed' and service_id like 'R0%' or basis = 'observed' and service_id like 'R1%'"
    )
    found_changes = history.rows(
        "select service_id, changed_on, change from marts.service_changes where service_id similar to 'R[0-9]+'"
    )
    assert sorted(found_periods, key=str) == sorted(expected_periods, key=str)
    assert sorted(found_changes) == sorted(expected_changes)
    assert {change for *_, change in found_changes} >= {"opened", "closed", "reopened", "capacity_changed"}


def plain_history(snapshots: list[list[Row]]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Periods and changes by stepping through the snapshots, one service at a time."""
    kinds = {
        "places": "capacity_changed",
        "name": "renamed",
        "address": "moved",
        "owner_name": "owner_changed",
        "service_type": "type_changed",
    }
    found_periods: list[tuple[Any, ...]] = []
    found_changes: list[tuple[Any, ...]] = []
    by_id = [{row["service_id"]: row for row in snapshot} for snapshot in snapshots]
    for key in sorted({key for snapshot in by_id for key in snapshot}):
        before, begun, was_known = None, None, False
        for day, now in zip(D, [snapshot.get(key) for snapshot in by_id], strict=True):
            if before is None and now is not None:
                begun = day
                if was_known or day != D[0]:
                    found_changes.append((key, day, "reopened" if was_known else "opened"))
                was_known = True
            elif before is not None and now is None:
                found_periods.append((key, begun, day))
                found_changes.append((key, day, "closed"))
            elif before is not None and now is not None and before != now:
                found_periods.append((key, begun, day))
                begun = day
                found_changes += [
                    (key, day, kind) for name, kind in kinds.items() if before[name] != now[name]
                ]
            before = now
        if before is not None:
            found_periods.append((key, begun, None))
    return found_periods, found_changes
