"""What the portals show in the proof: the demo's register at full size and its neighbours, moved in time and disturbed.

Every snapshot is kept as the portal's own objects, which the pipeline and the plain Python read each in their way.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import product
from pathlib import Path
from typing import Any

from catalunya.demo.data.boundaries import boundaries
from catalunya.demo.data.population import people_of
from catalunya.demo.data.register import register_at
from catalunya.demo.data.service_users import service_user_rows
from catalunya.demo.data.territory import municipality_rows_at

Row = dict[str, Any]

REGISTER_DAYS = [
    ("2025-03-03T06:00", date(2025, 3, 3)),
    ("2025-03-03T18:00", date(2025, 3, 10)),
    ("2025-09-01T06:00", date(2025, 9, 1)),
    ("2025-12-31T23:00", date(2025, 12, 31)),
    ("2026-01-01T00:00", date(2026, 1, 5)),
    ("2026-06-15T06:00", date(2025, 12, 1)),
    ("2026-06-15T18:00", date(2026, 6, 22)),
    ("2027-02-01T06:00", date(2027, 2, 1)),
]
"""When the register is read, and the demo's day that it shows then: two days have more than one snapshot."""

FIRST, SECOND, THIRD = "2025-03-01T06:00", "2025-10-01T06:00", "2026-02-01T06:00"
AGES = ("Y_GE065", "TOTAL")
MERGED, SUCCESSOR = "171220", "170963"
"""Palmerola, which the seed of successions knows, is in the first lists here as if it had been merged of late."""
NAMESAKE = "089990"
LEFT = "251902"
"""A municipality that the newest list no longer has, and nobody knows why."""


FEWER = 40
"""One service in so many, where not all are needed."""


@dataclass(frozen=True)
class Sent:
    """One snapshot as a portal sent it."""

    dataset_id: str
    taken_at: datetime
    pages: list[Any]
    rows: list[Row]
    """The rows in the pages, under the source's names, in the portal's order."""
    totals: dict[tuple[str, int], int]
    """What the source publishes beside its rows: source column and year to the total."""
    updated: int | None = None
    """When the source says that it changed them last, in seconds since 1970."""


def everything_sent(shared: Path | None, without_people: Collection[str] = ()) -> list[Sent]:
    """All snapshots of all datasets, oldest first within each.

    `shared` holds the real municipality lists; `without_people` are municipalities that no population table has.
    """
    return [
        *_registers(),
        *_lists(shared),
        *_populations(without_people),
        *_boundaries(),
        *_users(),
    ]


def thinned(sent: Sent) -> Sent:
    """The register with fewer services, two of them with one number."""
    if sent.dataset_id != "social_services":
        return sent
    rows = [row for row in sent.rows if int(row["registre"][1:]) % FEWER == 0]
    rows += [{**rows[3], "nom": "The same number again"}, rows[5]]
    return replace(sent, pages=[rows], rows=rows)


def _sent(dataset_id: str, moment: str, pages: list[Any], rows: list[Row], totals: Any = None) -> Sent:
    return Sent(dataset_id, datetime.fromisoformat(moment).replace(tzinfo=UTC), pages, rows, totals or {})


def _registers() -> Iterator[Sent]:
    dice = random.Random("proof")
    for moment, day in REGISTER_DAYS:
        rows = [disturbed(row, dice) if dice.random() < 0.02 else row for row in register_at(day)]
        rows = [row for row in rows if dice.random() > 0.004]
        rows += [rows[50], {**rows[60], "nom": "The same number again"}]
        rows += [{**rows[70], "registre": f"P{number}", **place} for number, place in enumerate(PLACES)]
        half = len(rows) // 2
        yield _sent("social_services", moment, [rows[:half], rows[half:]], rows)


PLACES: list[Row] = [
    {"municipi": "Palmerola", "comarca": "Ripollès"},
    {"municipi": "Palmerola", "comarca": "Enlloc", "cp": "17514"},
    {"municipi": "Hospitalet de Llobregat", "comarca": "Barcelonès"},
    {"municipi": "Hospitalet de Llobregat", "comarca": "Osona"},
    {"municipi": "Vall de Boí", "comarca": "Alta Ribagorça"},
    {"municipi": "Enlloc", "comarca": "Garraf", "capacitat": "900"},
    {"municipi": "Enlloc", "comarca": "Enlloc", "capacitat": "8"},
]
"""Places of services that every register here has: abolished municipalities, names without article, unknown names."""


