"""The command, forked off a process that has imported everything, so that many runs cost little.

    python -m tests.pipeline.fork_server ADDRESS OWNER HOME...

Parses the dbt project of each HOME, listens on the Unix socket ADDRESS, and ends with the process OWNER. Reads one JSON
object from each connection: `env`, `argv`, `kill_after` (seconds, or null), `kill_at` (the number of a write to the lake,
or null), `out` and `err` (files). Forks, runs the command in the child, kills it with SIGKILL when its time is up or right
before that write, and answers with `code` (null when killed), `seconds` and `writes` (how many were begun).
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import pkgutil
import signal
import socketserver
import sys
import threading
import time
from pathlib import Path
from typing import Any

import catalunya
from catalunya.cli import main
from catalunya.lake.local import LocalStorage
from catalunya.lake.s3 import S3Storage
from catalunya.warehouse import dbt
from catalunya.warehouse.code import code_digest

LATE = (
    "apprise.plugins",
    "asyncio",
    "dbt.adapters.duckdb.environments.local",
    "dbt_common.clients.agate_helper",
    "numpy.ma",
)
"""What libraries import only when they use it."""


def import_everything() -> None:
    """Import what a command imports when it comes to it."""
    for name in LATE:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(catalunya.__path__, "catalunya."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def count_writes(kill_at: int | None, written: Any) -> None:
    """Count what this process writes into a lake and deletes there, and kill it right before the write `kill_at`."""
    guard = threading.Lock()

    def watch(kind: type, name: str) -> None:
        real = getattr(kind, name)

        def call(*args: Any, **more: Any) -> Any:
            with guard:
                written.value += 1
                if written.value == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)

        setattr(kind, name, call)

    for kind in (LocalStorage, S3Storage):
        for name in ("put", "put_file", "replace", "copy", "delete", "delete_folder"):
            watch(kind, name)


def become(request: dict[str, Any], written: Any) -> None:
    """Be the command: its environment, its arguments, its two streams, its exit code."""
    count_writes(request["kill_at"], written)
    os.environ.clear()
    os.environ.update(request["env"])
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    sys.argv = ["catalunya", *request["argv"]]
    code: object = 1
    try:
        main.main()
    except SystemExit as done:
        code = done.code
    finally:
        if sys.exc_info()[0] is not None:
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


def run(request: dict[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    written = multiprocessing.get_context("fork").Value("i", 0, lock=False)
    child = os.fork()
    if child == 0:
        become(request, written)
    limit = request["kill_after"]
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - started
        if ended:
            code = os.waitstatus_to_exitcode(status)
            killed = code == -signal.SIGKILL
            return {"code": None if killed else code, "seconds": seconds, "writes": written.value}
        if limit is not None and seconds >= limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"code": None, "seconds": seconds, "writes": written.value}
        time.sleep(0.002)


class RequestHandler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(json.dumps(run(json.loads(self.rfile.readline()))).encode() + b"\n")


class Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """Handles every request in a fork."""

    def service_actions(self) -> None:
        super().service_actions()
        try:
            os.kill(int(sys.argv[2]), 0)
        except ProcessLookupError:
            sys.exit()


if __name__ == "__main__":
    import_everything()
    for home in map(Path, sys.argv[3:]):
        dbt.parse(home / "dbt" / "mart", code_digest(home))
    with Server(f"{sys.argv[1]}.new", RequestHandler) as server:
        # Under its name it already listens.
        Path(f"{sys.argv[1]}.new").rename(sys.argv[1])
        server.serve_forever()
