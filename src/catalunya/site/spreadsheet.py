"""One mart for Excel: a workbook with a sheet that says what it is and a sheet of its rows, and a CSV file.

DuckDB writes one sheet a file; two of its files are put together here. The bytes depend on the content alone.
"""

from __future__ import annotations

import codecs
import hashlib
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import duckdb

from catalunya.publication import demo_notice
from catalunya.sql import quote

MOST_ROWS = 1_048_575
"""Rows below the header that a sheet of Excel can have."""
_MOST_CHARACTERS = 32_767
"""Characters that a cell of Excel can have."""
_NOT_IN_XML = r"[\x00-\x08\x0b\x0c\x0e-\x1f]"
_CHUNK = 1 << 20
_FORMULA = "^[=+@\\-\t\r]"
"""What Excel takes for the beginning of a formula, in a text."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_CODE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
_SHEET = "xl/worksheets/sheet1.xml"
_CORE = "docProps/core.xml"


def load_excel(con: duckdb.DuckDBPyConnection) -> None:
    """Load DuckDB's extension that writes sheets."""
    from duckdb_extensions import import_extension

    import_extension("excel", con=con)
    con.execute("load excel")


def write_workbook(
    con: duckdb.DuckDBPyConnection,
    mart: str,
    about: Iterable[tuple[str, str]],
    target: Path,
    work: Path,
    demo: bool,
    rows_sha256: str,
    previous: Path | None = None,
) -> None:
    """Write a mart of the database of `con` as `target`, with the sheet `About` in front.

    Texts stay texts, official codes with their leading zeros too; dates are dates. `rows_sha256` stands for the rows: when
    `previous` was made of the same rows, the same words and the same code, it is linked.
    """
    lines = list(about)
    identity = hashlib.sha256(repr((_CODE, rows_sha256, demo, lines)).encode()).hexdigest()
    if previous is not None and identity_of(previous) == identity:
        target.hardlink_to(previous)
        return
    rows, words = work / "rows.xlsx", work / "about.xlsx"
    columns = con.execute(f"describe marts.{mart}").fetchall()
    mark = [f"{quote(demo_notice.SHORT_NOTICE)} as {demo_notice.COLUMN}"] if demo else []
    selected = ", ".join([*mark, *(_cell(name, kind) for name, kind, *_ in columns)])
    con.execute(
        f"copy (select {selected} from marts.{mart}) to {quote(str(rows))} "
        f"(format xlsx, header true, sheet {quote(mart[:31])}, sheet_row_limit {MOST_ROWS + 1})"
    )
    values = ", ".join(
        f"({number}, {quote(_text(a))}, {quote(_text(b))})" for number, (a, b) in enumerate(lines)
    )
    con.execute(
        f"copy (select a, b from (values {values}) as lines(number, a, b) order by number) to {quote(str(words))} "
        "(format xlsx, header false, sheet 'About')"
    )
    _put_together(rows, words, target, identity, width=len(columns) + len(mark))
    rows.unlink()
    words.unlink()


def write_csv(con: duckdb.DuckDBPyConnection, mart: str, target: Path, work: Path, *, demo: bool) -> None:
    """Write what Excel opens right where numbers have a decimal comma: a byte order mark, semicolons, no formulas."""
    target.parent.mkdir(exist_ok=True)
    mark = [f"{quote(demo_notice.SHORT_NOTICE)} as {demo_notice.COLUMN}"] if demo else []
    cells = [_excel_cell(name, kind) for name, kind, *_ in con.execute(f"describe marts.{mart}").fetchall()]
    plain = work / "plain.csv"
    con.execute(
        f"copy (select {', '.join([*mark, *cells])} from marts.{mart}) to {quote(str(plain))} "
        "(format csv, header, delimiter ';')"
    )
    with target.open("wb") as file, plain.open("rb") as rows:
        file.write(codecs.BOM_UTF8)
        shutil.copyfileobj(rows, file)
    plain.unlink()


def _excel_cell(name: str, kind: str) -> str:
    if kind == "DOUBLE":
        return f"replace({name}::varchar, '.', ',') as {name}"
    if kind == "VARCHAR":
        return f"if(regexp_matches({name}, {quote(_FORMULA)}), chr(39) || {name}, {name}) as {name}"
    return name


