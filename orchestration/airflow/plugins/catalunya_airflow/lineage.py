"""dbt's models as OpenLineage events, sent wherever Airflow's OpenLineage provider sends its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

    from catalunya.warehouse.dbt import NodeResult

NAMESPACE = "catalunya"


def emit(ti: Any, run_id: str, nodes: Iterable[NodeResult], project_url: str | None) -> None:
    """Send START and COMPLETE or FAIL of every model and seed, if a transport is configured.

    `project_url` is the producer that the events name; without one it is OpenLineage's client.
    """
    from airflow.providers.openlineage import conf

    if conf.is_disabled():
        return
    from airflow.providers.openlineage.api import core

    if core.is_openlineage_active():
        for event in events(ti, run_id, nodes, project_url):
            core.emit(event)


def events(ti: Any, run_id: str, nodes: Iterable[NodeResult], project_url: str | None) -> Iterator[RunEvent]:
    """Yield the events of models and seeds, as children of the task that ran them."""
    from airflow.providers.openlineage.plugins import macros
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
    from openlineage.client.generated.error_message_run import ErrorMessageRunFacet
    from openlineage.client.generated.parent_run import ParentRunFacet

    parent = ParentRunFacet.create(
        macros.lineage_run_id(ti), macros.lineage_job_namespace(), macros.lineage_job_name(ti)
    )
    for node in nodes:
        if not node.relation or node.status == "skipped":
            continue
        failed = node.status in {"error", "fail"}
        facets: dict[str, Any] = {"parent": parent}
        if failed:
            facets["errorMessage"] = ErrorMessageRunFacet(message=node.message, programmingLanguage="SQL")
        run = Run(str(uuid.uuid5(uuid.NAMESPACE_URL, f"{run_id}/{ti.try_number}/{node.node_id}")), facets)
        job = Job(NAMESPACE, f"dbt.{node.relation}")
        inputs = [InputDataset(NAMESPACE, name) for name in node.parents if name]
        outputs = [OutputDataset(NAMESPACE, node.relation)]
        moments = (
            (RunState.START, node.began_at),
            (RunState.FAIL if failed else RunState.COMPLETE, node.ended_at),
        )
        for state, moment in moments:
            at = (moment or datetime.now(UTC)).replace(tzinfo=UTC).isoformat()
            yield RunEvent(
                eventTime=at,
                eventType=state,
                run=run,
                job=job,
                producer=project_url or "",
                inputs=inputs,
                outputs=outputs,
            )
