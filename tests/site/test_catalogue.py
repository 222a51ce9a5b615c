"""The catalogue after DCAT-AP-ES, judged by the official shapes, and the list of pages for search engines."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pyshacl
import pytest
from rdflib import DCAT, DCTERMS, OWL, RDF, SH, Graph, Literal, URIRef
from rdflib.compare import isomorphic

from catalunya.site import sitemap
from catalunya.site.catalogue import JSON_LD, RDF_XML, TURTLE, frequency
from catalunya.site.language import CODES
from catalunya.site.sitemap import Sitemap
from tests.site.conftest import DATASETS

BASE = "http://127.0.0.1:8081/"
SPDX = "http://spdx.org/rdf/terms#"


@pytest.fixture(scope="session")
def shapes(shared: Path) -> Graph:
    """The official shapes, without what they import from the internet."""
    graph = Graph()
    for path in sorted((shared / "shapes" / "dcat-ap-es-1.0.0").glob("*.ttl")):
        if "imports" not in path.name:
            graph.parse(path)
    graph.remove((None, OWL.imports, None))
    return graph


@pytest.fixture(scope="module")
def catalogue(site: Path) -> Graph:
    return Graph().parse(site / TURTLE)


@pytest.fixture
def small(catalogue: Graph) -> Graph:
    """The catalogue with one of its datasets, to break."""
    kept = f"{BASE}{TURTLE}#coverage_comarca"
    graph = Graph()
    for subject, predicate, value in catalogue:
        name = str(subject).partition("#")[2]
        is_kept = not name or name.startswith("coverage_comarca") or name in {"contact", "api"}
        listed = predicate in {DCAT.dataset, DCAT.servesDataset} and str(value) != kept
        if is_kept and not listed:
            graph.add((subject, predicate, value))
    return graph


def findings(graph: Graph, shapes: Graph) -> set[tuple[str, str]]:
    """Severity and property of everything that the shapes find."""
    _, report, _ = pyshacl.validate(
        graph, shacl_graph=shapes, advanced=True, inference="none", do_owl_imports=False
    )
    assert isinstance(report, Graph)
    return {
        (
            str(report.value(result, SH.resultSeverity)).partition("#")[2],
            str(report.value(result, SH.resultPath)),
        )
        for result in report.subjects(RDF.type, SH.ValidationResult)
    }


VCARD = "http://www.w3.org/2006/vcard/ns#"


def test_the_catalogue_breaks_no_shape(catalogue: Graph, shapes: Graph) -> None:
    # A publisher without a telephone and a mail address is only warned of.
    expected = {f"{VCARD}hasTelephone", f"{VCARD}hasEmail", str(DCAT.contactPoint)}
    assert findings(catalogue, shapes) <= {("Warning", path) for path in expected}


def test_a_publisher_who_can_be_reached_gets_no_warning(small: Graph, shapes: Graph) -> None:
    contact = URIRef(f"{BASE}{TURTLE}#contact")
    small.add((contact, URIRef(f"{VCARD}hasTelephone"), URIRef("tel:+34-900000000")))
    small.add((contact, URIRef(f"{VCARD}hasEmail"), URIRef("mailto:dades@example.cat")))
    assert findings(small, shapes) == set()


def _without_title(graph: Graph, dataset: URIRef) -> None:
    graph.remove((dataset, DCTERMS.title, None))


def _with_unknown_theme(graph: Graph, dataset: URIRef) -> None:
    graph.set((dataset, DCAT.theme, URIRef("http://example.org/theme")))


def _with_another_frequency(graph: Graph, dataset: URIRef) -> None:
    graph.set((dataset, DCTERMS.accrualPeriodicity, Literal("often")))


def _without_checksum_value(graph: Graph, dataset: URIRef) -> None:
    graph.remove((URIRef(f"{dataset}-csv-checksum"), URIRef(f"{SPDX}checksumValue"), None))


@pytest.mark.parametrize(
    ("breaking", "path"),
    [
        (_without_title, DCTERMS.title),
        (_with_unknown_theme, DCAT.theme),
        (_with_another_frequency, DCTERMS.accrualPeriodicity),
        (_without_checksum_value, URIRef(f"{SPDX}checksumValue")),
    ],
)
def test_a_broken_property_is_a_violation(
    small: Graph, shapes: Graph, breaking: Callable[[Graph, URIRef], None], path: URIRef
) -> None:
    breaking(small, URIRef(f"{BASE}{TURTLE}#coverage_comarca"))
    assert ("Violation", str(path)) in findings(small, shapes)


def test_the_three_files_say_the_same(site: Path, catalogue: Graph) -> None:
    assert isomorphic(catalogue, Graph().parse(site / RDF_XML, format="xml"))
    assert isomorphic(catalogue, Graph().parse(site / JSON_LD, format="json-ld"))


ONCE_MORE = """
import hashlib, pathlib, sys
from catalunya.site.catalogue import in_other_forms
for name, text in in_other_forms(pathlib.Path(sys.argv[1]).read_text("utf-8")):
    print(hashlib.sha256(text.encode()).hexdigest())
