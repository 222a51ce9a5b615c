"""What runs and a day's maintenance ask of AWS, measured on an emulator, and what that costs in the twelfth month.

    .venv/bin/python bench/aws.py                  # marts built by DuckDB, on the machine of Airflow
    .venv/bin/python bench/aws.py --athena         # and by Athena, emulated over Trino (`make setup-aws`)

The functions run as processes of their own at the full size of the demo portal; the peak of their memory and of their
scratch space must fit into what the stack gives them. The register changes before each run with news, so that the
lake grows by one snapshot of it; what a run asks for is then a straight line over the number of snapshots, which is
followed to a year of daily changes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from catalunya.datasets import loader  # noqa: E402
from catalunya.demo import server  # noqa: E402
from catalunya.lake import layout  # noqa: E402
from catalunya.lake.opening import open_lake  # noqa: E402
from catalunya.operations import maintenance  # noqa: E402
from catalunya.runs import aws_lambda  # noqa: E402
from catalunya.runs.record import newest  # noqa: E402
from catalunya.runs.reporter import NullReporter  # noqa: E402
from catalunya.runs.steps import StepwiseRun  # noqa: E402
from catalunya.settings import PORTAL_VARIABLES, Settings  # noqa: E402
from catalunya.warehouse.engines.athena import LEAST_BYTES  # noqa: E402
from infrastructure import costs  # noqa: E402
from infrastructure.costs import Usage  # noqa: E402
from infrastructure.parameters import Parameters  # noqa: E402
from tests.lake.faulty_proxy import FaultyProxy  # noqa: E402
from tests.s3 import running  # noqa: E402

SLOWER = 3.0
"""A function of 1,024 MB has 0.58 of a virtual processor; this machine gave each process a whole one."""
LOOKS = 3
"""Looks of a trigger until a function has ended, one every five seconds; a cold start is within them."""
DAYS_WITH_NEWS = 30
"""The register is expected to change every day; the other sources change a few times a year."""
SNAPSHOTS = 12 * DAYS_WITH_NEWS
"""Of the register, in the twelfth month."""
VERIFIED = SNAPSHOTS / maintenance.ROTATION_DAYS + 1
"""Snapshots of the register that a day verifies then."""
RUNS = {"duckdb": 8, "athena": 3}
"""Runs with news that are measured."""
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
    """Runs on one lake. Airflow's own processes, the functions and Athena reach S3 through proxies of their own."""

    def __init__(self, airflow: FaultyProxy, *others: FaultyProxy) -> None:
        self.settings = Settings.load()
        self.definitions = loader.load(self.settings.home / "datasets")
        self.airflow = airflow
        self.functions_endpoint = others[0].endpoint
        self.measured = Measured()
        for front in (airflow, *others):
            front.listener = self._hear
        self.number = 0

    def _hear(self, method: str, path: str, _: bytes) -> None:
        if not urlsplit(path).path.strip("/"):
            # Another service than S3.
            return
        listed = method == "GET" and ("list-type" in path or "delimiter" in path)
        kind = "writes" if method in {"PUT", "POST"} or listed else "reads"
        if method == "DELETE" or "delete" in urlsplit(path).query.split("&"):
            kind = "free"
        self.measured.requests[kind] += 1

    def run(self) -> tuple[Usage, dict[str, tuple[float, int, int]], bool]:
        """Do one run as the DAG does it: each task opens the lake, and triggers look into it."""
        self._begin()
        self.number += 1
        run_id = layout.make_id(
            datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=self.number), f"{self.number:08x}"
        )

        def task() -> StepwiseRun:
            return StepwiseRun(self.settings, run_id, NullReporter())

        open_lake(self.settings.lake)
        for dataset_id in self.definitions:
            self._call("ingest", run_id, dataset_id)
        assert task().read_so_far() == set(self.definitions)
        new, _ = task().anything_new()
        if new:
            for dataset_id in self.definitions:
                self._call("stage", run_id, dataset_id)
            task().build()
            task().audit()
            task().publish()
            task().docs()
        task().finish()
        return self._end(), self.measured.peaks, new

    def maintain(self) -> Usage:
        """Do a day's maintenance, which verifies every snapshot here."""
        self._begin()
        now = self.settings.now()
        run_id = layout.make_id(now, "f" * 8)
        maintenance.retain(open_lake(self.settings.lake), run_id, self.settings.keep_releases, now)
        with rotation(1):
            for dataset_id in self.definitions:
                looked, wrong = maintenance.verify(open_lake(self.settings.lake), dataset_id, day=now.date())
                assert looked and not wrong
        maintenance.freshness(open_lake(self.settings.lake), self.definitions, now)
        return self._end()

    def _begin(self) -> None:
        self.measured = Measured()
        self.airflow.answered.clear()

    def _end(self) -> Usage:
        measured, downloaded = self.measured, sum(self.airflow.answered)
        lake = open_lake(self.settings.lake)

        def below(*prefixes: str) -> int:
            return sum(entry.size for prefix in prefixes for entry in lake.list(prefix))

        record = newest(lake)
        cost = record.cost if record else None
        # While the lake is small, each query that reads is charged for the least that Athena charges.
        charged = (cost.usd or 0) / (cost.usd_per_tb or 1) * 10**12 if cost else 0
        releases = max(1, len(lake.folders(layout.RELEASES)))
        return Usage(
            writes=measured.requests["writes"], reads=measured.requests["reads"], downloaded_bytes=downloaded,
            function_seconds=measured.seconds, invocations=measured.invocations, log_bytes=measured.log_bytes,
            kept_bytes=below(layout.LANDING, layout.STAGING, layout.QUARANTINE),
            released_bytes=below(layout.RELEASES, layout.DOCS, layout.PUBLISHED) / releases,
            queries=round(charged / LEAST_BYTES), scanned_bytes=cost.bytes_scanned if cost else 0,
        )  # fmt: skip

    def _call(self, stage: aws_lambda.Stage, run_id: str, dataset_id: str) -> None:
        self._look(stage, run_id, dataset_id)
        event = aws_lambda.Invocation.of(self.definitions[dataset_id], run_id).model_dump_json()
        with tempfile.TemporaryDirectory() as scratch:
            env = {**os.environ, "TMPDIR": scratch, "AWS_ENDPOINT_URL": self.functions_endpoint}
            words = [sys.executable, "-c", CALL, stage, event, str(GIVEN["memory_mb"])]
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
        # The last one is that of the task which is resumed.
        for _ in range(LOOKS + 1):
            self._look(stage, run_id, dataset_id)

    def _look(self, stage: aws_lambda.Stage, run_id: str, dataset_id: str) -> None:
        step = aws_lambda.step_name(stage, dataset_id)
        StepwiseRun(self.settings, run_id, NullReporter()).result(step)


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


