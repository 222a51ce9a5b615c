"""The command run as a person runs it, against demo portals on loopback."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from catalunya.demo import server
from catalunya.demo.server import RunningPortal
from catalunya.settings import PORTAL_VARIABLES
from tests.conftest import ROOT
from tests.webhook_sink import WebhookSink, listening

DAY = date(2026, 1, 5)
LATER_DAY = date(2026, 3, 2)
LATER = "2026-03-02T06:00:00Z"
SMALL = 600
"""Rows of a small register."""
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("CATALUNYA_", "AWS_", "ENVIRONMENT", "SOCRATA_"))
}


@dataclass
class Answer:
    """What a command answered; `code` is None when it was killed."""

    code: int | None
    json: dict[str, Any]
    words: str
    seconds: float
    writes: int = 0
    """How many writes and deletions of objects of the lake were begun."""


@dataclass(frozen=True)
class ForkServer:
    """Runs of the command, forked off a process that has imported everything and parsed the dbt project."""

    address: Path

    def run(
        self,
        env: dict[str, str],
        words: Sequence[str],
        kill_after: float | None = None,
        kill_at: int | None = None,
    ) -> Answer:
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as asked:
            out, err = Path(folder, "out"), Path(folder, "err")
            for file in (out, err):
                # A command that is killed at once does not come to make them.
                file.touch()
            order = {
                "env": env, "argv": words, "kill_after": kill_after, "kill_at": kill_at, "out": str(out),
                "err": str(err),
            }  # fmt: skip
            asked.connect(str(self.address))
            asked.sendall(json.dumps(order).encode() + b"\n")
            with asked.makefile() as answers:
                done = json.loads(answers.readline())
            said, words_said = out.read_text("utf-8"), err.read_text("utf-8")
        if done["code"] is not None:
            assert said, words_said
        return Answer(done["code"], json.loads(said or "{}"), words_said, done["seconds"], done["writes"])


_FORK_SERVER: list[ForkServer] = []


@contextlib.contextmanager
def file_lock(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """The folder that all processes of pytest share; one at a time is in it for this `name`."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@pytest.fixture(scope="session", autouse=True)
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> ForkServer:
    """One process for all of pytest's, started by the first that needs it; it ends with pytest."""
    with file_lock(tmp_path_factory, "fork_server") as folder:
        address = folder / "fork_server.sock"
        if not address.exists():
            owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
            command = [sys.executable, "-m", "tests.pipeline.fork_server", str(address), str(owner)]
            process = subprocess.Popen(command, cwd=ROOT, env=CLEAN)
            while not address.exists():
                assert process.poll() is None, "the process that runs commands did not start"
                time.sleep(0.05)
    _FORK_SERVER[:] = [ForkServer(address)]
    return _FORK_SERVER[0]


def default_signals() -> None:
    """Undo what `nohup` and a shell's `&` do: they have SIGHUP and SIGINT ignored."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


@dataclass
class Command:
    """`catalunya` with a lake and portals."""

    lake: str
    url: str | None
    now: str = "2026-01-05T06:00:00Z"
    env: dict[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        urls = PORTAL_VARIABLES
        portals = dict.fromkeys(urls, self.url) if self.url else {}
        own = {
            "CATALUNYA_LAKE": self.lake, "CATALUNYA_NOW": self.now, "CATALUNYA_HTTP_ATTEMPTS": "2",
            # As many tests as there are processors run at once: a second thread of dbt only costs.
            "CATALUNYA_DBT_THREADS": "1",
        }  # fmt: skip
        return {**CLEAN, **own, **portals, **self.env}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """The command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "catalunya", *words],
            env=self.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=default_signals,  # noqa: PLW1509
        )

    def __call__(self, *words: str, kill_after: float | None = None, kill_at: int | None = None) -> Answer:
        """The answer; `kill_after` are seconds, `kill_at` is the number of a write right before which it is killed."""
        return _FORK_SERVER[0].run(self.variables(), [*words, "--json"], kill_after, kill_at)

    def run(self, *words: str, now: str | None = None, kill_after: float | None = None) -> Answer:
        if now is not None:
            self.now = now
        return self("run", *words, kill_after=kill_after)


def files_of(lake: str | Path) -> dict[str, int]:
    """Every file that readers of a local lake can see, and its size; a run may be going on."""
    found = {}
    for folder, inner, names in os.walk(lake):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for path in (Path(folder, name) for name in names if not name.startswith(".")):
            with contextlib.suppress(FileNotFoundError):
                found[path.relative_to(lake).as_posix()] = path.stat().st_size
    return found


def query(answer: Answer | str, sql: str) -> list[tuple[Any, ...]]:
    """Rows of the DuckDB file of a release."""
    folder = answer if isinstance(answer, str) else answer.json["release"]
    with duckdb.connect(f"{folder}/catalunya.duckdb", read_only=True) as con:
        return con.execute(sql).fetchall()


@pytest.fixture
def demo() -> Iterator[RunningPortal]:
    with server.running(day=DAY) as running:
        yield running


def shared_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Answer]
) -> tuple[Path, Answer]:
    """A lake, and the answer of the run that made it: made by whoever needs it first, for all processes of pytest."""
    with file_lock(factory, name) as folder:
        lake, said = folder / name / "lake", folder / f"{name}.json"
        if not said.exists():
            shutil.rmtree(lake, ignore_errors=True)
            answer = make(lake)
            assert answer.code == 0, answer.words
            said.write_text(json.dumps(asdict(answer)))
    return lake, Answer(**json.loads(said.read_text()))


@pytest.fixture(scope="session")
def first_release(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> tuple[Path, Answer]:
    """A lake with one release of the demo portal, and the answer of the run that made it. To be read only."""

    def make(lake: Path) -> Answer:
        with server.running(day=DAY) as running:
            return Command(str(lake), running.url).run()

    return shared_once(tmp_path_factory, "first", make)


@pytest.fixture(scope="session")
def small_release(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> tuple[Path, Answer]:
    """As `first_release`, of a small register. To be read only."""

    def make(lake: Path) -> Answer:
        with server.running(rows=SMALL, day=DAY) as running:
            return Command(str(lake), running.url).run()

    return shared_once(tmp_path_factory, "small", make)


@pytest.fixture(scope="session")
def second_release(
    first_release: tuple[Path, Answer], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Answer]:
    """A lake with a second release, eight weeks on: the register changed and has a column more, and the portal
    of the population was down. To be read only."""

    def make(lake: Path) -> Answer:
        shutil.copytree(first_release[0], lake)
        with server.running(day=LATER_DAY) as running:
            running.faults.add("population:down")
            running.faults.add("ivft-vegh:new_column")
            return Command(str(lake), running.url, now=LATER).run()

    return shared_once(tmp_path_factory, "second", make)


@pytest.fixture
def released(first_release: tuple[Path, Answer], demo: RunningPortal, tmp_path: Path) -> Command:
    """The command on a lake of its own that has one release, portals unchanged since."""
    lake = tmp_path / "lake"
    shutil.copytree(first_release[0], lake)
    return Command(str(lake), demo.url)


@pytest.fixture
def twice(second_release: tuple[Path, Answer], tmp_path: Path) -> Command:
    """The command on a lake of its own that has two releases; its portals are gone."""
    lake = tmp_path / "lake"
    shutil.copytree(second_release[0], lake)
    return Command(str(lake), None, now=LATER)


@pytest.fixture
def webhook_sink() -> Iterator[WebhookSink]:
    """An webhook_sink of the test's own."""
    with listening() as found:
        yield found
