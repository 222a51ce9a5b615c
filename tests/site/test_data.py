"""The files that readers fetch, opened by the programs that people open them with, and the pages about them.

One long module, since its tests share the downloads of one release.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import frictionless
import openpyxl
import pandas
import polars
import pyarrow.parquet
import pytest
from csvw import CSVW

from catalunya.errors import LakeCorrupt
from catalunya.lake import disk
from catalunya.lake.opening import open_lake
from catalunya.operations.query import find_release
from catalunya.publication import demo_notice
from catalunya.site import downloads, spreadsheet
from catalunya.site.data_pages import data_pages
from catalunya.site.language import CODES, language
from catalunya.site.pages import Content
from tests.pipeline.command import ReleasedLake
from tests.project import missing
from tests.site.conftest import DATASETS


@pytest.fixture
def data(site: Path) -> Path:
    """The files of the site."""
    return site / "data"


def test_the_checksums_on_the_page_and_those_of_the_release_are_those_of_the_files(
    site: Path, data: Path
) -> None:
    checked = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=data, check=False)
    assert checked.returncode == 0
    html = (site / "en" / "data" / "index.html").read_text("utf-8")
    for path in [
        data / "catalunya.duckdb",
        *(p for kind in ("csv", "csv-excel", "xlsx", "parquet") for p in data.glob(f"{kind}/*.*[xvt]")),
    ]:
        if not path.name.endswith("-metadata.json"):
            assert disk.sha256(path) in html, path


def test_a_workbook_has_the_rows_of_its_mart_with_their_types(
    data: Path, marts: duckdb.DuckDBPyConnection
) -> None:
    for mart in ("dim_municipality", "data_quality", "population", "service_users"):
        book = openpyxl.load_workbook(data / "xlsx" / f"{mart}.xlsx", read_only=True)
        assert book.sheetnames == ["About", mart]
        header, *rows = book[mart].iter_rows(values_only=True)
        assert header[0] == demo_notice.COLUMN
        assert {row[0] for row in rows} == {demo_notice.SHORT_NOTICE}
        found = marts.execute(f"from {mart}")
        assert list(header[1:]) == [column[0] for column in found.description or []]
        expected = [tuple(_as_excel(value) for value in row) for row in found.fetchall()]
        # Empty cells at the end of a row are not written.
        assert [(row[1:] + (None,) * len(header))[: len(header) - 1] for row in rows] == expected


def _as_excel(value: object) -> object:
    """A date is a moment in a workbook; an empty text is nothing."""
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    return value if value != "" else None


def test_a_workbook_says_what_it_is(data: Path) -> None:
    book = openpyxl.load_workbook(data / "xlsx" / "coverage_comarca.xlsx", read_only=True)
    lines = [(a, b) for a, b in book["About"].iter_rows(values_only=True)]
    assert lines[0] == ("Català", language("ca").text("demo"))
    words = dict(lines)
    assert words["Table"] == "coverage_comarca"
    assert DATASETS["population"].citation in [b.partition(" http")[0] for a, b in lines if a == "Source"]
    assert any("Idescat" in b for a, b in lines if a == "Licence")
    assert words["comarca_id"].endswith("(string)")


def test_every_mart_has_every_kind_of_file(data: Path, marts: duckdb.DuckDBPyConnection) -> None:
    names = {row[0] for row in marts.execute("select table_name from duckdb_tables()").fetchall()}
    for kind, ending in (("xlsx", "xlsx"), ("csv", "csv"), ("csv-excel", "csv"), ("parquet", "parquet")):
        assert {path.stem for path in (data / kind).glob(f"*.{ending}")} == names
    assert len(names) >= 15


def test_the_csv_for_excel_has_what_excel_needs(data: Path, marts: duckdb.DuckDBPyConnection) -> None:
    path = data / "csv-excel" / "dim_municipality.csv"
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    [(latitude,)] = marts.execute(
        "select latitude::varchar from dim_municipality where municipality_id = '080193' and is_current"
    ).fetchall()
    [barcelona] = [row for row in rows if row["municipality_id"] == "080193" and row["is_current"] == "true"]
    assert barcelona["latitude"] == latitude.replace(".", ",")
    assert barcelona[demo_notice.COLUMN] == demo_notice.SHORT_NOTICE
    assert next(iter(rows[0])) == demo_notice.COLUMN
    assert any("ó" in row["name"] for row in rows)


HOSTILE = [
    '=HYPERLINK("http://evil")',
    "+1",
    "-1",
    "@x",
    "\tx",
    "plain",
    'a;b"c\nd',
    "bell\x07",
    "ó" * 40_000,
]


def test_what_a_source_says_is_no_formula_and_no_damage(tmp_path: Path) -> None:
    with duckdb.connect() as con:
        con.execute("create schema marts")
        con.execute("create table marts.hostile (place integer, said varchar, rate double)")
        con.executemany("insert into marts.hostile values (?, ?, -1.5)", list(enumerate(HOSTILE)))
        spreadsheet.write_csv(con, "hostile", tmp_path / "x" / "hostile.csv", tmp_path, demo=False)
        spreadsheet.load_excel(con)
        book = tmp_path / "hostile.xlsx"
        spreadsheet.write_workbook(con, "hostile", [("a", "=1+1\x07")], book, tmp_path, False, "1")
    with (tmp_path / "x" / "hostile.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert [row["said"] for row in rows[:5]] == [f"'{text}" for text in HOSTILE[:5]]
    assert [row["said"] for row in rows[5:]] == HOSTILE[5:]
    assert {row["rate"] for row in rows} == {"-1,5"}
    opened = openpyxl.load_workbook(book)
    cells = [row[1] for row in opened["hostile"].iter_rows(min_row=2)]
    assert {cell.data_type for cell in cells} <= {"s", "inlineStr"}
    assert [cell.value for cell in cells[:7]] == HOSTILE[:7]
    assert cells[7].value == "bell"
    assert len(cells[8].value) == 32_767
    assert opened["About"]["B1"].value == "=1+1"
    assert opened["About"]["B1"].data_type == "s"


def test_a_workbook_is_the_same_to_the_byte_and_linked_while_nothing_changed(tmp_path: Path) -> None:
    def write(name: str, about: str = "a", rows: str = "1", previous: Path | None = None) -> Path:
        with duckdb.connect() as con:
            con.execute(
                "create schema marts; create table marts.m as select '080193' as code, date '2026-01-05' as day"
            )
            spreadsheet.load_excel(con)
            target = tmp_path / name
            spreadsheet.write_workbook(con, "m", [(about, "b")], target, tmp_path, True, rows, previous)
        return target

    first = write("first.xlsx")
    assert write("second.xlsx").read_bytes() == first.read_bytes()
    assert write("third.xlsx", previous=first).stat().st_ino == first.stat().st_ino
    assert write("fourth.xlsx", about="c", previous=first).stat().st_ino != first.stat().st_ino
    assert write("fifth.xlsx", rows="2", previous=first).stat().st_ino != first.stat().st_ino
    first.write_bytes(b"cut short")
    assert openpyxl.load_workbook(write("sixth.xlsx", previous=first))["m"]["B2"].value == "080193"


def test_an_unknown_workbook_of_duckdb_is_an_error_that_says_what_to_adapt() -> None:
    with pytest.raises(ValueError, match=r"<sheets>.*spreadsheet\.py"):
        spreadsheet._replace(b"<other>", "<sheets>", "")


def test_the_programs_of_analysts_read_the_tables_with_their_types(data: Path) -> None:
    csv_file, parquet = data / "csv" / "dim_municipality.csv", data / "parquet" / "dim_municipality.parquet"
    for frame in (
        pandas.read_parquet(parquet),
        pandas.read_csv(
            csv_file, dtype={"municipality_id": str, "comarca_id": str}, parse_dates=["valid_from"]
        ),
        polars.read_parquet(parquet).to_pandas(),
        polars.read_csv(
            csv_file,
            schema_overrides={"municipality_id": polars.String, "comarca_id": polars.String},
            try_parse_dates=True,
        ).to_pandas(),
        pyarrow.parquet.read_table(parquet).to_pandas(),
        duckdb.sql(
            f"from read_csv('{csv_file}', types = {{municipality_id: varchar, comarca_id: varchar}})"
        ).df(),
        pandas.read_excel(
            data / "xlsx" / "dim_municipality.xlsx",
            sheet_name=1,
            dtype={"municipality_id": str, "comarca_id": str},
        ),
        polars.read_excel(data / "xlsx" / "dim_municipality.xlsx", sheet_id=2).to_pandas(),
    ):
        row = frame[frame["municipality_id"] == "080018"].iloc[0]
        assert (row["name"], row["comarca_id"]) == ("Abrera", "11")
        assert isinstance(row["latitude"], float)
        assert pandas.Timestamp(row["valid_from"]).year >= 2015
        assert "Vilanova i la Geltrú" in set(frame["name"])
    metadata = pyarrow.parquet.read_metadata(parquet).metadata
    assert demo_notice.NOTICE in metadata[b"catalunya"].decode()


@pytest.mark.parametrize("name", ["xlsx/dim_municipality.xlsx", "csv-excel/dim_municipality.csv"])
def test_libreoffice_opens_the_table_with_codes_and_accents(data: Path, tmp_path: Path, name: str) -> None:
    office = shutil.which("soffice")
    if office is None:
        missing("no LibreOffice on the path; install your system's package `libreoffice-calc-nogui`")
    # Separator ;, quotes, UTF-8, from the first line; every sheet of a workbook.
    reading = ["--infilter=Text - txt - csv (StarCalc):59,34,76,1"] if name.endswith("csv") else []
    writing = "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true,false,false,false,-1"
    command = [
        office, f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}", "--headless", *reading,
        "--convert-to", writing, "--outdir", str(tmp_path), str(data / name),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    [path] = [path for path in tmp_path.glob("*.csv") if not path.stem.endswith("-About")]
    with path.open(encoding="utf-8", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    # A CSV says no types: LibreOffice, like Excel, takes a code for a number and drops its zero.
    assert rows["Vilanova i la Geltrú"]["municipality_id"] == (
        "083073" if name.startswith("xlsx") else "83073"
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", rows["Abrera"]["valid_from"])
    assert float(rows["Abrera"]["latitude"].replace(",", ".")) == pytest.approx(41.516, abs=0.01)


def test_the_data_package_is_valid_where_it_is_served(data: Path) -> None:
    report = frictionless.Package(str(data / "datapackage.json")).validate(limit_rows=2000)
    assert report.valid, report.flatten(["rowNumber", "fieldName", "type", "note"])[:5]


def test_the_metadata_of_each_csv_file_fits_it(data: Path) -> None:
    found = sorted(data.glob("csv/*-metadata.json"))
    assert len(found) >= 15
    for path in found:
        if path.name.startswith(("dim_comarca", "dim_service_type", "data_quality", "places_control")):
            # The validator takes seconds for a long table.
            described = CSVW(str(path), validate=True)
            assert described.is_valid, described.warnings
        metadata = json.loads(path.read_text("utf-8"))
        with (path.parent / metadata["url"]).open(encoding="utf-8", newline="") as file:
            header = next(csv.reader(file))
        assert header == [column["name"] for column in metadata["tableSchema"]["columns"]]


def test_a_wrong_column_in_the_metadata_is_noticed(data: Path, tmp_path: Path) -> None:
    shutil.copy(data / "csv" / "dim_comarca.csv", tmp_path)
    metadata = json.loads((data / "csv" / "dim_comarca.csv-metadata.json").read_text("utf-8"))
    metadata["tableSchema"]["columns"][1]["datatype"] = "integer"
    wrong = tmp_path / "dim_comarca.csv-metadata.json"
    wrong.write_text(json.dumps(metadata))
    assert not CSVW(str(wrong), validate=True).is_valid


@pytest.mark.parametrize("tool", ["pandas", "Polars"])
def test_the_examples_of_the_page_run(
    site: Path, url: str, tool: str, marts: duckdb.DuckDBPyConnection
) -> None:
    html = (site / "en" / "data" / "index.html").read_text("utf-8")
    [example] = re.findall(rf'aria-label="{tool}"><code>(.*?)</code>', html, re.DOTALL)
    code = example.replace("&#34;", '"').replace("http://127.0.0.1:8081", url)
    whole, or_else = code.split("# or: ")
    [(rows,)] = marts.execute("select count(*) from coverage_comarca").fetchall()
    found: dict[str, Any] = {}
    exec(whole, found)
    assert len(found["coverage"]) == rows
    other = eval(or_else, found)
    assert len(other) == rows
    assert "01" in set(other["comarca_id"])


@pytest.mark.parametrize("code", CODES)
def test_the_page_has_an_anchor_and_the_first_rows_of_each_table(
    site: Path, marts: duckdb.DuckDBPyConnection, code: str
) -> None:
    html = (site / code / language(code).text("path.data") / "index.html").read_text("utf-8")
    for (mart,) in marts.execute("select table_name from duckdb_tables()").fetchall():
        section = html.partition(f'id="mart-{mart}"')[2].partition("</section>")[0]
        preview = section.partition("<tbody>")[2].partition("</tbody>")[0]
        rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", preview)]
        expected = marts.execute(f"from {mart} limit 5").fetchall()
        assert len(rows) == len(expected)
        for row, values in zip(rows, expected, strict=True):
            assert [len(cell) for cell in row] >= [0] * len(values)
            assert [cell == "" for cell in row] == [value is None or value == "" for value in values]
    for dataset in DATASETS:
        assert f'id="source-{dataset}"' in html


def test_the_first_view_of_the_page_is_small(site: Path) -> None:
    html = (site / "ca" / "dades" / "index.html").read_text("utf-8")
    loaded = re.findall(r'(?:src|href)="(/assets/[^"]*)"', html.partition("</head>")[0])
    assert len(loaded) >= 3
    assert len(html.encode()) + sum((site / name[1:]).stat().st_size for name in loaded) < 300_000


@pytest.mark.parametrize("code", CODES)
def test_the_tables_are_marked_up_for_search_engines(site: Path, code: str) -> None:
    html = (site / code / language(code).text("path.data") / "index.html").read_text("utf-8")
    [markup] = re.findall(r'<script type="application/ld\+json">(.*?)</script>', html, re.DOTALL)
    document = json.loads(markup)
    assert document["@type"] == "DataCatalog"
    assert document["description"].startswith(language(code).text("demo"))
    assert len(document["dataset"]) >= 15
    for dataset in document["dataset"]:
        assert 50 <= len(dataset["description"]) <= 5000
        assert dataset["name"]
        assert dataset["license"].startswith("http")
        for file in dataset["distribution"]:
            path = site / file["contentUrl"].removeprefix("http://127.0.0.1:8081/")
            assert f"{path.stat().st_size} B" == file["contentSize"]


def test_the_release_can_be_cited(site: Path, first_release: ReleasedLake) -> None:
    [entry] = json.loads((site / "data" / "citation.json").read_text("utf-8"))
    assert entry["version"] == first_release.release_id
    address = entry["URL"].removeprefix("http://127.0.0.1:8081/")
    assert json.loads((site / address).read_text())["release_id"] == first_release.release_id
    bibtex = (site / "data" / "citation.bib").read_text("utf-8")
    assert bibtex.count("{") == bibtex.count("}")
    assert f"version = {{{first_release.release_id}}}" in bibtex


def test_the_status_says_what_the_release_and_its_marts_say(
    site: Path, marts: duckdb.DuckDBPyConnection, first_release: ReleasedLake
) -> None:
    html = (site / "en" / "status" / "index.html").read_text("utf-8")
    spoken = language("en")
    sections = {
        name: html.partition(f'id="{name}"')[2].partition("</section>")[0]
        for name in ("read", "control", "runs", "audit")
    }
    counts = re.findall(r'<td class="number">(.*?)</td>', sections["read"].partition("</table>")[0])
    rows = marts.execute(
        "select rows_in, rows_staged, rows_quarantined, rows_duplicated, rows_unmatched, values_invalid "
        "from data_quality where is_newest order by dataset_id"
    ).fetchall()
    assert sorted(counts) == sorted(spoken.number(value) for row in rows for value in row)
    quarantined = sum(row[2] for row in rows)
    reasons = re.findall(r'<td class="number">(.*?)</td>', sections["read"].partition("</table>")[2])
    assert sum(int(number.replace(",", "")) for number in reasons) == quarantined > 0
    shown = re.findall(r'<td class="number">(.*?)</td>', sections["control"].partition("</table>")[0])
    totals = marts.execute(
        "select places_computed, places_official, places_difference from places_control_catalonia "
        "order by year desc, facility, ownership"
    ).fetchall()
    assert shown == [spoken.number(value) for row in totals for value in row]
    record = json.loads((first_release.folder / "release.json").read_text())
    assert record["run_id"] in sections["runs"]
    assert sections["audit"].count("<li>") == len(record["warnings"]) > 0


def test_hostile_text_ends_no_element_of_the_pages(first_release: ReleasedLake, tmp_path: Path) -> None:
    hostile = "</script><script>alert('x')</script>\u202e\"&" + "ó" * 10_000
    content = _content(first_release.lake)
    table = downloads.Table(
        "population", dict.fromkeys(CODES, hostile), dict.fromkeys(CODES, hostile), hostile, 1, None,
        (downloads.TableColumn("name", "string", hostile),),
        {"csv": downloads.ReleasedFile("csv", "/data/csv/population.csv", 1, "0" * 64, "0" * 40)}, ((hostile,),),
    )  # fmt: skip
    publisher = replace(content.publisher, name=hostile)
    content = replace(
        content, downloads=downloads.Downloads((table,), table.files["csv"]), publisher=publisher
    )
    files = dict(data_pages(content, first_release.folder / "catalunya.duckdb"))
    html = files["en/data/index.html"]
    assert "<script>alert" not in html
    assert html.count("</script>") == html.count("<script")
    shown = html.partition('id="mart-population"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    assert "ó" * 20 in shown
    assert "ó" * 61 not in shown
    assert json.loads(files["data/citation.json"])[0]["publisher"] == hostile


def _content(lake: Path) -> Content:
    """Content of the site of a lake, without downloads."""
    from catalunya.site.borders import Outlines
    from catalunya.site.facts import read_facts

    release = find_release(open_lake(str(lake)), None)
    with duckdb.connect(lake / "releases" / release.release_id / "catalunya.duckdb", read_only=True) as con:
        con.execute("set search_path = 'catalunya.marts'")
        facts = read_facts(con)
    assets = {name: name for name in ("icon.svg", "site.css", "search.js")}
    return Content(release, DATASETS, facts, Outlines(10, 10, {}), downloads.Downloads(), assets)


@pytest.fixture
def two_releases(first_release: ReleasedLake, tmp_path: Path) -> Path:
    """A lake with an older release beside the current one."""
    lake = tmp_path / "lake"
    shutil.copytree(first_release.lake, lake, copy_function=os.link)
    older = lake / "releases" / "20200101T000000Z-00000000"
    shutil.copytree(first_release.folder, older)
    record = json.loads((older / "release.json").read_text())
    (older / "release.json").write_text(json.dumps({**record, "release_id": older.name}))
    sums = (older / "SHA256SUMS").read_text().splitlines()
    lines = [line for line in sums if not line.endswith("release.json")]
    lines.append(f"{disk.sha256(older / 'release.json')}  release.json")
    (older / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    for folder in (older, lake / "releases" / first_release.release_id):
        (folder / "SHA256SUMS.minisig").write_text(f"signature of {folder.name}")
    return lake


def _write(lake: Path, folder: Path, previous: Path | None = None) -> downloads.Downloads:
    storage = open_lake(str(lake))
    work = folder / "work"
    work.mkdir(parents=True)
    return downloads.write_downloads(storage, DATASETS, find_release(storage, None), folder, work, previous)


def test_kept_releases_have_addresses_that_stay(
    site: Path, two_releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _write(two_releases, tmp_path / "first", site)
    assert [one.release_id for one in found.releases][1:] == ["20200101T000000Z-00000000"]
    for one in found.releases:
        folder = tmp_path / "first" / one.address.strip("/")
        assert {path.stem for path in folder.glob("parquet/*.parquet")} == set(one.tables)
        checked = subprocess.run(
            ["sha256sum", "--check", "--quiet", "--ignore-missing", "SHA256SUMS"], cwd=folder, check=False
        )
        assert checked.returncode == 0
        assert (folder / "SHA256SUMS.minisig").read_text() == f"signature of {one.release_id}"
    assert found.signature == "/data/SHA256SUMS.minisig"
    # What is the same is linked, not copied and not made again.
    monkeypatch.setattr(downloads, "MOST_ARCHIVED", 1)
    again = _write(two_releases, tmp_path / "second", site)
    assert [one.is_in_site for one in again.releases] == [True, False]
    assert not (tmp_path / "second" / "releases" / "20200101T000000Z-00000000").exists()
    for name in ("data/xlsx/population.xlsx", "data/csv/population.csv", "data/catalunya.duckdb"):
        assert (tmp_path / "second" / name).stat().st_ino == (site / name).stat().st_ino
    assert again.tables == found.tables


def test_a_damaged_file_of_the_release_is_not_published(
    site: Path, two_releases: Path, tmp_path: Path
) -> None:
    damaged = two_releases / "releases" / "20200101T000000Z-00000000" / "parquet" / "population.parquet"
    content = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(content[:-1] + b"?")
    with pytest.raises(LakeCorrupt, match=r"population\.parquet has the SHA-256 .* run --rebuild"):
        _write(two_releases, tmp_path / "site", site)
