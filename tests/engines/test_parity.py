"""The marts are equal on every engine."""

from __future__ import annotations

import pytest

from tests.engines.command import DAYS, Command

pytestmark = pytest.mark.aws


def test_five_snapshots_give_equal_marts_on_duckdb_trino_and_athena(five_snapshots: Command):
    answer = five_snapshots("parity")
    assert answer.code == 0, answer.stderr
    assert answer.json["status"] == "equal"
    assert len(answer.json["snapshots"]["social_services"]) == len(DAYS)
    duckdb, trino, athena = answer.json["built"]
    assert duckdb["rows"] == trino["rows"] == athena["rows"]
    assert sum(duckdb["rows"].values()) > 50_000
    assert (duckdb["cost"], trino["cost"]["usd"]) == (None, None)
    assert athena["cost"]["usd"] > 0
