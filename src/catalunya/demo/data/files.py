"""Real files to serve instead of generated data, recognised by their names or their columns."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

from catalunya.demo.data.datasets import (
    DEMO_MARK,
    MUNICIPALITIES,
    REGISTER,
    SERVICE_USERS,
    PortalColumn,
    PortalDataset,
    demo_datasets,
)
from catalunya.demo.data.population import AGES, MIDDLE, OLDEST, TOTAL, YOUNGEST, PopulationTable
from catalunya.demo.data.register import EPOCH
from catalunya.demo.data.service import Row
from catalunya.demo.errors import FilesIncomplete

AGE_COLUMNS = {
    YOUNGEST: "Total. De 0 a 14 anys",
    MIDDLE: "Total. De 15 a 64 anys",
    OLDEST: "Total. De 65 anys i més",
}
POPULATION_YEAR = 2019
POPULATION_FILE = "b4rr-d25b"
LEVELS = ("comarques", "municipis")
ATTRIBUTIONS = {
    REGISTER: "Departament de Drets Socials i Inclusió",
    MUNICIPALITIES: "Idescat, ICGC",
    SERVICE_USERS: "Departament de Drets Socials i Inclusió",
}


@dataclass(frozen=True)
class FilesPortal:
    """The contents of a folder of real files."""

    datasets: dict[str, PortalDataset]
    population: PopulationTable
    boundaries: Callable[[str, str], bytes]
    boundaries_modified: datetime


def read_files(folder: Path) -> FilesPortal:
    """Return what the files in and below a folder hold; raises FilesIncomplete, which names the missing files."""
    if not folder.is_dir():
        raise FilesIncomplete(f"{folder} is no folder; give one that holds the portals' files")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".json", ".csv", ".geojson"))
    datasets = {name: path for name in ATTRIBUTIONS if (path := _newest(files, name)) is not None}
    population = _newest(files, POPULATION_FILE)
    geojson = [path for path in files if path.suffix == ".geojson"]
    levels = {level: path for level in LEVELS if (path := _newest(geojson, level)) is not None}
    missing = [f"{name}*.json or .csv" for name in ATTRIBUTIONS if name not in datasets]
    missing += [] if population else [f"{POPULATION_FILE}*.csv (people by age)"]
    missing += [f"*{level}*.geojson" for level in LEVELS if level not in levels]
    if population is None or missing:
        raise FilesIncomplete(f"{folder} holds {len(files)} data files but lacks {', '.join(missing)}")
    return FilesPortal(
        datasets={name: _read_dataset(name, path) for name, path in datasets.items()},
        population=_read_population(population),
        boundaries=lambda level, _: levels[level].read_bytes(),
        boundaries_modified=max(_modified(path) for path in levels.values()),
    )


def _newest(files: list[Path], mark: str) -> Path | None:
    """The file whose name holds the mark and sorts last; else a JSON whose rows have the dataset's fields."""
    named = [path for path in files if mark in path.name]
    if named or mark not in ATTRIBUTIONS:
        return max(named, key=lambda path: path.name.partition(mark)[2], default=None)
    fields = {column.field for column in demo_datasets(EPOCH)[mark].columns}
    return next((path for path in files if path.suffix == ".json" and _has_fields(path, fields)), None)


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(int(path.stat().st_mtime), UTC)


def _has_fields(path: Path, fields: set[str]) -> bool:
    with path.open(encoding="utf-8") as file:
        if not file.read(64).lstrip().startswith("["):
            return False
    rows = json.loads(path.read_text(encoding="utf-8"))
    return bool(rows) and isinstance(rows[0], dict) and fields <= rows[0].keys()


def _read_dataset(dataset_id: str, path: Path) -> PortalDataset:
    model = demo_datasets(EPOCH)[dataset_id]
    dataset = replace(
        model,
        name=model.name.removesuffix(DEMO_MARK),
        attribution=ATTRIBUTIONS[dataset_id],
        updated=_modified(path),
    )
    if path.suffix == ".csv":
        return _from_csv(dataset, path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FilesIncomplete(f"{path} is no JSON: {error}") from error
    if isinstance(content, dict):
        return _from_export(dataset, content, path)
    return replace(dataset, rows=lambda: content)


def _from_csv(dataset: PortalDataset, path: Path) -> PortalDataset:
    """Columns are named by their titles or by their fields."""
    fields = {name: column.field for column in dataset.columns for name in (column.name, column.field)}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows: list[Row] = [
            {fields[title]: value for title, value in row.items() if title in fields and value}
            for row in csv.DictReader(file)
        ]
    return replace(dataset, rows=lambda: rows)


def _from_export(dataset: PortalDataset, content: dict[str, object], path: Path) -> PortalDataset:
    """A whole export of Socrata: `meta.view` and rows as lists; `:sid` is the `:id` of the API."""
    meta = content.get("meta")
    view = meta.get("view") if isinstance(meta, dict) else None
    data = content.get("data")
    if not isinstance(view, dict) or not isinstance(data, list):
        raise FilesIncomplete(f"{path} is no export of Socrata: it lacks meta.view or data")
    described = [(column["fieldName"], column) for column in view["columns"]]
    public = [column for _, column in described if column["dataTypeName"] != "meta_data"]
    points = {column["fieldName"] for column in public if column["dataTypeName"] == "point"}
    kept = {":sid": ":id"} | {column["fieldName"]: column["fieldName"] for column in public}
    names = [kept.get(name) for name, _ in described]
    return replace(
        dataset,
        name=view["name"],
        attribution=view.get("attribution", dataset.attribution),
        licence=view.get("license", {}).get("name", dataset.licence),
        columns=tuple(PortalColumn(c["name"], c["fieldName"], c["dataTypeName"]) for c in public),
        updated=datetime.fromtimestamp(view["rowsUpdatedAt"], UTC),
        rows=lambda: (_export_row(names, values, points) for values in data),
    )


def _export_row(names: Iterable[str | None], values: Iterable[object], points: set[str]) -> Row:
    return {
        name: _point(str(value)) if name in points else value
        for name, value in zip(names, values, strict=True)
        if name is not None and value is not None
    }


def _point(text: str) -> dict[str, object]:
    coordinates = [float(part) for part in text.removeprefix("POINT (").rstrip(")").split()]
    return {"type": "Point", "coordinates": coordinates}


def _read_population(path: Path) -> PopulationTable:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    missing = [title for title in ("Codi", "Literal", *AGE_COLUMNS.values()) if rows and title not in rows[0]]
    if not rows or missing:
        raise FilesIncomplete(f"{path} has no people by age: it lacks {', '.join(missing) or 'rows'}")
    people = {
        row["Codi"] or TOTAL: {age: int(row[title]) for age, title in AGE_COLUMNS.items()} for row in rows
    }
    for by_age in people.values():
        by_age[TOTAL] = sum(by_age.values())
    labels = {row["Codi"] or TOTAL: row["Literal"] for row in rows}
    territories = {code: labels[code] for code in sorted(labels, key=lambda code: (code != TOTAL, code))}
    return PopulationTable(
        label=f"Població. {', '.join(AGES.values())}. Municipis",
        updated=date(POPULATION_YEAR + 1, 1, 1),
        years=(POPULATION_YEAR,),
        territories=territories,
        value=lambda year, territory, age: (
            people.get(territory, {}).get(age) if year == POPULATION_YEAR else None
        ),
    )
