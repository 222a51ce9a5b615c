"""The repository as the tests use it: its root, copies of what CATALUNYA_HOME names, and skips that say what is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[1]


def missing(what: str) -> NoReturn:
    """Skip a test because something outside the repository is missing; fail where CATALUNYA_REQUIRE_ALL is set."""
    if os.environ.get("CATALUNYA_REQUIRE_ALL"):
        pytest.fail(what)
    pytest.skip(what)


def copy_home(folder: Path) -> Path:
    """A copy of what CATALUNYA_HOME names, to make mistakes in."""
    for part in ("datasets", "dbt/mart", "orchestration/dbt"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("target", "logs"))
    return folder


def copy_untested(folder: Path) -> Path:
    """As `copy_home`, with models and seeds that nothing describes or tests: dbt parses it in half the time."""
    mart = copy_home(folder) / "dbt" / "mart"
    for file in [
        *(mart / "models" / "intermediate").glob("*.yml"),
        *(mart / "models" / "marts").glob("*.yml"),
        *(mart / "models" / "staging").glob("stg_*.yml"),
        mart / "models" / "staging" / "_unit_tests.yml",
        mart / "models" / "exposures.yml",
        *(mart / "tests").glob("*.sql"),
    ]:
        file.unlink()
    return folder
