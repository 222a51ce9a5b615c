"""Plugin of pytest: demo portals, lakes with releases, and a receiver of alerts, for tests that run the command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalunya.demo import server
from catalunya.demo.server import RunningPortal
from tests.pipeline.command import (
    CLEAN,
    DAY,
    FORK_SERVER,
    LATER,
    LATER_DAY,
    SMALL,
    Answer,
    Command,
    ForkServer,
    ReleasedLake,
    file_lock,
    shared_once,
)
from tests.project import ROOT, copy_small_home
from tests.webhook_sink import WebhookSink, listening


@pytest.fixture(scope="session")
def small_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with few marts. To be read only."""
    with file_lock(tmp_path_factory, "small_project") as folder:
        home = folder / "small_project"
        if not home.exists():
            copy_small_home(home)
    return home


@pytest.fixture
def small_home(tmp_path_factory: pytest.TempPathFactory, small_project: Path) -> Path:
    """A copy of `small_project` to make mistakes in, always in the same place, so that dbt can use its last parse."""
    folder = tmp_path_factory.getbasetemp() / "small_home"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(small_project, folder)
    return folder


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory, small_project: Path) -> ForkServer:
    """One process for all of pytest's, started by the first that needs it; it ends with pytest."""
    with file_lock(tmp_path_factory, "fork_server") as folder:
        address = folder / "fork_server.sock"
        if not address.exists():
            owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
            homes = (str(ROOT), str(small_project))
            command = [sys.executable, "-m", "tests.pipeline.fork_server", str(address), str(owner), *homes]
            process = subprocess.Popen(command, cwd=ROOT, env=CLEAN)
            while not address.exists():
                assert process.poll() is None, "the process that runs commands did not start"
                time.sleep(0.05)
    FORK_SERVER[:] = [ForkServer(address)]
    return FORK_SERVER[0]


@pytest.fixture
def demo() -> Iterator[RunningPortal]:
    with server.running(day=DAY) as running:
        yield running


@pytest.fixture
def small_demo() -> Iterator[RunningPortal]:
    """The portal that `small_release` was read from, unchanged since."""
    with server.running(rows=SMALL, day=DAY) as running:
        yield running


@pytest.fixture(scope="session")
def first_release(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> ReleasedLake:
    """A lake with one release of the demo portal. To be read only."""

    def make(lake: Path) -> Answer:
        with server.running(day=DAY) as running:
            return Command(str(lake), running.url).run()

    return shared_once(tmp_path_factory, "first", make)


@pytest.fixture(scope="session")
def small_release(
    tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer, small_project: Path
) -> ReleasedLake:
    """As `first_release`, of a small register and with few marts. To be read only."""

    def make(lake: Path) -> Answer:
        with server.running(rows=SMALL, day=DAY) as running:
            return Command(str(lake), running.url, home=small_project).run()

    return shared_once(tmp_path_factory, "small", make)


@pytest.fixture(scope="session")
def second_release(first_release: ReleasedLake, tmp_path_factory: pytest.TempPathFactory) -> ReleasedLake:
    """A lake with a second release, eight weeks on: the register changed and has a column more, and the portal
    of the population was down. To be read only."""

    def make(lake: Path) -> Answer:
        shutil.copytree(first_release.lake, lake)
        with server.running(day=LATER_DAY) as running:
            running.faults.add("population:down")
            running.faults.add("ivft-vegh:new_column")
            return Command(str(lake), running.url, now=LATER).run()

    return shared_once(tmp_path_factory, "second", make)


@pytest.fixture
def released(first_release: ReleasedLake, demo: RunningPortal, tmp_path: Path) -> Command:
    """The command on a lake of its own that has one release, portals unchanged since."""
    lake = tmp_path / "lake"
    shutil.copytree(first_release.lake, lake)
    return Command(str(lake), demo.url)


@pytest.fixture
def small(small_release: ReleasedLake, small_project: Path, tmp_path: Path) -> Command:
    """The command on a lake of its own that has `small_release`; its portals are gone."""
    lake = tmp_path / "lake"
    shutil.copytree(small_release.lake, lake)
    return Command(str(lake), None, now=LATER, home=small_project)


@pytest.fixture
def twice(second_release: ReleasedLake, tmp_path: Path) -> Command:
    """The command on a lake of its own that has two releases; its portals are gone."""
    lake = tmp_path / "lake"
    shutil.copytree(second_release.lake, lake)
    return Command(str(lake), None, now=LATER)


@pytest.fixture
def webhook_sink() -> Iterator[WebhookSink]:
    """A receiver of alerts for one test."""
    with listening() as found:
        yield found
