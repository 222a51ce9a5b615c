"""Warehouses that several tests read; each is built once."""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from .register import DAYS, UNREAD, UNUSABLE
from .warehouse import DAY_CENTRE, MERCANTILE, RESIDENCE, Row, Warehouse, municipality, people, service


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One target folder, so that dbt parses the project as seldom as it can."""
    return tmp_path_factory.mktemp("dbt")


@pytest.fixture(scope="session")
def random_register() -> list[list[Row]]:
    """Eight snapshots of 120 services that change, vanish and return at random, the same every time."""
    dice = random.Random(20260110)
    states: dict[str, dict[str, Any]] = {}
    snapshots = []
    for _ in DAYS:
        rows = []
        for number in range(120):
            key = f"R{number:03}"
            state = states.setdefault(key, {"is_there": dice.random() < 0.7})
            if dice.random() < 0.2:
                state["is_there"] = not state["is_there"]
            for name, values in {
                "places": [5, 10, None],
                "name": ["Llar", "Casa"],
                "address": ["carrer Major, 1", None],
                "owner_name": ["Ajuntament", "Fundació"],
                "service_type": [RESIDENCE, DAY_CENTRE],
            }.items():
                if name not in state or dice.random() < 0.08:
                    state[name] = dice.choice(values)
            if state["is_there"]:
                rows.append(service(key, **{name: v for name, v in state.items() if name != "is_there"}))
        snapshots.append(rows)
    return snapshots


@pytest.fixture(scope="session")
def history(
    tmp_path_factory: pytest.TempPathFactory, work: Path, random_register: list[list[Row]]
) -> Warehouse:
    """A register of eight days beside three municipalities, one of which moves; with dbt's own unit tests."""
    warehouse = Warehouse(tmp_path_factory.mktemp("history") / "candidate.duckdb", work)
    by_hand: list[list[Row]] = [
        [
            service("STAYS"),
            service("GROWS"),
            service("LEAVES"),
            service("RETURNS"),
            service("WORDED", municipality_name="Prat de Llobregat, el", comarca_name="Baix Llobregat"),
            service("LOST", municipality_name="Enlloc", places=7),
        ],
        [
            service("STAYS"),
            service("GROWS", places=12, ownership_name=MERCANTILE),
            service("RETURNS"),
            service("WORDED", municipality_name="EL PRAT DE LLOBREGAT", comarca_name="baix llobregat"),
            service("LOST", municipality_name="Enlloc", places=7),
            service("OPENS", registered_on=None),
        ],
        [
            service("STAYS"),
            service("GROWS", places=12, ownership_name=MERCANTILE),
            service("WORDED", municipality_name="el Prat de Llobregat", comarca_name=None),
            service("LOST", municipality_name="Enlloc", places=7),
            service("OPENS", registered_on=None),
        ],
    ]
    fourth = [*by_hand[2], service("RETURNS")]
    warehouse.add("social_services", f"{DAYS[0]}T06:00", [service("STAYS", places=999), service("NEVER")])
    for day, by_chance in zip(DAYS, random_register, strict=True):
        rows = by_hand[DAYS.index(day)] if day in DAYS[:3] else fourth
        warehouse.add(
            "social_services",
            f"{day}T18:00",
            [*rows, *by_chance, *UNREAD.get(day, [])],
            unusable=UNUSABLE.get(day, UNUSABLE[DAYS[-1]]),
            invalid={"registered_on": 2, "places": 1} if day == DAYS[1] else None,
        )
    prat = municipality("081691", "Prat de Llobregat, el", "11", "Baix Llobregat")
    alone = municipality("171220", "Palmerola", "31", "Ripollès")
    warehouse.add(
        "municipalities", "2025-01-01", [municipality("081496", "Olost", "24", "Osona"), prat, alone]
    )
    warehouse.add(
        "municipalities",
        "2026-03-01",
        [municipality("081496", "Olost", "43", "Lluçanès")],
        unusable=["081691", "089999"],
    )
    warehouse.add(
        "population",
        "2026-01-02",
        [people("081496", 2024, 200), people("081691", 2024, 4000), people("081496", 2025, 210)],
    )
    warehouse.add(
        "population",
        "2026-02-02",
        [people("081496", 2024, 205), people("081496", 2025, 215)],
        unusable=["081691/2024", "081691/2025"],
    )
    warehouse.add(
        "boundaries", "2026-01-02", [{"level": "municipality", "area_id": "081496", "comarca_id": "24"}]
    )
    warehouse.add("service_users", "2026-01-02", [{"year": 2024, "comarca_id": "11", "people": 5}])
    return warehouse.build_by_dbt()


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory, work: Path, shared: Path) -> Warehouse:
    """The 27 real services, both real municipality lists, and the population of 2019."""
    warehouse = Warehouse(tmp_path_factory.mktemp("real") / "candidate.duckdb", work)
    warehouse.add("municipalities", "2023-05-15", _list_of_2023(shared))
    warehouse.add("municipalities", "2024-12-19", _list_of_2024(shared))
    with (shared / "services" / "ivft-vegh_sample27_2026-09.csv").open(
        newline="", encoding="utf-8-sig"
    ) as file:
        services = [
            {
                "service_id": row["registre"],
                "name": row["nom"],
                "service_type": " ".join(row["tipologia"].split()),
                "places": int(row["capacitat"]),
                "municipality_name": row["municipi"],
            }
            for row in csv.DictReader(file)
        ]
    warehouse.add("social_services", "2026-09-01", services)
    warehouse.add("population", "2026-09-01", _population_of_2019(shared))
    warehouse.add("boundaries", "2026-09-01", _boundaries_of_2026(shared))
    warehouse.add("service_users", "2026-09-01", [])
    return warehouse.build()


