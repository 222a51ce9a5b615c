"""What AWS gives to a function: its environment, an event, and the context of the invocation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from catalunya.settings import PORTAL_VARIABLES

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


def event(dataset: str, **more: Any) -> dict[str, Any]:
    """Return an event for a dataset of a run."""
    return {"run_id": "20260105T060000Z-1a2b3c4d", "dataset": dataset, **more}
