"""The pages about the data themselves: *Data*, what can be fetched, and *Status*, how it came about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from catalunya.lake import layout
from catalunya.site import citation
from catalunya.site.catalogue import JSON_LD, RDF_XML, TURTLE
from catalunya.site.downloads import DATA, DATA_PACKAGE, ReleasedSource
from catalunya.site.language import CODES, language
from catalunya.site.pages import Content, Pages

_EXAMPLE = "coverage_comarca"
LARGEST_DIFFERENCES = 10
"""Rows of the comparison by comarca that the page of the status shows."""


@dataclass(frozen=True)
class SourceAge:
    """How old a source was when the release was made."""

    source: ReleasedSource
    read_on: date
    days: int
    state: str
    """`current`, `silent` or `unreadable`."""


def data_pages(content: Content, database: Path) -> Iterator[tuple[str, str]]:
    """Return the file and text of the pages *Data* and *Status* in every language, and of the citation."""
    status = _status(content, database)
    for code in CODES:
        pages = Pages(content, language(code))
        yield pages.page("data", _data(content, code))
        yield pages.page("status", status)
    yield citation.BIBTEX, citation.bibtex(content)
    yield citation.CSL, citation.csl(content)


def _data(content: Content, code: str) -> dict[str, Any]:
    base = f"{content.url}/{DATA}"
    return {
        "description": language(code).text("data.about"),
        "downloads": content.downloads,
        "lineage": content.release.lineage,
        "schema_org": citation.schema_org(content, language(code)),
        "citation": citation.citation(content, language(code)),
        "bibtex": citation.bibtex(content),
        "csl": citation.csl(content),
        "examples": _examples(base),
        "machine_files": [
            ("data.database", content.downloads.database.address if content.downloads.database else "", ""),
            ("data.package", f"/{DATA}/{DATA_PACKAGE}", "JSON"),
            ("data.catalogue", f"/{TURTLE}", "Turtle"),
            ("data.catalogue", f"/{RDF_XML}", "RDF/XML"),
            ("data.catalogue", f"/{JSON_LD}", "JSON-LD"),
            ("data.api", "/api/v1/openapi.json", "OpenAPI"),
            ("data.dictionary", f"/{DATA}/dictionary.md", "Markdown"),
            ("data.sums", f"/{DATA}/SHA256SUMS", ""),
            ("data.signature", content.downloads.signature, ""),
        ],
    }


def _examples(base: str) -> list[tuple[str, str]]:
    """Name of a tool, and how it reads a table."""
    parquet = f"{base}/parquet/{_EXAMPLE}.parquet"
    csv = f"{base}/csv/{_EXAMPLE}.csv"
    where = "service_group = 'assisted_residence' and ownership = 'all'"
    return [
        (
            "pandas",
            "import pandas as pd\n\n"
            f'coverage = pd.read_parquet("{parquet}")\n'
            f'# or: pd.read_csv("{csv}", dtype={{"comarca_id": str}})',
        ),
        (
            "Polars",
            "import polars as pl\n\n"
            f'coverage = pl.read_parquet("{parquet}")\n'
            f'# or: pl.read_csv("{csv}", schema_overrides={{"comarca_id": pl.String}})',
        ),
        (
            "R",
            f'coverage <- arrow::read_parquet("{parquet}")\n'
            f'# or: readr::read_csv("{csv}", col_types = readr::cols(comarca_id = "c"))',
        ),
        (
            "DuckDB",
            "-- duckdb catalunya.duckdb\n"
            "select name, year, places, places_per_100_aged_65_over\n"
            "from marts.coverage_comarca join marts.dim_comarca using (comarca_id)\n"
            f"where {where}\norder by year desc, name;\n\n"
            f"-- or: from read_parquet('{parquet}');",
        ),
    ]


def _status(content: Content, database: Path) -> dict[str, Any]:
    with duckdb.connect(database, read_only=True) as con:
        con.execute("set search_path = 'catalunya.marts'")
        marts = set(content.release.rows)
        quality = _records(con, "* from data_quality where is_newest") if "data_quality" in marts else []
        totals = (
            _records(con, "* from places_control_catalonia order by year desc, facility, ownership")
            if "places_control_catalonia" in marts
            else []
        )
        control: dict[str, Any] = {"rows": 0, "within": 0, "largest": []}
        if "residence_places_control" in marts:
            [(rows, within)] = con.execute(
                "select count(*), count(*) filter (is_within_tolerance) from residence_places_control"
            ).fetchall()
            largest = _records(
                con,
                "* from residence_places_control where not is_within_tolerance "
                f"order by abs(places_difference) desc, year desc, comarca_id, ownership limit {LARGEST_DIFFERENCES}",
            )
            control = {"rows": rows, "within": within, "largest": largest}
    return {
        "sources": [_age(content, source) for source in content.downloads.sources],
        "quality": {row["dataset_id"]: row for row in quality},
        "totals": totals,
        "control": control,
        "runs": content.downloads.runs,
        "comarques": content.facts.comarques,
        "reasons": [
            (source.dataset, reason, rows)
            for source in content.downloads.sources
            for reason, rows in sorted((source.staged.reasons if source.staged else {}).items())
        ],
        "refused": [
            (snapshot_id, refusal)
            for source in content.downloads.sources
            for snapshot_id, refusal in source.refused.items()
        ],
    }


def _age(content: Content, source: ReleasedSource) -> SourceAge:
    read_at = layout.moment_of(source.counts.snapshot_id)
    days = (content.release.released_at - read_at).days
    state = "silent" if days > source.dataset.cadence_days else "current"
    if any(stale.dataset_id == source.dataset.id for stale in content.release.stale):
        state = "unreadable"
    return SourceAge(source, read_at.date(), days, state)


def _records(con: duckdb.DuckDBPyConnection, selected: str) -> list[dict[str, Any]]:
    cursor = con.execute(f"select {selected}")
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
