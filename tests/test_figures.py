"""What a snapshot is refused for by its figures, with nothing but staged files.

One module, because the cases of all datasets share the snapshots and the helpers at its top.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pytest

from catalunya.datasets.gates import Total
from catalunya.datasets.model import Dataset
from catalunya.demo.data.boundaries import boundaries
from catalunya.demo.data.population import people_of
from catalunya.demo.data.register import register_at
from catalunya.demo.data.territory import municipality_rows_at
from catalunya.errors import SnapshotUnreadable
from catalunya.lake import layout
from catalunya.lake.staged import Staged
from catalunya.quality.figures import EarlierSnapshot, Reference, judge_snapshot, snapshot_figures
from catalunya.quality.findings import Finding
from catalunya.staging.schema_drift import Drift
from catalunya.staging.snapshot_typing import stage_snapshot
from tests.factories import DEFINITIONS, land, local_lake

DAY = date(2026, 1, 5)
NOW = datetime(2026, 1, 5, 6, tzinfo=UTC)
Change = Callable[[list[dict[str, Any]]], Iterable[dict[str, Any]]]


@dataclass(frozen=True)
class Taken:
    """A staged snapshot."""

    staged: Staged
    path: Path

    @property
    def reference(self) -> Reference:
        return Reference(self.staged, self.path)

    def altered(self, folder: Path, select: str) -> Taken:
        """The rows of an SQL select from `{rows}`, as a later snapshot."""
        moment = self.staged.taken_at + timedelta(days=1)
        name = layout.make_id(moment, "abcdef01")
        path = folder / "name=prova" / f"[{name}].parquet"
        path.parent.mkdir(exist_ok=True)
        rows = f"read_parquet('{self.path}', hive_partitioning = false)"
        with duckdb.connect() as con:
            con.execute(f"copy ({select.format(rows=rows)}) to '{path}' (format parquet)")
            [(count,)] = con.execute(f"select count(*) from ({select.format(rows=rows)})").fetchall()
        return Taken(replace(self.staged, snapshot_id=name, taken_at=moment, rows_staged=count), path)


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Taken]:
    """Lands and stages pages of a dataset the way a run does."""
    storage = local_lake(tmp_path_factory.mktemp("figures") / "lake")

    def stage(dataset: Dataset, pages: list[Any], now: datetime = NOW) -> Taken:
        manifest = land(storage, dataset, pages, now=now)
        staged, _ = stage_snapshot(storage, dataset, manifest)
        path = storage.fetch(layout.staged(dataset.id, staged.snapshot_id), storage.scratch())
        return Taken(staged, path)

    return stage


@pytest.fixture(scope="module")
def register(taken: Callable[..., Taken]) -> Callable[[date], Taken]:
    """The demo's register on a day."""

    @cache
    def on(day: date) -> Taken:
        now = datetime(day.year, day.month, day.day, 6, tzinfo=UTC)
        return taken(DEFINITIONS["social_services"], [register_at(day)], now)

    return on


def jsonstat(people: dict[int, dict[str, tuple[int, int]]]) -> dict[str, Any]:
    """Idescat's table of year, municipality and age; a municipality that a year lacks has no value."""
    years, places = sorted(people), sorted({place for of in people.values() for place in of})
    ages = ["TOTAL", "Y_GE065"]
    values = [
        people[year].get(place, (None, None))[index] for year in years for place in places for index in (0, 1)
    ]
    categories = {"YEAR": [str(y) for y in years], "MUN": places, "SEX": ["TOTAL"], "AGE": ages}
    cells = {
        str(i): v for i, v in enumerate(values) if v is not None
    }  # YEAR, MUN, SEX, AGE in row-major order
    return {
        "version": "2.0", "class": "dataset", "id": list(categories),
        "size": [len(c) for c in categories.values()],
        "dimension": {
            name: {"category": {"index": found, "label": {c: c for c in found}}}
            for name, found in categories.items()
        },
        "value": cells,
    }  # fmt: skip


def demo_people(years: Iterable[int]) -> dict[int, dict[str, tuple[int, int]]]:
    return {
        year: {
            place: (of["TOTAL"], of["Y_GE065"]) for place, of in people_of(year).items() if place != "TOTAL"
        }
        for year in years
    }


@pytest.fixture(scope="module")
def lists(taken: Callable[..., Taken]) -> Callable[..., Taken]:
    def of(rows: Iterable[dict[str, Any]], now: datetime = NOW) -> Taken:
        return taken(DEFINITIONS["municipalities"], [list(rows)], now)

    return of


