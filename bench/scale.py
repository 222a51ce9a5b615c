"""How long, and in how much memory, the marts are built from N staged rows: DuckDB and Trino on this machine.

    .venv/bin/python bench/scale.py [--rows 1,5,10] [--engines duckdb,trino] [--workers 0,2,3]

Rows are in millions, of the register. With workers, so many Trino servers work beside one that only coordinates, on the
same processors; the memory of Trino is that of all its servers together. `make setup-aws` installs what it needs. The
lake is made first: the demo portal at full size, and a register of so many rows in ten snapshots, each written straight
into staging, with one row in a hundred changed from one to the next. Nothing is audited or published.
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
from datetime import UTC, datetime
from pathlib import Path

import duckdb

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SNAPSHOTS = 10
BUCKET = "scale"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--rows", default="1,5", help="millions of staged rows, comma-separated")
    words.add_argument("--engines", default="duckdb,trino")
    words.add_argument("--memory", default="4000M", help="what each server of Trino may take")
    words.add_argument(
        "--workers", default="0", help="numbers of Trino's workers, comma-separated; 0: one server does all"
    )
    words.add_argument("--one", help=argparse.SUPPRESS)
    chosen = words.parse_args()
    if chosen.one:
        build(chosen.one)
        return
    for workers in map(int, chosen.workers.split(",")):
        measure_all(chosen, workers)


def measure_all(chosen: argparse.Namespace, workers: int) -> None:
    """Every size and engine in a new lake, with so many workers of Trino."""
    from tools.athena_emulator.environment import running

    with (
        tempfile.TemporaryDirectory(prefix="scale-") as folder,
        running(Path(folder), memory=chosen.memory, workers=workers) as emulator,
    ):
        os.environ.update(emulator.variables())
        os.environ["CATALUNYA_LAKE"] = f"s3://{BUCKET}/lake"
        make_bucket(emulator.aws)
        land_demo()
        servers = server_processes()
        for millions in map(float, chosen.rows.split(",")):
            register(round(millions * 1_000_000))
            for engine in chosen.engines.split(","):
                measure(engine, millions, servers, workers)


def make_bucket(endpoint: str) -> None:
    import boto3

    region = os.environ["AWS_REGION"]
    client = boto3.client("s3", endpoint_url=endpoint, region_name=region)
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": region})


def land_demo() -> None:
    """The other datasets as the demo portal has them."""
    from catalunya.demo import server

    with server.running(day=datetime(2026, 1, 5, tzinfo=UTC).date()) as at:
        names = ("CATALUNYA_SOCRATA_URL", "CATALUNYA_IDESCAT_URL", "CATALUNYA_ICGC_URL")
        env = {**os.environ, **dict.fromkeys(names, at.url), "CATALUNYA_NOW": "2026-01-05T06:00:00Z"}
        for stage in ("ingest", "stage"):
            subprocess.run(
                [sys.executable, "-m", "catalunya", stage], env=env, check=True, capture_output=True
            )


def register(rows: int) -> None:
    """Replace the register's snapshots by ten that have so many rows together."""
    from catalunya.datasets import loader
    from catalunya.lake import layout, snapshot
    from catalunya.lake.opening import open_lake
    from catalunya.lake.staged import Staged, read_record, record_of
    from catalunya.settings import Settings

    settings = Settings.load()
    storage = open_lake(settings.lake)
    definition = loader.load(settings.home / "datasets")["social_services"]
    [seed, *_] = snapshot.usable(storage, definition.id)
    manifest = snapshot.read(storage, definition.id, seed)
    assert manifest is not None
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as con:
        source = storage.fetch(layout.staged(definition.id, seed), Path(folder))
        [(text,)] = con.execute(
            "select decode(value) from parquet_kv_metadata(?) where decode(key) = 'catalunya'", [str(source)]
        ).fetchall()
        known = read_record(text)
        con.execute(
            "create table seed as select *, row_number() over () - 1 as n from read_parquet(?)", [str(source)]
        )
        [(size,)] = con.execute("select count(*) from seed").fetchall()
        each = rows // SNAPSHOTS
        columns = ", ".join(
            {
                "service_id": "service_id || '-' || (i // size) as service_id",
                "places": "case when hash(i, snap) % 100 = 0 then coalesce(places, 0) + 1 else places end as places",
            }.get(column.name, column.name)
            for column in definition.columns
        )
        for number in range(SNAPSHOTS):
            taken = datetime(2026, 1 + number, 5, 6, tzinfo=UTC)
            snapshot_id = seed if number == 0 else layout.make_id(taken, f"{number:08x}")
            staged = Staged(**{
                **{name: getattr(known, name) for name in known.__dataclass_fields__},
                "snapshot_id": snapshot_id, "taken_at": taken, "rows_in": each, "rows_staged": each,
                "rows_quarantined": 0, "rows_duplicated": 0,
            })  # fmt: skip
            file = Path(folder) / "made.parquet"
            record = record_of(staged).replace("'", "''")
            con.execute(
                f"copy (select {columns}, raw, '{snapshot_id}' as snapshot_id "
                f"from (select i, {number} as snap, {size} as size from range({each}) as t (i)) as numbers "
                f"inner join seed on seed.n = numbers.i % {size}) to '{file}' (format parquet, compression zstd, "
                f"compression_level 1, row_group_size 25000, kv_metadata {{catalunya: '{record}'}})"
            )
            storage.put_file(layout.staged(definition.id, snapshot_id), file)
            made = manifest.model_copy(update={"snapshot_id": snapshot_id, "taken_at": taken})
            key = layout.landing(definition.id, snapshot_id, snapshot.MANIFEST)
            storage.put(key, made.model_dump_json().encode())


