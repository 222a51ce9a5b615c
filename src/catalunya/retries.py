"""Requests that are repeated with growing pauses, by stamina. Each retry is an event of the project's own log.

By itself stamina logs through whatever structlog is at that moment: unconfigured, it prints on standard output.
"""

from __future__ import annotations

from stamina import RetryingCaller, retry_context
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from catalunya.address import redacted
from catalunya.log import get_logger

__all__ = ["RetryingCaller", "retry_context"]

log = get_logger(__name__)


def _log_retry(details: RetryDetails) -> None:
    """Log what is repeated, why, and when; not its arguments, which may hold a secret."""
    error = details.caused_by
    log.warning(
        "retry scheduled",
        request=redacted(details.name),
        retry=details.retry_num,
        reason=redacted(f"{type(error).__name__}: {error}"),
        wait_s=round(details.wait_for, 2),
    )


set_on_retry_hooks([_log_retry])
