"""What a release says about itself: its dictionary, its attribution and its data package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from catalunya.datasets import generate
from catalunya.datasets.model import Dataset
from catalunya.datasets.types import frictionless_type
from catalunya.publication import demo_notice
from catalunya.warehouse.dbt import Mart, MartColumn

_DEMO_COLUMN = MartColumn(
    demo_notice.COLUMN,
    "varchar",
    f"Last column of the CSV files of demo data alone: `{demo_notice.SHORT_NOTICE}` in every row.",
)


def dictionary(marts: Iterable[Mart], *, demo: bool) -> str:
    """Return the data dictionary of a release in Markdown: every table and every column."""
    lines = ["# Data dictionary", ""]
    if demo:
        lines += [f"**{demo_notice.NOTICE}**", ""]
    for mart in marts:
        lines += [f"## {mart.name}", "", mart.description, ""]
        lines += generate.column_table((c.name, c.type, c.description) for c in _csv_columns(mart, demo=demo))
    return "\n".join(lines)


def licences(datasets: Iterable[Dataset], *, demo: bool) -> str:
    """Return the attribution of a release in Markdown."""
    notice = f"**{demo_notice.NOTICE}** The sources below are those that the demo imitates."
    return generate.licences(datasets, notice if demo else "")


def data_package(
    marts: Iterable[Mart],
    datasets: Iterable[Dataset],
    *,
    release_id: str,
    created: str,
    files: dict[str, tuple[int, str]],
    demo: bool,
) -> dict[str, Any]:
    """Return a Frictionless data package of the CSV files; `files` is path to size in bytes and SHA-256."""
    definitions = list(datasets)
    title = "Care for older people in Catalonia"
    licensed = {d.licence.url: {"title": d.licence.name, "path": d.licence.url} for d in definitions}
    return {
        "name": "catalunya",
        "title": f"DEMO DATA: {title}" if demo else title,
        "description": demo_notice.NOTICE
        if demo
        else "Services, places and population by municipality, comarca and year.",
        "version": release_id,
        "created": created,
        "licenses": list(licensed.values()),
        "sources": [{"title": d.citation, "path": d.homepage} for d in definitions],
        "resources": [_resource(mart, files[f"csv/{mart.name}.csv"], demo=demo) for mart in marts],
    }


def _csv_columns(mart: Mart, *, demo: bool) -> tuple[MartColumn, ...]:
    """The columns of a mart's CSV file."""
    return (*mart.columns, _DEMO_COLUMN) if demo else mart.columns


def _resource(mart: Mart, file: tuple[int, str], *, demo: bool) -> dict[str, Any]:
    size, sha256 = file
    return {
        "name": mart.name.replace("_", "-"),
        "title": mart.name,
        "description": mart.description,
        "path": f"csv/{mart.name}.csv",
        "format": "csv",
        "mediatype": "text/csv",
        "encoding": "utf-8",
        "bytes": size,
        "hash": f"sha256:{sha256}",
        "schema": {
            "fields": [
                {"name": c.name, "type": frictionless_type(c.type), "description": c.description}
                for c in _csv_columns(mart, demo=demo)
            ],
            "missingValues": [""],
        },
    }
