"""What a run asks of AWS, measured against an S3 emulator, and what that costs a month.

    .venv/bin/python bench/aws.py

The functions run as processes of their own at the full size of the demo portal; the peak of their memory and of
their scratch space must fit into what the stack gives them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from catalunya.datasets import loader  # noqa: E402
from catalunya.demo import server  # noqa: E402
from catalunya.lake import layout  # noqa: E402
from catalunya.lake.opening import open_lake  # noqa: E402
from catalunya.lake.storage import Storage  # noqa: E402
from catalunya.runs import aws_lambda  # noqa: E402
from catalunya.runs.steps import StepwiseRun  # noqa: E402
from catalunya.settings import PORTAL_VARIABLES, Settings  # noqa: E402
from infrastructure import costs  # noqa: E402
from infrastructure.parameters import Parameters  # noqa: E402
from tests.lake.faulty_proxy import FaultyProxy  # noqa: E402
from tests.s3 import running  # noqa: E402

SLOWER = 3.0
"""A function of 1,024 MB has 0.58 of a virtual processor; this machine gave each process a whole one."""
DAYS_WITH_NEWS = 30
"""The register is expected to change every day; a run with news is counted as if everything had changed."""
CALL = """
import json, sys
from catalunya.runs import aws_lambda

class Invocation:
    aws_request_id = "bench"
    memory_limit_in_mb = sys.argv[3]
    def get_remaining_time_in_millis(self):
        return 900_000

getattr(aws_lambda, sys.argv[1])(json.loads(sys.argv[2]), Invocation())
"""
GIVEN = {name: Parameters.model_fields[name].default for name in ("memory_mb", "scratch_mb")}


@dataclass
class Measured:
    requests: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    invocations: int = 0
    log_bytes: int = 0
    peaks: dict[str, tuple[float, int, int]] = field(default_factory=dict)
    """Function and dataset to seconds, MiB of memory, MiB of scratch space."""


class Bench:
    def __init__(self, front: FaultyProxy) -> None:
        self.settings = Settings.load()
        self.definitions = loader.load(self.settings.home / "datasets")
        self.measured = Measured()
        front.listener = self._hear
        self.number = 0

    def _hear(self, method: str, path: str, _: bytes) -> None:
        listed = method == "GET" and ("list-type" in path or "delimiter" in path)
        kind = "writes" if method in {"PUT", "POST"} or listed else "reads"
        self.measured.requests[kind if method != "DELETE" else "free"] += 1

    def run(self) -> tuple[Measured, bool]:
        self.measured = Measured()
        self.number += 1
        run_id = f"2026010{self.number}T060000Z-0000000{self.number}"
        one = StepwiseRun(self.settings, run_id, aws_lambda.NullReporter())
        for dataset_id in one.datasets:
            self.call("ingest", run_id, dataset_id)
        one.read_so_far()
        new, _ = one.anything_new()
        if new:
            for dataset_id in one.datasets:
                self.call("stage", run_id, dataset_id)
            one.build()
            one.audit()
            one.publish()
            one.docs()
        one.finish()
        return self.measured, new

    def call(self, stage: str, run_id: str, dataset_id: str) -> None:
        order = aws_lambda.Invocation.of(self.definitions[dataset_id], run_id).model_dump_json()
        with tempfile.TemporaryDirectory() as scratch:
            env = {**os.environ, "TMPDIR": scratch}
            words = [sys.executable, "-c", CALL, stage, order, str(GIVEN["memory_mb"])]
            process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True)
            peak = Peak(Path(scratch))
            said = process.communicate()[0]
            mebibytes = peak.end()
        assert process.returncode == 0, said
        ended = next(line for line in map(json.loads, said.splitlines()) if line["event"] == "ended")
        self.measured.seconds += ended["seconds"]
        self.measured.invocations += 1
        # What the runtime itself says of an invocation: three lines of some hundred bytes.
        self.measured.log_bytes += len(said.encode()) + 500
        self.measured.peaks[f"{stage} {dataset_id}"] = (ended["seconds"], ended["peak_memory_mb"], mebibytes)


class Peak:
    """The most that a folder held, looked at often."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bytes = folder, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.01):
            total = 0
            for root, _, names in os.walk(self.folder):
                for name in names:
                    try:
                        total += (Path(root) / name).stat().st_size
                    except OSError:
                        continue
            self.bytes = max(self.bytes, total)

    def end(self) -> int:
        self._ended.set()
        self._thread.join()
        return -(-self.bytes // 2**20)


def sizes(lake: Storage) -> tuple[int, int]:
    def below(*prefixes: str) -> int:
        return sum(entry.size for prefix in prefixes for entry in lake.list(prefix))

    return below(layout.LANDING, layout.STAGING, layout.QUARANTINE), below(layout.RELEASES, layout.DOCS)


def as_run(measured: Measured, landed: int, released: int) -> costs.RunUsage:
    return costs.RunUsage(
        writes=measured.requests["writes"], reads=measured.requests["reads"],
        function_seconds=measured.seconds, invocations=measured.invocations, log_bytes=measured.log_bytes,
        landed_bytes=landed, released_bytes=released,
    )  # fmt: skip


def measure(folder: Path) -> tuple[Measured, costs.RunUsage, costs.RunUsage]:
    """The first run's functions, a run that finds nothing new, and one in which everything is new: the first."""
    with (
        running(folder, "s3") as emulator,
        FaultyProxy(emulator.endpoint) as front,
        server.running(day=date(2026, 1, 5)) as demo,
    ):
        lake = f"s3://{emulator.new_bucket()}"
        urls = PORTAL_VARIABLES
        os.environ.update(emulator.env | dict.fromkeys(urls, demo.url))
        os.environ.update(ENVIRONMENT="production", CATALUNYA_ENGINE="duckdb", CATALUNYA_LAKE=lake)
        os.environ["AWS_ENDPOINT_URL"] = front.endpoint
        bench = Bench(front)
        storage = open_lake(lake)
        first, _ = bench.run()
        landed, released = sizes(storage)
        nothing_new, new = bench.run()
        assert not new
    return first, as_run(nothing_new, 0, 0), as_run(first, landed, released)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="catalunya-bench-aws-") as folder:
        first, quiet, busy = measure(Path(folder))
    print("| function | seconds | memory, MB | scratch space, MB |\n|---|---:|---:|---:|")
    for name, (seconds, memory, scratch) in first.peaks.items():
        print(f"| {name} | {seconds:.2f} | {memory} | {scratch} |")
    print(f"\na run that finds nothing new: {quiet}\na run with news: {busy}\n")
    print(costs.table(costs.month(quiet, busy, days_with_news=DAYS_WITH_NEWS, slower=SLOWER, **GIVEN)))
    memory = max(peak[1] for peak in first.peaks.values())
    scratch = max(peak[2] for peak in first.peaks.values())
    given = (GIVEN["memory_mb"], GIVEN["scratch_mb"])
    print(f"\npeak memory {memory} MB of {given[0]}, scratch space {scratch} MB of {given[1]}")
    return 0 if memory < 0.8 * given[0] and scratch < 0.8 * given[1] else 1


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(code)
