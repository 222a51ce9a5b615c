"""Real files served in place of generated data, recognised by their name or by what is in them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

from catalunya.demo.data.datasets import MUNICIPALITIES, REGISTER, SERVICE_USERS, Column, Dataset, demo_datasets
from catalunya.demo.errors import FilesIncomplete
from catalunya.demo.data.population import AGES, MIDDLE, OLDEST, TOTAL, YOUNGEST, PopulationTable
from catalunya.demo.data.register import EPOCH
from catalunya.demo.data.service import Row

AGE_COLUMNS = {
    YOUNGEST: "Total. De 0 a 14 anys",
    MIDDLE: "Total. De 15 a 64 anys",
    OLDEST: "Total. De 65 anys i més",
}
POPULATION_YEAR = 2019
ATTRIBUTIONS = {
    REGISTER: "Departament de Drets Socials i Inclusió",
    MUNICIPALITIES: "Idescat, ICGC",
    SERVICE_USERS: "Departament de Drets Socials i Inclusió",
}


@dataclass(frozen=True)
class FilesPortal:
    """What a folder of real files gives to serve."""

    datasets: dict[str, Dataset]
    population: PopulationTable
    boundaries: Callable[[str, str], bytes]
    boundaries_modified: datetime


def read_files(folder: Path) -> FilesPortal:
    """Return what the files of a folder (and those below it) give; raises FilesIncomplete naming what lacks."""
    if not folder.is_dir():
        raise FilesIncomplete(f"{folder} is no folder; give one that holds the portals' files")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".json", ".csv", ".geojson"))
    found: dict[str, Dataset] = {}
    for dataset_id in (REGISTER, MUNICIPALITIES, SERVICE_USERS):
        path = _newest(files, dataset_id)
        if path is not None:
            found[dataset_id] = _read_dataset(dataset_id, path)
    population = _newest(files, "b4rr-d25b")
    borders = {
        level: path
        for level in ("comarques", "municipis")
        if (path := _newest([p for p in files if p.suffix == ".geojson"], level)) is not None
    }
    lacking = [f"{dataset_id}*.json or .csv" for dataset_id in ATTRIBUTIONS if dataset_id not in found]
    lacking += [] if population else ["b4rr-d25b*.csv (people by age)"]
    lacking += [f"*{level}*.geojson" for level in ("comarques", "municipis") if level not in borders]
    if population is None or lacking:
        raise FilesIncomplete(f"{folder} holds {len(files)} data files but lacks {', '.join(lacking)}")
    modified = max(datetime.fromtimestamp(path.stat().st_mtime, UTC) for path in borders.values())
    return FilesPortal(
        datasets=found,
        population=_read_population(population),
        boundaries=lambda level, _: borders[level].read_bytes(),
        boundaries_modified=modified,
    )


def _newest(files: list[Path], mark: str) -> Path | None:
    """The file whose name holds the mark and sorts last; else a JSON whose rows have the dataset's fields."""
    named = [path for path in files if mark in path.name]
    if named:
        return max(named, key=lambda path: path.name.partition(mark)[2])
    fields = (
        {column.field for column in demo_datasets(EPOCH)[mark].columns} if mark in ATTRIBUTIONS else set()
    )
    return next(
        (path for path in files if fields and path.suffix == ".json" and _has_fields(path, fields)), None
    )


def _has_fields(path: Path, fields: set[str]) -> bool:
    with path.open(encoding="utf-8") as file:
        if not file.read(64).lstrip().startswith("["):
            return False
    rows = json.loads(path.read_text(encoding="utf-8"))
    return bool(rows) and isinstance(rows[0], dict) and fields <= rows[0].keys()


def _read_dataset(dataset_id: str, path: Path) -> Dataset:
    model = demo_datasets(EPOCH)[dataset_id]
    updated = datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
    dataset = replace(
        model,
        name=model.name.partition(" (dades de demo")[0],
        attribution=ATTRIBUTIONS[dataset_id],
        updated=updated,
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


def _from_csv(dataset: Dataset, path: Path) -> Dataset:
    by_title = {column.name: column.field for column in dataset.columns}
    known = {column.field for column in dataset.columns}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows: list[Row] = [
            {
                field: value
                for title, value in row.items()
                if (field := by_title.get(title, title)) in known and value
            }
            for row in csv.DictReader(file)
        ]
    return replace(dataset, rows=lambda: rows)


def _from_export(dataset: Dataset, content: dict[str, object], path: Path) -> Dataset:
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
        columns=tuple(Column(c["name"], c["fieldName"], c["dataTypeName"]) for c in public),
        updated=datetime.fromtimestamp(view["rowsUpdatedAt"], UTC),
        rows=lambda: (_export_row(names, values, points) for values in data),
    )


def _export_row(names: Iterable[str | None], values: Iterable[object], points: set[str]) -> Row:
    row: Row = {}
    for name, value in zip(names, values, strict=True):
        if name is None or value is None:
            continue
        row[name] = _point(str(value)) if name in points else value
    return row


def _point(text: str) -> dict[str, object]:
    coordinates = [float(part) for part in text.removeprefix("POINT (").rstrip(")").split()]
    return {"type": "Point", "coordinates": coordinates}


def _read_population(path: Path) -> PopulationTable:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    lacking = [title for title in ("Codi", "Literal", *AGE_COLUMNS.values()) if rows and title not in rows[0]]
    if not rows or lacking:
        raise FilesIncomplete(f"{path} has no people by age: it lacks {', '.join(lacking) or 'rows'}")
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
