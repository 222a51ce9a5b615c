"""Rows of a release on standard output: as a table, as CSV, and as the JSON object of a command."""

from __future__ import annotations

import csv
import math
import sys
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from catalunya.cli.console import print_line
from catalunya.cli.output import err, print_json, print_text, standard_output
from catalunya.operations.query import Rows
from catalunya.publication.demo_notice import COLUMN, NOTICE, SHORT_NOTICE

_NUMBERS = ("bigint", "integer", "double", "decimal", "float", "hugeint", "smallint", "tinyint")
_WIDE = 10_000
"""Columns of a table that is not shown on a terminal: no cell is broken or cut."""


def print_as_table(found: Rows, title: str) -> None:
    """Print a table; what is said about it goes to standard error."""
    terminal = sys.stdout.isatty()
    console = Console(emoji=False, highlight=False, width=None if terminal else _WIDE)
    table = Table()
    for name, kind in found.columns:
        table.add_column(name, justify="right" if kind.startswith(_NUMBERS) else "left", no_wrap=not terminal)
    for row in found.rows:
        table.add_row(*(Text("" if value is None else _text(value)) for value in row))
    with console.capture() as printed:
        console.print(table)
    print_text(printed.get())
    if found.release.demo:
        print_line(err, NOTICE)
    more = f"; these are the first {len(found.rows):,}" if len(found.rows) < found.found else ""
    rows = f"{found.found:,} row{'s' if found.found != 1 else ''}{more}"
    print_line(err, f"{title} of release {found.release.release_id}: {rows}")


def print_as_csv(found: Rows) -> None:
    """Print CSV with a header; demo data have a last column that says so, as in the files of the release."""
    mark = (SHORT_NOTICE,) if found.release.demo else ()
    with standard_output() as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*(name for name, _ in found.columns), *((COLUMN,) if mark else ())])
        writer.writerows(
            [*("" if value is None else _text(value) for value in row), *mark] for row in found.rows
        )


def print_as_json(found: Rows, title: str) -> None:
    """Print one object: the release, the columns with their types, and the rows."""
    names = [name for name, _ in found.columns]
    print_json(
        {
            "table": title,
            "release_id": found.release.release_id,
            "demo": found.release.demo,
            "rows_found": found.found,
            "columns": [{"name": name, "type": kind} for name, kind in found.columns],
            "rows": [dict(zip(names, map(_json, row), strict=True)) for row in found.rows],
        }
    )


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _json(value: Any) -> Any:
    """A value as JSON has it: what is no number, text, truth or null there is text."""
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)
