"""The catalogue of the tables for national portals: DCAT-AP-ES 1.0, as JSON-LD, Turtle and RDF/XML.

Profile: https://datosgobes.github.io/DCAT-AP-ES/. One `dcat:Dataset` a mart, one `dcat:Distribution` a file. Every node has
an identifier, so that two builds give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from catalunya.datasets.model import Dataset
from catalunya.site.downloads import ReleasedFile, Table
from catalunya.site.language import CODES, language
from catalunya.site.pages import Content, address

JSON_LD, TURTLE, RDF_XML = "catalog.jsonld", "catalog.ttl", "catalog.rdf"
_AUTHORITY = "http://publications.europa.eu/resource/authority"
_SPANISH_THEMES = "http://datos.gob.es/kos/sector-publico/sector"
_THEMES = [
    f"{_SPANISH_THEMES}/sociedad-bienestar",
    f"{_SPANISH_THEMES}/salud",
    f"{_AUTHORITY}/data-theme/SOCI",
    f"{_AUTHORITY}/data-theme/HEAL",
]
_LANGUAGES = [f"{_AUTHORITY}/language/{name}" for name in ("CAT", "SPA", "ENG")]
_CATALONIA = "http://datos.gob.es/recurso/sector-publico/territorio/Autonomia/Cataluna"
_OPEN_DATA_DIRECTIVE = "http://data.europa.eu/eli/dir/2019/1024/oj"
_PUBLIC = f"{_AUTHORITY}/access-right/PUBLIC"
_FREQUENCIES = {1: "DAILY", 7: "WEEKLY", 31: "MONTHLY", 100: "QUARTERLY", 400: "ANNUAL", 800: "BIENNIAL"}
"""Most days between two changes of a source, to the name of the frequency."""
_LICENCES = {"https://creativecommons.org/licenses/by/4.0/": f"{_AUTHORITY}/licence/CC_BY_4_0"}
"""Address of a licence to its identifier in the European list."""
FORMATS = {
    "csv": ("CSV", "text/csv"),
    "csv-excel": ("CSV", "text/csv"),
    "xlsx": ("XLSX", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    "parquet": ("PARQUET", "application/vnd.apache.parquet"),
}
"""Kind of file to its name in the European list of file types, and its media type."""
_KEYWORDS = {
    "ca": ["gent gran", "serveis socials", "residències", "centres de dia", "dependència", "Catalunya"],
    "es": [
        "personas mayores",
        "servicios sociales",
        "residencias",
        "centros de día",
        "dependencia",
        "Cataluña",
    ],
    "en": ["older people", "social services", "nursing homes", "day centres", "long-term care", "Catalonia"],
}


def _is(name: str, kind: str = "@id") -> dict[str, str]:
    return {"@id": name, "@type": kind}


def _in_languages(name: str) -> dict[str, str]:
    return {"@id": name, "@container": "@language"}


_PREFIXES = {
    "adms": "http://www.w3.org/ns/adms#",
    "dcat": "http://www.w3.org/ns/dcat#",
    "dcatap": "http://data.europa.eu/r5r/",
    "dct": "http://purl.org/dc/terms/",
    "foaf": "http://xmlns.com/foaf/0.1/",
    "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
    "spdx": "http://spdx.org/rdf/terms#",
    "vcard": "http://www.w3.org/2006/vcard/ns#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
}
_CONTEXT = {
    **_PREFIXES,
    "title": _in_languages("dct:title"),
    "description": _in_languages("dct:description"),
    "keyword": _in_languages("dcat:keyword"),
    "label": _in_languages("rdfs:label"),
    "fn": _in_languages("vcard:fn"),
    "organizationName": _in_languages("vcard:organization-name"),
    "issued": _is("dct:issued", "xsd:date"),
    "modified": _is("dct:modified", "xsd:date"),
    "startDate": _is("dcat:startDate", "xsd:date"),
    "endDate": _is("dcat:endDate", "xsd:date"),
    "identifier": "dct:identifier",
    "version": "dcat:version",
    "byteSize": "dcat:byteSize",
    "checksumValue": _is("spdx:checksumValue", "xsd:hexBinary"),
    **{name: _is(f"dct:{name}") for name in (
        "publisher", "license", "language", "spatial", "temporal", "accessRights", "accrualPeriodicity", "provenance",
        "source", "hasVersion", "format", "rights", "conformsTo",
    )},
    **{name: _is(f"dcat:{name}") for name in (
        "dataset", "service", "distribution", "theme", "themeTaxonomy", "contactPoint", "landingPage", "accessURL",
        "downloadURL", "mediaType", "endpointURL", "endpointDescription", "servesDataset",
    )},
    **{name: _is(f"vcard:{name}") for name in ("hasEmail", "hasTelephone", "hasURL", "hasUID")},
    "homepage": _is("foaf:homepage"),
    "page": _is("foaf:page"),
    "availability": _is("dcatap:availability"),
    "applicableLegislation": _is("dcatap:applicableLegislation"),
    "status": _is("adms:status"),
    "algorithm": _is("spdx:algorithm"),
    "checksum": _is("spdx:checksum"),
}  # fmt: skip


def catalogue(content: Content) -> Iterator[tuple[str, str]]:
    """Return file and text of the catalogue in each serialisation."""
    document = json.dumps(_Catalogue(content).document(), ensure_ascii=False, indent=1) + "\n"
    yield JSON_LD, document
    yield from in_other_forms(document)


def in_other_forms(document: str) -> Iterator[tuple[str, str]]:
    """Return file and text of a catalogue in JSON-LD as Turtle and as RDF/XML, the same bytes each time."""
    # rdflib takes a third of a second to import.
    from rdflib import Graph

    # Sorted, in a store that keeps the order.
    graph = Graph(store="SimpleMemory")
    for prefix, namespace in _PREFIXES.items():
        graph.bind(prefix, namespace, override=True, replace=True)
    for triple in sorted(Graph().parse(data=document, format="json-ld")):
        graph.add(triple)
    for name, form in ((TURTLE, "turtle"), (RDF_XML, "xml")):
        yield name, graph.serialize(format=form, encoding="utf-8").decode()


def licence(content: Content, table: Table) -> str:
    """Return the address of the licence of a table: that of its sources, or the release's list of them when they differ."""
    found = {content.datasets[name].licence.url for name in content.release.lineage.get(table.name, ())}
    return found.pop() if len(found) == 1 else f"{content.url}/data/LICENCES.md"


