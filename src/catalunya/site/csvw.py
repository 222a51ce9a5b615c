"""Metadata of each CSV file after CSV on the Web (https://www.w3.org/TR/tabular-metadata/), beside the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from catalunya.publication import demo_notice
from catalunya.site.catalogue import licence
from catalunya.site.downloads import Table
from catalunya.site.pages import Content

_TYPES = {"number": "double", "datetime": "dateTime"}
"""Types of a Frictionless Table Schema that have another name here."""


def csvw(content: Content) -> Iterator[tuple[str, str]]:
    """Return file and text of the metadata of each CSV file; a reader finds it by the file's name and `-metadata.json`."""
    for table in content.downloads.tables:
        document = json.dumps(_metadata(content, table), ensure_ascii=False, indent=1)
        yield f"{table.files['csv'].address.strip('/')}-metadata.json", f"{document}\n"


def _metadata(content: Content, table: Table) -> dict[str, Any]:
    notice = f"{demo_notice.NOTICE} " if content.release.demo else ""
    return {
        "@context": ["http://www.w3.org/ns/csvw", {"@language": "en"}],
        "url": f"{table.name}.csv",
        "dc:title": table.titles["en"],
        "dc:description": f"{notice}{table.definition}",
        "dc:license": {"@id": licence(content, table)},
        "dc:publisher": content.publisher.name,
        "dc:modified": {"@value": content.release.released_at.date().isoformat(), "@type": "xsd:date"},
        "dc:identifier": content.release.release_id,
        "tableSchema": {
            "columns": [
                {
                    "name": column.name,
                    "titles": column.name,
                    "datatype": _TYPES.get(column.type, column.type),
                    "dc:description": column.description,
                }
                for column in table.columns
            ]
        },
    }
