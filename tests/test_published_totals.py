"""The seeds of published totals agree with each other, with the real file and with what the method prints."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from pathlib import Path

from tests.project import ROOT

SEEDS = ROOT / "dbt" / "mart" / "seeds"
OWNERS = {
    "Places / Iniciativa pública": "public",
    "Places / Iniciativa social": "social_initiative",
    "Places / Iniciativa mercantil": "mercantile",
}


def read(name: str) -> list[dict[str, str]]:
    with (SEEDS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def of_catalonia() -> dict[tuple[str, str, str], int]:
    return {
        (row["facility"], row["year"], row["ownership"]): int(row["places"])
        for row in read("official_places_catalonia")
    }


def test_residence_places_by_comarca_sum_to_those_of_catalonia() -> None:
    sums: dict[tuple[str, str, str], int] = defaultdict(int)
    for row in read("official_residence_places"):
        sums["residence", row["year"], row["ownership"]] += int(row["places"])
    assert {year for _, year, _ in sums} == {"2021", "2023", "2024"}
    assert sums == {key: of_catalonia()[key] for key in sums}


def test_places_of_2024_are_those_of_the_published_file(shared: Path) -> None:
    file = shared / "services" / "idescat_15827_residence_places_2024.json"
    cells = [cell for cell in json.loads(file.read_text("utf-8"))["data"] if cell["row"] == "Catalunya"]
    published = {OWNERS[cell["col"]]: cell["value"] for cell in cells if cell["col"] in OWNERS}
    assert published == {owner: of_catalonia()["residence", "2024", owner] for owner in OWNERS.values()}


def test_the_method_prints_the_published_totals_of_the_seed() -> None:
    totals: dict[tuple[str, str], int] = defaultdict(int)
    for (facility, year, _), places in of_catalonia().items():
        totals[facility, year] += places
    rows = re.findall(
        r"^\| (20\d\d) \| ([\d,]+) \| ([\d,]+|not at hand) \|$",
        (ROOT / "docs/method.md").read_text("utf-8"),
        re.M,
    )
    printed = {
        (facility, year): int(figure.replace(",", ""))
        for year, residences, day_centres in rows
        for facility, figure in (("residence", residences), ("day_centre", day_centres))
        if figure != "not at hand"
    }
    assert printed == totals
    assert len(printed) == 18