def frequency(datasets: list[Dataset]) -> str:
    """Return the European name of how often the most lively of the sources changes."""
    days = min((dataset.cadence_days for dataset in datasets), default=400)
    return next((name for most, name in _FREQUENCIES.items() if days <= most), "IRREG")


class _Catalogue:
    """Makes the catalogue of one release."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self.release = content.release
        self.day = content.release.released_at.date().isoformat()

    def document(self) -> dict[str, Any]:
        tables = self.content.downloads.tables
        return {
            "@context": _CONTEXT,
            "@graph": [
                self._catalogue(),
                *(self._dataset(table) for table in tables),
                self._service(),
                self._contact(),
            ],
        }

    def _id(self, name: str) -> str:
        return f"{self.content.url}/{TURTLE}#{name}"

    def _page(self, anchor: str = "") -> str:
        return self.content.url + address("es", "data") + (f"#{anchor}" if anchor else "")

    def _texts(self, key: str, *, demo: str, **values: object) -> dict[str, str]:
        """A text of the site in each language, behind the text `demo` when the data are demo data."""
        mark = {code: f"{language(code).text(demo)} " if self.release.demo else "" for code in CODES}
        return {code: mark[code] + language(code).text(key, **values) for code in CODES}

    def _catalogue(self) -> dict[str, Any]:
        releases = self.content.downloads.releases
        first = min((one.released_at for one in releases), default=self.release.released_at)
        return {
            "@id": f"{self.content.url}/{TURTLE}",
            "@type": "dcat:Catalog",
            "identifier": f"{self.content.url}/{TURTLE}",
            "title": self._texts("site", demo="data.demo"),
            "description": self._texts("data.about", demo="demo"),
            "publisher": self.content.publisher.uri,
            "contactPoint": self._id("contact"),
            "homepage": f"{self.content.url}/",
            "issued": first.date().isoformat(),
            "modified": self.day,
            "language": _LANGUAGES,
            "license": f"{self.content.url}/data/LICENCES.md",
            "rights": _PUBLIC,
            "spatial": _CATALONIA,
            "themeTaxonomy": [_SPANISH_THEMES, f"{_AUTHORITY}/data-theme"],
            "dataset": [self._id(table.name) for table in self.content.downloads.tables],
            "service": self._id("api"),
        }

    def _dataset(self, table: Table) -> dict[str, Any]:
        sources = [self.content.datasets[name] for name in self.release.lineage.get(table.name, ())]
        begin, end = table.period or (self.release.released_at.date(),) * 2
        return {
            "@id": self._id(table.name),
            "@type": "dcat:Dataset",
            "identifier": self._id(table.name),
            "title": {code: self._mark(code, "data.demo") + table.titles[code] for code in CODES},
            "description": {code: self._mark(code, "demo") + table.descriptions[code] for code in CODES},
            "publisher": self.content.publisher.uri,
            "contactPoint": self._id("contact"),
            "theme": _THEMES,
            "keyword": _KEYWORDS,
            "language": _LANGUAGES,
            "accessRights": _PUBLIC,
            "accrualPeriodicity": f"{_AUTHORITY}/frequency/{frequency(sources)}",
            "applicableLegislation": _OPEN_DATA_DIRECTIVE,
            "issued": self.day,
            "modified": self.day,
            "version": self.release.release_id,
            "hasVersion": [
                f"{self.content.url}{one.address}parquet/{table.name}.parquet"
                for one in self.content.downloads.releases
                if one.is_in_site and table.name in one.tables
            ],
            "spatial": _CATALONIA,
            "temporal": {
                "@id": self._id(f"{table.name}-period"),
                "@type": "dct:PeriodOfTime",
                "startDate": begin.isoformat(),
                "endDate": end.isoformat(),
            },
            "landingPage": self._page(f"mart-{table.name}"),
            "page": self._page(),
            "conformsTo": f"{self.content.url}/data/csv/{table.name}.csv-metadata.json",
            "source": [source.homepage for source in sources],
            "provenance": {
                "@id": self._id(f"{table.name}-provenance"),
                "@type": "dct:ProvenanceStatement",
                "label": {code: self._provenance(code, sources) for code in CODES},
            },
            "distribution": [self._distribution(table, file) for file in table.files.values()],
        }

    def _mark(self, code: str, key: str) -> str:
        return f"{language(code).text(key)} " if self.release.demo else ""

    def _provenance(self, code: str, sources: list[Dataset]) -> str:
        read = "; ".join(
            f"{source.citation} ({self.release.datasets[source.id].snapshot_id})" for source in sources
        )
        return language(code).text("data.provenance", sources=read)

    def _distribution(self, table: Table, file: ReleasedFile) -> dict[str, Any]:
        name = f"{table.name}-{file.kind}"
        form, media_type = FORMATS[file.kind]
        return {
            "@id": self._id(name),
            "@type": "dcat:Distribution",
            "identifier": self._id(name),
            "title": {
                code: f"{table.titles[code]}: {language(code).text(f'data.kind.{file.kind}')}"
                for code in CODES
            },
            "description": {
                code: self._mark(code, "demo") + language(code).text(f"data.use.{file.kind}")
                for code in CODES
            },
            "accessURL": f"{self.content.url}{file.address}",
            "downloadURL": f"{self.content.url}{file.address}",
            "format": f"{_AUTHORITY}/file-type/{form}",
            "mediaType": f"https://www.iana.org/assignments/media-types/{media_type}",
            "byteSize": file.size,
            "license": _LICENCES.get(licence(self.content, table), licence(self.content, table)),
            "rights": _PUBLIC,
            "language": _LANGUAGES,
            "issued": self.day,
            "modified": self.day,
            "availability": f"{_AUTHORITY}/planned-availability/AVAILABLE",
            "status": f"{_AUTHORITY}/distribution-status/COMPLETED",
            "applicableLegislation": _OPEN_DATA_DIRECTIVE,
            "checksum": {
                "@id": self._id(f"{name}-checksum"),
                "@type": "spdx:Checksum",
                "algorithm": "spdx:checksumAlgorithm_sha1",
                "checksumValue": file.sha1,
            },
        }

    def _service(self) -> dict[str, Any]:
        served = {"coverage_municipality", "coverage_comarca", "coverage_catalonia", "access_municipality"}
        tables = [table.name for table in self.content.downloads.tables if table.name in served]
        return {
            "@id": self._id("api"),
            "@type": "dcat:DataService",
            "title": self._texts("data.api", demo="data.demo"),
            "description": self._texts("data.api_about", demo="demo"),
            "publisher": self.content.publisher.uri,
            "contactPoint": self._id("contact"),
            "theme": _THEMES,
            "keyword": _KEYWORDS,
            "accessRights": _PUBLIC,
            "applicableLegislation": _OPEN_DATA_DIRECTIVE,
            "license": f"{self.content.url}/data/LICENCES.md",
            "page": self._page(),
            "endpointURL": f"{self.content.url}/api/v1/",
            "endpointDescription": f"{self.content.url}/api/v1/openapi.json",
            "servesDataset": [self._id(name) for name in tables],
        }

    def _contact(self) -> dict[str, Any]:
        publisher = self.content.publisher
        contact = {
            "@id": self._id("contact"),
            "@type": "vcard:Organization",
            "fn": {"es": publisher.name},
            "organizationName": {"es": publisher.name},
            "hasURL": self._page(),
            "hasUID": publisher.uri,
        }
        if publisher.email:
            contact["hasEmail"] = f"mailto:{publisher.email}"
        if publisher.phone:
            contact["hasTelephone"] = f"tel:{publisher.phone}"
        return contact
