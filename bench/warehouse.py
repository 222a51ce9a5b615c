"""The full rebuild of all marts from ten years of weekly snapshots of the register, and how it grows with them.

    .venv/bin/python bench/warehouse.py                         # 10, 50, 100, 250 and 500 snapshots
    .venv/bin/python bench/warehouse.py --snapshots 10 50 --runs 1

The snapshots are the demo register's at every Monday, staged by the project's own writer; each build is
`catalunya.build.build` in a process of its own with two threads, dbt's import and parse included, and the best of
its runs counts. Bounds, for 500 snapshots: below 30 seconds and below 2 GB of peak memory. Exits with 1 when one is
broken.
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

MOST_SECONDS = 30.0
MOST_MB = 2000
BOUND_AT = 500
FIRST = datetime(2025, 1, 6, 6, tzinfo=UTC)
CORRECTED_A_WEEK = 10
"""Services whose places are corrected beside what happens in the demo register, which is some 0.2 % a week."""

BUILD = """
import sys
from datetime import UTC, datetime
from catalunya import build
from catalunya.datasets import loader
from catalunya.warehouse.engines import open_engine
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from catalunya.settings import Settings
settings = Settings.load()
now = datetime(2036, 1, 1, tzinfo=UTC)
storage = open_lake(settings.lake)
build.build(
    storage, loader.load(settings.home / "datasets"), settings, open_engine(storage, settings),
    candidate_id="20360101T000000Z-00000000", now=now,
)
"""


@dataclass(frozen=True)
class Measured:
    """One size of lake, and its best build."""

    snapshots: int
    rows: int
    seconds: float
    peak_mb: float
    periods: int


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--snapshots", type=int, nargs="+", default=[10, 50, 100, 250, 500])
    parser.add_argument("--runs", type=int, default=3, help="of each size; the fastest counts")
    options = parser.parse_args()
    sizes = sorted(options.snapshots)
    with tempfile.TemporaryDirectory(prefix="catalunya-bench-") as work:
        whole = Path(work, "lake")
        # In a process of its own: a child's peak memory counts what its parent held when it was forked.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            made = pool.submit(make_lake, whole, sizes[-1]).result()
        print(
            f"{sizes[-1]} weekly snapshots, of {made[0]:,} services at first and {made[-1]:,} at last; "
            f"best of {options.runs} builds on two threads\n"
        )
        print(
            f"{'snapshots':>10}{'staged rows':>14}{'periods':>10}{'seconds':>10}{'peak MB':>10}", flush=True
        )
        results = []
        for count in sizes:
            found = measure(whole, Path(work, f"lake-{count}"), made[:count], options.runs)
            print(
                f"{found.snapshots:>10}{found.rows:>14,}{found.periods:>10,}{found.seconds:>10.1f}{found.peak_mb:>10.0f}",
                flush=True,
            )
            results.append(found)
    print(f"\nbound at {BOUND_AT} snapshots: below {MOST_SECONDS:g} seconds and {MOST_MB} MB")
    broken = [
        r for r in results if r.snapshots >= BOUND_AT and (r.seconds >= MOST_SECONDS or r.peak_mb >= MOST_MB)
    ]
    if broken:
        print("a bound is broken", file=sys.stderr)
    return 1 if broken else 0


def measure(whole: Path, lake: Path, counts: list[int], runs: int) -> Measured:
    """Build a lake of the first snapshots several times."""
    link_lake(whole, lake, len(counts))
    best = (float("inf"), 0.0)
    for _ in range(runs):
        shutil.rmtree(lake / "candidates", ignore_errors=True)
        best = min(best, built(lake))
    periods = subprocess.check_output(
        [sys.executable, "-c", "import duckdb, sys; print(duckdb.connect(sys.argv[1], read_only=True).execute("
         "'select count(*) from marts.service_history').fetchone()[0])",
         str(next(lake.glob("candidates/*/candidate.duckdb")))],
        text=True,
    )  # fmt: skip
    shutil.rmtree(lake)
    return Measured(len(counts), sum(counts), *best, periods=int(periods))


def built(lake: Path) -> tuple[float, float]:
    """Wall seconds and peak resident megabytes of one build."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", BUILD], env=environment(lake))
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"a build failed with status {status}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


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


def make_lake(lake: Path, count: int) -> list[int]:
    """Land and stage the demo portals once, then `count` weeks of the register; returns the rows of each."""
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
    lives = write_lives(lines, count)
    counts = []
    with duckdb.connect(config={"threads": 2}) as con:
        objects = f"read_json_objects('{lines}', format='newline_delimited')"
        con.execute("create table lives (n bigint, first_week integer, last_week integer)")
        con.execute(
            "insert into lives select unnest(?), unnest(?), unnest(?)",
            [[*range(1, len(lives) + 1)], [a for a, _ in lives], [b for _, b in lives]],
        )
        query = row_sql.typed_query(dataset, objects, taken_on=date.max)
        con.execute(
            f"create table typed as select * from ({query}) join lives using (n) where len(reasons) = 0 order by n"
        )
        con.execute("create table problems (n bigint)")
        for week in range(count):
            counts.append(write_snapshot(con, storage, dataset, lake / "staged.parquet", week))
    lines.unlink()
    return counts


def write_snapshot(con: Any, storage: Any, dataset: Any, scratch: Path, week: int) -> int:
    """Write the staged file of one week and the manifest that makes it count; returns its rows."""
    from catalunya.lake import layout, snapshot
    from catalunya.lake.snapshot import Manifest
    from catalunya.lake.staged import Staged
    from catalunya.staging import row_sql
    from catalunya.staging.snapshot_typing import _write_staged

    there = f"(select * from typed where {week} between first_week and last_week)"
    ((rows,),) = con.execute(f"select count(*) from {there}").fetchall()
    taken_at = FIRST + timedelta(weeks=week)
    snapshot_id = layout.make_id(taken_at, f"{week:08x}")
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
        content_sha256=f"{week:064x}", requests=0, bytes=0, files=(),
    )  # fmt: skip
    snapshot.write(storage, manifest, {})
    return int(rows)


def write_lives(path: Path, count: int) -> list[tuple[int, int]]:
    """Write each state of each service as a line, and return the first and last week that shows it."""
    from catalunya.demo.data.register import services_at
    from catalunya.demo.data.service import row_of

    dice = random.Random("corrections")
    corrected: dict[int, int] = {}
    begun: dict[int, tuple[Any, int]] = {}
    lives: list[tuple[int, int]] = []
    with path.open("w", encoding="utf-8") as out:

        def end(number: int, last_week: int) -> None:
            service, first_week = begun.pop(number)
            out.write(json.dumps(row_of(service), ensure_ascii=False) + "\n")
            lives.append((first_week, last_week))

        for week in range(count):
            day: date = (FIRST + timedelta(weeks=week)).date()
            present = {s.number: s for s in services_at(day)}
            for number in dice.sample(sorted(present), CORRECTED_A_WEEK) if week else []:
                corrected[number] = dice.randint(5, 90)
            for number in corrected.keys() & present.keys():
                present[number] = replace(present[number], places=corrected[number])
            for number in [n for n, (service, _) in begun.items() if present.get(n) != service]:
                end(number, week - 1)
            for number in present.keys() - begun.keys():
                begun[number] = (present[number], week)
        for number in list(begun):
            end(number, count - 1)
    return lives


if __name__ == "__main__":
    sys.exit(main())
