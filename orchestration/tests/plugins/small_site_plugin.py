"""A site of three files for the tests' Airflow, whose warehouse has only the marts that its tests read."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any, ClassVar

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


def build_small_site(
    storage: Any, datasets: Any, release: Any, target: Path, url: str, publisher: Any, **_: Any
) -> Any:
    from catalunya.site import build
    from catalunya.site.record import RECORD, record_of

    build._require_own(target)
    folder = target / f"{release.release_id}-{'0' * 12}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("index.html", "404.html"):
        (folder / name).write_text(release.release_id)
    (folder / RECORD).write_text(record_of(release.release_id, datasets, url, publisher).model_dump_json())
    build._swap(target, folder)
    return build.Built(folder, 1, 0, 2)


@hookimpl
def on_task_instance_running(previous_state: Any, task_instance: Any) -> None:
    if task_instance.task_id == "build_site":
        from catalunya.site import material

        material.build_site = build_small_site
        # An emulated key value store: the host of its requests begins with the account's number.
        look_up = socket.getaddrinfo
        socket.getaddrinfo = lambda host, *given, **named: look_up(
            "127.0.0.1" if str(host).endswith(".localhost") else host, *given, **named
        )


class SmallSitePlugin(AirflowPlugin):
    name = "small_site_plugin"
    listeners: ClassVar = [sys.modules[__name__]]