def findings_of(
    dataset_id: str,
    now: Taken,
    before: Taken | None = None,
    history: tuple[EarlierSnapshot, ...] = (),
    lifted: frozenset[str] = frozenset(),
    dataset: Dataset | None = None,
) -> list[Finding]:
    return judge_snapshot(
        dataset or DEFINITIONS[dataset_id],
        now.staged,
        now.path,
        reference=before.reference if before else None,
        history=history,
        lifted=lifted,
    )


def errors(findings: list[Finding]) -> dict[str, Finding]:
    return {f.figures.get("figure", f.gate): f for f in findings if f.severity == "error"}


REGISTER_FAULTS = {
    "all kinds lose their suffix": (
        "select * replace (split_part(service_type, ' per a ', 1) as service_type) from {rows}",
        "share of service_type not seen before",
    ),
    "every capacity is missing": (
        "select * replace (cast(null as integer) as places) from {rows}",
        "share of rows without places",
    ),
    "every capacity is ten times as large": (
        "select * replace (places * 10 as places) from {rows}",
        "total of places",
    ),
    "the capacity of residences alone is ten times as large": (
        "select * replace (case when service_type like '%residència assistida%' then places * 10 else places end as "
        "places) from {rows}",
        "total of places",
    ),
    "every capacity is the mean": (
        "select * replace (cast(avg(places) over () as integer) as places) from {rows}",
        "share of the most frequent places",
    ),
    "half of the names of municipalities are worded otherwise": (
        "select * replace (case when hash(municipality_name) % 2 = 0 then municipality_name || ' (municipi)' else "
        "municipality_name end as municipality_name) from {rows}",
        "share of municipality_name not seen before",
    ),
    "every service is in one municipality": (
        "select * replace ('Barcelona' as municipality_name) from {rows}",
        "distribution of municipality_name",
    ),
    "all ownership is missing": (
        "select * replace (cast(null as varchar) as ownership_name) from {rows}",
        "share of rows without ownership_name",
    ),
    "all owners are public": (
        "select * replace ('Entitat d''iniciativa pública' as ownership_name) from {rows}",
        "distribution of ownership_name",
    ),
    "sheltered housing is called day centre": (
        "select * replace (replace(service_type, 'd'' habitatge tutelat', 'de centre de dia') as service_type) from "
        "{rows}",
        "total of places of service_type servei d habitatge tutelat per a gent gran de caracter temporal o permanent",
    ),
    "the text is decoded wrongly": (
        "select * replace (replace(replace(name, 'è', 'Ã¨'), 'à', 'Ã ') as name) from {rows}",
        "garbled values of name",
    ),
    "every day of inscription is the same": (
        "select * replace (date '1900-01-01' as registered_on) from {rows}",
        "share of the most frequent registered_on",
    ),
    "every day of inscription is the day before": (
        "select * replace (registered_on - 1 as registered_on) from {rows}",
        "share of rows with another registered_on",
    ),
    "the municipalities are those of other rows": (
        "select * replace (lead(municipality_name, 1, 'Barcelona') over (order by service_id) as municipality_name) "
        "from {rows}",
        "share of rows with another municipality_name",
    ),
    "the capacities are those of other rows": (
        "select * replace (lead(places, 1, 9) over (order by name, service_id) as places) from {rows}",
        "share of rows with another places",
    ),
    "every service has another number": (
        "select * replace ('X' || service_id as service_id) from {rows}",
        "share of known service_id that are gone",
    ),
    "half of a comarca is gone": (
        "select * from {rows} where not (comarca_name = 'Maresme' and hash(service_id) % 2 = 0)",
        "total of rows of comarca_name maresme",
    ),
}


