"""One built site of the demo release, for all tests of the site."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from catalunya.datasets import loader
from catalunya.lake.opening import open_lake
from catalunya.operations.query import find_release
from catalunya.site.build import Built, build_site
from catalunya.site.language import CODES
from tests.pipeline.command import Command, ForkServer, ReleasedLake
from tests.project import ROOT

DATASETS = loader.load(ROOT / "datasets")


def build(lake: Path, target: Path) -> Built:
    """Build the site of a lake's current release."""
    storage = open_lake(str(lake))
    return build_site(storage, DATASETS, find_release(storage, None), target)


@pytest.fixture(scope="session")
def target(
    first_release: ReleasedLake, tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer
) -> Path:
    """A folder with the site of a demo release. To be read only."""
    folder = tmp_path_factory.mktemp("sites") / "site"
    answer = Command(str(first_release.lake), None)("site", "build", "--to", str(folder))
    assert answer.code == 0, answer.stderr
    assert answer.json["pages"] == len(CODES) * (5 + 43 + 947)
    assert answer.json["release_id"] == first_release.release_id
    return folder


@pytest.fixture(scope="session")
def site(target: Path) -> Path:
    """The folder that is shown."""
    return target / "current"


@pytest.fixture(scope="session")
def marts(first_release: ReleasedLake) -> Iterator[duckdb.DuckDBPyConnection]:
    """The marts of the release that the site shows."""
    with duckdb.connect(first_release.folder / "catalunya.duckdb", read_only=True) as con:
        con.execute("set search_path = 'catalunya.marts'")
        yield con
