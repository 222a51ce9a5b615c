"""Signals that end the command: SIGTERM, Ctrl-C, a closed terminal. Each ends it once, and it cleans up before it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

CHECK_S = 0.5
"""The longest time that the main thread waits for another before it looks for signals. A wait without a limit is not ended
by a signal that arrives right before the wait begins, or that another thread receives."""

_received: list[int] = []
_deferred: list[bool] = []


class Stopped(KeyboardInterrupt):
    """The command received a signal that ends it; `except Exception` does not catch this."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def listen() -> None:
    """Raise `Stopped` in the main thread at the first signal; later ones are ignored while the command cleans up.

    A signal that is ignored already (`nohup`) stays so. In a forked child a signal has its default effect.
    """
    owner = os.getpid()
    _received.clear()
    _deferred.clear()

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not _received and not _deferred:
            _received.append(number)
            raise Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def defer() -> None:
    """Ignore signals from now on: only the result is still to be written."""
    _deferred.append(True)


def stopped() -> Stopped | None:
    """Return the signal that was received, if any: a library may have taken it for a failure of its own, as dbt does."""
    return Stopped(_received[0]) if _received else None


def check() -> None:
    """Raise `Stopped` again when a signal was received."""
    if found := stopped():
        raise found


@contextmanager
def restored() -> Iterator[None]:
    """Raise `Stopped` again in place of what a library made of it: DuckDB raises `RuntimeError`, servers end the process."""
    try:
        yield
    except (Exception, SystemExit):
        check()
        raise