def disturbed(row: Row, dice: random.Random) -> Row:
    """The row with one or two fields worded otherwise, missing or wrong."""
    changes: dict[str, list[Any]] = {
        "nom": [f"{row['nom']} Nova", None, f"  {row['nom']}\u00a0 ", "null", f"\u200e{row['nom']}\u2028"],
        "capacitat": ["12", "12.0", "0", None, "", "12 places", "-1", "200000", "1.000", "1\u202f000"],
        "adreca": ["C. Major, 1", None, "C.\u2003Major,  1"],
        "cp": ["08001", None],
        "districte": ["Eixample", None],
        "municipi": [
            "Olost", "OLOST", "Prat de Llobregat (el)", "PRAT DE LLOBREGAT, EL", "el Prat  de Llobregat", "Enlloc",
            "No consta", None, "Hospitalet de Llobregat, l´", "L’HOSPITALET DE LLOBREGAT", "Masarac", "Santa Pau",
            "Castell - Platja d'Aro", "Bisbal de Falset (La)", "Roda de Barà",
        ],
        "comarca": ["Osona", "LLUÇANÈS", "Val d'Aran", "Baix Llobregat", "No consta", "Enlloc", None, "Alt  Emporda"],
        "entitat_titular": ["Fundació Nova", None],
        "qualificacio": [
            "ENTITAT D’INICIATIVA PUBLICA", "Entitat privada d'iniciativa social", "null", None, "Entitat nova",
        ],
        "tipologia": [
            "SERVEI DE CENTRE DE DIA per a gent gran de caràcter temporal o permanent",
            "Servei d’habitatge tutelat per a gent gran de caràcter temporal o permanent",
            "Servei nou, de prova", "servei nou de prova", "Servei d'acolliment intel.lectual", None,
        ],
        "inscripcio": ["2025-03-03", "2026-06-15", "2019-12-31T00:00:00.000", None, "2025-02-30", "2199-01-01"],
    }  # fmt: skip
    chosen = {
        field: dice.choice(changes[field]) for field in dice.sample(sorted(changes), dice.choice((1, 1, 2)))
    }
    return {field: value for field, value in (row | chosen).items() if value is not None}


def _lists(shared: Path | None) -> Iterator[Sent]:
    """The lists before and after Lluçanès, and one to come: a name taken back, a municipality less, a namesake more."""
    before = _real_list_of_2023(shared) if shared else municipality_rows_at(date(2023, 1, 1))
    after = _real_list_of_2024(shared) if shared else municipality_rows_at(date(2024, 12, 19))
    coming = []
    for row in after:
        changed = dict(row)
        match row["codi"]:
            case code if code == LEFT:
                continue
            case "171002":
                changed["nom"] = "Masarac"
            case "080142":
                changed |= {"codi_comarca": "24", "nom_comarca": "Osona"}
            case "080018":
                del changed["latitud"]
            case "080023":
                del changed["nom"]
            case "080039":
                changed["latitud"] = "41,5"
            case "080193":
                changed |= {"latitud": "41.40000000", "longitud": "2.100000000"}
        if row["codi_comarca"] == "39":
            changed["nom_comarca"] = "Val d'Aran"
        coming.append(changed)
    coming.append(
        {"codi": NAMESAKE, "nom": "Olost", "codi_comarca": "24", "nom_comarca": "Osona",
         "latitud": "41.5", "longitud": "2.0"}
    )  # fmt: skip
    coming += [coming[3], {**coming[5], "codi": "08999"}]
    merged = {"codi": MERGED, "nom": "Palmerola", "codi_comarca": "31", "nom_comarca": "Ripollès",
              "latitud": "42.1", "longitud": "2.1"}  # fmt: skip
    before = [*before, merged]
    yield _sent("municipalities", FIRST, [before], before)
    yield _sent("municipalities", SECOND, [after], after)
    yield _sent("municipalities", THIRD, [before], before)
    newest = _sent("municipalities", "2026-02-01T12:00", [coming], coming)
    yield replace(newest, updated=int(datetime(2026, 1, 20, 8, tzinfo=UTC).timestamp()))


def _real_list_of_2023(shared: Path) -> list[Row]:
    path = shared / "municipalities" / "9aju-tpwc_2023-05.csv"
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [_listed(row) for row in csv.DictReader(file)]


