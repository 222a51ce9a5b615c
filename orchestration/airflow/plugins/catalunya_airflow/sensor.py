"""The sensor between reading and transforming: waits for the word of every dataset, then asks what is new."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from catalunya_airflow import steps
from catalunya_airflow.roles import assume_role

if TYPE_CHECKING:
    from airflow.sdk import Context


class WaitForNewData(BaseSensorOperator):
    """Succeeds when there is something to release, skips when there is not.

    It looks into the lake for what `ingest` recorded of each dataset, whoever ran it. While a dataset is
    still being read it waits in the triggerer, `patience_s` at most; then the dataset's last snapshot is used.
    """

    def __init__(self, *, patience_s: float = 900.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.patience_s = patience_s

    def execute(self, context: Context) -> str:
        """Decide at once when every dataset was read, else wait in the triggerer."""
        stepwise = steps.run_of(context)
        missing = sorted(set(steps.wanted(context)) - stepwise.read_so_far())
        if missing:
            self.log.info("waiting for %s", ", ".join(missing))
            trigger = IngestFinishedTrigger(stepwise.run_id, missing, self.patience_s, self.poke_interval)
            self.defer(trigger=trigger, method_name="decide")
        return self.decide(context)

    def decide(self, context: Context, event: dict[str, Any] | None = None) -> str:
        """Ask the library whether anything is new; `event` names the datasets whose ingest reported no result."""
        asked = any(context["params"].get(name) for name in ("force", "full_rebuild"))
        missing = tuple((event or {}).get("missing", ()))
        with assume_role("build"), steps.explained():
            new, why = steps.run_of(context).anything_new(missing=missing, asked=asked)
        if not new:
            raise AirflowSkipException(why)
        return "asked for" if asked else "new data"


class IngestFinishedTrigger(BaseTrigger):
    """Fires when the datasets of a run were read, or after `patience_s`; names those that were not."""

    def __init__(self, run_id: str, datasets: list[str], patience_s: float, poll_s: float) -> None:
        super().__init__()
        self.run_id = run_id
        self.datasets = datasets
        self.patience_s = patience_s
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and what to make it from."""
        return (
            "catalunya_airflow.sensor.IngestFinishedTrigger",
            {
                "run_id": self.run_id,
                "datasets": self.datasets,
                "patience_s": self.patience_s,
                "poll_s": self.poll_s,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until all is there; the sensor has just looked, so the first look is a while later.

        An event within a second or two could overtake the executor's word that the task was deferred; the
        scheduler would then take the resumed task for a lost one.
        """
        give_up = time.monotonic() + self.patience_s
        while True:
            await asyncio.sleep(self.poll_s)
            missing = sorted(set(self.datasets) - await asyncio.to_thread(self._read_so_far))
            if not missing or time.monotonic() > give_up:
                yield TriggerEvent({"missing": missing})
                return

    def _read_so_far(self) -> set[str]:
        from catalunya.runs.steps import StepwiseRun
        from catalunya.settings import Settings

        return StepwiseRun(Settings.load(), self.run_id, steps.LogReporter()).read_so_far()
