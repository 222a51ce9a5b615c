"""The operator that invokes a function on AWS for one step of a run, and waits for its result in the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from catalunya.identity import assume_role
from catalunya_airflow import tasks
from catalunya_airflow.environment import number
from catalunya_airflow.triggers import StepResultTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from catalunya.runs.aws_lambda import Stage
    from catalunya.runs.steps import StepwiseRun
    from catalunya.settings import Settings

RESULT_TIMEOUT_S = number("CATALUNYA_LAMBDA_PATIENCE_SECONDS", 1200)
"""Fifteen minutes for the function, and five for its start."""


class InvokeLambdaOperator(BaseOperator):
    """Invokes `<CATALUNYA_LAMBDA_PREFIX>-<stage>` for one dataset of this run.

    The invocation is asynchronous, so that no connection stays open, and idempotent: its key is the run and the dataset.
    The result that the function writes into the lake ends the wait.
    """

    def __init__(
        self,
        *,
        stage: Stage,
        dataset_id: str,
        timeout_s: float = RESULT_TIMEOUT_S,
        poll_s: float = 5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.dataset_id = dataset_id
        self.timeout_s = timeout_s
        self.poll_s = poll_s

    @property
    def op_kwargs(self) -> dict[str, str]:
        """The arguments of the task that does the work in its own process; alerts and the web interface read them."""
        return {"dataset_id": self.dataset_id}

    @assume_role("orchestrator")
    def execute(self, context: Context) -> dict[str, Any]:
        """Invoke the function, unless its step of this run has succeeded, and wait for its result.

        The result of a failed or refused try is deleted first, so that it is not taken for the new one.
        """
        from catalunya.runs import aws_lambda

        if self.stage == "ingest" and self.dataset_id not in tasks.wanted(context):
            raise AirflowSkipException(f"{self.dataset_id} was not asked for")
        step = aws_lambda.step_name(self.stage, self.dataset_id)
        stepwise = tasks.run_of(context)
        result = stepwise.result(step)
        if not aws_lambda.succeeded(self.stage, self.dataset_id, result):
            if result is not None:
                stepwise.delete_result(step)
            self._invoke(stepwise, context)
            trigger = StepResultTrigger(
                run_id=stepwise.run_id, step=step, timeout_s=self.timeout_s, poll_s=self.poll_s
            )
            self.defer(trigger=trigger, method_name="finish")
        return self.finish(context)

    @assume_role("orchestrator")
    def finish(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the function; raises its error, or NoResult."""
        from catalunya.errors import Refused
        from catalunya.runs import aws_lambda

        with tasks.final_errors():
            stepwise = tasks.run_of(context)
            result = stepwise.result(aws_lambda.step_name(self.stage, self.dataset_id))
            if result is None:
                raise NoResult(
                    f"{self.stage} of {self.dataset_id}: no result within {self.timeout_s:.0f} s; "
                    + _where_to_look(stepwise.settings, self.stage)
                )
            try:
                answer = aws_lambda.parse_result(self.stage, self.dataset_id, result)
            except Refused as refusal:
                if self.stage == "stage":
                    return tasks.refused(context, refusal)
                raise
            except aws_lambda.FunctionFailed as error:
                raise aws_lambda.FunctionFailed(
                    f"{error}; {_where_to_look(stepwise.settings, self.stage)}"
                ) from error
        if self.stage == "stage":
            return tasks.staged(answer)
        return tasks.ingested(context, self.dataset_id, answer)

    def _invoke(self, stepwise: StepwiseRun, context: Context) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        from catalunya.runs import aws_lambda

        name = function_name(stepwise.settings, self.stage)
        force = bool(context["params"].get("force" if self.stage == "ingest" else "full_rebuild"))
        dataset = stepwise.datasets[self.dataset_id]
        payload = aws_lambda.Invocation.of(dataset, stepwise.run_id, force=force).model_dump_json()
        try:
            response = _client().invoke(FunctionName=name, InvocationType="Event", Payload=payload)
        except (BotoCoreError, ClientError) as error:
            raise aws_lambda.FunctionFailed(
                f"{name} could not be invoked: {error}; is the stack deployed, and may this role invoke it?"
            ) from error
        self.log.info("invoked %s with %s: status %s", name, payload, response["StatusCode"])


class NoResult(Exception):
    """A function wrote no result in time: it was killed, or never started."""


def function_name(settings: Settings, stage: str) -> str:
    """Return the name of the function of a stage, as in `infrastructure/functions.py`."""
    return f"{settings.lambda_prefix}-{stage}"


def _where_to_look(settings: Settings, stage: str) -> str:
    name = function_name(settings, stage)
    return f"look at the log group /catalunya/{name} and the queue {name}-failed"


def _client() -> Any:
    """Return a client without retries: a retry of boto3 would invoke the function twice."""
    import boto3
    from botocore.config import Config

    from catalunya.settings import aws_region

    once = Config(connect_timeout=10, read_timeout=30, retries={"total_max_attempts": 1, "mode": "standard"})
    return boto3.Session(region_name=aws_region()).client("lambda", config=once)
