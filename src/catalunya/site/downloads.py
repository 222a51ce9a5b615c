"""Files that readers fetch: the release as it is, spreadsheets of its marts, and the releases before it.

/data/…                     the folder of the release as in the lake, with csv-excel/ and xlsx/ beside csv/ and parquet/
/releases/<release_id>/…    the Parquet files and the record of each release that the lake keeps
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb

from catalunya.datasets.model import Dataset
from catalunya.errors import LakeCorrupt
from catalunya.lake import disk, index, layout, snapshot
from catalunya.lake.snapshot import Manifest, Refusal
from catalunya.lake.staged import StagedFile
from catalunya.lake.storage import MissingKey, Storage
from catalunya.publication.signature import SUFFIX
from catalunya.release import (
    RELEASE_DATABASE,
    SUMS,
    Release,
    ReleasedSnapshot,
    read_release,
    release_ids,
)
from catalunya.runs.record import RunRecord, recent
from catalunya.site.headers import RELEASES
from catalunya.site.language import CODES, language
from catalunya.site.spreadsheet import MOST_ROWS, load_excel, write_csv, write_workbook

DATA = "data"
DATA_PACKAGE = "datapackage.json"
PREVIEW_ROWS = 5
MOST_ARCHIVED = 30
"""Releases whose files the site has; older ones are in the lake alone."""
RUNS = 10
"""Runs that the page of the status shows."""
_KINDS = {"xlsx": "xlsx", "csv-excel": "csv", "csv": "csv", "parquet": "parquet"}
"""Folders of the data, and the endings of the files in them."""
_PERIODS = {
    "year": ("make_date(year, 1, 1)", "make_date(year, 12, 31)"),
    "changed_on": ("changed_on", "changed_on"),
    "valid_from": ("valid_from", "coalesce(valid_to, valid_from)"),
    "register_on": ("register_on", "register_on"),
    "snapshot_date": ("snapshot_date", "snapshot_date"),
}
"""Column that says when the rows of a table are of, to the first and last day of a row."""
_RECORDS = {"release.json", "dictionary.md", "LICENCES.md"}


@dataclass(frozen=True)
class ReleasedFile:
    """A file that readers can fetch."""

    kind: str
    """`csv`, `csv-excel`, `xlsx`, `parquet` or `duckdb`."""
    address: str
    """Within the site, such as `/data/csv/population.csv`."""
    size: int
    sha256: str
    sha1: str
    """What the shapes of Spain's profile of DCAT-AP ask for."""


@dataclass(frozen=True)
class TableColumn:
    """A column of a table; `type` as in a Frictionless Table Schema."""

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class Table:
    """A mart as readers find it."""

    name: str
    titles: dict[str, str]
    """By language; its name where the texts of the site have none."""
    descriptions: dict[str, str]
    """By language; what the dictionary says where the texts of the site have none."""
    definition: str
    """What the dictionary says."""
    rows: int
    period: tuple[date, date] | None
    """First and last day that its rows are of; None when they say none."""
    columns: tuple[TableColumn, ...]
    """Of its CSV file: in a demo with the column that says so."""
    files: dict[str, ReleasedFile]
    """By kind; without a workbook when it has more rows than a sheet."""
    preview: tuple[tuple[object, ...], ...]
    """Its first rows, without the column of the demo."""


@dataclass(frozen=True)
class ReleasedSource:
    """A dataset of the release with its newest snapshot."""

    dataset: Dataset
    counts: ReleasedSnapshot
    manifest: Manifest | None
    """None when the lake has lost it."""
    staged: StagedFile | None
    """Why rows are quarantined, and which values became null; None when that is not known."""
    refused: dict[str, Refusal]
    """Snapshots of the dataset that are refused now."""


@dataclass(frozen=True)
class ArchivedRelease:
    """A release that the lake keeps; its files are in the site unless it is too old."""

    release_id: str
    released_at: datetime
    demo: bool
    tables: tuple[str, ...]
    is_in_site: bool

    @property
    def address(self) -> str:
        """Its folder within the site; it stays the same as long as the release is kept."""
        return f"/{RELEASES}/{self.release_id}/"


