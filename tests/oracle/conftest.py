"""One lake and one warehouse for every comparison."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.project import ROOT

from .built import BuiltWarehouse, build_warehouse
from .portals import everything_sent


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltWarehouse:
    """The warehouse of the generated register at full size, over eight snapshots of six days."""
    shared = Path(os.environ.get("CATALUNYA_SHARED", ROOT.parent / "shared" / "data"))
    return build_warehouse(
        tmp_path_factory.mktemp("oracle"), everything_sent(shared if shared.is_dir() else None)
    )
