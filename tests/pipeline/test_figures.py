"""Whole runs whose rows are as many as before and whose figures are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from catalunya.demo import server
from catalunya.demo.faults import rows
from tests.pipeline.command import LATER, LATER_DAY, SMALL, Command, query

Row = dict[str, Any]


def ten_times(row: Row) -> Row:
    return row | {"capacitat": f"{row['capacitat']}0"} if row.get("capacitat", "").isdigit() else row


def without_suffix(row: Row) -> Row:
    return row | {"tipologia": row["tipologia"].split(" per a ")[0]} if "tipologia" in row else row


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Row], Row]], str]:
    """A fault of the demo portal that changes every row of the register."""

    def fault(change: Callable[[Row], Row]) -> str:
        def changed(dataset: Any, _: str) -> Any:
            original = dataset.rows
            return replace(dataset, rows=lambda: map(change, original()))

        monkeypatch.setitem(rows._ROW_FAULTS, "bad_rows", changed)
        return "ivft-vegh:bad_rows"

    return fault


@pytest.mark.parametrize(
    ("change", "figure"),
    [(ten_times, "total of places"), (without_suffix, "share of service_type not seen before")],
    ids=["every capacity ten times as large", "all kinds without their suffix"],
)
def test_wrong_figures_are_refused_and_published_with_a_note_once_they_are_accepted(
    small: Command, small_demo: Any, wrong: Any, change: Any, figure: str
) -> None:
    first = small("status").json["release_id"]
    small_demo.set_day(LATER_DAY)
    small_demo.faults.add(wrong(change))
    small.url = small_demo.url
    answer = small.run(now=LATER)
    assert (answer.code, answer.json["status"], answer.json["release_id"]) == (3, "refused", first)
    assert figure in answer.json["message"]
    [(snapshot_id, refusal)] = small("status").json["datasets"]["social_services"]["refused"].items()
    assert figure in refusal["reason"]
    assert {"before", "after", "tolerated"} <= set(refusal["figures"])
    assert small("accept", snapshot_id, "--why", "a test of a real change").code == 0
    final = small.run(now="2026-03-02T12:00:00Z")
    assert (final.code, final.json["status"]) == (0, "released"), final.stderr
    noted = json.loads(Path(final.json["release"], "release.json").read_text("utf-8"))["warnings"]
    assert any(figure in warning and warning.endswith("accepted by hand") for warning in noted)
    assert any("in the last release" in warning for warning in noted)
    assert query(final, "select count(*) > 500 from marts.service_history where is_current") == [(True,)]


def test_wrong_figures_that_were_published_and_refused_are_not_held_against_the_good_ones(
    small: Command, wrong: Any
) -> None:
    with server.running(rows=SMALL, day=LATER_DAY) as bad:
        bad.faults.add(wrong(ten_times))
        small.url = bad.url
        [snapshot_id] = small.run(now=LATER).json["refused"]
        assert small("accept", snapshot_id, "--why", "a mistake of a person").code == 0
        assert small.run(now="2026-03-02T12:00:00Z").json["status"] == "released"
    assert small("refuse", snapshot_id, "--why", "every capacity is ten times as large").code == 0
    with server.running(rows=SMALL + 3, day=LATER_DAY) as good:
        small.url = good.url
        final = small.run(now="2026-03-03T06:00:00Z")
    assert (final.code, final.json["status"], final.json["refused"]) == (0, "released", {}), final.stderr
    assert query(final, "select max(places) < 1000 from marts.service_history") == [(True,)]


def to_another_comarca(row: Row) -> Row:
    """Vielha e Mijaran, half of the people of Aran, in Alta Ribagorça."""
    return row | {"codi_comarca": "05", "nom_comarca": "Alta Ribagorça"} if row["codi"] == "252430" else row


def test_a_town_in_another_comarca_is_refused_and_released_once_it_is_accepted(
    small: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        rows._ROW_FAULTS,
        "bad_rows",
        lambda dataset, _: replace(
            dataset,
            rows=lambda: map(to_another_comarca, dataset.rows()),
            updated=dataset.updated + timedelta(days=1),
        ),
    )
    with server.running(rows=SMALL, day=LATER_DAY) as moved:
        moved.faults.add("9aju-tpwc:bad_rows")
        small.url = moved.url
        assert small.run(now=LATER).json["refused"]
        [(snapshot_id, refusal)] = small("status").json["datasets"]["municipalities"]["refused"].items()
        assert refusal["gate"] == "marts"
        assert "coverage_comarca.people_aged_65_over[2025, 39] is " in refusal["reason"]
        assert small("accept", snapshot_id, "--why", "a law that moved the town").code == 0
        final = small.run(now="2026-03-02T12:00:00Z")
    assert (final.code, final.json["status"], final.json["refused"]) == (0, "released", {}), final.stderr
    assert any("coverage_comarca.people_aged_65_over" in warning for warning in final.json["warnings"])


def test_a_real_change_of_eight_weeks_is_released_without_a_person(second_release: Any) -> None:
    answer = second_release.answer
    assert (answer.code, answer.json["status"]) == (0, "released")
    assert not any("tolerated" in warning for warning in answer.json["warnings"])