def measure(engine: str, millions: float, trino: list[int], workers: int) -> None:
    """One build in a process of its own; its peak memory, or that of all of Trino's."""
    peak = [0.0]
    process = subprocess.Popen(
        [sys.executable, __file__, "--one", engine], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    watched = trino if engine == "trino" else [process.pid]

    def watch() -> None:
        while process.poll() is None:
            peak[0] = max(peak[0], sum(map(resident_mb, watched)))
            time.sleep(0.2)

    thread = threading.Thread(target=watch)
    thread.start()
    out, _ = process.communicate()
    thread.join()
    answer = json.loads(out.strip().splitlines()[-1]) if process.returncode == 0 else {"seconds": None}
    line = {"engine": engine, "workers": workers, "millions": millions, "peak_mb": round(peak[0]), **answer}
    print(json.dumps(line), flush=True)


def build(engine: str) -> None:
    """Build a candidate and throw it away; prints seconds and what was asked of the engine."""
    os.environ["CATALUNYA_ENGINE"] = engine
    from catalunya.build import build as run
    from catalunya.build import discard
    from catalunya.datasets import loader
    from catalunya.lake.opening import open_lake
    from catalunya.runs.record import new_run_id
    from catalunya.settings import Settings
    from catalunya.warehouse.engines import open_engine

    settings = Settings.load()
    storage = open_lake(settings.lake)
    used = open_engine(storage, settings)
    now = datetime.now(UTC)
    candidate_id = new_run_id(now)
    began = time.monotonic()
    run(
        storage, loader.load(settings.home / "datasets"), settings, used, candidate_id=candidate_id, now=now,
        on_node=lambda line: print(f"{engine}: {line}", file=sys.stderr),
    )  # fmt: skip
    seconds = round(time.monotonic() - began, 1)
    cost = used.cost()
    discard(storage, used, candidate_id)
    print(json.dumps({"seconds": seconds, "scanned_mb": round(cost.bytes_scanned / 1e6) if cost else None}))


def server_processes() -> list[int]:
    """The processes of Trino that this one started."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(c) for c in children if b"TrinoServer" in Path(f"/proc/{c}/cmdline").read_bytes()]


def resident_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(found[0].split()[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    main()
