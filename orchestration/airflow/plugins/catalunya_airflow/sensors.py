"""The sensor between reading and transforming: waits until every dataset was read, then decides whether to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowSkipException

from catalunya.identity import assume_role
from catalunya_airflow import tasks
from catalunya_airflow.triggers import IngestFinishedTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class WaitForNewData(BaseSensorOperator):
    """Succeeds when there is something to release, skips when there is not.

    It reads from the lake what `ingest` recorded of each dataset, in whichever process that ran. While a dataset is
    still being read, it waits in the triggerer for at most `timeout_s`; then the dataset's last snapshot is used.
    """

    def __init__(self, *, timeout_s: float = 900.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.timeout_s = timeout_s

    def execute(self, context: Context) -> str:
        """Decide at once when every dataset was read, else wait in the triggerer."""
        with assume_role("orchestrator"):
            stepwise = tasks.run_of(context)
            missing = sorted(set(tasks.wanted(context)) - stepwise.read_so_far())
        if missing:
            self.log.info("waiting for %s", ", ".join(missing))
            trigger = IngestFinishedTrigger(
                run_id=stepwise.run_id, datasets=missing, timeout_s=self.timeout_s, poll_s=self.poke_interval
            )
            self.defer(trigger=trigger, method_name="decide")
        return self.decide(context)

    def decide(self, context: Context, event: dict[str, Any] | None = None) -> str:
        """Ask the library whether anything is new; `event` names the datasets whose ingest reported no result."""
        asked = any(context["params"].get(name) for name in ("force", "full_rebuild"))
        missing = tuple((event or {}).get("missing", ()))
        with assume_role("build"), tasks.final_errors():
            new, why = tasks.run_of(context).anything_new(missing=missing, asked=asked)
        if not new:
            raise AirflowSkipException(why)
        return "asked for" if asked else "new data"
