"""A stack in containers, started once for all tests of it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.tests.stack.stack import CLEAN, Stack, make_stack, removed_at_the_end
from tests.project import missing

IMAGE = "catalunya/airflow:test"


@pytest.fixture(scope="session")
def engine() -> None:
    """A container engine with Compose 2 that answers."""

    def answers(*words: str) -> bool:
        return subprocess.run(["docker", *words], capture_output=True, check=False).returncode == 0

    if shutil.which("docker") is None or not answers("info"):
        missing("no container engine answers; `orchestration/scripts/engine.sh make test-stack` starts one")
    if not answers("compose", "version"):
        missing("docker compose is missing; install Compose 2.20 or newer")


@pytest.fixture(scope="session")
def image(engine: None) -> str:
    """The project's image, built from this checkout under a tag of the tests' own."""
    stack = Stack("", Path(), project="catalunya-test-build", env={**CLEAN, "CATALUNYA_IMAGE": IMAGE})
    stack.compose("build", "--quiet")
    return IMAGE


@pytest.fixture(scope="session")
def stack(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack as `docker compose up --build --wait` starts it on a laptop, with its first run going on."""
    folder = tmp_path_factory.mktemp("stack")
    with removed_at_the_end(make_stack("test", image, folder)) as found:
        found.up("--build")
        yield found
