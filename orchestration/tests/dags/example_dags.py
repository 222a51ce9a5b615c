"""DAGs of the tests: one waits for a mart, one for the results of ingest, one is always late."""

from __future__ import annotations

import os
import time

from airflow.sdk import dag, get_current_context, task

from catalunya_airflow import assets
from catalunya_airflow.deadline import deadline
from catalunya_airflow.sensors import WaitForNewData


@dag(dag_id="reader_of_a_mart", schedule=[assets.mart("coverage_comarca")], catchup=False)
def reader_of_a_mart() -> None:
    @task
    def read() -> list[dict[str, object]]:
        events = get_current_context()["triggering_asset_events"]
        return [event.extra for found in events.values() for event in found]

    read()


@dag(dag_id="sensor_alone", schedule=None, catchup=False, params={"datasets": [], "force": False})
def sensor_alone() -> None:
    WaitForNewData(task_id="wait_for_new_data", poke_interval=4, timeout_s=900)


os.environ["CATALUNYA_DEADLINE_MINUTES"] = "0.05"


@dag(dag_id="always_late", schedule=None, catchup=False, deadline=deadline(), params={"fail": False})
def always_late() -> None:
    @task
    def dawdle() -> None:
        if get_current_context()["params"]["fail"]:
            raise RuntimeError("as the test asked")
        time.sleep(900)

    dawdle()


os.environ.pop("CATALUNYA_DEADLINE_MINUTES")
reader_of_a_mart()
sensor_alone()
always_late()
