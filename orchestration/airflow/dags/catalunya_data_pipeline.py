"""The pipeline as a DAG: from the portals to a published release, every six hours.

A source that cannot be read does not stop the others. A run that finds nothing new skips its other tasks and succeeds.
The library `catalunya` does the work; the DAG defines the order.
"""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import Param, dag, task

from catalunya_airflow import assets, dag_parts, tasks
from catalunya_airflow.deadline import deadline
from catalunya_airflow.sensors import WaitForNewData


@dag(
    dag_id="catalunya_data_pipeline",
    description="Collect, type, transform, test and publish Catalonia's open data on care for older people",
    schedule="0 */6 * * *",
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args=dag_parts.DEFAULTS,
    deadline=deadline(),
    params={
        "datasets": Param(
            [],
            type="array",
            items={"type": "string", "enum": assets.DATASETS},
            examples=assets.DATASETS,
            description="Read only these datasets; an empty list means all.",
        ),
        "force": Param(
            False, type="boolean", description="Read all rows again, and publish even if nothing is new."
        ),
        "full_rebuild": Param(
            False,
            type="boolean",
            description="Stage every kept snapshot again from its landed files, and publish.",
        ),
        "engine": dag_parts.ENGINE,
    },
    tags=dag_parts.TAGS,
    doc_md=dag_parts.documentation(__doc__),
)
def catalunya_data_pipeline() -> None:
    """Define the tasks: ingest each dataset, wait for new data, stage, build, audit, publish."""
    checked = task(tasks.check_dbt_connection)()
    read = dag_parts.by_dataset("ingest", outlets=[assets.landed])
    # It starts when both have ended, with success or not: a broken dbt must not stop landing and staging, and a
    # dataset that has no result by then, because its task was killed, never gets one.
    waited = WaitForNewData(
        task_id="wait_for_new_data", trigger_rule="all_done", poke_interval=5, timeout_s=30
    )
    staged, built, finished = dag_parts.stage_to_release()
    [checked, read] >> waited >> [staged, finished]
    checked >> built


catalunya_data_pipeline()
