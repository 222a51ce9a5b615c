"""What AWS gives to a function: its environment, an event, and the context of the invocation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from catalunya.runs import aws_lambda
from catalunya.settings import PORTAL_VARIABLES
from tests.factories import DEFINITIONS

DAY = date(2026, 1, 5)


@dataclass
class Invocation:
    """The context of an invocation."""

    aws_request_id: str = "request-1"
    memory_limit_in_mb: str = "1024"

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


def variables(bucket: str, url: str) -> dict[str, str]:
    """Return the environment of a function whose lake is `bucket` and whose portals are at `url`."""
    portals = dict.fromkeys(PORTAL_VARIABLES, url)
    own = {
        "ENVIRONMENT": "production",
        "CATALUNYA_LAKE": f"s3://{bucket}/lake",
        "CATALUNYA_HTTP_ATTEMPTS": "1",
    }
    return {**own, **portals}


RUN_ID = "20260105T060000Z-1a2b3c4d"


def event(dataset: str, run_id: str = RUN_ID, **more: Any) -> dict[str, Any]:
    """Return the event for a dataset of a run, from an Airflow of the same commit as the function."""
    return {**aws_lambda.Invocation.of(DEFINITIONS[dataset], run_id).model_dump(mode="json"), **more}
