"""Every day: delete old releases, archive the ledger, compare landed files with their checksums, find overdue portals.

Each day checks the newest snapshot of each dataset and a share of the others, so that all are checked within 30 days. In S3
the checksums that S3 keeps are compared, and only files without one are read. Started by hand with `full`, it reads all.
"""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import Param, dag, task

from catalunya_airflow import assets, dag_parts, tasks


@dag(
    dag_id="catalunya_maintenance",
    description="Retention, integrity of the snapshots, freshness of the portals",
    schedule="30 3 * * *",
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args=dag_parts.DEFAULTS,
    params={
        "full": Param(
            False, type="boolean", description="Read and compare every landed file, not only today's share."
        )
    },
    tags=dag_parts.TAGS,
    doc_md=dag_parts.documentation(__doc__),
)
def catalunya_maintenance() -> None:
    """Define three tasks that do not depend on each other."""
    task(tasks.apply_retention)()
    task(map_index_template=dag_parts.BY_DATASET)(tasks.verify_snapshots).expand(dataset_id=assets.DATASETS)
    task(tasks.check_freshness)()


catalunya_maintenance()
