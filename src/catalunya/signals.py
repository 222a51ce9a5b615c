"""Signals that end the command: SIGTERM, Ctrl-C, a closed terminal. Each ends it once, with everything cleared up."""

from __future__ import annotations

import os
import signal
from types import FrameType

_asked: list[int] = []
_deferred: list[bool] = []


class Stopped(KeyboardInterrupt):
    """The command was asked to stop; no `except Exception` holds it up."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def listen() -> None:
    """Raise `Stopped` in the main thread at the first signal; whatever comes later cannot break off the clearing up.

    A signal that is ignored already (`nohup`) stays so. A forked child ends by it as if nothing had been set up.
    """
    owner = os.getpid()
    _asked.clear()
    _deferred.clear()

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not _asked and not _deferred:
            _asked.append(number)
            raise Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def defer() -> None:
    """Ignore signals from now on: only the result is still to be written."""
    _deferred.append(True)


def check() -> None:
    """Raise `Stopped` again where a library took the first one for a failure of its own, as dbt does."""
    if _asked:
        raise Stopped(_asked[0])
