"""Landing to staging of 1,000,000 register rows, and the judgement of their figures, against a bare DuckDB `read_json` to
Parquet of the same files.

    .venv/bin/python bench/stage.py [ROWS]

Each side is a process of its own, several times in turn; the medians are compared. Bounds: peak memory of staging below
500 MB, wall time of staging and of the judgement within 3 times of the bare one each. Exits with 1 when a bound is broken.
"""

from __future__ import annotations

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

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
PAGE = 50_000
RUNS = 3
MOST_MB = 500
MOST_RATIO = 3.0

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
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"a measured process failed with status {status}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def land(folder: Path) -> Path:
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
    with server.running(rows=ROWS) as demo:
        base = f"{demo.url}/resource/ivft-vegh.json?$order=:id&$limit={PAGE}"
        with urllib.request.urlopen(f"{demo.url}/api/views/ivft-vegh.json") as answer:
            columns = [
                LandedColumn(name=c["fieldName"], type=c["dataTypeName"])
                for c in json.load(answer)["columns"]
            ]
        for number in range((ROWS + PAGE - 1) // PAGE):
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
        protocol="socrata", request={}, validators={}, columns=tuple(columns), rows_before=ROWS, rows_after=ROWS,
        rows=ROWS, demo=True, content_sha256=content, requests=0, bytes=0, files=tuple(files),
    )  # fmt: skip
    snapshot.write(storage, manifest, spooled)
    return folder / "landing" / dataset.id / manifest.snapshot_id


def main() -> None:
    """Measure and print the table."""
    with tempfile.TemporaryDirectory(prefix="catalunya-bench-") as work:
        lake = Path(work, "lake")
        # In a process of its own: a child's peak memory counts what its parent held when it was forked.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pages = pool.submit(land, lake).result()
        size = sum(path.stat().st_size for path in pages.glob("page-*.json")) / 1e6
        bare, ours, judged = [], [], []
        for _ in range(RUNS):
            bare.append(measured(BARE, str(pages), str(Path(work, "bare.parquet"))))
            ours.append(measured(STAGE, str(lake), str(ROWS)))
            judged.append(measured(JUDGE, str(lake), str(ROWS)))
        bare_s, ours_s, judged_s = (statistics.median(s for s, _ in runs) for runs in (bare, ours, judged))
        bare_mb, ours_mb, judged_mb = (max(mb for _, mb in runs) for runs in (bare, ours, judged))
    print(
        f"{ROWS:,} register rows, {size:.0f} MB of JSON in pages of {PAGE:,}; median of {RUNS} runs in turn"
    )
    print(f"{'':24}{'seconds':>10}{'peak MB':>10}")
    print(f"{'bare read_json':24}{bare_s:10.2f}{bare_mb:10.0f}")
    print(f"{'landing to staging':24}{ours_s:10.2f}{ours_mb:10.0f}")
    print(f"{'judgement of figures':24}{judged_s:10.2f}{judged_mb:10.0f}")
    print(
        f"ratios {ours_s / bare_s:.2f} and {judged_s / bare_s:.2f} (at most {MOST_RATIO}), memory at most {MOST_MB} MB"
    )
    if max(ours_s, judged_s) > MOST_RATIO * bare_s or ours_mb > MOST_MB:
        sys.exit("a bound is broken")


if __name__ == "__main__":
    main()
