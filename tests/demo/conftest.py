from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from catalunya.demo.server import RunningPortal, running


@pytest.fixture(scope="session")
def _one_portal() -> Iterator[RunningPortal]:
    with running() as portal:
        yield portal


@pytest.fixture
def portal(_one_portal: RunningPortal) -> Iterator[RunningPortal]:
    yield _one_portal
    _one_portal.faults.clear()
    _one_portal.log.clear()


@pytest.fixture
def http(portal: RunningPortal) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=portal.url, timeout=600) as client:
        yield client
