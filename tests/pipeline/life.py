"""A month in the life of a lake, in steps: changes, refusals, accepts, a rollback, a definition change, retention.

`Scene` runs the steps against demo portals; `saved` makes the undisturbed life once for all processes of pytest and
keeps the lake as it was before each step, so that a test can begin anywhere in it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from catalunya.demo import server
from catalunya.demo.server import RunningPortal
from catalunya.lake import layout
from tests.pipeline.command import SMALL, Command, file_lock

REGISTER = "social_services"
WITH_NOTE = "municipalities:new_column"
"""The list of municipalities in another edition."""


@dataclass(frozen=True)
class Step:
    """One command on one day, and what the portal serves on it.

    `about` names the step whose snapshot of the register, or whose release, the command is about.
    """

    name: str
    day: date
    arguments: tuple[str, ...] = ("run",)
    rows: int = SMALL
    faults: tuple[str, ...] = ()
    about: str = ""
    corrected: bool = False
    """With the corrected definition."""
    keep: int = 30

    @property
    def now(self) -> str:
        return f"{self.day}T06:00:00Z"


LIFE = (
    Step("first", date(2026, 1, 5)),
    Step("change", date(2026, 1, 12), rows=SMALL + 3),
    Step("torn", date(2026, 1, 19), rows=200, faults=(WITH_NOTE,)),
    Step("ingest", date(2026, 1, 20), arguments=("ingest",), rows=210, faults=(WITH_NOTE,)),
    Step("whole", date(2026, 1, 21), rows=SMALL + 6, faults=(WITH_NOTE,)),
    Step("accept", date(2026, 1, 22), arguments=("accept",), about="ingest"),
    Step("accepted", date(2026, 1, 26), rows=SMALL + 9, faults=(WITH_NOTE,)),
    Step("rollback", date(2026, 1, 27), arguments=("rollback",), about="whole"),
    Step("after", date(2026, 1, 28), rows=SMALL + 9),
    Step("restore", date(2026, 1, 29), arguments=("accept",), about="accepted"),
    Step("refuse", date(2026, 1, 30), arguments=("refuse",), about="ingest"),
    Step("corrected", date(2026, 2, 1), rows=SMALL + 9, corrected=True),
    Step("retention", date(2026, 2, 4), rows=SMALL + 12, corrected=True, keep=3),
)
"""Thirty days. What is accepted was torn or rolled back, and what is refused by hand was published."""


def published(lake: Path) -> dict[str, bytes]:
    """Every byte of the marts that the pointer shows, none without a pointer; fails when that release is not whole."""
    if not (lake / "current.json").exists():
        return {}
    pointer = json.loads((lake / "current.json").read_text("utf-8"))
    folder = lake / "releases" / pointer["release_id"]
    assert (folder / "release.json").exists(), "the pointer shows an incomplete release"
    for line in (folder / "SHA256SUMS").read_text("utf-8").splitlines():
        digest, name = line.split("  ", 1)
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, (
            f"{name} is not what was released"
        )
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for kind in ("csv", "parquet")
        for path in sorted((folder / kind).iterdir())
    }


def whole(lake: Path) -> set[str]:
    """The releases that are whole."""
    return {path.parent.name for path in (lake / "releases").glob("*/release.json")}


def digest_of(release_id: str) -> str:
    """The part of a release's id that its marts make."""
    return release_id.rsplit("-", 1)[1]


@dataclass(frozen=True)
class VisibleState:
    """What a person can see of a lake, without what differs from one run to the next."""

    release: dict[str, bytes]
    """Every byte of the marts that readers see."""
    datasets: dict[str, dict[str, object]]
    whole: frozenset[str]
    """The digests of the marts of all whole releases."""

    @classmethod
    def of(cls, lake: Path, now: str) -> VisibleState:
        """What a person sees of a local lake, by its files and by `catalunya status`."""
        answer = Command(str(lake), None, now=now)("status")
        assert answer.code == 0, answer.stderr
        assert answer.json["faults"] == []
        states = {
            name: {
                **{
                    key: of[key]
                    for key in ("snapshots", "snapshot_id", "accepted", "pending", "later_than_now")
                },
                "refused": {key: refusal["gate"] for key, refusal in of["refused"].items()},
            }
            for name, of in answer.json["datasets"].items()
        }
        return cls(published(lake), states, frozenset(digest_of(name) for name in whole(lake)))


