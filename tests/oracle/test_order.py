"""The order in which a portal sends its rows says nothing: the marts are the same in any."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from .built import BuiltWarehouse, build_warehouse
from .portals import Sent

pytestmark = pytest.mark.xdist_group("dbt")


def test_the_same_rows_in_another_order_give_the_same_marts(
    thin: BuiltWarehouse, thin_sent: list[Sent], tmp_path: Path
) -> None:
    there, dice = thin, random.Random("order")
    mixed = build_warehouse(tmp_path, [_mixed(one, dice) for one in thin_sent])
    names = [
        name for (name,) in there.rows("select table_name from duckdb_tables() where schema_name = 'marts'")
    ]
    assert len(names) > 10
    with duckdb.connect() as con:
        con.execute(f"attach '{there.path}' as there (read_only)")
        con.execute(f"attach '{mixed.path}' as mixed (read_only)")
        different = {name: _different(con, name, there.columns(name)) for name in names}
    assert different == {name: [] for name in names}
    assert there.rows("select count(*) > 20 from marts.service_changes") == [(True,)]


def _mixed(sent: Sent, dice: random.Random) -> Sent:
    return replace(sent, pages=[_mixed_page(page, dice) for page in sent.pages])


def _mixed_page(page: Any, dice: random.Random) -> Any:
    """Rows or features in another order; a table of Idescat has the order of its dimensions."""
    if isinstance(page, list):
        return dice.sample(page, len(page))
    if "features" in page:
        return {**page, "features": dice.sample(page["features"], len(page["features"]))}
    return page


def _different(con: duckdb.DuckDBPyConnection, mart: str, columns: list[str]) -> list[tuple[Any, ...]]:
    """Rows that only one side has; of a snapshot id only its moment is compared: the rest is a hash of the bytes."""
    chosen = ", ".join(
        f"left({name}, 16)" if name.endswith(("snapshot_id", "value")) else name for name in columns
    )
    one, other = (f"select {chosen} from {side}.marts.{mart}" for side in ("there", "mixed"))
    both = f"({one} except all {other}) union all ({other} except all {one})"
    return con.execute(f"{both} order by all limit 5").fetchall()