@pytest.fixture(scope="session")
def smallest(tmp_path_factory: pytest.TempPathFactory, work: Path) -> Warehouse:
    """A portal of three municipalities without names of comarques, one service, and no population at all."""
    warehouse = Warehouse(tmp_path_factory.mktemp("smallest") / "candidate.duckdb", work)
    warehouse.add("municipalities", "2026-09-01", [
        municipality("081496", "Olost", "43", None),
        municipality("081691", "Prat de Llobregat, el", "11", None),
        municipality("252234", "Torà", "35", None),
    ])  # fmt: skip
    warehouse.add("social_services", "2026-09-01", [service("S1", comarca_name="Osona")])
    for dataset_id in ("population", "boundaries", "service_users"):
        warehouse.add(dataset_id, "2026-09-01", [])
    return warehouse.build()


@pytest.fixture(scope="session")
def corrupted(history: Warehouse, work: Path, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """A copy of the finished history in which one rule of each kind is broken; dbt's tests have run on it."""
    path = tmp_path_factory.mktemp("corrupted") / "candidate.duckdb"
    shutil.copy(history.path, path)
    with duckdb.connect(path) as con:
        con.execute(
            """
            insert into marts.dim_comarca select * from marts.dim_comarca limit 1;
            update marts.dim_municipality set valid_to = date '2026-06-01' where not is_current;
            update marts.service_history set valid_to = valid_from where service_id = 'STAYS' and is_current;
            update marts.service_history set municipality_id = '000000' where service_id = 'GROWS';
            update marts.coverage_municipality set places = places + 1 where municipality_id = '081691';
            update marts.coverage_comarca set services = 99 where ownership = 'all' and comarca_id = '11';
            update marts.coverage_catalonia set services_unmatched = 77 where ownership = 'all';
            update marts.coverage_catalonia set basis = 'guessed' where year = 2024;
            update marts.population set people = -1 where municipality_id = '081496';
            update marts.service_changes set change = 'exploded' where service_id = 'OPENS';
            update marts.data_quality set rows_staged = rows_staged - 1 where dataset_id = 'population';
            update marts.dim_service_type set name = null;
            update marts.access_municipality set accessibility_ratio = accessibility_ratio + 1;
            delete from marts.coverage_municipality where municipality_id = '081496' and year = 2024;
            update marts.residence_places_control set is_within_tolerance = false where comarca_id = '11';
            update marts.places_control_catalonia set basis = 'observed', is_within_tolerance = false
                where year = 2024;
            insert into reference.source_corrections
                values ('population', '081496/2024', 'people', '1', '2', 'caught up with', 'https://example.org');
            update marts.dim_municipality set latitude = 91 where municipality_id = '081691';
            """
        )
    copy = Warehouse(path, work)
    copy.dbt("test", "--exclude-resource-type", "unit_test")
    return copy


def _list_of_2023(shared: Path) -> list[Row]:
    with (shared / "municipalities" / "9aju-tpwc_2023-05.csv").open(newline="", encoding="utf-8-sig") as file:
        return [
            municipality(row["Codi"], row["Nom"], row["Codi comarca"], row["Nom comarca"]) | _centre(row)
            for row in csv.DictReader(file)
        ]


def _list_of_2024(shared: Path) -> list[Row]:
    export = json.loads(
        (shared / "municipalities" / "9aju-tpwc_2024-12.rows.json").read_text(encoding="utf-8")
    )
    names = [column["name"] for column in export["meta"]["view"]["columns"]]
    rows = [dict(zip(names, values, strict=True)) for values in export["data"]]
    return [
        municipality(row["Codi"], row["Nom"], row["Codi comarca"], row["Nom comarca"]) | _centre(row)
        for row in rows
        if row["Codi"] not in {"999998", "999999"}
    ]


def _centre(row: Row) -> Row:
    return {"longitude": float(row["Longitud"]), "latitude": float(row["Latitud"])}


def _boundaries_of_2026(shared: Path) -> list[Row]:
    (file,) = (shared / "boundaries").glob("*municipis*.geojson")
    properties = [feature["properties"] for feature in json.loads(file.read_text("utf-8"))["features"]]
    return [
        {
            "level": "municipality",
            "area_id": p["CODIMUNI"],
            "name": p["NOMMUNI"],
            "comarca_id": p["CODICOMAR"],
        }
        for p in properties
    ]


def _population_of_2019(shared: Path) -> list[Row]:
    with (shared / "population" / "b4rr-d25b_2019.csv").open(newline="", encoding="utf-8-sig") as file:
        next(file)
        rows = list(csv.DictReader(file))
    ages = ("Total. De 0 a 14 anys", "Total. De 15 a 64 anys", "Total. De 65 anys i més")
    return [
        people(row["Codi"], 2019, int(row[ages[2]]), sum(int(row[age]) for age in ages))
        for row in rows
        if row["Codi"].strip()
    ]
