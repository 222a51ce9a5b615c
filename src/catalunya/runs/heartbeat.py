"""The heartbeat: a request to an address of the operator's after each run that ended well.

A service that expects it, such as Healthchecks or Uptime Kuma, raises the alarm when none comes: also when the machine, its
network or the scheduler is what failed, of which this pipeline cannot tell anybody.
"""

from __future__ import annotations

import urllib3

from catalunya.log import get_logger, keep_addresses_out_of_logs
from catalunya.settings import Settings

log = get_logger(__name__)

_TIMEOUT_S = 10.0


def send_heartbeat(settings: Settings, exit_code: int) -> None:
    """Request CATALUNYA_HEARTBEAT_URL after a run that ended well; one that is not taken is logged and fails no run."""
    url = settings.heartbeat_url
    if url is None or exit_code:
        return
    keep_addresses_out_of_logs()
    try:
        with urllib3.PoolManager(timeout=_TIMEOUT_S, retries=urllib3.Retry(2, redirect=0)) as http:
            status = http.request("GET", url).status
    except urllib3.exceptions.HTTPError as error:
        # Its text names the address, which is a secret.
        log.warning(
            "CATALUNYA_HEARTBEAT_URL could not be requested", reason=type(error.__cause__ or error).__name__
        )
        return
    if status >= 400:
        log.warning("CATALUNYA_HEARTBEAT_URL did not take the heartbeat", status=status)
