"""Every kept snapshot staged again from its bytes, and the release built anew: no portal is asked.

For when the way of typing rows was corrected, or a staged file was lost. Started by hand.
"""

from __future__ import annotations

from airflow.sdk import Param, dag

from catalunya_airflow import wiring


@dag(
    dag_id="catalunya_backfill",
    description="Stage every kept snapshot again and build the release anew",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=wiring.DEFAULTS,
    params={
        "full_rebuild": Param(True, const=True, type="boolean", description="What this DAG is for."),
        "engine": wiring.ENGINE,
    },
    tags=wiring.TAGS,
    doc_md=wiring.documentation(__doc__),
)
def catalunya_backfill() -> None:
    """The pipeline without its reading."""
    wiring.stage_to_release()


catalunya_backfill()