@dataclass(frozen=True)
class Downloads:
    """All that readers can fetch."""

    tables: tuple[Table, ...] = ()
    database: ReleasedFile | None = None
    signature: str | None = None
    """Address of the signature of the checksums; None of a release that is not signed."""
    sources: tuple[ReleasedSource, ...] = ()
    releases: tuple[ArchivedRelease, ...] = ()
    """Newest first, the one of the site among them."""
    runs: tuple[RunRecord, ...] = ()
    """The last runs, newest first."""


def write_downloads(
    storage: Storage,
    datasets: dict[str, Dataset],
    release: Release,
    folder: Path,
    work: Path,
    previous: Path | None = None,
) -> Downloads:
    """Write the files into `folder`, the site that is being made; `previous` is the one that is shown.

    Raises `LakeCorrupt` when a file of the release has not the checksum that the release states.
    """
    data = folder / DATA
    kept = previous / DATA if previous else None
    sums = _copy_release(storage, release, data, kept, work)
    sources = tuple(_source(storage, datasets[name], counts) for name, counts in release.datasets.items())
    described = json.loads((data / DATA_PACKAGE).read_text("utf-8"))["resources"]
    resources = {resource["title"]: resource for resource in described}
    tables = []
    with duckdb.connect(data / RELEASE_DATABASE, read_only=True) as con:
        load_excel(con)
        for name, rows in release.rows.items():
            write_csv(con, name, data / "csv-excel" / f"{name}.csv", work, demo=release.demo)
            if rows <= MOST_ROWS:
                target = Path("xlsx", f"{name}.xlsx")
                (data / target).parent.mkdir(exist_ok=True)
                about = _about(resources[name], release, sources)
                identity = sums[f"parquet/{name}.parquet"]
                write_workbook(
                    con, name, about, data / target, work, release.demo, identity, kept and kept / target
                )
            tables.append(_table(con, resources[name], rows, folder))
    database = _released(folder, "duckdb", RELEASE_DATABASE)
    releases = _archive(storage, folder, work, previous)
    runs = tuple(islice(recent(storage), RUNS))
    signed = f"{SUMS}{SUFFIX}"
    signature = f"/{DATA}/{signed}" if (data / signed).exists() else None
    return Downloads(tuple(tables), database, signature, sources, releases, runs)


def _copy_release(
    storage: Storage, release: Release, data: Path, kept: Path | None, work: Path
) -> dict[str, str]:
    """Copy the folder of the release; returns the checksums of its files."""
    sums = _checksums(storage, release.release_id)
    for name, sha256 in sums.items():
        key = layout.release(release.release_id, name)
        _copy(storage, key, data / name, sha256, kept and kept / name, work)
    _write_sums(storage, release.release_id, data)
    return sums


def _write_sums(storage: Storage, release_id: str, folder: Path) -> None:
    """Write the checksums as the release states them, and their signature where there is one."""
    for name in (SUMS, f"{SUMS}{SUFFIX}"):
        with contextlib.suppress(MissingKey):
            (folder / name).write_bytes(storage.read(layout.release(release_id, name)))


def _checksums(storage: Storage, release_id: str) -> dict[str, str]:
    """The checksums that a release states, by the names of its files."""
    lines = storage.read(layout.release(release_id, SUMS)).decode().splitlines()
    return {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}


