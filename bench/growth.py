"""What more kept snapshots cost: requests and seconds of a run with nothing new, status, staging again and a release.

    .venv/bin/python bench/growth.py                                       # 10, 1,000 and 5,000 snapshots in a folder
    .venv/bin/python bench/growth.py --s3 10 1000 5000                     # and so many in an S3 emulator

The lake is one real release of the demo portal with a small register, whose snapshot is copied under so many ids, each
with a manifest, a typed file, an entry in the index and three records in the ledger. Requests are calls of the
storage: a list counts once for each thousand names that it returns, as on S3. `catalunya run` with nothing new is also
timed as a process, from its start to its end, on a lake in a folder. Bounds: a run with nothing new needs the same
requests at every size, and as a process at most 1.0 s, the demo portal's answers included; status needs at most 1.5
times the requests of the smallest size; staging again at most 2 times the requests and seconds for each snapshot.
Exits with 1 when one is broken.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import structlog

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from catalunya.build import inputs  # noqa: E402
from catalunya.datasets import loader  # noqa: E402
from catalunya.demo import server  # noqa: E402
from catalunya.lake import index, layout, snapshot  # noqa: E402
from catalunya.lake.opening import open_lake  # noqa: E402
from catalunya.lake.staged import record_of, staged_record  # noqa: E402
from catalunya.lake.storage import Storage  # noqa: E402
from catalunya.operations.status import describe  # noqa: E402
from catalunya.release import current_release  # noqa: E402
from catalunya.runs.pipeline import Run  # noqa: E402
from catalunya.runs.record import RunRecord  # noqa: E402
from catalunya.runs.reporter import NullReporter  # noqa: E402
from catalunya.runs.steps import whole_lake  # noqa: E402
from catalunya.settings import PORTAL_VARIABLES, Settings  # noqa: E402
from catalunya.sql import quote  # noqa: E402

REGISTER = "social_services"
ROWS = 60
"""Services of the register: what is measured is the number of snapshots."""
DAY = date(2026, 1, 5)
NOW = "2026-01-05T06:00:00Z"
NEXT = "2026-01-05T12:00:00Z"
RECORDS = 3
"""Records in the ledger for each snapshot."""
MOST_STAGED_AGAIN = 1000
MOST_FLAT = 1.5
MOST_SECONDS = 1.0
COMMANDS = 3
MOST_LINEAR = 2.0
PAGE = 1000
LISTS = ("list", "folders")
READS = ("read", "exists", "fetch", "read_tail", "read_versioned", "age_s")
WRITES = ("put", "put_file", "replace", "copy", "delete", "delete_folder")


@dataclass
class Cost:
    """Requests of a storage by kind, and the seconds they took with all else."""

    lists: int = 0
    reads: int = 0
    writes: int = 0
    names: int = 0
    """What the lists returned."""
    seconds: float = 0.0
    command_s: float | None = None
    """Wall time of the command as a process, the fastest of three."""

    @property
    def by_kind(self) -> tuple[int, int, int]:
        return self.lists, self.reads, self.writes

    @property
    def requests(self) -> int:
        return sum(self.by_kind)


@contextmanager
def counted(storage: Storage) -> Iterator[Cost]:
    """Count what is asked of a storage; a method that calls another counts once."""
    cost, guard, inside = Cost(), threading.Lock(), threading.local()

    def watch(name: str, kind: str) -> None:
        real: Callable[..., Any] = getattr(storage, name)

        @functools.wraps(real)
        def call(*args: Any, **more: Any) -> Any:
            if getattr(inside, "one", False):
                return real(*args, **more)
            inside.one = True
            try:
                found = real(*args, **more)
            finally:
                inside.one = False
            pages = max(1, -(-len(found) // PAGE)) if kind == "lists" else 1
            with guard:
                setattr(cost, kind, getattr(cost, kind) + pages)
                cost.names += len(found) if kind == "lists" else 0
            return found

        setattr(storage, name, call)

    kinds = {"lists": LISTS, "reads": READS, "writes": WRITES}
    watched = [(name, kind) for kind, names in kinds.items() for name in names if hasattr(storage, name)]
    for name, kind in watched:
        watch(name, kind)
    began = time.monotonic()
    try:
        yield cost
    finally:
        cost.seconds = time.monotonic() - began
        for name, _ in watched:
            delattr(storage, name)


def run(settings: Settings, *, force: bool = False, rebuild: bool = False) -> tuple[RunRecord, Cost]:
    """A run in this process."""
    known = loader.load(settings.home / "datasets")
    storage = open_lake(settings.lake)
    record = RunRecord.start(settings)
    with counted(storage) as cost, whole_lake(storage, record.run_id, known) as lock:
        current = Run(settings, storage, known, lock, NullReporter(), record)
        current.execute(lambda: current.all_stages(force=force, rebuild=rebuild))
    return record, cost


def nothing_new(settings: Settings) -> Cost:
    """A run that finds nothing new, and for a lake in a folder the command that makes it."""
    record, cost = run(settings)
    assert record.status == "unchanged", record.message
    if not settings.lake.startswith("s3:"):
        cost.command_s = min(command(settings) for _ in range(COMMANDS))
    return cost


def command(settings: Settings) -> float:
    """Wall seconds of `catalunya run` as a process."""
    lake = {"CATALUNYA_LAKE": settings.lake, "CATALUNYA_NOW": NEXT}
    env = {**os.environ, **dict.fromkeys(PORTAL_VARIABLES, settings.socrata_url), **lake}
    began = time.monotonic()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("catalunya")), "run", "--json"],
        env=env,
        check=True,
        capture_output=True,
    )
    taken = time.monotonic() - began
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "unchanged", done.stdout
    return taken


def status(settings: Settings) -> Cost:
    """What `catalunya status` asks."""
    storage = open_lake(settings.lake)
    with counted(storage) as cost:
        answer = describe(storage, loader.load(settings.home / "datasets"), settings.now())
    assert answer["faults"] == [], answer["faults"]
    return cost


def stage_again(settings: Settings) -> Cost:
    """Every kept snapshot from its landed bytes."""
    known = loader.load(settings.home / "datasets")
    storage = open_lake(settings.lake)
    record = RunRecord.start(settings)
    with counted(storage) as cost, whole_lake(storage, record.run_id, known) as lock:
        current = Run(settings, storage, known, lock, NullReporter(), record)
        current.stage(force=True, only=(REGISTER,))
        current.raise_refusals()
    return cost


def release(settings: Settings) -> Cost:
    """A release of everything that is kept, although nothing is new."""
    record, cost = run(settings, force=True)
    assert record.status == "released", record.message
    return cost


def multiply(lake: Path, count: int, home: Path) -> None:
    """Make a lake of one release have `count` snapshots of the register, as if each had come some hours before."""
    storage = open_lake(str(lake))
    definition = loader.load(home / "datasets")[REGISTER]
    [seed] = snapshot.usable(storage, REGISTER)
    manifest, staged = snapshot.read(storage, REGISTER, seed), staged_record(storage, REGISTER, seed)
    note = index.load(storage, REGISTER).staged(seed)
    assert manifest is not None and staged is not None and note is not None
    made: dict[str, index.SnapshotEntry] = {}
    columns = ", ".join(column.name for column in definition.columns)
    with duckdb.connect(config={"threads": 1}) as con:
        source = quote(storage.uri(layout.staged(REGISTER, seed)))
        con.execute(f"create table seed as select {columns}, raw from read_parquet({source})")
        for number in range(1, count):
            taken = manifest.taken_at - timedelta(hours=6 * number)
            name = layout.make_id(taken, f"{number:08x}")
            folder = lake / layout.LANDING / REGISTER / name
            folder.mkdir()
            for file in manifest.files:
                (folder / file.name).hardlink_to(lake / layout.landing(REGISTER, seed, file.name))
            copy = manifest.model_copy(update={"snapshot_id": name, "taken_at": taken})
            (folder / index.MANIFEST).write_text(copy.model_dump_json(indent=1))
            quarantined = lake / layout.quarantined(REGISTER, name)
            quarantined.parent.mkdir(parents=True, exist_ok=True)
            quarantined.hardlink_to(lake / layout.quarantined(REGISTER, seed))
            path = lake / layout.staged(REGISTER, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            record = quote(record_of(replace(staged, snapshot_id=name, taken_at=taken)))
            con.execute(
                f"copy (select *, {quote(name)} as snapshot_id from seed) to {quote(str(path))} "
                f"(format parquet, compression zstd, kv_metadata {{catalunya: {record}}})"
            )
            data = path.read_bytes()
            made[name] = index.SnapshotEntry(
                staged=replace(note, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            )
    index.update(storage, REGISTER, lambda known: known.update(made))
    _write_records(lake, RECORDS * count)
    shown = current_release(storage)
    assert shown is not None
    wanted = inputs(storage, loader.load(home / "datasets"), home)
    record = shown.model_copy(
        update={
            "snapshots": wanted.snapshots,
            "inputs_sha256": wanted.fingerprint,
            "code_sha256": wanted.code,
        }
    )
    storage.put(layout.release(shown.release_id, "release.json"), record.model_dump_json(indent=1).encode())


def _write_records(lake: Path, count: int) -> None:
    [first] = [path for path in (lake / layout.LEDGER).iterdir() if layout.is_id(path.stem)]
    newest = layout.moment_of(first.stem)
    for number in range(1, count):
        name = layout.make_id(newest - timedelta(hours=2 * number), f"{number:08x}")
        (lake / layout.ledger(name)).hardlink_to(first)


def configured(lake: str, url: str, **more: str) -> Settings:
    """The settings of a run on a lake, six hours after its snapshots were taken."""
    names = PORTAL_VARIABLES
    return Settings(**{**dict.fromkeys(names, url), "CATALUNYA_LAKE": lake, "CATALUNYA_NOW": NEXT, **more})


MEASURED: dict[str, Callable[[Settings], Cost]] = {
    "nothing new": nothing_new, "status": status, "staging again": stage_again, "release": release,
}  # fmt: skip


def measure(where: str, lake: str, url: str, count: int, wanted: Sequence[str]) -> dict[str, Cost]:
    """Print a line for each kind of work on a lake of `count` snapshots."""
    found = {}
    for name in wanted:
        if name == "staging again" and count > MOST_STAGED_AGAIN:
            continue
        cost = found[name] = MEASURED[name](configured(lake, url))
        taken = f"{cost.command_s:>12.2f}" if cost.command_s is not None else ""
        print(
            f"{where:8}{count:>10,}  {name:16}{cost.lists:>8,}{cost.reads:>10,}{cost.writes:>8,}"
            f"{cost.seconds:>10.2f}{taken}",
            flush=True,
        )
    return found


def broken(found: dict[int, dict[str, Cost]]) -> list[str]:
    """What does not keep its bound, in sentences."""
    smallest, *larger = sorted(found)
    wrong = [
        f"{name} at {count:,}: the command takes {cost.command_s:.2f} s, bound {MOST_SECONDS}"
        for count, costs in found.items()
        for name, cost in costs.items()
        if cost.command_s is not None and cost.command_s > MOST_SECONDS
    ]
    for count in larger:
        for name, cost in found[count].items():
            base = found[smallest][name]
            if name == "nothing new" and cost.by_kind != base.by_kind:
                wrong.append(f"{name} at {count:,}: {cost.by_kind} requests, {base.by_kind} at {smallest}")
            if name == "status" and cost.requests > MOST_FLAT * base.requests:
                wrong.append(f"{name} at {count:,}: {cost.requests} requests, {base.requests} at {smallest}")
            if name == "staging again":
                for what in ("requests", "seconds"):
                    each, before = getattr(cost, what) / count, getattr(base, what) / smallest
                    if each > MOST_LINEAR * before:
                        wrong.append(
                            f"{name} at {count:,}: {each:.3f} {what} a snapshot, {before:.3f} at {smallest}"
                        )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--snapshots", type=int, nargs="+", default=[10, 1000, 5000])
    parser.add_argument(
        "--s3", type=int, nargs="*", default=[], help="sizes to measure on an S3 emulator, too"
    )
    parser.add_argument("--only", nargs="+", default=list(MEASURED), choices=list(MEASURED))
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("CATALUNYA_", "AWS_", "ENVIRONMENT"))]:
        del os.environ[name]
    os.environ["ENVIRONMENT"] = "demo"
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    wrong = []
    with (
        tempfile.TemporaryDirectory(prefix="catalunya-bench-") as work,
        server.running(rows=ROWS, day=DAY) as at,
    ):
        base = Path(work, "base")
        record, _ = run(configured(str(base), at.url, CATALUNYA_NOW=NOW))
        assert record.status == "released", record.message
        print(
            f"{'':8}{'snapshots':>10}  {'what':16}{'lists':>8}{'reads':>10}{'writes':>8}{'seconds':>10}"
            f"{'command, s':>12}",
            flush=True,
        )
        found = {}
        for count in sorted(options.snapshots):
            lake = Path(work, "lake")
            shutil.copytree(base, lake)
            multiply(lake, count, configured(str(lake), at.url).home)
            found[count] = measure("folder", str(lake), at.url, count, options.only)
            shutil.rmtree(lake)
        wrong += [f"folder: {words}" for words in broken(found)]
        if options.s3:
            wrong += [f"S3: {words}" for words in broken(on_s3(Path(work), base, at.url, options))]
    print(
        f"\nbounds: nothing new the requests of the smallest lake, its command {MOST_SECONDS} s; status at most {MOST_FLAT} "
        f"times the requests of the smallest lake; staging again at most {MOST_LINEAR:g} times its requests and seconds "
        "for each snapshot"
    )
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


def on_s3(work: Path, base: Path, url: str, options: argparse.Namespace) -> dict[int, dict[str, Cost]]:
    """The same in buckets of an emulator; its seconds say little of a real one."""
    from tests.s3 import running

    found = {}
    with running(work / "s3", "s3") as emulator:
        os.environ.update(emulator.env)
        for count in sorted(options.s3):
            lake = work / "copy"
            shutil.copytree(base, lake)
            multiply(lake, count, configured(str(lake), url).home)
            bucket = f"s3://{emulator.new_bucket()}/lake"
            upload(lake, open_lake(bucket))
            found[count] = measure("S3", bucket, url, count, options.only)
            shutil.rmtree(lake)
    return found


def upload(lake: Path, storage: Storage) -> None:
    """Put every file of a local lake into another one."""

    def put(path: Path) -> None:
        storage.put(path.relative_to(lake).as_posix(), path.read_bytes())

    paths = [p for p in lake.rglob("*") if p.is_file() and ".lake" not in p.relative_to(lake).parts]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, paths))


if __name__ == "__main__":
    sys.exit(main())
