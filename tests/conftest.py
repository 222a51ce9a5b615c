"""What every test may use: the real files, where they are, and the repository's root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real files; tests that need it skip where it is missing, unless it is insisted on."""
    folder = Path(os.environ.get("CATALUNYA_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        message = f"the real files are missing: no folder {folder}; set CATALUNYA_SHARED"
        if os.environ.get("CATALUNYA_REQUIRE_SHARED"):
            pytest.fail(message)
        pytest.skip(message)
    return folder
