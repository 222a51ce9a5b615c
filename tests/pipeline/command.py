"""The command `catalunya` run as a person runs it, and what it leaves in a lake."""

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest

from catalunya.settings import PORTAL_VARIABLES

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
    stderr: str
    seconds: float
    writes: int = 0
    """How many writes and deletions of objects of the lake were begun."""


class ReleasedLake(NamedTuple):
    """A lake with a release, and the answer of the run that made it. To be read only."""

    lake: Path
    answer: Answer

    @property
    def folder(self) -> Path:
        """The folder of the release."""
        return Path(self.answer.json["release"])

    @property
    def release_id(self) -> str:
        return str(self.answer.json["release_id"])


@dataclass(frozen=True)
class ForkServer:
    """Runs of the command, forked off a process that has imported everything and parsed the dbt project."""

    address: Path

    def run(
        self,
        env: dict[str, str],
        arguments: Sequence[str],
        kill_after: float | None = None,
        kill_at: int | None = None,
    ) -> Answer:
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as connection:
            out, err = Path(folder, "out"), Path(folder, "err")
            for file in (out, err):
                # A command that is killed at once does not come to make them.
                file.touch()
            request = {
                "env": env, "argv": arguments, "kill_after": kill_after, "kill_at": kill_at, "out": str(out),
                "err": str(err),
            }  # fmt: skip
            connection.connect(str(self.address))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile() as answers:
                done = json.loads(answers.readline())
            stdout, stderr = out.read_text("utf-8"), err.read_text("utf-8")
        if done["code"] is not None:
            assert stdout, f"ended with {done['code']} and said nothing: {stderr}"
        return Answer(done["code"], json.loads(stdout or "{}"), stderr, done["seconds"], done["writes"])


FORK_SERVER: list[ForkServer] = []
"""The server of this process of pytest, once the fixture `fork_server` has found it."""


@contextlib.contextmanager
def file_lock(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """The folder that all processes of pytest share; one at a time is in it for this `name`."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


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
    home: Path | None = None
    """CATALUNYA_HOME; the project's own when it is None."""

    def variables(self) -> dict[str, str]:
        urls = PORTAL_VARIABLES
        portals = dict.fromkeys(urls, self.url) if self.url else {}
        own = {
            "CATALUNYA_LAKE": self.lake, "CATALUNYA_NOW": self.now, "CATALUNYA_HTTP_ATTEMPTS": "2",
            # As many tests as there are processors run at once: a second thread of dbt only costs.
            "CATALUNYA_DBT_THREADS": "1",
        }  # fmt: skip
        home = {"CATALUNYA_HOME": str(self.home)} if self.home else {}
        return {**CLEAN, **own, **portals, **home, **self.env}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "catalunya", *arguments],
            env=self.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=default_signals,  # noqa: PLW1509
        )

    def __call__(
        self, *arguments: str, kill_after: float | None = None, kill_at: int | None = None
    ) -> Answer:
        """The answer; `kill_after` are seconds, `kill_at` is the number of a write right before which it is killed."""
        return FORK_SERVER[0].run(self.variables(), [*arguments, "--json"], kill_after, kill_at)

    def run(self, *arguments: str, now: str | None = None, kill_after: float | None = None) -> Answer:
        if now is not None:
            self.now = now
        return self("run", *arguments, kill_after=kill_after)


def files_of(lake: str | Path) -> dict[str, int]:
    """Every file that readers of a local lake can see, and its size; a run may be going on."""
    found = {}
    for folder, inner, names in os.walk(lake):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for path in (Path(folder, name) for name in names if not name.startswith(".")):
            with contextlib.suppress(FileNotFoundError):
                found[path.relative_to(lake).as_posix()] = path.stat().st_size
    return found


def query(release: Answer | Path | str, sql: str) -> list[tuple[Any, ...]]:
    """Rows of the DuckDB file of a release."""
    folder = release.json["release"] if isinstance(release, Answer) else release
    with duckdb.connect(f"{folder}/catalunya.duckdb", read_only=True) as con:
        return con.execute(sql).fetchall()


def shared_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Answer]) -> ReleasedLake:
    """A lake with a release, made by the first process of pytest that needs it, for all of them."""
    with file_lock(factory, name) as folder:
        lake, stored = folder / name / "lake", folder / f"{name}.json"
        if not stored.exists():
            shutil.rmtree(lake, ignore_errors=True)
            answer = make(lake)
            assert answer.code == 0, answer.stderr
            stored.write_text(json.dumps(asdict(answer)))
    return ReleasedLake(lake, Answer(**json.loads(stored.read_text())))
