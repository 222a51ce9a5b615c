"""The parts that DAGs share: owner, retries, parameters, and the tasks from staging to a release."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param, task

from catalunya.publication.demo_notice import NOTICE
from catalunya.settings import ENGINES
from catalunya_airflow import alerts, assets, tasks
from catalunya_airflow.environment import number
from catalunya_airflow.operators import InvokeLambdaOperator

if TYPE_CHECKING:
    from catalunya.runs.aws_lambda import Stage

DEFAULTS: dict[str, Any] = {
    "owner": "catalunya-data-team",
    "retries": 2,
    "retry_delay": timedelta(seconds=number("CATALUNYA_RETRY_DELAY_SECONDS", 300)),
    "on_failure_callback": alerts.failed,
}
DEMO = os.environ.get("ENVIRONMENT") == "demo"
TAGS = ["catalunya", "demo data"] if DEMO else ["catalunya"]


def documentation(text: str | None) -> str:
    """Return the documentation of a DAG, with a notice where its data are demo data."""
    return f"**{NOTICE}**\n\n{text}" if DEMO else text or ""


BY_DATASET = "{{ task.op_kwargs['dataset_id'] }}"
"""The name of a mapped task in the web interface."""

ENGINE = Param(
    None,
    type=["null", "string"],
    enum=[None, *ENGINES],
    description="Build on this engine; without a value, the engine of the environment.",
)


def by_dataset(stage: Stage, **options: Any) -> Any:
    """Return a task per dataset, which works in its own process, or on AWS where CATALUNYA_LAMBDA_PREFIX is set."""
    named = {"task_id": stage, "map_index_template": BY_DATASET, **options}
    if os.environ.get("CATALUNYA_LAMBDA_PREFIX"):
        return InvokeLambdaOperator.partial(stage=stage, **named).expand(dataset_id=assets.DATASETS)
    return task(**named)(getattr(tasks, stage)).expand(dataset_id=assets.DATASETS)


def stage_to_release() -> tuple[Any, Any, Any]:
    """Chain the tasks from staging to the ledger and the site; returns the first, the build, and that of the ledger.

    The site is made after each run, whatever became of it, unless it shows the release that readers see already: after a
    rollback, after an update of the code, and when the last run could not build it. Nothing depends on it.
    """
    staged = by_dataset("stage")
    built = task(task_id="run_dbt_transformations")(tasks.build)()
    audited = task(task_id="validate_data_quality")(tasks.audit)()
    published = task(
        task_id="publish_release",
        inlets=[assets.dataset(name) for name in assets.DATASETS],
        outlets=[assets.mart(name) for name in assets.MARTS],
    )(tasks.publish)()
    documented = task(task_id="generate_dbt_docs")(tasks.docs)()
    finished = task(task_id="finish_run", trigger_rule="all_done")(tasks.finish)()
    shown = task(task_id="build_site", trigger_rule="all_done")(tasks.site)()
    staged >> built >> audited >> published >> documented >> [finished, shown]
    return staged, built, finished
