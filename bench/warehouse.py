"""The full rebuild and audit of all marts from ten years of weekly snapshots of the register, and how they grow.

    .venv/bin/python bench/warehouse.py                         # 10, 50, 100, 250 and 500 snapshots
    .venv/bin/python bench/warehouse.py --snapshots 2000 --days 1 --runs 1

The snapshots are the demo register's at every Monday, or of every day, staged by the project's own writer; each build is
`catalunya.build.build` and `catalunya.audit.audit`, with nothing to judge but the marts, in a process of its own with two
threads; the best of its runs counts. Beside each, in turn, bare DuckDB runs the same compiled SQL (`bench/floor.py`).
Bounds, for 500 snapshots and more: build and audit at most 1.3 times the bare SQL, the process below 2 GB of peak memory;
for 500 snapshots it takes less than 30 seconds, import of dbt and parse included. Exits with 1 when one is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import floor

MOST_SECONDS = 30.0
MOST_RATIO = 1.3
MOST_MB = 2000
BOUND_AT = 500
FIRST = datetime(2025, 1, 6, 6, tzinfo=UTC)
CORRECTED = 10
"""Services whose places each snapshot corrects beside what happens in the demo register, which is some 0.2 % a week."""

BUILD = """
import json, time
from datetime import UTC, datetime
from catalunya import audit, build
from catalunya.datasets import loader
from catalunya.warehouse.engines import open_engine
from catalunya.lake.opening import open_lake
from catalunya.settings import Settings
settings = Settings.load()
now = datetime(2036, 1, 1, tzinfo=UTC)
storage, datasets = open_lake(settings.lake), loader.load(settings.home / "datasets")
engine = open_engine(storage, settings)
began = time.perf_counter()
candidate = build.build(storage, datasets, settings, engine, candidate_id="20360101T000000Z-00000000", now=now)
built = time.perf_counter()
marts = tuple(mart.name for mart in candidate.marts)
released = audit.Baseline(candidate.inputs.snapshots, candidate.inputs.code, candidate.candidate_id, marts, {})
audit.audit(storage, datasets, settings, engine, candidate, released, now=now)
print(json.dumps({"build": built - began, "audit": time.perf_counter() - built}))
"""


@dataclass(frozen=True)
class Measured:
    """One size of lake, its best build, and the best of bare DuckDB."""

    snapshots: int
    rows: int
    periods: int
    seconds: float
    """Wall time of the process."""
    stages: float
    """Build and audit in it."""
    bare: float
    peak_mb: float

    @property
    def ratio(self) -> float:
        return self.stages / self.bare

    def broken(self) -> list[str]:
        """What does not keep its bound."""
        if self.snapshots < BOUND_AT:
            return []
        found = []
        if self.ratio > MOST_RATIO:
            found.append(
                f"build and audit take {self.ratio:.2f} times as long as bare DuckDB, bound {MOST_RATIO}"
            )
        if self.peak_mb >= MOST_MB:
            found.append(f"{self.peak_mb:.0f} MB, bound {MOST_MB}")
        if self.snapshots == BOUND_AT and self.seconds >= MOST_SECONDS:
            found.append(f"{self.seconds:.1f} s, bound {MOST_SECONDS}")
        return [f"{self.snapshots} snapshots: {text}" for text in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--snapshots", type=int, nargs="+", default=[10, 50, 100, 250, 500])
    parser.add_argument("--runs", type=int, default=3, help="of each size; the fastest counts")
    parser.add_argument("--days", type=int, default=7, help="from a snapshot to the next one")
    options = parser.parse_args()
    sizes = sorted(options.snapshots)
    with tempfile.TemporaryDirectory(prefix="catalunya-bench-") as work:
        whole = Path(work, "lake")
        # In a process of its own: a child's peak memory counts what its parent held when it was forked.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            made = pool.submit(make_lake, whole, sizes[-1], options.days).result()
        print(
            f"{sizes[-1]} snapshots, one every {options.days} days, of {made[0]:,} services at first and {made[-1]:,} "
            f"at last; best of {options.runs} builds on two threads\n"
        )
        print(
            f"{'snapshots':>10}{'staged rows':>14}{'periods':>10}{'process, s':>12}{'build + audit, s':>18}"
            f"{'bare, s':>9}{'ratio':>7}{'peak MB':>9}",
            flush=True,
        )
        results = []
        for count in sizes:
            found = measure(whole, Path(work, f"lake-{count}"), made[:count], options.runs)
            print(
                f"{found.snapshots:>10}{found.rows:>14,}{found.periods:>10,}{found.seconds:>12.1f}{found.stages:>18.1f}"
                f"{found.bare:>9.1f}{found.ratio:>7.2f}{found.peak_mb:>9.0f}",
                flush=True,
            )
            results.append(found)
    print(
        f"\nbounds from {BOUND_AT} snapshots on: {MOST_RATIO} times bare DuckDB, {MOST_MB} MB; {MOST_SECONDS:g} s at "
        f"{BOUND_AT}"
    )
    broken = [text for result in results for text in result.broken()]
    print("\n".join(f"broken: {text}" for text in broken), end="\n" if broken else "")
    return 1 if broken else 0


def measure(whole: Path, lake: Path, counts: list[int], runs: int) -> Measured:
    """Build a lake of the first snapshots several times."""
    link_lake(whole, lake, len(counts))
    seconds, peaks, stages, bare = [], [], [], []
    for _ in range(runs):
        shutil.rmtree(lake / "candidates", ignore_errors=True)
        taken, peak, found = process(BUILD, lake)
        seconds.append(taken)
        peaks.append(peak)
        stages.append(found["build"] + found["audit"])
        _, _, found = process(floor.FLOOR, lake)
        bare.append(found["build"] + found["audit"])
    periods = subprocess.check_output(
        [sys.executable, "-c", "import duckdb, sys; print(duckdb.connect(sys.argv[1], read_only=True).execute("
         "'select count(*) from marts.service_history').fetchone()[0])",
         str(next(lake.glob("candidates/20360101*/candidate.duckdb")))],
        text=True,
    )  # fmt: skip
    shutil.rmtree(lake)
    return Measured(len(counts), sum(counts), int(periods), min(seconds), min(stages), min(bare), max(peaks))


def process(code: str, lake: Path) -> tuple[float, float, dict[str, float]]:
    """Wall seconds and peak resident megabytes of a process that runs `code`, and the JSON in its last line."""
    started = time.monotonic()
    running = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], env=environment(lake), stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    lines = running.stdout.read().splitlines()
    _, status, usage = os.wait4(running.pid, 0)
    if status:
        sys.exit(f"a build failed with status {status}")
    return time.monotonic() - started, usage.ru_maxrss / 1024, json.loads(lines[-1])


def environment(lake: Path) -> dict[str, str]:
    """What a build on the demo's data finds in its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CATALUNYA_")}
    return {**kept, "ENVIRONMENT": "demo", "CATALUNYA_LAKE": str(lake), "CATALUNYA_NOW": FIRST.isoformat()}


