"""Build and audit of a run, beside the same compiled SQL run by bare DuckDB on the same staged files.

    .venv/bin/python bench/floor.py                 # the demo at full size
    .venv/bin/python bench/floor.py --rounds 5

A round is one `catalunya run --force` on demo data, whose record has the seconds of build and audit (dbt's start, parse
and results included), and one process that runs the compiled models and tests of the project by DuckDB alone, in the
order of their dependencies, on a new file. Both are taken in turns; the median of the rounds counts. It prints the
ratios, with their bound: build and audit together at most twice the bare SQL. Exits with 1 when it is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MOST = 2.0

FLOOR = """
import json, sys, time
from graphlib import TopologicalSorter
from pathlib import Path
import duckdb
from catalunya.build import inputs
from catalunya.datasets import loader
from catalunya.lake.opening import open_lake
from catalunya.settings import Settings
from catalunya.warehouse import dbt, dbt_runner
from catalunya.warehouse.engines import open_engine

settings = Settings.load()
storage, datasets = open_lake(settings.lake), loader.load(settings.home / "datasets")
engine, wanted = open_engine(storage, settings), inputs(storage, datasets, settings.home)
project = settings.home / "dbt" / "mart"
with engine.build("20000101T000000Z-00000000", datasets, wanted.snapshots) as (workspace, _):
    target = workspace.target
    dbt.invoke(["seed"], project=project, digest=wanted.code, target=target, sample=workspace.sample)
    parsed = dbt.parse(project, wanted.code, target)
    work = workspace._database.parent
    with dbt_runner.connected(target):
        found = dbt_runner.call(["compile"], project, work, target.name, manifest=parsed.manifest)
    nodes = {r.node.unique_id: r.node for r in found.results if r.node.compiled_code}
    parents = parsed.described["parent_map"]
    order = [n for n in TopologicalSorter({n: parents[n] for n in nodes}).static_order() if n in nodes]
    models = [nodes[n] for n in order if n.startswith("model.")]
    tests = [nodes[n] for n in order if n.startswith("test.")]
    with duckdb.connect(workspace._database) as con:
        con.execute(f"set threads = {settings.dbt_threads}")
        for schema in sorted({node.schema for node in models}):
            con.execute(f"create schema if not exists {schema}")
        began = time.perf_counter()
        for node in models:
            kind = "view" if node.config.materialized == "view" else "table"
            con.execute(f"create {kind} {node.relation_name} as ({node.compiled_code})")
        con.execute("checkpoint")
        built = time.perf_counter()
        for node in tests:
            con.execute(f"select count(*) from ({node.compiled_code})").fetchall()
        audited = time.perf_counter()
print(json.dumps({"models": len(models), "tests": len(tests), "build": built - began, "audit": audited - built}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ours: dict[str, list[float]] = {"build": [], "audit": []}
    floor: dict[str, list[float]] = {"build": [], "audit": []}
    with tempfile.TemporaryDirectory(prefix="catalunya-bench-") as lake:
        env = {**os.environ, "ENVIRONMENT": "demo", "CATALUNYA_LAKE": lake, "PYTHONWARNINGS": "ignore"}
        command = [str(Path(sys.executable).with_name("catalunya")), "run", "--force", "--json"]
        # The first run fills the lake and the cache of dbt's parse.
        _answer(command, env)
        for _ in range(options.rounds):
            stages = {stage["name"]: stage["seconds"] for stage in _answer(command, env)["stages"]}
            bare = _answer([sys.executable, "-c", FLOOR], env)
            for name, seconds in ours.items():
                seconds.append(stages[name])
                floor[name].append(bare[name])
    print(
        f"{bare['models']} models, {bare['tests']} tests; {os.cpu_count()} processors, {platform.machine()}\n"
    )
    print(f"{'':18}{'build':>8}{'audit':>8}{'both':>8}")
    medians = [
        [
            *(statistics.median(of[name]) for name in ours),
            statistics.median(map(sum, zip(*of.values(), strict=True))),
        ]
        for of in (ours, floor)
    ]
    for title, row in zip(("catalunya run, s", "bare DuckDB, s"), medians, strict=True):
        print(f"{title:18}" + "".join(f"{seconds:8.2f}" for seconds in row))
    ratios = [mine / bare_s for mine, bare_s in zip(*medians, strict=True)]
    print(f"{'ratio':18}" + "".join(f"{ratio:8.2f}" for ratio in ratios) + f"   (both at most {MOST})")
    return 0 if ratios[-1] <= MOST else 1


def _answer(command: list[str], env: dict[str, str]) -> dict[str, dict[str, float]]:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
