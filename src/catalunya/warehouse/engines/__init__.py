"""Where the marts are built: each engine is the module of its name and implements the protocol of `base.py`."""

from __future__ import annotations

from importlib import import_module

from catalunya.lake.storage import Storage
from catalunya.settings import Settings
from catalunya.warehouse.engines.base import Engine

__all__ = ["Engine", "open_engine"]


def open_engine(storage: Storage, settings: Settings) -> Engine:
    """Return the engine that the settings choose: `ENGINE` of the module of its name.

    It connects with its first query. Raises `UsageError` that names the variable when it cannot be used.
    """
    engine: type[Engine] = import_module(f"{__name__}.{settings.resolved_engine}").ENGINE
    return engine(storage, settings)
