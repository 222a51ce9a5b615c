"""The repository as the tests use it: its root, copies of what CATALUNYA_HOME names, and skips that say what is missing."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[1]
SMALL_MART = ROOT / "tests" / "small_mart"
PARTS = ("datasets", "dbt/mart", "orchestration/dbt")


def missing(what: str) -> NoReturn:
    """Skip a test because something outside the repository is missing; fail where CATALUNYA_REQUIRE_ALL is set."""
    if os.environ.get("CATALUNYA_REQUIRE_ALL"):
        pytest.fail(what)
    pytest.skip(what)


def copy_home(folder: Path) -> Path:
    """A copy of what CATALUNYA_HOME names, to make mistakes in."""
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("target", "logs"))
    return folder


def copy_small_home(folder: Path) -> Path:
    """A home with the project's definitions and staging views, and the marts of `tests/small_mart/` alone.

    A whole run on it takes a quarter of the time. It is for tests of what a run does, whichever marts there are, on a
    register of `tests.pipeline.command.SMALL` rows.
    """
    left_out = shutil.ignore_patterns(
        "target",
        "logs",
        "intermediate",
        "marts",
        "exposures.yml",
        "_unit_tests.yml",
        "seeds.yml",
        "stg_*.yml",
    )
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=left_out)
    mart = folder / "dbt" / "mart"
    for rule in (mart / "tests").glob("*.sql"):
        rule.unlink()
    shutil.copytree(SMALL_MART, mart, dirs_exist_ok=True)
    return allow_small_register(folder)


def allow_small_register(home: Path) -> Path:
    """Let a register of `tests.pipeline.command.SMALL` rows pass the gates."""
    register = home / "datasets" / "social_services.yml"
    text, found = re.subn(r"minimum: 8000\b", "minimum: 500", register.read_text("utf-8"))
    assert found == 1
    register.write_text(text, "utf-8")
    return home
