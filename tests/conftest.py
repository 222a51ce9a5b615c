"""What every test may use: the real files, where they are, and the repository's root."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
# As many tests as there are processors run at once: a second thread of dbt only costs.
os.environ.setdefault("CATALUNYA_DBT_THREADS", "1")
# How long an example takes is a matter of the machine and its hour.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def missing(what: str) -> NoReturn:
    """Skip a test for want of something outside the repository; fail where CATALUNYA_REQUIRE_ALL insists on all."""
    if os.environ.get("CATALUNYA_REQUIRE_ALL"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real files."""
    folder = Path(os.environ.get("CATALUNYA_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        missing(f"the real files are missing: no folder {folder}; set CATALUNYA_SHARED")
    return folder


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


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy of what CATALUNYA_HOME names, always in the same place: what dbt remembers of it stays of use."""
    folder = tmp_path_factory.getbasetemp() / "home"
    shutil.rmtree(folder, ignore_errors=True)
    return copy_home(folder)
