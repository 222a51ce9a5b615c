"""Runs of the command forked off a process that has imported everything, so that many runs cost little.

Reads one JSON object a line: `env`, `argv`, `kill_after` (seconds, or null). Forks, runs the command in the
child, kills it with SIGKILL when its time is up, and answers with `code` (null when killed) and `seconds`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from catalunya import cli, dbt
from catalunya.build import code_digest
from catalunya.settings import ROOT


def run(order: dict[str, object], log: Path) -> dict[str, object]:
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.environ.clear()
        os.environ.update(order["env"])  # type: ignore[call-overload]
        with log.open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        sys.argv = ["catalunya", *order["argv"]]  # type: ignore[misc]
        code = 1
        try:
            cli.main()
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else 0
        finally:
            os._exit(code)
    limit = order["kill_after"]
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - started
        if ended:
            return {"code": os.waitstatus_to_exitcode(status), "seconds": seconds}
        if limit is not None and seconds >= limit:  # type: ignore[operator]
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"code": None, "seconds": seconds}
        time.sleep(0.002)


if __name__ == "__main__":
    dbt.parse(ROOT / "dbt" / "mart", code_digest(ROOT))
    log = Path(sys.argv[1])
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(json.loads(line), log)) + "\n")
        sys.stdout.flush()