@dataclass
class Scene:
    """The steps of the life on one lake, with portals of its own."""

    home: Path
    corrected_home: Path
    """As `home`, with the corrected definition."""
    open: contextlib.ExitStack
    known: dict[str, str] = field(default_factory=dict)
    """Step to the register's snapshot that landed in it, and `release STEP` to the release that it made."""

    def command(self, lake: str, step: Step, env: dict[str, str] | None = None) -> Command:
        """The command of a step."""
        more = {"CATALUNYA_KEEP_RELEASES": str(step.keep), **(env or {})}
        url = self._portal(step.rows, step.day, step.faults).url
        return Command(
            lake, url, now=step.now, env=more, home=self.corrected_home if step.corrected else self.home
        )

    def arguments(self, step: Step, kept: Iterable[str] = ()) -> tuple[str, ...]:
        """The arguments of a step on a lake that has the whole releases `kept`."""
        if step.arguments[0] in {"accept", "refuse"}:
            return (*step.arguments, self.known[step.about], "--why", f"for the step {step.name}")
        if step.arguments[0] == "rollback":
            known = self.known[f"release {step.about}"]
            # After a kill the same marts may lie in a release of another second.
            same = [name for name in kept if digest_of(name) == digest_of(known)]
            return (*step.arguments, "--to", max(same, default=known))
        return step.arguments

    def remember(self, step: Step, lake: Path) -> None:
        """Learn which snapshot of the register landed in a step, and which release it made."""
        landed = sorted(path.name for path in (lake / "landing" / REGISTER).iterdir())
        shown = json.loads((lake / "current.json").read_text("utf-8"))["release_id"]
        if layout.moment_of(landed[-1]).date() == step.day:
            self.known[step.name] = landed[-1]
        self.known[f"release {step.name}"] = shown

    @functools.cache  # noqa: B019
    def _portal(self, rows: int, day: date, faults: tuple[str, ...]) -> RunningPortal:
        running = self.open.enter_context(server.running(rows=rows, day=day))
        for fault in faults:
            running.faults.add(fault)
        return running

    def __hash__(self) -> int:
        return id(self)


@contextlib.contextmanager
def scene(home: Path, corrected_home: Path, known: dict[str, str]) -> Iterator[Scene]:
    """A scene whose portals end with it."""
    with contextlib.ExitStack() as stack:
        yield Scene(home, corrected_home, stack, known)


@dataclass(frozen=True)
class Undisturbed:
    """The life that nothing disturbed: its lake before each step and at the end, and what each step took."""

    folder: Path
    known: dict[str, str]
    seconds: dict[str, float]
    writes: dict[str, int]
    """How many writes to the lake a step began."""

    @property
    def corrected_home(self) -> Path:
        return self.folder / "home"

    def before(self, number: int) -> Path:
        """The lake as it was before the step of this number; with `len(LIFE)` as it was at the end."""
        return self.folder / f"before-{number}"

    def seen(self, number: int) -> VisibleState:
        """What a person could see before the step of this number."""
        return VisibleState.of(self.before(number), LIFE[number - 1].now)


def saved(factory: pytest.TempPathFactory, home: Path) -> Undisturbed:
    """The undisturbed life, made by whoever needs it first. To be read only."""
    with file_lock(factory, "life") as base:
        folder, said = base / "life", base / "life.json"
        if not said.exists():
            shutil.rmtree(folder, ignore_errors=True)
            said.write_text(json.dumps(_live(folder, home)))
        return Undisturbed(folder, **json.loads(said.read_text()))


def _live(folder: Path, home: Path) -> dict[str, dict[str, Any]]:
    corrected = folder / "home"
    shutil.copytree(home, corrected)
    definition = corrected / "datasets" / f"{REGISTER}.yml"
    text = definition.read_text("utf-8")
    assert "source: telefon\n" in text
    definition.write_text(text.replace("source: telefon\n", "source: [telefon, nom]\n"), "utf-8")
    lake = folder / "before-0"
    lake.mkdir()
    seconds, writes = {}, {}
    with scene(home, corrected, {}) as life:
        for number, step in enumerate(LIFE):
            after = folder / f"before-{number + 1}"
            copy_lake(lake, after)
            lake = after
            answer = life.command(str(lake), step)(*life.arguments(step))
            assert answer.code == 0, f"{step.name}: {answer.stderr}"
            seconds[step.name], writes[step.name] = answer.seconds, answer.writes
            life.remember(step, lake)
        return {"known": life.known, "seconds": seconds, "writes": writes}


def copy_lake(lake: Path, target: Path) -> None:
    """A copy of a lake as a backup has it, without its locks and scratch."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(lake, target, ignore=shutil.ignore_patterns(".lake"))