@contextmanager
def rotation(days: int) -> Iterator[None]:
    before, maintenance.ROTATION_DAYS = maintenance.ROTATION_DAYS, days
    try:
        yield
    finally:
        maintenance.ROTATION_DAYS = before


@dataclass
class Result:
    """What was measured with one engine, followed to the twelfth month."""

    peaks: dict[str, tuple[float, int, int]]
    first: Usage
    """The first run, in which everything is new."""
    quiet: Usage
    news: Usage
    daily: Usage


def measure(engine: str, folder: Path) -> Result:
    with ExitStack() as stack:
        emulator = stack.enter_context(running(folder, *(["s3"] if engine == "duckdb" else [])))
        fronts = [stack.enter_context(FaultyProxy(emulator.endpoint)) for _ in range(3)]
        demo = stack.enter_context(server.running(day=date(2026, 1, 5)))
        lake = f"s3://{emulator.new_bucket()}"
        os.environ.update(emulator.env | dict.fromkeys(PORTAL_VARIABLES, demo.url))
        os.environ.update(ENVIRONMENT="production", CATALUNYA_ENGINE=engine, CATALUNYA_LAKE=lake)
        if engine == "athena":
            from tools.athena_emulator.environment import running as athena

            region = emulator.env["AWS_REGION"]
            emulated = stack.enter_context(athena(folder / "athena", aws=fronts[2].endpoint, region=region))
            os.environ.update(emulated.variables())
            os.environ["CATALUNYA_ATHENA_RESULTS"] = f"s3://{emulator.new_bucket()}/results"
            os.environ["CATALUNYA_ATHENA_POLL"] = "0.1"
        os.environ["AWS_ENDPOINT_URL"] = fronts[0].endpoint
        bench = Bench(*fronts)
        news: list[tuple[float, Usage]] = []
        quiets: list[tuple[float, Usage]] = []
        peaks: dict[str, tuple[float, int, int]] = {}
        daily: list[tuple[float, Usage]] = []
        for snapshots in range(1, RUNS[engine] + 1):
            demo.set_day(date(2026, 1, 5) + timedelta(days=7 * (snapshots - 1)))
            usage, found, new = bench.run()
            assert new
            print(f"{engine}, {snapshots} snapshots: {usage}", file=sys.stderr, flush=True)
            news.append((snapshots, usage))
            peaks = peaks or found
            if snapshots in {2, RUNS[engine]}:
                daily.append((snapshots, bench.maintain()))
                print(f"maintenance: {daily[-1][1]}", file=sys.stderr, flush=True)
                quiet, _, new = bench.run()
                assert not new
                quiets.append((snapshots, quiet))
                print(f"nothing new: {quiet}", file=sys.stderr, flush=True)
    year, quiet = costs.at(SNAPSHOTS, news[1], news[-1]), costs.at(SNAPSHOTS, *quiets)
    return Result(peaks, news[0][1], quiet, year, costs.at(VERIFIED, *daily))


