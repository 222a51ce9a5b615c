"""A register of a thousand services that changed a lot for good: refused, accepted, and told service by service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from catalunya.demo import server
from catalunya.demo.faults import rows
from tests.pipeline.command import DAY, LATER, LATER_DAY, Command, query

SERVICES = 1000
Row = dict[str, Any]


def new_law(rows: list[Row]) -> Iterator[Row]:
    """A fifth of the services is gone, as many in other places are new, a tenth has one place more."""
    for number, row in enumerate(rows):
        if number % 5 == 0:
            yield row | {"registre": f"{row['registre']}-NEW", "nom": f"New {row.get('nom', '')}"}
        elif number % 10 == 1 and row.get("capacitat", "").isdigit():
            yield row | {"capacitat": str(int(row["capacitat"]) + 1)}
        else:
            yield row


def staged(lake: Path, snapshot_id: str) -> dict[str, tuple[str | None, int | None]]:
    """Name and places by service, as they were staged."""
    [file] = lake.glob(f"staging/social_services/*/{snapshot_id}.parquet")
    rows = duckdb.sql(f"select service_id, name, places from read_parquet('{file}')").fetchall()
    return {service_id: (name, places) for service_id, name, places in rows}


def text(value: int | None) -> str | None:
    return None if value is None else str(value)


def test_an_accepted_snapshot_tells_exactly_the_services_that_opened_closed_and_grew(
    monkeypatch: pytest.MonkeyPatch, fork_server: Any, small_project: Path, tmp_path: Path
) -> None:
    command = Command(str(tmp_path / "lake"), None, home=small_project)
    with server.running(rows=SERVICES, day=DAY) as before:
        command.url = before.url
        first = command.run().json
    monkeypatch.setitem(
        rows._ROW_FAULTS,
        "bad_rows",
        lambda dataset, _: replace(dataset, rows=lambda: new_law([*dataset.rows()])),
    )
    with server.running(rows=SERVICES, day=LATER_DAY) as after:
        after.faults.add("ivft-vegh:bad_rows")
        command.url = after.url
        answer = command.run(now=LATER)
        assert (answer.code, answer.json["status"]) == (3, "refused"), answer.stderr
        [refused] = answer.json["refused"]
        assert query(first["release"], "select count(*) from marts.service_changes") == [(0,)]
        assert command("accept", refused, "--why", "a new law moved a fifth of the services").code == 0
        # What the changes are, the project's own marts tell.
        command.home = None
        final = command.run(now="2026-03-02T12:00:00Z")
    assert (final.code, final.json["status"]) == (0, "released"), final.stderr

    was = staged(tmp_path / "lake", first["datasets"]["social_services"]["snapshot_id"])
    now = staged(tmp_path / "lake", refused)
    assert len(was) > SERVICES - 20
    expected = {(key, "opened", None, now[key][0]) for key in now.keys() - was.keys()}
    expected |= {(key, "closed", was[key][0], None) for key in was.keys() - now.keys()}
    assert min(len(now.keys() - was.keys()), len(was.keys() - now.keys())) > SERVICES // 6
    expected |= {
        (key, "capacity_changed", text(was[key][1]), text(now[key][1]))
        for key in was.keys() & now.keys()
        if was[key][1] != now[key][1]
    }
    found = query(
        final,
        "select service_id, change, before, after from marts.service_changes "
        "where change in ('opened', 'closed', 'reopened', 'capacity_changed')",
    )
    assert set(found) == expected
    assert len(found) == len(expected) > SERVICES // 3
    assert query(final, "select distinct changed_on::varchar, snapshot_id from marts.service_changes") == [
        (LATER_DAY.isoformat(), refused)
    ]
    assert query(final, "select count(*) from marts.service_history where is_current") == [(len(now),)]
