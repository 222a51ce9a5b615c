"""Structured log events of structlog, which is imported at the first event: that import takes a tenth of a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_set_up: list[Callable[[], None]] = []
"""What configures structlog, until the first event."""


class Logger:
    """The logger of a module: an event and what belongs to it, as in structlog."""

    def __init__(self, name: str) -> None:
        self._name = name

    def info(self, event: str, **values: Any) -> None:
        """Log an event of normal work."""
        self._structlog().info(event, **values)

    def warning(self, event: str, **values: Any) -> None:
        """Log an event that a person may have to look at."""
        self._structlog().warning(event, **values)

    def exception(self, event: str, **values: Any) -> None:
        """Log the exception that is being handled."""
        self._structlog().exception(event, **values)

    def _structlog(self) -> Any:
        import structlog

        while _set_up:
            _set_up.pop()()
        return structlog.get_logger(self._name)


def get_logger(name: str) -> Logger:
    """Return the logger of the module `name`."""
    return Logger(name)


def configure_by(set_up: Callable[[], None]) -> None:
    """Call `set_up`, which configures structlog, before the first event."""
    _set_up[:] = [set_up]