@pytest.mark.parametrize("fault", REGISTER_FAULTS)
@pytest.mark.parametrize("share", [1.0, 0.09])
def test_a_register_with_wrong_figures_is_refused_with_the_figure_before_and_after(
    register, tmp_path, fault, share
):
    select, figure = REGISTER_FAULTS[fault]
    before = register(DAY)
    if share < 1:
        before = before.altered(
            tmp_path, f"select * from {{rows}} where hash(service_id) % 1000 < {1000 * share:g}"
        )
        if "sheltered" in fault:
            return  # too few services of the kind to be compared
    now = before.altered(tmp_path, select) if share == 1 else before.altered(tmp_path / "name=prova", select)
    found = errors(findings_of("social_services", now, before))
    assert figure in found, list(found)
    finding = found[figure]
    assert finding.message.startswith(f"social_services: snapshot {now.staged.snapshot_id}: ")
    assert (finding.dataset_id, finding.snapshot_id) == ("social_services", now.staged.snapshot_id)
    assert {"before", "after", "tolerated"} <= set(finding.figures)
    assert finding.figures["after"] != finding.figures["before"]
    lifted = findings_of("social_services", now, before, lifted=frozenset(f.gate for f in found.values()))
    assert errors(lifted) == {}
    [accepted] = [f for f in lifted if f.figures.get("figure") == figure]
    assert accepted.message == f"{finding.message}, accepted by hand"


@pytest.mark.parametrize("days", [7, 56, 365])
def test_the_demo_register_changes_over_weeks_and_over_a_year_without_a_person(register, days):
    found = findings_of("social_services", register(DAY + timedelta(days=days)), register(DAY))
    assert errors(found) == {}, errors(found)


def test_a_real_change_of_a_few_percent_passes(register, tmp_path):
    before = register(DAY)
    now = before.altered(
        tmp_path,
        "select * replace (cast(places * 1.04 as integer) as places, case when hash(service_id) % 20 = 0 "
        "then 'Nou Barri' else municipality_name end as municipality_name) from {rows} where hash(service_id) % 25 > 0",
    )
    assert errors(findings_of("social_services", now, before)) == {}


def test_a_kind_that_is_worded_otherwise_with_few_services_is_only_warned_of_by_its_name(register, tmp_path):
    before = register(DAY)
    now = before.altered(
        tmp_path,
        "select * replace (replace(service_type, 'd''intèrpret per a persones sordes', 'de mediació') as service_type) "
        "from {rows}",
    )
    found = findings_of("social_services", now, before)
    assert errors(found) == {}
    [warning] = [f.message for f in found if "service_types" in f.message]
    assert '"Servei de mediació" (' in warning
    assert "dbt/mart/seeds/service_types.csv" in warning


def test_other_spelling_of_the_same_values_is_no_change(register, tmp_path):
    before = register(DAY)
    now = before.altered(
        tmp_path,
        "select * replace (upper(strip_accents(service_type)) as service_type, replace(municipality_name, ' ', '  ') "
        "as municipality_name) from {rows}",
    )
    assert errors(findings_of("social_services", now, before)) == {}


def test_figures_of_a_column_that_was_accepted_as_missing_are_not_refused_again(register, tmp_path):
    before = register(DAY)
    now = before.altered(tmp_path, "select * exclude (phone) from {rows}")
    assert list(errors(findings_of("social_services", now, before))) == ["share of rows without phone"]
    found = findings_of("social_services", now, before, lifted=frozenset({"schema"}))
    assert errors(found) == {}
    assert any("phone" in f.message and f.message.endswith(", accepted by hand") for f in found)


def test_rows_are_held_against_the_last_accepted_snapshot(register, tmp_path):
    before = register(DAY)
    now = before.altered(tmp_path, "select * from {rows} limit 4000")
    found = errors(findings_of("social_services", now, before))
    finding = found["rows"]
    rows = before.staged.rows_staged
    assert f"has 4000 rows, the last release {rows} (-" in finding.message
    assert "tolerated are -10% to +20%" in finding.message
    assert (finding.figures["rows"], finding.figures["rows_before"]) == (4000, rows)
    assert finding.figures["tolerated"]["decrease_ratio"] == 0.1
    warned = findings_of("social_services", now, before, lifted=frozenset({"rows", "figures"}))
    assert errors(warned) == {}
    assert any(f.gate == "rows" and f.message.endswith("accepted by hand") for f in warned)


def figures_of(dataset_id: str, of: Taken) -> dict[str, float]:
    with duckdb.connect() as con:
        rows = f"read_parquet('{of.path}', hive_partitioning = false)"
        return snapshot_figures(con, DEFINITIONS[dataset_id], rows)


def earlier(of: Taken, **changes: Any) -> EarlierSnapshot:
    return EarlierSnapshot(
        snapshot_id=of.staged.snapshot_id,
        taken_at=of.staged.taken_at,
        rows=of.staged.rows_staged,
        figures=figures_of("social_services", of),
        **changes,
    )


