"""Landing to staging of 1 and 5 million register rows, and the judgement of their figures, against a bare DuckDB
`read_json` to Parquet of the same files.

    .venv/bin/python bench/stage.py [--rows 1000000 5000000] [--runs 3]

Each side is a process of its own; at the first size they run several times in turn, and the medians are compared; at the
others they run once, without the bare one, which takes more memory with every row. Bounds at the first size: wall time of
staging within 1.8 times and of the judgement within 3 times of the bare one, less than 400 MB for staging. At the other
sizes staging may take 100 MB more. Exits with 1 when a bound is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

PAGE = 50_000
MOST_MB = 400
GROWTH_MB = 100
MOST_RATIO = 1.8
MOST_JUDGED = 3.0

BARE = """
import sys, duckdb
with duckdb.connect(config={"threads": 2}) as con:
    con.execute(f"copy (select * from read_json('{sys.argv[1]}/page-*.json')) to '{sys.argv[2]}' (format parquet)")
"""

STAGE = """
import sys
from pathlib import Path
from catalunya.datasets import loader
from catalunya.lake import snapshot
from catalunya.lake.opening import open_lake
from catalunya.lake.storage import Storage
from catalunya.settings import ROOT
from catalunya.staging.snapshot_typing import stage_snapshot
storage = open_lake(sys.argv[1])
dataset = loader.load(ROOT / "datasets")["social_services"]
manifest = snapshot.latest(storage, dataset.id)
staged, _ = stage_snapshot(storage, dataset, manifest)
assert staged.rows_in == int(sys.argv[2]), staged
"""

JUDGE = """
import sys
from catalunya.datasets import loader
from catalunya.lake import layout, snapshot
from catalunya.lake.opening import open_lake
from catalunya.lake.staged import staged_record
from catalunya.quality.figures import Reference, judge_snapshot
from catalunya.settings import ROOT
storage = open_lake(sys.argv[1])
dataset = loader.load(ROOT / "datasets")["social_services"]
[snapshot_id] = snapshot.usable(storage, dataset.id)
staged = staged_record(storage, dataset.id, snapshot_id)
assert staged.rows_in == int(sys.argv[2]), staged
path = storage.fetch(layout.staged(dataset.id, snapshot_id), storage.scratch())
judge_snapshot(dataset, staged, path, reference=Reference(staged, path))
"""
"""Compares the staged rows with themselves, as a run does with those of the last release."""


def measured(code: str, *arguments: str) -> tuple[float, float]:
    """Wall seconds and peak resident megabytes of a Python process that runs `code`."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"a measured process failed with status {status}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def land(folder: Path, rows: int) -> Path:
    """Read the generated register from the demo portal and land it; returns the folder of its pages."""
    from catalunya.datasets import loader
    from catalunya.demo import server
    from catalunya.lake import layout, snapshot
    from catalunya.lake.opening import open_lake
    from catalunya.lake.snapshot import LandedColumn, LandedFile, Manifest
    from catalunya.settings import ROOT

    dataset = loader.load(ROOT / "datasets")["social_services"]
    storage = open_lake(str(folder))
    files, spooled = [], {}
    with server.running(rows=rows) as demo:
        base = f"{demo.url}/resource/ivft-vegh.json?$order=:id&$limit={PAGE}"
        with urllib.request.urlopen(f"{demo.url}/api/views/ivft-vegh.json") as answer:
            columns = [
                LandedColumn(name=c["fieldName"], type=c["dataTypeName"])
                for c in json.load(answer)["columns"]
            ]
        for number in range((rows + PAGE - 1) // PAGE):
            name = f"page-{number:05d}.json"
            path = storage.scratch() / name
            with urllib.request.urlopen(f"{base}&$offset={number * PAGE}") as answer, path.open("wb") as out:
                while chunk := answer.read(1 << 20):
                    out.write(chunk)
            digest = subprocess.check_output(["sha256sum", path], text=True).split()[0]
            files.append(LandedFile(name=name, url=base, size=path.stat().st_size, sha256=digest))
            spooled[name] = path
    now = datetime.now(UTC).replace(microsecond=0)
    content = snapshot.content_hash(files)
    manifest = Manifest(
        dataset_id=dataset.id, snapshot_id=layout.make_id(now, content), taken_at=now, run_id="bench",
        protocol="socrata", request={}, validators={}, columns=tuple(columns), rows_before=rows, rows_after=rows,
        rows=rows, demo=True, content_sha256=content, requests=0, bytes=0, files=tuple(files),
    )  # fmt: skip
    snapshot.write(storage, manifest, spooled)
    return folder / "landing" / dataset.id / manifest.snapshot_id


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--runs", type=int, default=3, help="of each side at the first size")
    options = parser.parse_args()
    broken = []
    print(f"{'':24}{'rows':>11}{'seconds':>10}{'peak MB':>10}{'ratio':>8}", flush=True)
    for rows in options.rows:
        is_first = rows == options.rows[0]
        most = MOST_MB if is_first else MOST_MB + GROWTH_MB
        broken += measure(rows, options.runs if is_first else 1, most_mb=most, with_bare=is_first)
    print(
        f"bounds: staging {MOST_RATIO} times the bare one and {MOST_MB} MB, {GROWTH_MB} MB more at larger sizes; "
        f"the judgement {MOST_JUDGED:g} times"
    )
    print("\n".join(f"broken: {text}" for text in broken), end="\n" if broken else "")
    return 1 if broken else 0


def measure(rows: int, runs: int, *, most_mb: int, with_bare: bool) -> list[str]:
    """Print a line for each side; returns what does not keep its bound."""
    taken: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="catalunya-bench-") as work:
        lake = Path(work, "lake")
        # In a process of its own: a child's peak memory counts what its parent held when it was forked.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pages = pool.submit(land, lake, rows).result()
        sides = {
            "bare read_json": (BARE, str(pages), str(Path(work, "bare.parquet"))),
            "landing to staging": (STAGE, str(lake), str(rows)),
            "judgement of figures": (JUDGE, str(lake), str(rows)),
        }
        if not with_bare:
            del sides["bare read_json"]
        for _ in range(runs):
            for name, (code, *arguments) in sides.items():
                taken.setdefault(name, []).append(measured(code, *arguments))
    seconds = {name: statistics.median(s for s, _ in found) for name, found in taken.items()}
    peaks = {name: max(mb for _, mb in found) for name, found in taken.items()}
    bare = seconds.get("bare read_json")
    for name in sides:
        ratio = f"{seconds[name] / bare:8.2f}" if bare else ""
        print(f"{name:24}{rows:>11,}{seconds[name]:10.2f}{peaks[name]:10.0f}{ratio}", flush=True)
    broken = []
    if peaks["landing to staging"] >= most_mb:
        broken.append(f"{rows:,} rows took {peaks['landing to staging']:.0f} MB, bound {most_mb}")
    for name, most in {"landing to staging": MOST_RATIO, "judgement of figures": MOST_JUDGED}.items():
        if bare and seconds[name] > most * bare:
            broken.append(f"{name} takes {seconds[name] / bare:.2f} times the bare one, bound {most}")
    return broken


if __name__ == "__main__":
    sys.exit(main())
