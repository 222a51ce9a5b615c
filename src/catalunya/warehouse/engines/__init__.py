"""Where the marts are built: DuckDB in this process, Trino, or Athena, behind one protocol (`protocol.py`)."""

from __future__ import annotations

from catalunya.lake.storage import Storage
from catalunya.settings import Settings
from catalunya.warehouse.engines.base import Engine

__all__ = ["Engine", "open_engine"]


def open_engine(storage: Storage, settings: Settings) -> Engine:
    """The engine that the settings choose. Raises `UsageError` that names the variable when it cannot be used.

    Nothing is connected yet: an engine that is never asked runs no query.
    """
    name = settings.resolved_engine
    if name == "trino":
        from catalunya.warehouse.engines.trino import TrinoEngine

        return TrinoEngine(storage, settings)
    if name == "athena":
        from catalunya.warehouse.engines.athena import AthenaEngine

        return AthenaEngine(storage, settings)
    from catalunya.warehouse.engines.duckdb import DuckDBEngine

    return DuckDBEngine(storage)
