"""Fixtures that tests of several folders use, each plugin a module of `tests/`; and the tests that `make test-fast` runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.project import ROOT

pytest_plugins = ("tests.browser", "tests.s3", "tests.pipeline.fixtures")

SLOW = (
    "orchestration/tests/", "tests/engines/", "tests/fuzz/", "tests/oracle/", "tests/pipeline/", "tests/site/",
    "tests/warehouse/",
    "tests/aws/test_lambdas.py", "tests/lake/test_s3.py", "tests/test_audit.py", "tests/test_borders.py", "tests/test_dbt",
    "tests/test_docs_site.py", "tests/test_figures.py", "tests/test_monitoring", "tests/test_secrets_of_containers.py",
    "tests/test_walkthrough_",
)  # fmt: skip
"""Where the names of modules begin that have whole runs, Airflow, an engine or a service beside DuckDB, parses and builds of
dbt, or many snapshots of full size."""


@pytest.fixture(autouse=True)
def _logs_are_those_of_the_test() -> Iterator[None]:
    """Undo what a command or a function configured: its stream is closed when its test ends."""
    yield
    if "structlog" in sys.modules:
        sys.modules["structlog"].reset_defaults()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what is in one of these modules or opens a browser."""
    for item in items:
        module = item.path.relative_to(ROOT).as_posix()
        if module.startswith(SLOW) or "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")