def _copy(storage: Storage, key: str, target: Path, sha256: str, kept: Path | None, work: Path) -> None:
    """Put a file of the lake at `target`: linked to `kept`, the file of the site before, where that has the bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if kept is not None and kept.is_file() and disk.sha256(kept) == sha256:
        target.hardlink_to(kept)
        return
    shutil.copyfile(storage.fetch(key, work), target)
    found = disk.sha256(target)
    if found != sha256:
        raise LakeCorrupt(
            f"{storage.uri(key)} has the SHA-256 {found}, and its release states {sha256}; restore the file, or make "
            "another release with `catalunya run --rebuild`"
        )


def _source(storage: Storage, dataset: Dataset, counts: ReleasedSnapshot) -> ReleasedSource:
    return ReleasedSource(
        dataset,
        counts,
        snapshot.read(storage, dataset.id, counts.snapshot_id),
        index.load(storage, dataset.id).staged(counts.snapshot_id),
        snapshot.refused(storage, dataset.id),
    )


def _table(con: duckdb.DuckDBPyConnection, resource: dict[str, Any], rows: int, folder: Path) -> Table:
    name, definition = resource["title"], resource["description"]
    texts = {code: language(code).texts["table"].get(name, {}) for code in CODES}
    columns = tuple(
        TableColumn(field["name"], field["type"], field["description"])
        for field in resource["schema"]["fields"]
    )
    return Table(
        name=name,
        titles={code: texts[code].get("title", name) for code in CODES},
        descriptions={code: texts[code].get("rows", definition) for code in CODES},
        definition=definition,
        rows=rows,
        period=_period(con, name, {column.name for column in columns}),
        columns=columns,
        files={
            kind: _released(folder, kind, f"{kind}/{name}.{ending}")
            for kind, ending in _KINDS.items()
            if (folder / DATA / kind / f"{name}.{ending}").exists()
        },
        preview=tuple(con.execute(f"from marts.{name} limit {PREVIEW_ROWS}").fetchall()),
    )


def _period(con: duckdb.DuckDBPyConnection, mart: str, columns: set[str]) -> tuple[date, date] | None:
    wanted = next((name for name in _PERIODS if name in columns), None)
    if wanted is None:
        return None
    begin, end = _PERIODS[wanted]
    [(first, last)] = con.execute(f"select min({begin}), max({end}) from marts.{mart}").fetchall()
    return (first, last) if first else None


def _released(folder: Path, kind: str, name: str) -> ReleasedFile:
    path = folder / DATA / name
    with path.open("rb") as file:
        sha1 = hashlib.file_digest(file, partial(hashlib.sha1, usedforsecurity=False)).hexdigest()
    return ReleasedFile(kind, f"/{DATA}/{name}", path.stat().st_size, disk.sha256(path), sha1)


def _about(
    resource: dict[str, Any], release: Release, sources: Iterable[ReleasedSource]
) -> Iterator[tuple[str, str]]:
    """What the first sheet of a workbook says: nothing that changes while the rows and their sources are the same."""
    if release.demo:
        for code in CODES:
            yield language(code).text("name"), language(code).text("demo")
    name = resource["title"]
    yield "Table", name
    yield "Publication", language("en").text("site")
    yield "Rows", resource["description"]
    for source in sources:
        if source.dataset.id in release.lineage.get(name, ()):
            day = layout.moment_of(source.counts.snapshot_id).date()
            yield "Source", f"{source.dataset.citation} {source.dataset.homepage}"
            yield "Read on", f"{day} (snapshot {source.counts.snapshot_id})"
            yield "Licence", f"{source.dataset.licence.name}: {source.dataset.licence.url}"
    yield "Codes", "Official codes are texts with leading zeros: 080193, 07. Empty cells have no data."
    for field in resource["schema"]["fields"]:
        yield field["name"], f"{field['description']} ({field['type']})"


def _archive(
    storage: Storage, folder: Path, work: Path, previous: Path | None
) -> tuple[ArchivedRelease, ...]:
    """Copy what the newest releases published; returns every release that the lake keeps, newest first."""
    found = []
    for release_id in reversed(release_ids(storage)):
        with contextlib.suppress(LakeCorrupt):
            found.append(read_release(storage, release_id))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(partial(_copy_archived, storage, folder, work, previous), found[:MOST_ARCHIVED]))
    return tuple(
        ArchivedRelease(one.release_id, one.released_at, one.demo, tuple(one.rows), number < MOST_ARCHIVED)
        for number, one in enumerate(found)
    )


def _copy_archived(
    storage: Storage, folder: Path, work: Path, previous: Path | None, release: Release
) -> None:
    name = f"{RELEASES}/{release.release_id}"
    kept = previous / name if previous else None
    # Files of two releases have the same names.
    fetched = work / release.release_id
    for file, sha256 in _checksums(storage, release.release_id).items():
        if file.startswith("parquet/") or file in _RECORDS:
            key = layout.release(release.release_id, file)
            _copy(storage, key, folder / name / file, sha256, kept and kept / file, fetched)
    _write_sums(storage, release.release_id, folder / name)