def lives(register: Callable[[date], Taken], folder: Path, select: str) -> list[Taken]:
    """Six snapshots, each made from the one before."""
    found = [register(DAY)]
    for step in range(6):
        inner = folder / str(step)
        inner.mkdir()
        found.append(found[-1].altered(inner, select))
    return found


def refusals(snapshots: list[Taken], by_hand: int | None = None) -> list[str | None]:
    """Per step the gate that refuses, each judged against the one before it and all earlier ones."""
    gates: list[str | None] = []
    for index in range(1, len(snapshots)):
        history = tuple(earlier(s, by_hand=i == by_hand) for i, s in enumerate(snapshots[:index]))
        found = errors(findings_of("social_services", snapshots[index], snapshots[index - 1], history))
        gates.append(next((f.gate for f in found.values()), None))
    return gates


def test_a_slow_loss_of_rows_is_refused_with_the_largest_its_day_and_snapshot(register, tmp_path):
    snapshots = lives(
        register,
        tmp_path,
        "select * from {rows} qualify row_number() over (order by hash(service_id)) > 0.09 * count(*) over ()",
    )
    assert refusals(snapshots) == [None, None, None, "rows", "rows", "rows"]
    assert refusals(snapshots, by_hand=3) == [None, None, None, None, None, None]
    history = (earlier(snapshots[0]),)
    [message] = [
        f.message
        for f in findings_of("social_services", snapshots[4], snapshots[3], history)
        if f.gate == "rows"
    ]
    first = snapshots[0].staged
    assert f"the largest of the last 365 days {first.rows_staged}" in message
    assert f"(snapshot {first.snapshot_id} of 2026-01-05, -" in message
    old = (replace(earlier(snapshots[0]), taken_at=NOW - timedelta(days=400)),)
    assert errors(findings_of("social_services", snapshots[4], snapshots[3], old)) == {}


def test_a_slow_loss_and_a_slow_growth_of_a_total_are_refused(register, tmp_path):
    (tmp_path / "less").mkdir()
    (tmp_path / "more").mkdir()
    less = lives(
        register, tmp_path / "less", "select * replace (cast(places * 0.9 as integer) as places) from {rows}"
    )
    assert refusals(less) == [None, None, "figures", "figures", "figures", "figures"]
    more = lives(
        register, tmp_path / "more", "select * replace (cast(places * 1.2 as integer) as places) from {rows}"
    )
    assert refusals(more) == [None, None, None, "figures", "figures", "figures"]


def test_the_list_of_42_comarques_is_accepted_and_the_step_to_the_next_passes(shared, lists):
    with (shared / "municipalities/9aju-tpwc_2023-05.csv").open(encoding="utf-8-sig", newline="") as file:
        names = {"Codi": "codi", "Nom": "nom", "Codi comarca": "codi_comarca", "Nom comarca": "nom_comarca",
                 "Longitud": "longitud", "Latitud": "latitud"}  # fmt: skip
        old = lists([{names[k]: v for k, v in row.items() if k in names} for row in csv.DictReader(file)])
    export = json.loads((shared / "municipalities/9aju-tpwc_2024-12.rows.json").read_text("utf-8"))
    fields = [column["fieldName"] for column in export["meta"]["view"]["columns"]]
    rows = [dict(zip(fields, row, strict=True)) for row in export["data"]]
    wanted = ("codi", "nom", "codi_comarca", "nom_comarca", "longitud", "latitud")
    new = lists([{k: row[k] for k in wanted} for row in rows], NOW + timedelta(days=1))
    first = findings_of("municipalities", old)
    assert errors(first) == {}
    assert ["distinct values of comarca_id: 42; expected are 43" in f.message for f in first] == [True]
    assert findings_of("municipalities", new, old) == []