def report(engine: str, result: Result) -> int:
    print(f"\n## {engine}\n\n| function | seconds | memory, MB | scratch space, MB |\n|---|---:|---:|---:|")
    for name, (seconds, memory, scratch) in result.peaks.items():
        print(f"| {name} | {seconds:.2f} | {memory} | {scratch} |")
    print(
        f"\nthe first run: {result.first}\nin the twelfth month:\na run that finds nothing new: {result.quiet}"
    )
    print(f"a run with news: {result.news}\na day's maintenance: {result.daily}\n")
    usage = (result.quiet, result.news, result.daily)
    print(costs.table(costs.month(*usage, days_with_news=DAYS_WITH_NEWS, slower=SLOWER, **GIVEN)))
    apart = costs.month(Usage(), Usage(), result.daily, days_with_news=0, alarms=0, slower=SLOWER, **GIVEN)
    print(f"\nof it the daily maintenance: {sum(line.usd for line in apart):.3f} dollars")
    outside = costs.transfer(*usage, days_with_news=DAYS_WITH_NEWS)
    print(f"with Airflow outside AWS: {outside.amount} more, {outside.usd:.2f} dollars")
    memory, scratch = (max(peak[place] for peak in result.peaks.values()) for place in (1, 2))
    given = (GIVEN["memory_mb"], GIVEN["scratch_mb"])
    print(f"peak memory {memory} MB of {given[0]}, scratch space {scratch} MB of {given[1]}", flush=True)
    return 0 if memory < 0.8 * given[0] and scratch < 0.8 * given[1] else 1


def main() -> int:
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--athena", action="store_true", help="measure builds by Athena, too")
    words.add_argument("--one", choices=[*RUNS], help=argparse.SUPPRESS)
    chosen = words.parse_args()
    if chosen.one:
        with tempfile.TemporaryDirectory(prefix="catalunya-bench-aws-") as folder:
            return report(chosen.one, measure(chosen.one, Path(folder)))
    code = 0
    for engine in ("duckdb", *(["athena"] if chosen.athena else [])):
        # A process for each: dbt reads the settings of the engine from its environment.
        code |= subprocess.run([sys.executable, __file__, "--one", engine], check=False).returncode
    print(f"\n## the machine of Airflow\n\n{costs.table(costs.machine())}")
    return code


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(code)
