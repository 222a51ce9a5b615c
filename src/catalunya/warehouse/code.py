"""The state of the code that makes the content of a release."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from catalunya.warehouse.dbt_runner import profiles_folder

_NO_CONTENT = (
    "cli/",
    "demo/",
    "operations/",
    "runs/aws_lambda.py",
    "runs/heartbeat.py",
    "runs/record.py",
    "runs/reporter.py",
    "runs/steps.py",
    "settings.py",
    "site/",
)
"""Modules of the package that decide nothing about the content of a release."""
_READ = {".csv", ".md", ".py", ".sql", ".yaml", ".yml"}
"""Suffixes of the files that dbt reads."""
_GENERATED = {"logs", "target"}
"""Folders of the project that dbt writes."""


def code_digest(home: Path) -> str:
    """Return SHA-256 over all that makes the content of a release, 64 hex digits.

    These are the dbt project and its profile, the definitions of the datasets, the modules of this package that type,
    transform, judge and write, and the versions of DuckDB and dbt.
    """
    digest = hashlib.sha256(_library_digest().encode())
    project = home / "dbt" / "mart"
    of_project = (
        path
        for path in project.rglob("*")
        if path.suffix.lower() in _READ and path.relative_to(project).parts[0] not in _GENERATED
    )
    files = [*of_project, *(home / "datasets").glob("*.yml"), *profiles_folder(project).glob("*.yml")]
    _add_files(digest, home, (path for path in files if path.is_file()))
    return digest.hexdigest()


@cache
def _library_digest() -> str:
    digest = hashlib.sha256()
    for name in ("duckdb", "dbt-core"):
        # The functions on AWS come without dbt.
        with contextlib.suppress(PackageNotFoundError):
            digest.update(f"{name} {version(name)}\n".encode())
    package = Path(__file__).resolve().parents[1]
    modules = package.rglob("*.py")
    _add_files(
        digest,
        package,
        (path for path in modules if not path.relative_to(package).as_posix().startswith(_NO_CONTENT)),
    )
    return digest.hexdigest()


def _add_files(digest: hashlib._Hash, base: Path, paths: Iterable[Path]) -> None:
    for path in sorted(paths):
        digest.update(f"{path.relative_to(base).as_posix()}\n".encode())
        digest.update(path.read_bytes())