LIST_FAULTS: dict[str, tuple[Change, str]] = {
    "mojibake": (
        lambda rows: [r | {"nom": r["nom"].encode().decode("latin-1")} for r in rows],
        "garbled values of name",
    ),
    "mojibake of Windows": (
        lambda rows: [r | {"nom": r["nom"].encode().decode("cp1252", "replace")} for r in rows],
        "garbled values of name",
    ),
    "mojibake of Macintosh": (
        lambda rows: [r | {"nom": r["nom"].encode().decode("mac_roman")} for r in rows],
        "garbled values of name",
    ),
    "letters replaced": (
        lambda rows: [r | {"nom": r["nom"].encode("ascii", "replace").decode()} for r in rows],
        "garbled values of name",
    ),
    "undecodable bytes": (
        lambda rows: [r | {"nom": r["nom"].encode("latin-1").decode("utf-8", "replace")} for r in rows],
        "garbled values of name",
    ),
    "three garbled names": (
        lambda rows: [r | ({"nom": "BrÃ fim"} if i < 3 else {}) for i, r in enumerate(rows)],
        "garbled values of name",
    ),
    "lost leading zeros": (
        lambda rows: [
            r | {"codi": r["codi"].lstrip("0"), "codi_comarca": r["codi_comarca"].lstrip("0")} for r in rows
        ],
        "rows",
    ),
    "coordinates NULL": (
        lambda rows: [r | {"latitud": "NULL", "longitud": "NULL"} for r in rows],
        "share of rows with latitude between 40.5 and 42.9",
    ),
    "latitude and longitude exchanged": (
        lambda rows: [r | {"latitud": r["longitud"], "longitud": r["latitud"]} for r in rows],
        "rows",
    ),
    "coordinates of one place in Africa": (
        lambda rows: [r | {"latitud": "40.1", "longitud": "0.01"} for r in rows],
        "share of rows with longitude between 0.1 and 3.4",
    ),
    "half of the list": (lambda rows: rows[::2], "rows"),
    "one comarca": (
        lambda rows: [r | {"codi_comarca": "13", "nom_comarca": "Barcelonès"} for r in rows],
        "distinct values of comarca_id",
    ),
}


@pytest.mark.parametrize("fault", LIST_FAULTS)
def test_a_wrong_municipality_list_is_refused_in_the_first_run(lists, fault):
    change, figure = LIST_FAULTS[fault]
    wrong = change(municipality_rows_at(DAY))
    if fault == "latitude and longitude exchanged":
        with pytest.raises(Drift, match="latitud is mostly invalid"):
            lists(wrong)
        return
    found = errors(findings_of("municipalities", lists(wrong)))
    assert figure in found, list(found)
    assert {f.gate for f in found.values()} == {"expected"}


def test_legitimate_letters_are_not_called_garbled(lists):
    rows = municipality_rows_at(DAY)
    names = ["SÃO JOÃO", "Â", "L'Ametlla (què?)", "Ãnima", "A&B", "100 % Gràcia", "IRMÃ FIM"]
    changed = [r | ({"nom": names[i]} if i < len(names) else {}) for i, r in enumerate(rows)]
    assert findings_of("municipalities", lists(changed)) == []


def test_what_was_released_once_is_not_refused_again_for_what_it_always_had(lists):
    wrong = [r | ({"nom": "BrÃ fim"} if i < 5 else {}) for i, r in enumerate(municipality_rows_at(DAY))]
    before = lists(wrong)
    again = lists([*wrong[:-1], wrong[-1] | {"nom": "Altre"}], NOW + timedelta(days=1))
    found = findings_of("municipalities", again, before)
    assert errors(found) == {}
    assert any("are garbled" in f.message for f in found)


def borders(taken: Callable[..., Taken], change: Callable[[str, list[Any]], list[Any]]) -> Taken:
    pages = []
    for level in ("comarques", "municipis"):
        page = json.loads(json.dumps(boundaries(level, "100000")))
        page["features"] = change(level, page["features"])
        pages.append(page)
    return taken(DEFINITIONS["boundaries"], pages)


def moved(part: Any, east: float, scale: float = 1) -> Any:
    if isinstance(part[0], list):
        return [moved(inner, east, scale) for inner in part]
    return [east + part[0] * scale, part[1] * scale]


def with_coordinates(features: list[Any], east: float, scale: float = 1) -> list[Any]:
    return [
        f | {"geometry": f["geometry"] | {"coordinates": moved(f["geometry"]["coordinates"], east, scale)}}
        for f in features
    ]


def test_the_borders_of_the_demo_are_accepted(taken):
    assert findings_of("boundaries", borders(taken, lambda _, features: features)) == []


@pytest.mark.parametrize(
    ("change", "figure"),
    [
        (
            lambda _, features: with_coordinates(features, 10),
            "share of rows with geometry within",
        ),
        (lambda level, features: features[: 42 if level == "comarques" else None], "rows of level comarca"),
        (
            lambda level, features: features[: 900 if level == "municipis" else None],
            "rows of level municipality",
        ),
    ],
    ids=["ten degrees to the east", "42 comarques", "900 municipalities"],
)
def test_wrong_borders_are_refused_in_the_first_run(taken, change, figure):
    found = errors(findings_of("boundaries", borders(taken, change)))
    assert any(name.startswith(figure) for name in found), list(found)
    assert {f.gate for f in found.values()} == {"expected"}


