"""One lake and one warehouse for every comparison."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.project import ROOT

from .built import BuiltWarehouse, build_warehouse
from .portals import LEFT, Sent, everything_sent, thinned


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltWarehouse:
    """The warehouse of the generated register at full size, over eight snapshots of six days."""
    shared = Path(os.environ.get("CATALUNYA_SHARED", ROOT.parent / "shared" / "data"))
    return build_warehouse(
        tmp_path_factory.mktemp("oracle"), everything_sent(shared if shared.is_dir() else None)
    )


@pytest.fixture(scope="session")
def thin_sent() -> list[Sent]:
    """A small part of what the portals sent; one municipality that left the list has no people in any year."""
    return [thinned(one) for one in everything_sent(None, {LEFT})]


@pytest.fixture(scope="session")
def thin(tmp_path_factory: pytest.TempPathFactory, thin_sent: list[Sent]) -> BuiltWarehouse:
    """The warehouse of `thin_sent`."""
    return build_warehouse(tmp_path_factory.mktemp("thin"), thin_sent)
