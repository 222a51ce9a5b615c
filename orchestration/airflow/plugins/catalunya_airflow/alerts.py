"""Alerts of Airflow: a task that failed after its last try, and a DAG run that is late."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from catalunya.identity import assume_role
from catalunya_airflow import tasks

if TYPE_CHECKING:
    from airflow.sdk import Context

    from catalunya.operations.alerts import Alert

log = logging.getLogger(__name__)


def failed(context: Context) -> None:
    """Send the alert of a task that failed after its last try, or at once where a retry would not help."""
    from catalunya.errors import Refused, SourceUnreadable
    from catalunya.operations.alerts import Alert, unreadable_event

    ti = context["ti"]
    error = context.get("exception")
    if isinstance(error, tasks.AlertAlreadySent):
        return
    causes = (error, getattr(error, "__cause__", None))
    kind = "failed"
    if any(isinstance(cause, Refused) for cause in causes):
        kind = "refused"
    elif any(isinstance(cause, SourceUnreadable) for cause in causes):
        kind = "unreadable"
    dataset_id = _dataset_of(context)
    subject = f"{ti.task_id} of {dataset_id}" if dataset_id else ti.task_id
    event = f"{kind} {subject} {ti.dag_id} {ti.run_id}"
    if kind != "failed" and dataset_id:
        subject = dataset_id
        event = unreadable_event(dataset_id, tasks.run_id_of(context, tasks.settings_of(context)))
    deliver(
        [
            Alert(
                kind=kind,
                subject=subject,
                reason=str(error) if error else "the task's process was killed, or its heartbeat timed out",
                event=event,
                link=ti.log_url,
            )
        ]
    )


async def late(context: dict[str, Any], **kwargs: Any) -> None:
    """Send the alert of a DAG run that has not ended by its deadline."""
    from airflow.configuration import conf

    from catalunya.operations.alerts import Alert

    run = context.get("dag_run") or {}
    if run.get("state") in {"success", "failed"}:
        # Airflow keeps the deadline of a run that failed (apache/airflow#60927).
        return
    name = run.get("dag_run_id") or run.get("run_id") or "unknown"
    dag_id = run.get("dag_id", "catalunya_data_pipeline")
    alert = Alert(
        kind="late",
        subject=f"run {name} of {dag_id}",
        reason=f"It was queued at {run.get('queued_at', 'an unknown time')} and has not ended.",
        event=f"late {dag_id} {name}",
        link=f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/dags/{dag_id}/runs/{name}",
    )
    await asyncio.to_thread(deliver, [alert])


def _dataset_of(context: Context) -> str | None:
    arguments = getattr(context.get("task"), "op_kwargs", None) or {}
    return arguments.get("dataset_id")


def deliver(alerts: Iterable[Alert]) -> None:
    """Send alerts from a task; an alert that cannot be sent is logged and does not fail the task."""
    from catalunya.errors import CatalunyaError
    from catalunya.lake.opening import open_lake
    from catalunya.operations import alerts as notify
    from catalunya.settings import Settings

    settings = Settings.load()
    with ExitStack() as stack:
        storage = None
        try:
            stack.enter_context(assume_role("orchestrator", settings))
            storage = open_lake(settings.lake)
        except CatalunyaError as error:
            log.warning("the lake cannot be opened: %s", error)
        if not notify.deliver(storage, settings.alert_addresses, alerts):
            log.warning("CATALUNYA_NOTIFY_URLS: an alert was not delivered; check the addresses")
