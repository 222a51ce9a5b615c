"""How often a portal is asked: all sessions of a process share a limit for each host."""

from __future__ import annotations

import threading
import time

from catalunya.address import is_loopback

_REQUESTS_PER_S = 4.0
_BURST = 8


class _RateLimiter:
    """Lets `_BURST` requests to one portal through at once, then `_REQUESTS_PER_S`."""

    def __init__(self) -> None:
        self._left = float(_BURST)
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait until a request is allowed."""
        with self._lock:
            now = time.monotonic()
            self._left = min(_BURST, self._left + (now - self._at) * _REQUESTS_PER_S) - 1
            self._at = now
            wait = max(0.0, -self._left / _REQUESTS_PER_S)
        if wait:
            time.sleep(wait)


class _Unlimited(_RateLimiter):
    """Lets every request through."""

    def wait(self) -> None:
        """Do not wait."""


_limiters: dict[str, _RateLimiter] = {}
_limiters_lock = threading.Lock()


def rate_limiter(host: str) -> _RateLimiter:
    """Return the limiter that all sessions of this process share for a portal; this machine has no limit."""
    with _limiters_lock:
        return _limiters.setdefault(host, _Unlimited() if is_loopback(host) else _RateLimiter())
