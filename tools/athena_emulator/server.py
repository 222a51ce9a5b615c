"""Servers that run on loopback beside the tests and leave no process behind."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3

from tools.processes import process_group


class NotStarted(Exception):
    """A server did not start; the message holds the end of its log."""


@contextmanager
def server(
    command: list[str],
    folder: Path,
    health: str,
    is_ready: Callable[[urllib3.BaseHTTPResponse], bool],
    *,
    timeout_s: float,
    env: dict[str, str] | None = None,
) -> Iterator[None]:
    """Run a process in `folder`; on leaving it is gone with its children.

    It is up when a GET of `health` is answered with 200 and `is_ready` accepts the answer. Raises `NotStarted`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    variables = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), **(env or {})}
    with process_group(command, env=variables, folder=folder, log=log) as process:
        deadline = time.monotonic() + timeout_s
        while not _answers(health, is_ready):
            code = process.poll()
            if code is not None or time.monotonic() > deadline:
                state = f"is not up after {timeout_s:g} s" if code is None else f"ended with {code}"
                raise NotStarted(f"{folder.name} {state}: {log.read_text('utf-8', 'replace')[-3000:]}")
            time.sleep(0.1)
        yield


def _answers(url: str, is_ready: Callable[[urllib3.BaseHTTPResponse], bool]) -> bool:
    with contextlib.suppress(urllib3.exceptions.HTTPError, ValueError):
        answer = urllib3.request("GET", url, timeout=2, retries=False)
        return answer.status == 200 and is_ready(answer)
    return False
