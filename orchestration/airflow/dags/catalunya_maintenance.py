"""Once a day: delete old releases, compare every kept byte with its checksum, look for portals gone silent."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import dag, task

from catalunya_airflow import assets, steps, wiring


@dag(
    dag_id="catalunya_maintenance",
    description="Retention, integrity of the snapshots, freshness of the portals",
    schedule="30 3 * * *",
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args=wiring.DEFAULTS,
    tags=wiring.TAGS,
    doc_md=wiring.documentation(__doc__),
)
def catalunya_maintenance() -> None:
    """Three duties that do not wait for each other."""
    task(steps.apply_retention)()
    task(map_index_template=wiring.BY_DATASET)(steps.verify_snapshots).expand(dataset_id=assets.DATASETS)
    task(steps.check_freshness)()


catalunya_maintenance()
