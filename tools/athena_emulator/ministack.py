"""ministack, an emulator of AWS, on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.athena_emulator import install
from tools.athena_emulator.server import server
from tools.processes import free_port

SERVICES = ("s3", "glue", "athena", "sts")


@contextmanager
def running(
    folder: Path, services: tuple[str, ...] = SERVICES, script: Path | None = None, **variables: str
) -> Iterator[str]:
    """Run a ministack that is empty at first, with its files in `folder`; yields its endpoint.

    Args:
        services: the services that it has; empty for all.
        script: starts the server instead of ministack's own command, in its Python.
        variables: added to its environment.
    """
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    env = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": ",".join(services),
        "LOG_LEVEL": "WARNING",
        **variables,
    }
    health = f"{endpoint}/_ministack/health"
    command = install.ministack()
    start = [str(command.with_name("python")), str(script)] if script else [str(command)]
    with server(start, folder, health, lambda answer: True, timeout_s=600, env=env):
        yield endpoint
