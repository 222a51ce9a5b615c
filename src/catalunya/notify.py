"""Alerts by Apprise, to whatever `CATALUNYA_NOTIFY_URLS` names."""

from __future__ import annotations

import apprise
import structlog

from catalunya.pipeline import RunRecord

log = structlog.get_logger(__name__)


def notify(urls: tuple[str, ...], record: RunRecord) -> bool:
    """Tell of a run that ended badly; returns whether every address took the message.

    A run that ended well is not told of. An address that fails is logged and never fails the run.
    """
    if not urls or record.exit_code == 0:
        return True
    channels = apprise.Apprise()
    known = [channels.add(url) for url in urls]
    stale = [f"{s.dataset_id} is {s.age_hours:g} hours old" for s in record.stale]
    lines = [record.message, *stale, f"Release shown: {record.release_id or 'none'}", f"Lake: {record.lake}"]
    sent = channels.notify(
        title=f"Catalunya Data Pipeline: run {record.run_id} {record.status}", body="\n".join(lines)
    )
    if not (all(known) and sent):
        log.warning("an alert was not delivered", run=record.run_id, addresses=len(urls))
        return False
    return True
