"""The parsed project, kept in the user's cache: to read it takes a thirtieth of the time in which dbt finds it unchanged."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import secrets
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from catalunya.log import get_logger
from catalunya.warehouse.dbt_repeatable import is_same_state
from catalunya.warehouse.dbt_runner import DUCKDB, Target, call, environment, import_dbt

log = get_logger(__name__)

KEPT = 24
"""Files of the cache; the oldest are deleted."""


@dataclass(frozen=True)
class Project:
    """A parsed project: dbt's own object, and the content of its `manifest.json`."""

    manifest: Any
    described: dict[str, Any]

    def dumps(self) -> bytes:
        """Return it as bytes, field by field: dbt's own pickle of a manifest leaves one out and shifts those behind it."""
        state = {name: value for name, value in vars(self.manifest).items() if not name.startswith("_")}
        return pickle.dumps((state, self.described), pickle.HIGHEST_PROTOCOL)

    @classmethod
    def loads(cls, kept: bytes) -> Project:
        """Return what `dumps` was called on, without what dbt derives from it when it is asked for."""
        from dbt.contracts.graph.manifest import Manifest

        state, described = pickle.loads(kept)  # noqa: S301 (the user's own cache, as compiled modules are)
        manifest = Manifest()
        vars(manifest).update(state)
        return cls(manifest, described)


def parse(project: Path, digest: str, target: Target = DUCKDB) -> Project:
    """Return the parsed project. What was parsed is kept in the user's cache, which saves seconds."""
    return _parsed(project, digest, target.name, target.parsed_with)


@lru_cache(maxsize=3)
def _parsed(project: Path, digest: str, target: str, variables: tuple[tuple[str, str], ...]) -> Project:
    import_dbt()
    file = cache_file(project, digest, target, variables)
    return _kept(file) or _parse(project, digest, target, variables, file)


def _parse(
    project: Path, digest: str, target: str, variables: tuple[tuple[str, str], ...], file: Path
) -> Project:
    """Parse the project by dbt; its state of the last parse saves it the files that did not change."""
    with tempfile.TemporaryDirectory(prefix="catalunya-dbt-") as work:
        state = Path(work, "target", "partial_parse.msgpack")
        state.parent.mkdir()
        kept_state = file.with_name(f"{file.name.rpartition('-')[0]}.msgpack")
        with contextlib.suppress(OSError):
            shutil.copyfile(kept_state, state)
        with environment(**dict(variables)):
            manifest = call(["parse"], project, Path(work), target)
        found = Project(manifest, msgspec.json.decode(Path(work, "target", "manifest.json").read_bytes()))
        with contextlib.suppress(OSError):
            keep(kept_state, state.read_bytes())
            if is_same_state(project, digest, manifest):
                keep(file, found.dumps())
    return found


def cache_file(project: Path, digest: str, target: str, variables: tuple[tuple[str, str], ...]) -> Path:
    """Return the file that keeps a parse. A parse depends on the project's folder too, which dbt writes into it."""
    versions = [version(name) for name in ("dbt-core", "dbt-adapters", "dbt-common", f"dbt-{target}")]
    state = hashlib.sha256(repr((digest, variables, versions, sys.version)).encode()).hexdigest()[:16]
    folder = hashlib.sha256(str(project.absolute()).encode()).hexdigest()[:12]
    return _cache_folder() / f"parse-{target}-{folder}-{state}"


def _cache_folder() -> Path:
    """The user's cache; a user without a home has one among the temporary files."""
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache, "catalunya")
    try:
        return Path.home() / ".cache" / "catalunya"
    except RuntimeError:
        return Path(tempfile.gettempdir(), f"catalunya-cache-{os.getuid()}")


def _kept(file: Path) -> Project | None:
    """A parse that was kept; None without one, or when it cannot be read."""
    kept = read_kept(file)
    try:
        return Project.loads(kept) if kept is not None else None
    except Exception as error:  # noqa: BLE001 (damaged or of other versions: it is parsed again)
        log.warning("kept parse ignored", file=str(file), reason=f"{type(error).__name__}: {error}")
        return None


def read_kept(file: Path) -> bytes | None:
    """Return a file of the cache; None without one, and when it is another user's: to use it is to run it."""
    try:
        if {file.stat().st_uid, file.parent.stat().st_uid} == {os.getuid()}:
            content = file.read_bytes()
            # What is used stays.
            os.utime(file)
            return content
        log.warning("kept parse ignored", file=str(file), reason="it belongs to another user")
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("kept parse ignored", file=str(file), reason=str(error))
    return None


def keep(file: Path, content: bytes) -> None:
    """Write a file of the cache at once, and delete those that are too many."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Of two containers with one cache both can have this process id.
    new = file.with_name(f"{file.name}.{os.getpid()}-{secrets.token_hex(4)}")
    new.write_bytes(content)
    new.replace(file)
    kept = sorted(file.parent.glob("parse-*"), key=lambda path: path.stat().st_mtime)
    for old in kept[:-KEPT]:
        old.unlink(missing_ok=True)
