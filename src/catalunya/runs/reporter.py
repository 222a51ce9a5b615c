"""Where the progress of a run goes: bars on a terminal, lines in a log, or nowhere."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Receives the progress of a run; does nothing with it unless a method is overridden."""

    def begin(self, stage: str) -> None:
        """Report that a stage begins."""
        return

    def step(self, stage: str, what: str, done: int | None = None, total: int | None = None) -> None:
        """Report progress within a stage: the rows of a dataset so far (`done` of `total`), or one event."""
        return

    def end(self, stage: str, status: str, seconds: float) -> None:
        """Report how a stage ended."""
        return


class NullReporter(Reporter):
    """Reports nothing: a function on AWS logs one line for each invocation."""
