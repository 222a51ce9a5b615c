"""The commands that read a release: its rows, the answer of a query, and where a number comes from.

What a command needs is imported when it runs: the help and the other commands do not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from catalunya.cli.console import print_trace
from catalunya.cli.output import Json, err, print_json
from catalunya.errors import LakeCorrupt, UsageError

if TYPE_CHECKING:
    from catalunya.operations.query import Rows

app = typer.Typer()

Mart = Annotated[str, typer.Argument(help="A table of the release, such as coverage_comarca.")]
Municipality = Annotated[str | None, typer.Option(help="Rows of this municipality_id.")]
Comarca = Annotated[str | None, typer.Option(help="Rows of this comarca_id.")]
Year = Annotated[int | None, typer.Option(help="Rows of this year.")]
ServiceGroup = Annotated[str | None, typer.Option(help="Rows of this service_group.")]
Ownership = Annotated[str | None, typer.Option(help="Rows of this ownership.")]
Service = Annotated[str | None, typer.Option(help="Rows of this service_id.")]
Release = Annotated[str | None, typer.Option(help="Release; the one that readers see by default.")]
_MOST_ROWS = 1_000_000_000
Limit = Annotated[
    int | None,
    typer.Option(
        min=0, max=_MOST_ROWS, help="At most so many rows; by default 20 in a table, all in CSV and JSON."
    ),
]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]

_ROWS_OF_TABLE = 20


@app.command(name="show")
def show_command(
    mart: Mart,
    municipality: Municipality = None,
    comarca: Comarca = None,
    year: Year = None,
    service_group: ServiceGroup = None,
    ownership: Ownership = None,
    service: Service = None,
    release: Release = None,
    limit: Limit = None,
    as_csv: Csv = False,
    as_json: Json = False,
) -> None:
    """Print rows of a mart of the current release, on standard output."""
    from catalunya.cli.context import CommandContext
    from catalunya.operations.query import Selection, select_rows

    most = _limit(limit, as_csv, as_json)
    selection = Selection(municipality, comarca, year, service_group, ownership, service)
    found = select_rows(CommandContext().storage, mart, selection, release_id=release, limit=most)
    _print(found, mart, as_csv, as_json)


@app.command(name="query")
def query_command(
    sql: Annotated[str, typer.Argument(help="A select, in quotes; the marts are its tables.")],
    release: Release = None,
    limit: Limit = None,
    as_csv: Csv = False,
    as_json: Json = False,
) -> None:
    """Run one read-only query of SQL (as DuckDB reads it) on the marts of the current release."""
    from catalunya.cli.context import CommandContext
    from catalunya.operations.query import query

    most = _limit(limit, as_csv, as_json)
    _print(query(CommandContext().storage, sql, release_id=release, limit=most), "query", as_csv, as_json)


def _limit(limit: int | None, as_csv: bool, as_json: bool) -> int | None:
    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other; leave one out")
    return _ROWS_OF_TABLE if limit is None and not (as_csv or as_json) else limit


def _print(found: Rows, title: str, as_csv: bool, as_json: bool) -> None:
    from catalunya.cli import rows

    if as_json:
        rows.print_as_json(found, title)
    elif as_csv:
        rows.print_as_csv(found)
    else:
        rows.print_as_table(found, title)


@app.command(name="trace")
def trace_command(
    mart: Mart,
    municipality: Municipality = None,
    comarca: Comarca = None,
    year: Year = None,
    service_group: ServiceGroup = None,
    ownership: Ownership = None,
    service: Service = None,
    release: Release = None,
    verify: Annotated[bool, typer.Option("--verify", help="Hash every file again and compare.")] = False,
    as_json: Json = False,
) -> None:
    """Follow rows of a mart back to the snapshots, files, addresses and checksums that they come from."""
    from catalunya.cli.context import CommandContext
    from catalunya.operations.query import Selection
    from catalunya.operations.trace import trace

    selection = Selection(municipality, comarca, year, service_group, ownership, service)
    found = trace(CommandContext().storage, mart, selection, release_id=release, verify=verify)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        print_trace(err, found)
    if found.faults:
        raise typer.Exit(LakeCorrupt.exit_code)
