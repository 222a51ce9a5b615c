"""Fixtures that every test may use: the folder of real files, and a copy of the project's definitions."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import hypothesis
import pytest

from tests.project import ROOT, copy_home, missing

# As many tests as there are processors run at once: a second thread of dbt only costs.
os.environ.setdefault("CATALUNYA_DBT_THREADS", "1")
# How long an example takes depends on the machine and what else it does.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real files."""
    folder = Path(os.environ.get("CATALUNYA_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        missing(f"the real files are missing: no folder {folder}; set CATALUNYA_SHARED")
    return folder


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy of what CATALUNYA_HOME names, always in the same place, so that dbt can use its last parse."""
    folder = tmp_path_factory.getbasetemp() / "home"
    shutil.rmtree(folder, ignore_errors=True)
    return copy_home(folder)
