"""Fixtures of the tests in this folder: they run the command in forks of one process, some on a lake in S3."""

from __future__ import annotations

import pytest

from tests.pipeline.command import ForkServer


@pytest.fixture(scope="session", autouse=True)
def commands_run_in_forks(fork_server: ForkServer) -> None:
    """`Command` needs the server of forks, in tests without a fixture as well."""
