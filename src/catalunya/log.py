"""Structured log events of structlog, which is imported at the first event: that import takes a tenth of a second."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_set_up: list[Callable[[], None]] = []
"""What configures structlog, until the first event."""
_bound: ContextVar[Mapping[str, str]] = ContextVar("bound", default={})  # noqa: B039 (never changed)


def is_json() -> bool:
    """Return whether logs are JSON, one event a line (CATALUNYA_LOG_FORMAT), for programs that collect them."""
    return os.environ.get("CATALUNYA_LOG_FORMAT") == "json"


@contextmanager
def bound(**values: str) -> Iterator[None]:
    """Add `values`, such as the run and the dataset, to every event of this context."""
    token = _bound.set({**_bound.get(), **values})
    try:
        yield
    finally:
        _bound.reset(token)


def add_bound(_: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Add what is bound to events of libraries, too: a processor of structlog."""
    return {**_bound.get(), **event}


class Logger:
    """The logger of a module: an event and what belongs to it, as in structlog."""

    def __init__(self, name: str) -> None:
        self._name = name

    def info(self, event: str, **values: Any) -> None:
        """Log an event of normal work."""
        self._structlog().info(event, **{**_bound.get(), **values})

    def warning(self, event: str, **values: Any) -> None:
        """Log an event that a person may have to look at."""
        self._structlog().warning(event, **{**_bound.get(), **values})

    def error(self, event: str, **values: Any) -> None:
        """Log what ended the work."""
        self._structlog().error(event, **{**_bound.get(), **values})

    def exception(self, event: str, **values: Any) -> None:
        """Log the exception that is being handled."""
        self._structlog().exception(event, **{**_bound.get(), **values})

    def _structlog(self) -> Any:
        import structlog

        while _set_up:
            _set_up.pop()()
        if not structlog.is_configured():
            # By default structlog prints on standard output, which is for the answers of whoever uses the library.
            return structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
        return structlog.get_logger(self._name)


def get_logger(name: str) -> Logger:
    """Return the logger of the module `name`."""
    return Logger(name)


def configure_by(set_up: Callable[[], None]) -> None:
    """Call `set_up`, which configures structlog, before the first event."""
    _set_up[:] = [set_up]


_ADDRESSES_BELOW = {
    "urllib3": logging.ERROR,
    "requests": logging.ERROR,
    "apprise": logging.INFO,
    "botocore": logging.INFO,
}
"""Libraries that log addresses or headers of requests below these levels: of webhooks and heartbeats they are secrets."""


def keep_addresses_out_of_logs() -> None:
    """Turn off the events of libraries that name addresses of requests, also when Airflow logs at the level DEBUG."""
    for name, level in _ADDRESSES_BELOW.items():
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, level))
