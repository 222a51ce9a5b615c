"""One built site of the demo release, for all tests of the site."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import uvicorn

from catalunya.datasets import loader
from catalunya.lake.opening import open_lake
from catalunya.operations.query import find_release
from catalunya.site.build import Built, build_site
from catalunya.site.language import CODES
from catalunya.site.serve import site_app
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
    assert answer.json["pages"] == len(CODES) * (9 + 43 + 947)
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


@pytest.fixture(scope="session")
def url(target: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(site_app(target), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(60)


def kinds(site: Path, code: str) -> list[str]:
    """The address of each kind of page in a language, with the smallest and the largest of those that have many."""
    found = [f"/{code}/"]
    for folder in sorted(path for path in (site / code).iterdir() if path.is_dir()):
        found += [f"/{code}/{folder.name}/"] if (folder / "index.html").is_file() else []
        many = sorted(folder.glob("*/index.html"), key=lambda path: (path.stat().st_size, path))
        found += [f"/{code}/{folder.name}/{path.parent.name}/" for path in many[:: max(1, len(many) - 1)]]
    return found