def test_borders_in_metres_cannot_be_staged(taken):
    with pytest.raises(SnapshotUnreadable, match=r"expected longitude and latitude in degrees \(EPSG:4326\)"):
        borders(taken, lambda _, features: with_coordinates(features, 260_000, 80_000))


@pytest.fixture(scope="module")
def people(taken: Callable[..., Taken]) -> Callable[..., Taken]:
    def of(table: dict[int, dict[str, tuple[int, int]]], now: datetime = NOW) -> Taken:
        return taken(DEFINITIONS["population"], [jsonstat(table)], now)

    return of


def test_a_year_without_370_municipalities_is_refused_also_in_the_first_run(people):
    whole, partial = demo_people(range(2015, 2026)), demo_people(range(2015, 2026))
    partial[2019] = dict(list(partial[2019].items())[370:])
    [finding] = [f for f in errors(findings_of("population", people(partial))).values() if "65" in f.message]
    assert "values of people_aged_65_over in year 2019: 577; expected are 940 to 960" in finding.message
    later = people(partial, NOW + timedelta(days=1))
    assert "total of people of year 2019" in errors(findings_of("population", later, people(whole)))


@pytest.mark.parametrize("years", [range(2015, 2026), [2019], [2025]])
def test_people_of_65_and_over_that_doubled_are_refused_in_old_and_in_new_years(people, years):
    before = people(demo_people(range(2015, 2025)))
    table = demo_people(range(2015, 2026))
    for year in years:
        table[year] = {place: (all_, 2 * aged) for place, (all_, aged) in table[year].items()}
    found = errors(findings_of("population", people(table, NOW + timedelta(days=1)), before))
    assert any(name.startswith("total of people_aged_65_over of year") for name in found), list(found)


def test_a_new_year_of_population_passes(people):
    before, now = demo_people(range(2015, 2025)), demo_people(range(2015, 2026))
    assert findings_of("population", people(now, NOW + timedelta(days=1)), people(before)) == []


def test_the_27_real_rows_are_only_warned_of_in_the_first_run(shared, taken):
    with (shared / "services/ivft-vegh_sample27_2026-09.csv").open(encoding="utf-8", newline="") as file:
        sample = taken(DEFINITIONS["social_services"], [list(csv.DictReader(file))])
    found = findings_of("social_services", sample)
    assert [f.severity for f in found] == ["warn"] * len(found)
    assert any(f.message == "social_services: 27 rows, expected are 8000 to 20000" for f in found)


def test_a_dataset_that_declares_no_figures_is_compared_all_the_same(taken, tmp_path):
    plain = DEFINITIONS["service_users"]
    assert plain.figures.totals is None
    assert Total(column="people", by="year") in plain.totals
    rows = [
        {"any": str(year), "codi": f"{c:02d}", "comarca": f"C {c}", "total": str(100 * c + year - 2014)}
        for year in range(2015, 2025)
        for c in range(1, 44)
    ]
    before = taken(plain, [rows])
    assert (
        errors(findings_of("service_users", before.altered(tmp_path, "select * from {rows}"), before)) == {}
    )
    for wrong, figure in (
        ("people * 2 as people", "total of people of year 2015"),
        ("cast(null as integer) as people", "share of rows without people"),
        ("'Nova ' || comarca_name as comarca_name", "share of comarca_name not seen before"),
    ):
        now = before.altered(tmp_path, f"select * replace ({wrong}) from {{rows}}")
        assert figure in errors(findings_of("service_users", now, before))


def test_the_stored_figures_are_rows_and_totals_and_few(register, people):
    of = register(DAY)
    figures = figures_of("social_services", of)
    assert set(figures) == {"rows", "places"}
    assert figures["rows"] == of.staged.rows_staged
    table = demo_people([2023, 2024])
    found = figures_of("population", people(table))
    assert found["people by year"] == sum(everyone for everyone, _ in table[2024].values())
    with duckdb.connect() as con:
        for dataset in DEFINITIONS.values():
            nulls = ", ".join(f"cast(null as {c.kind.sql}) as {c.name}" for c in dataset.columns)
            assert len(snapshot_figures(con, dataset, f"(select {nulls})")) <= 20
