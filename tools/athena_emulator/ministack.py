"""AWS on loopback: ministack."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from standin.install import ministack
from standin.process import answers, free_port, server

SERVICES = ("s3", "glue", "athena", "sts")


@contextmanager
def emulator(folder: Path, services: tuple[str, ...] = SERVICES, **more: str) -> Iterator[str]:
    """The endpoint of an emulator that is empty at first; its files lie in `folder`.

    It has these services, all that it knows where none is named, and `more` in its environment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": ",".join(services),
        "LOG_LEVEL": "WARNING",
        **more,
    }
    endpoint = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        return answers(f"{endpoint}/_ministack/health")

    with server([str(ministack())], env, folder, ready, patience_s=30):
        yield endpoint
