"""How a release is cited: as text, for BibTeX and for programs that read CSL-JSON; and its schema.org markup."""

from __future__ import annotations

import json
from typing import Any

from markupsafe import Markup

from catalunya.site.catalogue import FORMATS, licence
from catalunya.site.downloads import Table
from catalunya.site.headers import RELEASES
from catalunya.site.language import Language, language
from catalunya.site.pages import Content, address

BIBTEX, CSL = "data/citation.bib", "data/citation.json"


def citation(content: Content, spoken: Language) -> str:
    """Return the citation of the release in a language."""
    release = content.release
    mark = f"{spoken.text('data.demo')} " if release.demo else ""
    day = spoken.day(release.released_at.date())
    return (
        f"{content.publisher.name}. {mark}{spoken.text('site')}. {spoken.text('data.release')} {release.release_id}, {day}. "
        f"{release_address(content)}"
    )


def release_address(content: Content) -> str:
    """Return the address of the record of the release, which stays the same as long as the release is kept."""
    return f"{content.url}/{RELEASES}/{content.release.release_id}/release.json"


def bibtex(content: Content) -> str:
    """Return the citation for BibTeX."""
    day = content.release.released_at.date()
    fields = {
        "title": f"{{{_title(content)}}}",
        "author": f"{{{_escaped(content.publisher.name)}}}",
        "year": str(day.year),
        "month": str(day.month),
        "version": content.release.release_id,
        "url": release_address(content),
        "note": "Dataset",
    }
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{catalunya-{content.release.release_id},\n{lines}\n}}\n"


def csl(content: Content) -> str:
    """Return the citation as CSL-JSON (https://citeproc-js.readthedocs.io/en/latest/csl-json/markup.html)."""
    day = content.release.released_at.date()
    entry = {
        "id": f"catalunya-{content.release.release_id}",
        "type": "dataset",
        "title": _title(content),
        "author": [{"literal": content.publisher.name}],
        "publisher": content.publisher.name,
        "issued": {"date-parts": [[day.year, day.month, day.day]]},
        "version": content.release.release_id,
        "URL": release_address(content),
        "language": "ca",
    }
    return json.dumps([entry], ensure_ascii=False, indent=1) + "\n"


def _title(content: Content) -> str:
    mark = f"{language('ca').text('data.demo')} " if content.release.demo else ""
    return f"{mark}{language('ca').text('site')}"


def _escaped(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "#$%&_{}" else sign for sign in text)


def schema_org(content: Content, spoken: Language) -> Markup:
    """Return the tables as schema.org's `DataCatalog`, as JSON that can stand inside of `script`."""
    page = content.url + address(spoken.code, "data")
    mark = f"{spoken.text('demo')} " if content.release.demo else ""
    document = {
        "@context": "https://schema.org",
        "@type": "DataCatalog",
        "@id": page,
        "url": page,
        "name": spoken.text("site"),
        "description": mark + spoken.text("data.about"),
        "inLanguage": spoken.code,
        "creator": {"@type": "Organization", "name": content.publisher.name, "url": f"{content.url}/"},
        "dataset": [_dataset(content, spoken, table, page) for table in content.downloads.tables],
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    # Nothing in a text may end the element.
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704


def _dataset(content: Content, spoken: Language, table: Table, page: str) -> dict[str, Any]:
    mark = f"{spoken.text('demo')} " if content.release.demo else ""
    found = {
        "@type": "Dataset",
        "@id": f"{page}#mart-{table.name}",
        "url": f"{page}#mart-{table.name}",
        "name": table.titles[spoken.code],
        "description": mark + table.descriptions[spoken.code],
        "version": content.release.release_id,
        "dateModified": content.release.released_at.date().isoformat(),
        "license": licence(content, table),
        "isAccessibleForFree": True,
        "creator": {"@type": "Organization", "name": content.publisher.name},
        "isBasedOn": [
            content.datasets[name].homepage for name in content.release.lineage.get(table.name, ())
        ],
        "spatialCoverage": {"@type": "Place", "name": spoken.text("catalonia")},
        "distribution": [
            {
                "@type": "DataDownload",
                "contentUrl": f"{content.url}{file.address}",
                "encodingFormat": FORMATS[file.kind][1],
                "contentSize": f"{file.size} B",
                "sha256": file.sha256,
            }
            for file in table.files.values()
        ],
    }
    if table.period:
        found["temporalCoverage"] = "/".join(day.isoformat() for day in table.period)
    return found
