"""Triggers that wait, in the triggerer, for what other processes write into the lake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from catalunya.identity import assume_role
from catalunya_airflow import tasks

if TYPE_CHECKING:
    from catalunya.runs.steps import StepwiseRun


class LakeTrigger(BaseTrigger):
    """Looks into the lake every `poll_s` seconds and fires when all is there, or after `timeout_s`.

    The operator has just looked, so the first look is `poll_s` later. An event within a second or two could reach the
    scheduler before the executor's message that the task was deferred; the scheduler would then take the resumed task
    for a lost one.
    """

    def __init__(self, *, run_id: str, timeout_s: float, poll_s: float) -> None:
        super().__init__()
        self.run_id = run_id
        self.timeout_s = timeout_s
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class and the arguments to make it from."""
        arguments = {"run_id": self.run_id, "timeout_s": self.timeout_s, "poll_s": self.poll_s}
        return f"catalunya_airflow.triggers.{type(self).__name__}", arguments

    def missing(self, stepwise: StepwiseRun) -> list[str]:
        """Return the names of what is not there yet."""
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event that names what is missing: nothing, or after `timeout_s` the rest."""
        deadline = time.monotonic() + self.timeout_s
        while True:
            await asyncio.sleep(self.poll_s)
            missing = await asyncio.to_thread(self._look)
            if not missing or time.monotonic() > deadline:
                yield TriggerEvent({"missing": missing})
                return

    def _look(self) -> list[str]:
        from catalunya.runs.steps import StepwiseRun
        from catalunya.settings import Settings

        settings = Settings.load()
        with assume_role("orchestrator", settings):
            return self.missing(StepwiseRun(settings, self.run_id, tasks.LogReporter()))


class IngestFinishedTrigger(LakeTrigger):
    """Waits until the datasets of a run were read."""

    def __init__(self, *, datasets: list[str], **options: Any) -> None:
        super().__init__(**options)
        self.datasets = datasets

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class and the arguments to make it from."""
        path, arguments = super().serialize()
        return path, {**arguments, "datasets": self.datasets}

    def missing(self, stepwise: StepwiseRun) -> list[str]:
        """Return the datasets that have no result of their ingest."""
        return sorted(set(self.datasets) - stepwise.read_so_far())


class StepResultTrigger(LakeTrigger):
    """Waits for the result of one step of a run."""

    def __init__(self, *, step: str, **options: Any) -> None:
        super().__init__(**options)
        self.step = step

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class and the arguments to make it from."""
        path, arguments = super().serialize()
        return path, {**arguments, "step": self.step}

    def missing(self, stepwise: StepwiseRun) -> list[str]:
        """Return the step while it has no result."""
        return [] if stepwise.result(self.step) is not None else [self.step]
