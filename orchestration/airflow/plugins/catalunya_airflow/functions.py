"""Parts of a run that functions on AWS do: asked for once, waited for in the triggerer, judged by their result."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from catalunya_airflow import roles, steps

if TYPE_CHECKING:
    from airflow.sdk import Context

    from catalunya.runs.aws_lambda import Stage
    from catalunya.runs.steps import StepwiseRun
    from catalunya.settings import Settings

LOCK_TIMEOUT_S = float(os.environ.get("CATALUNYA_LAMBDA_PATIENCE_SECONDS", "1200"))
"""How long a result is waited for: the function's fifteen minutes, and five for its start."""


class InvokeLambdaOperator(BaseOperator):
    """Has `<CATALUNYA_LAMBDA_PREFIX>-<stage>` do one dataset's part of this run.

    The invocation is asynchronous and its key is the run and the dataset, so that no call stays open and asking
    twice does nothing twice. The result that the function leaves in the lake ends the wait.
    """

    def __init__(
        self,
        *,
        stage: Stage,
        dataset_id: str,
        patience_s: float = LOCK_TIMEOUT_S,
        poll_s: float = 5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.dataset_id = dataset_id
        self.patience_s = patience_s
        self.poll_s = poll_s

    @property
    def op_kwargs(self) -> dict[str, str]:
        """The same as of the task that does the work itself; alerts and the web interface read it."""
        return {"dataset_id": self.dataset_id}

    def execute(self, context: Context) -> dict[str, Any]:
        """Ask the function, unless its part of this run was done well, and wait for its result.

        What it failed with, or refused, at an earlier try is taken back first: whoever repeats a task wants it
        done again, and an old result must not be taken for the answer.
        """
        from catalunya.runs import aws_lambda

        if self.stage == "ingest" and self.dataset_id not in steps.wanted(context):
            raise AirflowSkipException(f"{self.dataset_id} was not asked for")
        part = aws_lambda.step_name(self.stage, self.dataset_id)
        stepwise = steps.run_of(context)
        result = stepwise.result(part)
        if not aws_lambda.succeeded(self.stage, self.dataset_id, result):
            if result is not None:
                stepwise.delete_result(part)
            self._invoke(stepwise, context)
            trigger = StepResultTrigger(stepwise.run_id, part, self.patience_s, self.poll_s)
            self.defer(trigger=trigger, method_name="judge")
        return self.judge(context)

    def judge(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer with what the function left on record; raises what it failed with, or that it said nothing."""
        from catalunya.errors import Refused
        from catalunya.runs import aws_lambda

        with steps.explained():
            stepwise = steps.run_of(context)
            result = stepwise.result(aws_lambda.step_name(self.stage, self.dataset_id))
            if result is None:
                raise FunctionSilent(
                    f"{self.stage} of {self.dataset_id}: the function left no result within {self.patience_s:.0f} s; "
                    + _where_to_look(stepwise.settings, self.stage)
                )
            try:
                answer = aws_lambda.parse_result(self.stage, self.dataset_id, result)
            except Refused as refusal:
                if self.stage == "stage":
                    return steps.refused(context, refusal)
                raise
            except aws_lambda.FunctionFailed as error:
                raise aws_lambda.FunctionFailed(
                    f"{error}; {_where_to_look(stepwise.settings, self.stage)}"
                ) from error
        if self.stage == "stage":
            return steps.staged(answer)
        return steps.ingested(context, self.dataset_id, answer)

    def _invoke(self, stepwise: StepwiseRun, context: Context) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        from catalunya.runs import aws_lambda

        name = function_name(stepwise.settings, self.stage)
        force = bool(context["params"].get("force" if self.stage == "ingest" else "full_rebuild"))
        order = {"run_id": stepwise.run_id, "dataset": self.dataset_id, "force": force}
        try:
            response = _client().invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps(order))
        except (BotoCoreError, ClientError) as error:
            raise aws_lambda.FunctionFailed(
                f"{name} could not be asked: {error}; is the stack deployed, and may this role invoke it?"
            ) from error
        self.log.info("asked %s for %s: status %s", name, order, response["StatusCode"])


class FunctionSilent(Exception):
    """A function said nothing in its time: it was killed, or never begun."""


class StepResultTrigger(BaseTrigger):
    """Fires when a part of a run is on record, or after `patience_s`."""

    def __init__(self, run_id: str, part: str, patience_s: float, poll_s: float) -> None:
        super().__init__()
        self.run_id = run_id
        self.part = part
        self.patience_s = patience_s
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and what to make it from."""
        names = ("run_id", "part", "patience_s", "poll_s")
        return "catalunya_airflow.functions.StepResultTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the result is there; the first look is a while later, as in `sensor.IngestFinishedTrigger`."""
        give_up = time.monotonic() + self.patience_s
        while True:
            await asyncio.sleep(self.poll_s)
            left = await asyncio.to_thread(self._is_left)
            if left or time.monotonic() > give_up:
                yield TriggerEvent({"left": left})
                return

    def _is_left(self) -> bool:
        from catalunya.runs.steps import StepwiseRun
        from catalunya.settings import Settings

        return StepwiseRun(Settings.load(), self.run_id, steps.LogReporter()).result(self.part) is not None


def function_name(settings: Settings, stage: str) -> str:
    """The function that does a stage, as `infrastructure/functions.py` names it."""
    return f"{settings.lambda_prefix}-{stage}"


def _where_to_look(settings: Settings, stage: str) -> str:
    name = function_name(settings, stage)
    return f"look at the log group /catalunya/{name} and the queue {name}-failed"


def _client() -> Any:
    """A client whose retries are off: a retry of boto3 would invoke the function twice."""
    import boto3
    from botocore.config import Config

    once = Config(connect_timeout=10, read_timeout=30, retries={"total_max_attempts": 1, "mode": "standard"})
    return boto3.Session(region_name=roles.region()).client("lambda", config=once)
