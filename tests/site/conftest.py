"""One built site of the demo release, for all tests of the site."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import duckdb
import pytest
import uvicorn

from catalunya.datasets import loader
from catalunya.demo import server
from catalunya.demo.data import register
from catalunya.lake.opening import open_lake
from catalunya.operations.query import find_release
from catalunya.site.build import Built, build_site
from catalunya.site.language import CODES
from catalunya.site.serve import site_app
from tests.pipeline.command import DAY, Command, ForkServer, ReleasedLake
from tests.project import ROOT
from tests.site.changed import ChangedSite, changed_services

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
    assert answer.json["pages_written"] == answer.json["pages"] > len(CODES) * (947 + 43 + 2_000)
    assert answer.json["release_id"] == first_release.release_id
    return folder


@pytest.fixture(scope="session")
def changed(
    first_release: ReleasedLake,
    target: Path,
    tmp_path_factory: pytest.TempPathFactory,
    fork_server: ForkServer,
) -> ChangedSite:
    """The site after a week in which ten services changed, one closed and two opened; what changed is hostile."""
    folder = tmp_path_factory.mktemp("changed")
    lake = folder / "lake"
    shutil.copytree(first_release.lake, lake)
    services, happened = changed_services(register.services_at(DAY))
    with pytest.MonkeyPatch.context() as patch, server.running(day=date(2026, 1, 12)) as portal:
        patch.setattr(register, "services_at", lambda _: services)
        command = Command(str(lake), portal.url, now="2026-01-12T06:00:00Z")
        released = command.run()
    assert released.code == 0, released.stderr
    # As hard links: a build that wrote through one would change the site of the other tests.
    shutil.copytree(target, folder / "site", symlinks=True, copy_function=os.link)
    built = command("site", "build", "--to", str(folder / "site"))
    assert built.code == 0, built.stderr
    database = Path(released.json["release"], "catalunya.duckdb")
    return ChangedSite(built.json, built.stderr, folder / "site" / "current", database, happened)


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


@contextmanager
def serving(target: Path) -> Iterator[str]:
    """Serve a site, and give its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running = uvicorn.Server(uvicorn.Config(site_app(target), log_level="error"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        running.should_exit = True
        thread.join(60)


@pytest.fixture(scope="session")
def url(target: Path) -> Iterator[str]:
    with serving(target) as address:
        yield address


@pytest.fixture(scope="session")
def changed_url(changed: ChangedSite) -> Iterator[str]:
    with serving(changed.site.parent) as address:
        yield address


def kinds(site: Path, code: str) -> list[str]:
    """The address of each kind of page in a language; of those that have many, the smallest and the largest."""
    found = [f"/{code}/"]
    for folder in sorted(path for path in (site / code).iterdir() if path.is_dir()):
        found += [f"/{code}/{folder.name}/"] if (folder / "index.html").is_file() else []
        # Pages of comarques, municipalities and services have codes of another shape.
        many: dict[str, list[tuple[int, str]]] = {}
        for path in folder.glob("*/index.html"):
            shape = re.sub(r"[0-9]", "0", path.parent.name.partition("-")[0])
            many.setdefault(shape, []).append((path.stat().st_size, path.parent.name))
        for pages in many.values():
            found += [f"/{code}/{folder.name}/{name}/" for name in sorted({min(pages)[1], max(pages)[1]})]
    return found
