"""The pipeline as an Airflow DAG: from the portals to a published release, every six hours.

A source that cannot be read does not hold up the others; a run that finds nothing new skips the rest and ends
green. Every part of the work is in the library `catalunya`; here is its order alone.
"""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import Param, dag, task

from catalunya_airflow import assets, steps, wiring
from catalunya_airflow.deadline import deadline
from catalunya_airflow.sensor import WaitForNewData


@dag(
    dag_id="catalunya_data_pipeline",
    description="Collect, type, transform, test and publish Catalonia's open data on care for older people",
    schedule="0 */6 * * *",
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args=wiring.DEFAULTS,
    deadline=deadline(),
    params={
        "datasets": Param(
            [],
            type="array",
            items={"type": "string", "enum": assets.DATASETS},
            examples=assets.DATASETS,
            description="Read only these sources; none means all.",
        ),
        "force": Param(
            False, type="boolean", description="Read everything, publish although nothing is new."
        ),
        "full_rebuild": Param(
            False, type="boolean", description="Stage every kept snapshot again from its bytes, and publish."
        ),
        "engine": wiring.ENGINE,
    },
    tags=wiring.TAGS,
    doc_md=wiring.documentation(__doc__),
)
def catalunya_data_pipeline() -> None:
    """Read each source, wait for what is new, transform, judge, publish."""
    checked = task(steps.check_dbt_connection)()
    read = wiring.by_dataset("ingest", outlets=[assets.landed])
    # It begins when both have ended, well or not: a broken dbt does not keep data from landing nor from being
    # staged, and a dataset without a result then, because its task was killed, never gets one.
    waited = WaitForNewData(
        task_id="wait_for_new_data", trigger_rule="all_done", poke_interval=5, patience_s=30
    )
    staged, built, finished = wiring.stage_to_release()
    [checked, read] >> waited >> [staged, finished]
    checked >> built


catalunya_data_pipeline()