def identity_of(workbook: Path) -> str | None:
    """Return what `write_workbook` made a file of, as a hash; None when it did not, or there is none."""
    try:
        with zipfile.ZipFile(workbook) as file:
            found = re.search(rb"<dc:identifier>(\w+)</dc:identifier>", file.read(_CORE))
    except (OSError, KeyError, zipfile.BadZipFile):
        return None
    return found[1].decode() if found else None


def _cell(name: str, kind: str) -> str:
    """The column as an expression that fits into cells."""
    if kind != "VARCHAR":
        return name
    return f"left(regexp_replace({name}, {quote(_NOT_IN_XML)}, '', 'g'), {_MOST_CHARACTERS}) as {name}"


def _text(text: str) -> str:
    return re.sub(_NOT_IN_XML, "", text)[:_MOST_CHARACTERS]


def _put_together(rows: Path, words: Path, target: Path, identity: str, *, width: int) -> None:
    with (
        zipfile.ZipFile(rows) as source,
        zipfile.ZipFile(words) as front,
        zipfile.ZipFile(target, "w", compresslevel=4) as file,
    ):
        for name in source.namelist():
            if name != _SHEET:
                text = source.read(name)
                for old, new in _CHANGES.get(name, ()):
                    text = _replace(text, old, new.replace("{identity}", identity))
                file.writestr(_entry(name), text)
        with source.open(_SHEET) as read, file.open(_entry(_SHEET), "w") as written:
            for chunk in _with_header(read, width):
                written.write(chunk)
        sheet = _replace(front.read(_SHEET), "<sheetData>", f"{_WIDE_COLUMNS}<sheetData>")
        file.writestr(_entry("xl/worksheets/sheet2.xml"), sheet)


def _entry(name: str) -> zipfile.ZipInfo:
    """The entry of a file, of a fixed date."""
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _with_header(sheet: IO[bytes], width: int) -> Iterator[bytes]:
    """Yield a sheet whose first row stays in view, with a width of its columns, and no warning of codes that are texts."""
    head = _replace(
        sheet.read(_CHUNK),
        "<sheetData>",
        '<sheetViews><sheetView workbookViewId="0"><pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" '
        f'state="frozen"/></sheetView></sheetViews><cols><col min="1" max="{width}" width="20" customWidth="1"/></cols>'
        "<sheetData>",
    )
    end = b"</worksheet>"
    while chunk := sheet.read(_CHUNK):
        # What may hold the end stays back.
        yield head[: -len(end)]
        head = head[-len(end) :] + chunk
    ignored = '<ignoredErrors><ignoredError sqref="A1:XFD1048576" numberStoredAsText="1"/></ignoredErrors>'
    yield _replace(head, end.decode(), f"{ignored}{end.decode()}")


def _replace(text: bytes, old: str, new: str) -> bytes:
    """Replace what DuckDB writes once; raises `ValueError` when another version of DuckDB writes something else."""
    head, found, tail = text.partition(old.encode())
    if not found:
        raise ValueError(f"DuckDB's workbook has no {old!r}: adapt {Path(__file__).name} to its version")
    return b"".join((head, new.encode(), tail))


_WIDE_COLUMNS = (
    '<cols><col min="1" max="1" width="30" customWidth="1"/>'
    '<col min="2" max="2" width="120" customWidth="1"/></cols>'
)
_SHEET_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"
_SHEET_RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet"
_CHANGES = {
    "[Content_Types].xml": [
        ("</Types>", f'<Override PartName="/xl/worksheets/sheet2.xml" ContentType="{_SHEET_TYPE}"/></Types>')
    ],
    "xl/_rels/workbook.xml.rels": [
        (
            "</Relationships>",
            f'<Relationship Id="rId4" Type="{_SHEET_RELATION}" Target="worksheets/sheet2.xml"/></Relationships>',
        )
    ],
    "xl/workbook.xml": [
        (
            "<sheets>",
            '<bookViews><workbookView activeTab="0"/></bookViews><sheets><sheet name="About" sheetId="2" r:id="rId4"/>',
        )
    ],
    "xl/styles.xml": [('formatCode="dd/mm/yy"', 'formatCode="yyyy\\-mm\\-dd"')],
    _CORE: [("<dc:creator>", "<dc:identifier>{identity}</dc:identifier><dc:creator>")],
}
"""Part of a workbook to the texts in it that are replaced."""
