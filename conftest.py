"""Fixtures that tests of several folders use; each plugin is a module of `tests/`."""

pytest_plugins = ("tests.browser", "tests.pipeline.fixtures")
