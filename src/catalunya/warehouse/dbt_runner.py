"""Calls of dbt in this process: how it is imported, connected and told what to do."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalunya import signals
from catalunya.errors import BuildFailed

LATE = (
    "_strptime", "babel.dates", "daff", "dbt.adapters.duckdb", "dbt.compilation", "dbt.runners", "dbt.task.build",
    "dbt.task.test", "dbt_common.clients.agate_helper", "multiprocessing.dummy", "numpy", "sqlparse.cli",
)  # fmt: skip
"""Modules that dbt and DuckDB import only when they use them."""
_IMPORTING = threading.Lock()
CANDIDATE = "candidate.duckdb"
"""The name of every candidate's file: dbt names the DuckDB catalogue after it."""


@dataclass(frozen=True)
class Target:
    """Where dbt builds: an output of the profile, and the variables that the profile reads."""

    name: str
    variables: tuple[tuple[str, str], ...]
    parsed_with: tuple[tuple[str, str], ...]
    """The variables that the parsed project depends on: targets with equal ones and an equal name share it."""


DUCKDB = Target("duckdb", (("CATALUNYA_CANDIDATE", CANDIDATE),), (("CATALUNYA_CANDIDATE", CANDIDATE),))


def profiles_folder(project: Path) -> Path:
    """Return the folder of `profiles.yml`: `orchestration/dbt/`, in the home that holds the project as `dbt/mart/`."""
    return project.parents[1] / "orchestration" / "dbt"


@contextlib.contextmanager
def connected(target: Target) -> Iterator[None]:
    """Set the target's variables in the environment; on leaving, close DuckDB's file."""
    try:
        with environment(**dict(target.variables)):
            yield
    finally:
        if target.name == DUCKDB.name:
            from dbt.adapters.duckdb.connections import DuckDBConnectionManager

            DuckDBConnectionManager.close_all_connections()


def import_dbt() -> None:
    """Import dbt and what its commands need."""
    names = ("dbt.cli.main", *LATE)
    with _IMPORTING:
        if all(name in sys.modules for name in names):
            return
        # The objects of an import stay: to look for garbage among hundreds of thousands takes a tenth of its time.
        collects = gc.isenabled()
        gc.disable()
        try:
            for name in names:
                importlib.import_module(name)
            gc.freeze()
        finally:
            if collects:
                gc.enable()


def call(
    command: list[str],
    project: Path,
    work: Path,
    target: str,
    *,
    manifest: Any = None,
    callback: Callable[[Any], None] | None = None,
) -> Any:
    """Run a command of dbt on a project; returns its result.

    Args:
        command: the command and its options.
        project: the folder of the dbt project.
        work: a folder for what dbt writes, its logs as well.
        target: the output of the profile.
        manifest: the parsed project; without it dbt parses.
        callback: is called with every event of dbt.

    Raises:
        BuildFailed: dbt itself could not run.
    """
    arguments = [
        *command,
        "--project-dir", str(project),
        "--profiles-dir", str(profiles_folder(project)),
        "--target", target,
        "--target-path", str(work / "target"),
        "--log-path", str(work / "logs"),
        "--log-level", "none",
        "--log-level-file", "none",
        "--quiet",
        "--no-use-colors",
        "--no-version-check",
        # Its threads do not survive a fork: a child process would wait for them for ever.
        "--no-static-parser",
    ]  # fmt: skip
    import_dbt()
    with contextlib.redirect_stdout(io.StringIO()), _own_options():
        from dbt.cli.main import dbtRunner

        answer = dbtRunner(manifest=manifest, callbacks=[callback] if callback else []).invoke(arguments)
    signals.check()
    if answer.result is None:
        is_disk = isinstance(answer.exception, OSError)
        hint = "; check the disk and its free space, then run again" if is_disk else ""
        raise BuildFailed(f"dbt {command[0]} could not run on {project}: {answer.exception}{hint}")
    return answer.result


@contextlib.contextmanager
def _own_options() -> Iterator[None]:
    """Hide the variables with which a user's shell sets options of dbt, such as DBT_EMPTY, which builds empty tables."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith("DBT_")}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set variables of the environment, and restore them on leaving."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
