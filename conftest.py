"""Fixtures that tests of several folders use; each plugin is a module of `tests/`."""

pytest_plugins = ("tests.browser", "tests.s3", "tests.pipeline.fixtures")
