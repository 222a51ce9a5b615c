"""Stage every kept snapshot again from its landed files and build a new release, without requests to the portals.

Start it by hand after a correction of how rows are typed, or when a staged file was lost.
"""

from __future__ import annotations

from airflow.sdk import Param, dag

from catalunya_airflow import dag_parts


@dag(
    dag_id="catalunya_backfill",
    description="Stage every kept snapshot again and build a new release",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=dag_parts.DEFAULTS,
    params={
        "full_rebuild": Param(True, const=True, type="boolean", description="Always true in this DAG."),
        "engine": dag_parts.ENGINE,
    },
    tags=dag_parts.TAGS,
    doc_md=dag_parts.documentation(__doc__),
)
def catalunya_backfill() -> None:
    """Define the tasks of the pipeline from staging on."""
    dag_parts.stage_to_release()


catalunya_backfill()
