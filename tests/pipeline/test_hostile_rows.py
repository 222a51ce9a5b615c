"""Texts, keys, values and column names that a source could send to do harm, through one run to its release."""

from __future__ import annotations

import csv
import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest

from catalunya.demo import server
from catalunya.demo.data.datasets import REGISTER, PortalColumn, demo_datasets
from tests import hostile
from tests.pipeline.command import DAY, SMALL, Answer, Command, files_of

DEEP: Any = "deep"
for _ in range(60):
    DEEP = {"a": [DEEP]}
VALUES: list[dict[str, Any]] = [
    {"capacitat": "1e400"},
    {"capacitat": "9" * 4000},
    {"capacitat": "NaN"},
    {"capacitat": "-Infinity"},
    {"capacitat": DEEP},
    {"inscripcio": "9999-99-99"},
    {"inscripcio": "0000-00-00T24:61:61"},
    {"nom": DEEP},
    {"nom": ["a", None, {"b": 1}]},
    {"nom": 10**300},
    {"municipi": "'; drop table x; --", "comarca": "../../x"},
]
"""Values that a column cannot have."""
BROKEN: list[dict[str, Any]] = [
    {"registre": DEEP},
    {"registre": "\u200b"},
    {"tipologia": {}},
    {"tipologia": ""},
]
"""Rows that lack what they need."""


class HostileRun(NamedTuple):
    """A run on the hostile register."""

    folder: Path
    answer: Answer
    texts: dict[str, str]
    """The hostile name by the id of its service."""

    @property
    def release(self) -> Path:
        return Path(self.answer.json["release"])


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, small_project: Path, fork_server: object
) -> Iterator[HostileRun]:
    folder = tmp_path_factory.mktemp("hostile")
    with server.running(rows=SMALL, day=DAY) as portal:
        # A copy: the portals of other tests have the same datasets.
        datasets = dict(demo_datasets(DAY, SMALL))
        register = datasets[REGISTER]
        good = list(register.rows())
        texts = {f"H{number:04}": text for number, text in enumerate(hostile.TEXTS)}
        extra = dict.fromkeys(hostile.COLUMNS, "'; drop table x; --")
        rows = [
            *good,
            *({**good[0], **extra, "registre": key, **dict.fromkeys(("nom", "adreca", "entitat_titular"), text)}
              for key, text in texts.items()),
            # Keys as paths.
            *({**good[1], "registre": text} for text in (*hostile.PATHS, *hostile.SQL)),
            *({**good[2], "registre": f"V{number}", **change} for number, change in enumerate(VALUES)),
            *({**good[3], "registre": f"B{number}", **change} for number, change in enumerate(BROKEN)),
        ]  # fmt: skip
        columns = (*register.columns, *(PortalColumn("x", name) for name in hostile.COLUMNS))
        datasets[REGISTER] = replace(register, rows=lambda: rows, lines=None, columns=columns)
        portal._socrata._datasets = lambda: datasets
        command = Command(str(folder / "lake"), portal.url, home=small_project)
        answer = command.run()
        yield HostileRun(folder, answer, texts)


def rows_of(run: HostileRun, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(run.release / "catalunya.duckdb"), read_only=True) as con:
        return con.execute(sql).fetchall()


def shown(text: str) -> str:
    """A text as a person reads it: composed, without invisible characters, each run of spaces and controls one space."""
    kept = "".join(
        " " if character.isspace() or unicodedata.category(character) == "Cc" else character
        for character in unicodedata.normalize("NFC", text)
        if unicodedata.category(character) != "Cf"
    )
    return re.sub(" +", " ", kept).strip()


def test_there_are_more_than_50_inputs():
    assert len(set(hostile.TEXTS)) >= 50


def test_hostile_rows_are_published_as_text_or_quarantined(run):
    assert run.answer.code == 0, run.answer.stderr
    assert "Traceback" not in run.answer.stderr
    [(rows_in, staged, quarantined, duplicate)] = rows_of(
        run, "select rows_in, rows_staged, rows_quarantined, rows_duplicated from marts.data_quality "
        "where dataset_id = 'social_services'",
    )  # fmt: skip
    keys = (*hostile.PATHS, *hostile.SQL)
    assert rows_in == SMALL + len(hostile.TEXTS) + len(keys) + len(VALUES) + len(BROKEN)
    assert rows_in == staged + quarantined + duplicate
    assert quarantined == len(BROKEN)
    published = dict(rows_of(run, "select service_id, name from marts.service_history"))
    wrong = {
        (key, text[:60], (published.get(key) or "")[:60])
        for key, text in run.texts.items()
        if (published[key] or "") != shown(text)
    }
    assert wrong == set()
    assert {shown(key) for key in keys} <= published.keys()


def test_a_value_that_a_column_cannot_have_is_null_and_its_row_is_published(run):
    places = dict(
        rows_of(run, "select service_id, places from marts.service_history where service_id like 'V%'")
    )
    assert len(places) == len(VALUES)
    assert [places[f"V{n}"] for n, change in enumerate(VALUES) if "capacitat" in change] == [None] * 5


def test_no_name_of_a_source_is_a_path_a_table_or_a_column(run):
    names = files_of(run.folder)
    assert [name for name in names if not re.fullmatch(r"lake/[\w./=-]+", name)] == []
    assert {Path(name).parts[1] for name in names} <= {
        "current.json", "lake.json", "landing", "staging", "quarantine", "releases", "ledger", "docs", "alerts", "locks",
    }  # fmt: skip
    tables = rows_of(run, "select table_name, column_name from information_schema.columns")
    assert {table for table, _ in tables} >= {"population", "service_history"}
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for pair in tables for name in pair)


def test_what_is_written_about_the_run_can_be_read(run):
    csv.field_size_limit(sys.maxsize)
    with next(run.release.glob("csv/service_history.csv")).open(encoding="utf-8", newline="") as file:
        names = {row["service_id"]: row["name"] for row in csv.DictReader(file)}
    assert all(names[key] == shown(text) for key, text in run.texts.items())
    for path in run.folder.rglob("*.json"):
        json.loads(path.read_text("utf-8"))
    assert "\x1b[31m" not in run.answer.stderr
    assert "\u202e" not in run.answer.stderr
