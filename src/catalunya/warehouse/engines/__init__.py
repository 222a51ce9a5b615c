"""Where the marts are built: each engine is a module of its name behind one protocol (`base.py`)."""

from __future__ import annotations

from importlib import import_module

from catalunya.lake.storage import Storage
from catalunya.settings import Settings
from catalunya.warehouse.engines.base import Engine

__all__ = ["Engine", "open_engine"]


def open_engine(storage: Storage, settings: Settings) -> Engine:
    """Open the engine that the settings choose: `ENGINE` of the module of its name.

    Nothing is connected yet: an engine that is never asked runs no query. Raises `UsageError` that names the variable
    when it cannot be used.
    """
    engine: type[Engine] = import_module(f"{__name__}.{settings.resolved_engine}").ENGINE
    return engine(storage, settings)