def link_lake(whole: Path, lake: Path, count: int) -> None:
    """A lake that has the first `count` snapshots of the register and all others, by hard links."""
    wanted = {path.name for path in sorted((whole / "landing" / "social_services").iterdir())[:count]}
    for path in whole.rglob("*"):
        if not path.is_file():
            continue
        inside = path.relative_to(whole)
        register = "social_services" in inside.parts
        if register and not wanted & {part.removesuffix(".parquet") for part in inside.parts}:
            continue
        target = lake / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(path)


def make_lake(lake: Path, count: int, days: int) -> list[int]:
    """Land and stage the demo portals once, then `count` snapshots of the register; returns the rows of each."""
    import duckdb

    from catalunya.datasets import loader
    from catalunya.lake.opening import open_lake
    from catalunya.settings import ROOT
    from catalunya.staging import row_sql

    others = [name for name in loader.load(ROOT / "datasets") if name != "social_services"]
    chosen = [argument for name in others for argument in ("--dataset", name)]
    command = [sys.executable, "-m", "catalunya"]
    subprocess.run([*command, "ingest", *chosen], env=environment(lake), check=True, capture_output=True)
    subprocess.run([*command, "stage"], env=environment(lake), check=True, capture_output=True)
    dataset = loader.load(ROOT / "datasets")["social_services"]
    storage = open_lake(str(lake))
    lines = lake / "lives.ndjson"
    lives = write_lives(lines, count, days)
    counts = []
    with duckdb.connect(config={"threads": 2}) as con:
        objects = f"read_json_objects('{lines}', format='newline_delimited')"
        con.execute("create table lives (n bigint, first integer, last integer)")
        con.execute(
            "insert into lives select unnest(?), unnest(?), unnest(?)",
            [[*range(1, len(lives) + 1)], [a for a, _ in lives], [b for _, b in lives]],
        )
        query = row_sql.typed_query(dataset, objects, taken_on=date.max)
        con.execute(
            f"create table typed as select * from ({query}) join lives using (n) where len(reasons) = 0 order by n"
        )
        con.execute("create table problems (n bigint)")
        for number in range(count):
            taken_at = FIRST + timedelta(days=days * number)
            counts.append(write_snapshot(con, storage, dataset, lake / "staged.parquet", number, taken_at))
    lines.unlink()
    return counts


