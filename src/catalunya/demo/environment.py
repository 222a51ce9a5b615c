"""The demo environment starts its own portal when no base URL is set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from catalunya.demo.faults.switches import SCOPES
from catalunya.settings import PORTALS, Settings


def is_unknown(settings: Settings, dataset_id: str) -> bool:
    """True for a dataset without demo data, such as that of a new definition: demo runs leave it out."""
    return settings.environment == "demo" and dataset_id not in SCOPES


@contextmanager
def portals(settings: Settings) -> Iterator[Settings]:
    """Yield the settings given, or in the demo environment settings that name a portal in this process."""
    if settings.environment != "demo" or not settings.portals_are_default:
        yield settings
        return
    from catalunya.demo import server

    day = settings.now_override.date() if settings.now_override else None
    with server.running(day=day) as demo:
        yield settings.model_copy(update=dict.fromkeys(PORTALS, demo.url))
