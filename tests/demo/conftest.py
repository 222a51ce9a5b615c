from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from catalunya.demo.portal import RunningPortal, running


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real files of the portals, which are kept outside the repository."""
    fallback = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("CATALUNYA_SHARED", fallback))
    if not folder.is_dir():
        pytest.skip(f"the real files are missing: set CATALUNYA_SHARED to their folder (looked in {folder})")
    return folder


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
    with httpx.Client(base_url=portal.url, timeout=20) as client:
        yield client
