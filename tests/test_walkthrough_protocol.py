"""To add a portal protocol: its model, its module, its base URL, and its fake in the demo portal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.project import ROOT, copy_home

MODEL = '''\
class CsvSource(Model):
    """One CSV file."""

    protocol: Literal["csv_file"]
    path: str = Field(pattern=r"^/")

    @property
    def address(self) -> str:
        """Its path below the base URL, in Markdown."""
        return f"`{self.path}`"


Source = Annotated[CsvSource | '''
PROTOCOL = '''\
"""CSV files that are read whole, each by one conditional request."""

import csv

from catalunya.lake.snapshot import LandedColumn
from catalunya.sources.base import Fetched, SourceProtocol
from catalunya.sources.responses import InvalidResponse


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    if not found:
        raise InvalidResponse("found a CSV file without rows")
    return found


def fetch(request):
    known = (request.previous_validators or {}).get("etag")
    answer = request.http.store(
        request.base_url + request.source.path,
        request.spool / "table.csv",
        dataset=request.dataset,
        headers={"If-None-Match": known} if known else {},
        parse=read,
    )
    if answer.unchanged:
        return None
    rows = answer.data
    return Fetched(
        files=(answer.landed_file("table.csv", len(rows)),),
        columns=tuple(LandedColumn(name=name) for name in rows[0]),
        validators={"etag": answer.headers.get("etag")},
        request={"urls": [answer.url]},
        demo=answer.demo,
    )


PROTOCOL = SourceProtocol(
    base_url="files_url",
    fetch=fetch,
    updated=lambda validators: None,
    rows=lambda source, page: read(page.path),
)
'''
FAKE = '''\
"""A server of CSV files."""

from starlette.responses import Response

TABLE = "code,name,places\\n1,Llar u,10\\n2,Llar dos,\\n3,Llar tres,many\\n,No code,1\\n"


async def table(request):
    etag = '"1"'
    unchanged = request.headers.get("if-none-match") == etag
    return Response("" if unchanged else TABLE, 304 if unchanged else 200, {"ETag": etag}, "text/csv")
'''
DEFINITION = """\
id: care_homes
title: {ca: Llars, es: Hogares, en: Care homes}
description: Care homes of a file.
grain: one row per home
publisher: {name: A publisher, url: "https://example.org"}
licence: {name: CC0, url: "https://example.org/cc0"}
citation: A publisher. Homes.
homepage: https://example.org/homes
cadence_days: 31
source: {protocol: csv_file, path: /files/homes.csv}
key: [home_id]
expected_rows: {minimum: 1, maximum: 10}
tolerance: {decrease_ratio: 0.5, increase_ratio: 0.5, rows: 5}
columns:
  - {name: home_id, source: code, type: string, description: Code., constraints: {required: true}}
  - {name: name, source: name, type: string, description: Name.}
  - {name: places, source: places, type: integer, description: Places., constraints: {minimum: 0}}
"""
EDITS = {
    "src/catalunya/datasets/sources.py": [("Source = Annotated[", MODEL)],
    "src/catalunya/settings.py": [
        ("PORTALS = {\n", 'PORTALS = {\n    "files_url": "https://files.example",\n'),
        (
            "    socrata_url: str =",
            '    files_url: str = Field(PORTALS["files_url"], validation_alias="CATALUNYA_FILES_URL")\n'
            "    socrata_url: str =",
        ),
    ],
    "src/catalunya/demo/server.py": [
        (
            "from catalunya.demo.api.icgc",
            "from catalunya.demo.api.csv_file import table\nfrom catalunya.demo.api.icgc",
        ),
        (
            '                Route("/health", health),',
            '                Route("/health", health),\n                Route("/files/homes.csv", table),',
        ),
    ],
}
ADDED = {"src/catalunya/sources/csv_file.py": PROTOCOL, "src/catalunya/demo/api/csv_file.py": FAKE}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with a fourth protocol, and a definition that uses it."""
    home = copy_home(tmp_path)
    shutil.copytree(ROOT / "src", home / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name, edits in EDITS.items():
        text = (home / name).read_text("utf-8")
        for old, new in edits:
            assert text.count(old) == 1, (name, old)
            text = text.replace(old, new)
        (home / name).write_text(text, "utf-8")
    for name, text in ADDED.items():
        (home / name).write_text(text, "utf-8")
    (home / "datasets" / "care_homes.yml").write_text(DEFINITION, "utf-8")
    return home


def catalunya(project: Path, *arguments: str) -> dict[str, Any]:
    """The JSON object that a command of the copied project prints."""
    variables = {
        **os.environ,
        "PYTHONPATH": str(project / "src"),
        "CATALUNYA_HOME": str(project),
        "CATALUNYA_LAKE": str(project / "lake"),
        "ENVIRONMENT": "demo",
    }
    command = [sys.executable, "-m", "catalunya", *arguments, "--json"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_fourth_protocol_takes_five_files_of_the_library(project):
    library = {
        path.relative_to(project).as_posix()
        for path in (project / "src").rglob("*.py")
        if not (ROOT / path.relative_to(project)).exists()
        or path.read_bytes() != (ROOT / path.relative_to(project)).read_bytes()
    }
    assert library == {*EDITS, *ADDED}
    assert len(library) <= 5


def test_a_source_of_a_fourth_protocol_is_read_and_typed_and_not_read_again(project):
    read = catalunya(project, "ingest", "--dataset", "care_homes")["datasets"]["care_homes"]
    assert (read["outcome"], read["rows_in"], read["requests"]) == ("new", 4, 1)
    again = catalunya(project, "ingest", "--dataset", "care_homes")["datasets"]["care_homes"]
    assert (again["outcome"], again["requests"]) == ("unchanged", 1)
    typed = catalunya(project, "stage")["datasets"]["care_homes"]
    assert (typed["rows_staged"], typed["rows_quarantined"]) == (3, 1)
    assert typed["invalid_values"] == {"places": 1}
    staged = duckdb.sql(
        f"select home_id, name, places from read_parquet('{project}/lake/staging/care_homes/**/*.parquet')"
    )
    assert sorted(staged.fetchall()) == [
        ("1", "Llar u", 10),
        ("2", "Llar dos", None),
        ("3", "Llar tres", None),
    ]


def test_the_pages_of_the_project_describe_a_source_of_a_fourth_protocol(project):
    (project / "docs").mkdir()
    catalunya(project, "datasets", "generate")
    assert "- Address: `/files/homes.csv`" in (project / "docs" / "datasets.md").read_text("utf-8")
    assert (project / "dbt" / "mart" / "models" / "staging" / "stg_care_homes.sql").exists()
