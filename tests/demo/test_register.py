from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from datetime import date, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from catalunya.demo.data.population import apportion, population_table
from catalunya.demo.data.register import (
    EPOCH,
    base_services,
    register_at,
    scaled_lines,
    services_at,
    split_places,
)
from catalunya.demo.data.rng import seeded
from catalunya.demo.data.service import Service
from catalunya.demo.data.territory import (
    comarques,
    municipalities,
    municipality_by_id,
    municipality_rows_at,
    official_residence_places,
    service_types,
)

DAYS = st.integers(-300, 700).map(lambda days: EPOCH + timedelta(days=days))


def test_the_reference_table_has_947_municipalities_whose_aged_add_up_to_the_published_total() -> None:
    assert len(municipalities()) == 947
    assert len(comarques()) == 43
    assert sum(m.people_aged_65_over for m in municipalities()) == 1_442_754
    assert sum(m.people for m in municipalities()) == 7_675_217
    assert sum(bool(m.former_comarca_id) for m in municipalities()) == 10
    assert sum(bool(m.former_name) for m in municipalities()) == 3


def residence_places(services: Iterable[Service]) -> Counter[tuple[str, str]]:
    """Places by comarca and ownership."""
    places: Counter[tuple[str, str]] = Counter()
    for service in services:
        if service.group in {"assisted_residence", "home_residence"}:
            comarca_id = municipality_by_id()[service.municipality_id].comarca_id
            places[comarca_id, service.ownership] += service.places or 0
    return places


def test_residence_places_equal_the_published_totals_in_every_comarca_and_ownership() -> None:
    published = {key: places for key, places in official_residence_places().items() if places}
    assert residence_places(base_services()) == published
    assert sum(published.values()) == 63_213


def test_one_residence_place_more_would_be_noticed() -> None:
    services = list(base_services())
    without = [s for s in services if s is not next(s for s in services if s.group == "home_residence")]
    assert residence_places(without) != residence_places(services)


def test_the_register_has_every_kind_every_comarca_and_about_eleven_thousand_services() -> None:
    rows = register_at(EPOCH)
    assert 10_900 < len(rows) < 11_100
    assert {row["tipologia"] for row in rows} - {"", "null"} == set(service_types())
    assert len(service_types()) == 66
    assert {row["comarca"] for row in rows} >= set(comarques().values())
    assert max(str(s.inscribed) for s in base_services()) <= "2024-12-31"


def test_the_errors_of_the_real_register_are_in_the_demo() -> None:
    rows = register_at(EPOCH)
    names = {str(row["municipi"]) for row in rows}
    assert {"el Prat de Llobregat", "Prat de Llobregat, el", "EL PRAT DE LLOBREGAT"} <= names
    assert {"Castell-Platja d'Aro", "Masarac", "Bisbal de Falset, la", "Sant Carles de la Ràpita"} <= names
    assert {"Bigues i Riells", "No consta"} <= names
    assert any(name != name.strip() for name in names)
    assert any("  " in name for name in names)
    assert any("\u0300" in name or "\u0301" in name for name in names)
    assert {"Aran", "Val d'Aran"} <= {row["comarca"] for row in rows}
    assert any(row["municipi"] == "Olost" and row["comarca"] == "Osona" for row in rows)
    assert any(row.get("qualificacio") == "null" for row in rows)
    assert any("qualificacio" not in row for row in rows)
    assert any(row.get("capacitat") == "0" for row in rows)
    assert any("intel.lectual" in str(row["nom"]) for row in rows)


def test_three_rows_are_exact_duplicates_and_five_break_the_definition() -> None:
    rows = register_at(EPOCH)
    duplicates = [
        row for row, times in Counter(str(sorted(row.items())) for row in rows).items() if times > 1
    ]
    assert len(duplicates) == 3
    broken = [row for row in rows if str(row["registre"]) > "S90100"]
    assert len(broken) == 5
    assert {"n/d", "2011-02-30"} <= {str(value) for row in broken for value in row.values()}