def _real_list_of_2024(shared: Path) -> list[Row]:
    path = shared / "municipalities" / "9aju-tpwc_2024-12.rows.json"
    export = json.loads(path.read_text(encoding="utf-8"))
    names = [column["name"] for column in export["meta"]["view"]["columns"]]
    return [_listed(dict(zip(names, values, strict=True))) for values in export["data"]]


def _listed(row: Row) -> Row:
    fields = {
        "codi": "Codi", "nom": "Nom", "codi_comarca": "Codi comarca", "nom_comarca": "Nom comarca",
        "longitud": "Longitud", "latitud": "Latitud",
    }  # fmt: skip
    return {field: row[title] for field, title in fields.items()}


def _populations(without_people: Collection[str]) -> Iterator[Sent]:
    yield _population(
        FIRST,
        range(2019, 2024),
        {
            (year, MERGED, age): value
            for year in (2019, 2021)
            for age, value in (("TOTAL", 30), ("Y_GE065", 11))
        },
        without_people,
    )
    yield _population(
        THIRD,
        range(2022, 2026),
        {
            (2023, "080193", "TOTAL"): 1_700_000,
            (2022, "080023", "TOTAL"): None,
            (2023, LEFT, "Y_GE065"): None,
            (2025, LEFT, "TOTAL"): None,
            (2024, "080018", "Y_GE065"): None,
            (2025, "TOTAL", "TOTAL"): 8_124_133,
            (2025, "TOTAL", "Y_GE065"): None,
        },
        without_people,
    )


def _population(
    moment: str,
    years: range,
    changes: dict[tuple[int, str, str], int | None],
    without: Collection[str],
) -> Sent:
    names = {
        row["codi"]: row["nom"] for row in municipality_rows_at(date(2024, 12, 19)) if row["codi"] < "999"
    }
    territories = {"TOTAL": "Catalunya", **names, MERGED: "Palmerola", NAMESAKE: "Olost"}
    territories = {code: name for code, name in territories.items() if code not in without}
    values, rows, totals = [], [], {}
    for year, code in product(years, territories):
        known = {"Y_GE065": 20, "TOTAL": 90} if code == NAMESAKE else people_of(year).get(code, {})
        cells = {age: known.get(age) for age in AGES}
        cells |= {age: changes[year, code, age] for age in AGES if (year, code, age) in changes}
        values += [cells[age] for age in AGES]
        if code != "TOTAL":
            measured = {f"AGE.{age}": value for age, value in cells.items()}
            rows.append({"YEAR": str(year), "MUN": code, "MUN.label": territories[code], **measured})
            continue
        totals |= {(f"AGE.{age}", year): value for age, value in cells.items() if value is not None}
    dimensions = {
        "YEAR": {str(year): str(year) for year in years},
        "MUN": territories,
        "SEX": {"TOTAL": "Total"},
        "AGE": {"Y_GE065": "65 anys i més", "TOTAL": "Total"},
    }
    page = {
        "version": "2.0",
        "class": "dataset",
        "id": list(dimensions),
        "size": [len(labels) for labels in dimensions.values()],
        "dimension": {
            name: {"category": {"index": list(labels), "label": labels}}
            for name, labels in dimensions.items()
        },
        "value": values,
    }
    return _sent("population", moment, [page], rows, totals)


def _boundaries() -> Iterator[Sent]:
    levels = {"comarca": boundaries("comarques", "100000"), "municipality": boundaries("municipis", "100000")}
    yield _borders(FIRST, levels)
    moved = json.loads(json.dumps(levels["municipality"]))
    for feature in moved["features"][:3]:
        feature["properties"] |= {"CODICOMAR": "43", "NOMCOMAR": "Lluçanès"}
    yield _borders(SECOND, {**levels, "municipality": moved})


def _borders(moment: str, levels: dict[str, Any]) -> Sent:
    rows = [
        {"level": level, **feature["properties"], "geometry": feature["geometry"]}
        for level, collection in levels.items()
        for feature in collection["features"]
    ]
    return _sent("boundaries", moment, list(levels.values()), rows)


def _users() -> Iterator[Sent]:
    older = service_user_rows()
    newer = [{**row, "total": "7"} if row["codi"] == "11" else row for row in older if row["any"] > "2016"]
    newer.append({**newer[0], "codi": "1"})
    yield _sent("service_users", FIRST, [older], older)
    yield _sent("service_users", SECOND, [newer], newer)