"""


def test_the_files_are_the_same_to_the_byte_in_every_process(site: Path) -> None:
    expected = [hashlib.sha256((site / name).read_bytes()).hexdigest() for name in (TURTLE, RDF_XML)]
    for seed in ("1", "2", "3"):
        command = [sys.executable, "-c", ONCE_MORE, str(site / JSON_LD)]
        found = subprocess.check_output(command, env={**os.environ, "PYTHONHASHSEED": seed}, text=True)
        assert found.split() == expected


def test_every_distribution_is_a_file_of_the_site_with_its_size_and_checksum(
    site: Path, catalogue: Graph
) -> None:
    found = set(catalogue.subjects(RDF.type, DCAT.Distribution))
    datasets = set(catalogue.subjects(RDF.type, DCAT.Dataset))
    assert len(datasets) >= 15
    assert len(found) == 4 * len(datasets)
    for distribution in found:
        path = site / str(catalogue.value(distribution, DCAT.downloadURL)).removeprefix(BASE)
        assert catalogue.value(distribution, DCAT.byteSize) == Literal(path.stat().st_size)
        checksum = catalogue.value(distribution, URIRef(f"{SPDX}checksum"))
        stated = str(catalogue.value(checksum, URIRef(f"{SPDX}checksumValue")))
        assert stated == hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
    for dataset in datasets:
        assert {title.language for title in catalogue.objects(dataset, DCTERMS.title)} == set(CODES)
        assert list(catalogue.objects(dataset, DCTERMS.provenance))
        for version in catalogue.objects(dataset, DCTERMS.hasVersion):
            assert (site / str(version).removeprefix(BASE)).is_file()


def test_the_frequency_is_that_of_the_most_lively_source() -> None:
    datasets = list(DATASETS.values())
    most_lively = min(dataset.cadence_days for dataset in datasets)
    assert frequency(datasets) == (
        "DAILY" if most_lively <= 1 else "WEEKLY" if most_lively <= 7 else "MONTHLY"
    )
    assert frequency([DATASETS["population"]]) == "ANNUAL"
    assert frequency([DATASETS["municipalities"]]) == "BIENNIAL"


SITEMAP = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
XHTML = "{http://www.w3.org/1999/xhtml}"


def test_the_list_of_pages_has_each_page_with_its_translations(site: Path) -> None:
    root = ElementTree.parse(site / "sitemap.xml").getroot()
    assert root.tag == f"{SITEMAP}urlset"
    listed: dict[str, dict[str, str]] = {}
    for url in root:
        [location] = url.iter(f"{SITEMAP}loc")
        listed[str(location.text)] = {
            link.attrib["hreflang"]: link.attrib["href"] for link in url.iter(f"{XHTML}link")
        }
    pages = {
        f"{BASE}{path.parent.relative_to(site).as_posix()}/"
        for code in CODES
        for path in site.glob(f"{code}/**/index.html")
    }
    assert set(listed) == pages
    for location, translations in listed.items():
        assert set(CODES) <= set(translations)
        assert location in translations.values()
        assert all(listed[translation] == translations for translation in translations.values())
    robots = (site / "robots.txt").read_text()
    assert "Allow: /" in robots
    assert f"Sitemap: {BASE}sitemap.xml" in robots


def test_a_long_list_of_pages_is_an_index_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitemap, "MOST_ADDRESSES", 2)
    pages = Sitemap("https://data.example.cat")
    for number in range(5):
        pages.add(f"ca/{number}/index.html", '<link rel="alternate" hreflang="ca" href="/ca/a?b=1&amp;c=2">')
    pages.add("404.html", "<p>no page that anybody looks for</p>")
    files = dict(pages.files())
    assert set(files) == {"robots.txt", "sitemap.xml", "sitemap-1.xml", "sitemap-2.xml", "sitemap-3.xml"}
    index = ElementTree.fromstring(files["sitemap.xml"].encode())
    assert [one.text for one in index.iter(f"{SITEMAP}loc")] == [
        f"https://data.example.cat/sitemap-{number}.xml" for number in (1, 2, 3)
    ]
    assert [len(ElementTree.fromstring(files[f"sitemap-{number}.xml"].encode())) for number in (1, 2, 3)] == [
        2,
        2,
        1,
    ]


def test_a_site_without_pages_has_an_empty_list() -> None:
    files = dict(Sitemap("https://data.example.cat").files())
    assert len(ElementTree.fromstring(files["sitemap.xml"].encode())) == 0