def write_snapshot(
    con: Any, storage: Any, dataset: Any, scratch: Path, number: int, taken_at: datetime
) -> int:
    """Write the staged file of one snapshot and the manifest that makes it count; returns its rows."""
    from catalunya.lake import layout, snapshot
    from catalunya.lake.snapshot import Manifest
    from catalunya.lake.staged import Staged
    from catalunya.staging import row_sql
    from catalunya.staging.snapshot_typing import _write_staged

    there = f"(select * from typed where {number} between first and last)"
    ((rows,),) = con.execute(f"select count(*) from {there}").fetchall()
    snapshot_id = layout.make_id(taken_at, f"{number:08x}")
    staged = Staged(
        dataset_id=dataset.id,
        snapshot_id=snapshot_id,
        taken_at=taken_at,
        rows_in=rows,
        rows_staged=rows,
        rows_quarantined=0,
        rows_duplicated=0,
        demo=True,
        digest=row_sql.digest(dataset),
    )
    _write_staged(con, dataset, staged, there, scratch)
    storage.put_file(layout.staged(dataset.id, snapshot_id), scratch)
    manifest = Manifest(
        dataset_id=dataset.id, snapshot_id=snapshot_id, taken_at=taken_at, run_id="bench", protocol="socrata",
        request={}, validators={}, columns=(), rows_before=rows, rows_after=rows, rows=rows, demo=True,
        content_sha256=f"{number:064x}", requests=0, bytes=0, files=(),
    )  # fmt: skip
    snapshot.write(storage, manifest, {})
    return int(rows)


def write_lives(path: Path, count: int, days: int) -> list[tuple[int, int]]:
    """Write each state of each service as a line, and return the first and last snapshot that shows it."""
    from catalunya.demo.data.register import services_at
    from catalunya.demo.data.service import row_of

    dice = random.Random("corrections")
    corrected: dict[int, int] = {}
    begun: dict[int, tuple[Any, int]] = {}
    lives: list[tuple[int, int]] = []
    with path.open("w", encoding="utf-8") as out:

        def end(number: int, last: int) -> None:
            service, first = begun.pop(number)
            out.write(json.dumps(row_of(service), ensure_ascii=False) + "\n")
            lives.append((first, last))

        for at in range(count):
            day: date = (FIRST + timedelta(days=days * at)).date()
            present = {s.number: s for s in services_at(day)}
            for number in dice.sample(sorted(present), CORRECTED) if at else []:
                corrected[number] = dice.randint(5, 90)
            for number in corrected.keys() & present.keys():
                present[number] = replace(present[number], places=corrected[number])
            for number in [n for n, (service, _) in begun.items() if present.get(n) != service]:
                end(number, at - 1)
            for number in present.keys() - begun.keys():
                begun[number] = (present[number], at)
        for number in list(begun):
            end(number, count - 1)
    return lives


if __name__ == "__main__":
    sys.exit(main())