def test_no_two_services_have_one_number() -> None:
    numbers = [service.number for service in services_at(date(2026, 6, 1))]
    assert len(set(numbers)) == len(numbers)


def test_another_process_makes_the_same_register() -> None:
    code = (
        "from catalunya.demo.data.register import *; import hashlib, json; "
        "print(hashlib.sha256(json.dumps(register_at(date(2025, 9, 9))).encode()).hexdigest())"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 1


@settings(max_examples=15)
@given(DAYS, DAYS)
def test_a_day_does_not_depend_on_the_days_asked_before(first: date, second: date) -> None:
    early = services_at(first)
    services_at(second)
    assert services_at(first) == early


def test_nothing_changes_between_two_mondays_and_nothing_before_the_epoch() -> None:
    assert services_at(date(2025, 3, 3)) == services_at(date(2025, 3, 9))
    assert services_at(date(2025, 3, 9)) != services_at(date(2025, 3, 10))
    assert services_at(date(2019, 1, 1)) == list(base_services())


def test_the_register_grows_by_about_two_percent_a_year_and_every_kind_of_change_happens() -> None:
    before = {s.number: s for s in base_services()}
    year = {s.number: s for s in services_at(date(2026, 12, 31))}
    assert 0.01 < (len(year) - len(before)) / len(before) / 2 < 0.03
    kept = [(before[number], year[number]) for number in before.keys() & year.keys()]
    for field in ("places", "municipality_id", "ownership", "name", "kind"):
        assert any(getattr(old, field) != getattr(new, field) for old, new in kept), field
    assert before.keys() - year.keys()
    assert all(number > max(before) for number in year.keys() - before.keys())


def test_a_closed_service_can_come_back() -> None:
    mondays = [date(2025, 1, 6) + timedelta(weeks=week) for week in range(100)]
    present = [{s.number for s in services_at(monday)} for monday in mondays]
    gone: set[int] = set()
    back: set[int] = set()
    for earlier, later in pairwise(present):
        back |= gone & later
        gone |= earlier - later
    assert back


def test_the_municipality_list_changes_in_may_2023() -> None:
    before, after = municipality_rows_at(date(2023, 4, 30)), municipality_rows_at(date(2023, 5, 1))
    assert (len(before), len({row["codi_comarca"] for row in before})) == (947, 42)
    assert (len(after), len({row["codi_comarca"] for row in after})) == (949, 45)
    assert "Castell-Platja d'Aro" in {row["nom"] for row in before}


def test_the_people_of_2019_are_the_published_ones_and_every_total_is_the_sum() -> None:
    table = population_table(date(2026, 3, 1))
    assert table.years == tuple(range(2015, 2026))
    assert table.value(2019, "TOTAL", "Y_GE065") == 1_442_754
    assert table.value(2019, "TOTAL", "TOTAL") == 7_675_217
    assert table.value(2025, "TOTAL", "TOTAL") == 8_124_126
    assert table.value(2025, "171220", "TOTAL") is None
    for year in table.years:
        for m in municipalities():
            parts = [
                table.value(year, m.municipality_id, age) or 0 for age in ("Y_LT016", "Y016_064", "Y_GE065")
            ]
            assert min(parts) >= 0
            assert sum(parts) == table.value(year, m.municipality_id, "TOTAL")


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=50), st.integers(0, 10**7))
def test_apportioned_shares_add_up(weights: list[int], total: int) -> None:
    assert sum(apportion(weights, total)) == total


@given(st.one_of(st.integers(0, 40), st.integers(0, 10_000)), st.integers(0, 10**6))
def test_split_places_add_up_and_are_never_zero(total: int, seed: int) -> None:
    sizes = split_places(seeded(str(seed)), total, 15, 150)
    assert sum(sizes) == total
    assert all(size > 0 for size in sizes)


def test_a_long_register_is_streamed_and_numbered() -> None:
    """A thousand million rows could not be kept."""
    lines = scaled_lines(10**9)
    assert [json.loads(next(lines))["registre"] for _ in range(2)] == ["S0000001", "S0000002"]
