"""The request to end a reading: no other request is sent, and whatever waits for a portal is interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Stop(threading.Event):
    """An event that interrupts what was registered with it when it is set."""

    def __init__(self) -> None:
        super().__init__()
        self._interrupts: list[Callable[[], None]] = []

    def set(self) -> None:
        """Set the event, then interrupt everything that is registered."""
        super().set()
        for interrupt in tuple(self._interrupts):
            interrupt()

    def interrupts(self, interrupt: Callable[[], None]) -> None:
        """Register what ends a wait; whoever begins to wait looks at the event itself."""
        self._interrupts.append(interrupt)
