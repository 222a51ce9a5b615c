"""Fixtures of the tests of sources: servers, and a session whose retries take milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from catalunya.sources import Http, transport
from tests.sources.portals import Answering, Reply, Server, Timers


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve() -> Iterator[Callable[[Answering], Server]]:
    running: list[Server] = []

    def start(answer: Answering) -> Server:
        running.append(Server(answer))
        return running[-1]

    yield start
    for server in running:
        server.close()


@pytest.fixture
def in_turn() -> Callable[..., Answering]:
    """Answers in the order given, the last one for ever."""

    def make(*replies: Reply) -> Answering:
        left = list(replies)
        return lambda request: left.pop(0) if len(left) > 1 else left[0]

    return make


@pytest.fixture
def http() -> Iterator[Http]:
    """A session whose pauses are short, so that five tries take milliseconds."""
    with Http(first_wait_s=0.002, timeout_s=60) as session:
        yield session


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    """The timers of deadlines, which expire when the test says so."""
    made = Timers()
    monkeypatch.setattr(transport.threading, "Timer", made)
    return made
