"""Once a day: delete old releases, fold the ledger, compare kept bytes with their checksums, look for silent portals.

Each day reads a share of the landed snapshots, so that all are read within 30 days, and always the newest of each
dataset. Started by hand with `full` it reads all.
"""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import Param, dag, task

from catalunya_airflow import assets, steps, wiring


@dag(
    dag_id="catalunya_maintenance",
    description="Retention, integrity of the snapshots, freshness of the portals",
    schedule="30 3 * * *",
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args=wiring.DEFAULTS,
    params={
        "full": Param(False, type="boolean", description="Compare every kept byte, not only today's share.")
    },
    tags=wiring.TAGS,
    doc_md=wiring.documentation(__doc__),
)
def catalunya_maintenance() -> None:
    """Three duties that do not wait for each other."""
    task(steps.apply_retention)()
    task(map_index_template=wiring.BY_DATASET)(steps.verify_snapshots).expand(dataset_id=assets.DATASETS)
    task(steps.check_freshness)()


catalunya_maintenance()
