"""The public site of the demo release: built into an empty folder, then over itself after ten services changed.

    .venv/bin/python bench/site.py --runs 3

Each build is `catalunya site build` in a process of its own; the best of its runs counts. Memory is what the process and
its forks hold together, pages that they share counted once (PSS), looked at every 50 ms. Bounds: the whole site takes less
than 60 seconds and 1,000 MB; after ten services changed it takes less than 15 seconds, no longer than the whole site does,
and of the pages of services those of the ten alone are written. Exits with 1 when one is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

MOST_WHOLE_SECONDS = 60.0
MOST_CHANGED_SECONDS = 15.0
MOST_RATIO = 1.1
MOST_MB = 1000
CHANGED = 10
"""Services that have a place more in the second release."""


@dataclass(frozen=True)
class Measured:
    """The best of several builds."""

    seconds: float
    processor_s: float
    """Of all processors together."""
    peak_mb: float
    answer: dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="of each build; the fastest counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="catalunya-bench-") as work:
        lake, sites = Path(work, "lake"), Path(work, "sites")
        first = make_release(lake, date(2026, 1, 5), 0)
        whole = best(options.runs, lake, first, sites, None)
        second = make_release(lake, date(2026, 1, 12), CHANGED)
        before = service_pages(sites / "whole")
        changed = best(options.runs, lake, second, sites, sites / "whole")
        written = {
            name for name, inode in service_pages(sites / "changed").items() if before.get(name) != inode
        }
    print(
        f"{'':28}{'seconds':>9}{'processor s':>13}{'peak MB':>9}{'pages':>8}{'written':>9}{'unchanged':>11}"
    )
    for title, found in (("into an empty folder", whole), (f"after {CHANGED} services changed", changed)):
        answer = found.answer
        print(
            f"{title:28}{found.seconds:>9.1f}{found.processor_s:>13.1f}{found.peak_mb:>9.0f}{answer['pages']:>8,}{answer['pages_written']:>9,}"
            f"{answer['pages_unchanged']:>11,}"
        )
    ratio = changed.seconds / whole.seconds
    print(
        f"\nafter the change / into an empty folder: {ratio:.2f}; pages of services written: {len(written)}"
    )
    print(
        f"bounds: {MOST_WHOLE_SECONDS:g} s, {MOST_CHANGED_SECONDS:g} s, {MOST_RATIO}, {MOST_MB} MB, {3 * CHANGED} pages"
    )
    broken = [
        text
        for text, is_kept in (
            (f"the whole site takes {whole.seconds:.1f} s", whole.seconds < MOST_WHOLE_SECONDS),
            (f"after a change it takes {changed.seconds:.1f} s", changed.seconds < MOST_CHANGED_SECONDS),
            (f"ratio {ratio:.2f}", ratio < MOST_RATIO),
            (f"{whole.peak_mb:.0f} MB", max(whole.peak_mb, changed.peak_mb) < MOST_MB),
            (f"{len(written)} pages of services are written", len(written) == 3 * CHANGED),
        )
        if not is_kept
    ]
    print("\n".join(f"broken: {text}" for text in broken), end="\n" if broken else "")
    return 1 if broken else 0


def make_release(lake: Path, day: date, changed: int) -> str:
    """Run the pipeline on the demo portal of the first day, in whose register so many services have a place more."""
    from catalunya.demo import server
    from catalunya.demo.data import register
    from catalunya.settings import PORTAL_VARIABLES
    from catalunya.site.facts import GROUPS

    services = register.services_at(date(2026, 1, 5))
    chosen = [service for service in services if service.group in GROUPS and service.places][::200][:changed]
    numbers = {service.number for service in chosen}
    register.services_at = lambda _: [
        replace(service, places=(service.places or 0) + 1) if service.number in numbers else service
        for service in services
    ]
    try:
        with server.running(day=day) as portal:
            variables = {**environment(lake), "CATALUNYA_NOW": f"{day}T06:00:00Z"}
            variables |= dict.fromkeys(PORTAL_VARIABLES, portal.url)
            command = [sys.executable, "-m", "catalunya", "run", "--json"]
            done = subprocess.run(command, env=variables, check=True, capture_output=True, text=True)
    finally:
        register.services_at = lambda _: services
    return str(json.loads(done.stdout)["release_id"])


def best(runs: int, lake: Path, release: str, sites: Path, over: Path | None) -> Measured:
    """Build a site several times, each time over a copy of `over`; the last stays, as `whole` or `changed`."""
    target = sites / ("changed" if over else "whole")
    found = []
    for _ in range(runs):
        shutil.rmtree(target, ignore_errors=True)
        if over:
            shutil.copytree(over, target, symlinks=True, copy_function=os.link)
        found.append(build(lake, release, target))
    return min(found, key=lambda one: one.seconds)


def build(lake: Path, release: str, target: Path) -> Measured:
    command = [
        sys.executable,
        "-m",
        "catalunya",
        "site",
        "build",
        "--release",
        release,
        "--to",
        str(target),
        "--json",
    ]
    began, used = time.monotonic(), processor_seconds()
    running = subprocess.Popen(
        command, env=environment(lake), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    peaks = [0.0]
    watching = threading.Thread(target=watch, args=(running, peaks))
    watching.start()
    answer, _ = running.communicate()
    seconds = time.monotonic() - began
    watching.join()
    if running.returncode:
        sys.exit(f"a build failed with status {running.returncode}: {answer}")
    return Measured(seconds, processor_seconds() - used, max(peaks), json.loads(answer))


def processor_seconds() -> float:
    """What all processes used that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def watch(running: subprocess.Popen[str], peaks: list[float]) -> None:
    """Note what the process and its forks hold in memory, until it ends."""
    while running.poll() is None:
        peaks.append(sum(map(proportional_mb, family(running.pid))))
        time.sleep(0.05)


def family(pid: int) -> Iterator[int]:
    """The process and all that it started."""
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split():
            yield from family(int(child))


def proportional_mb(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def service_pages(target: Path) -> dict[str, int]:
    """The pages of services of a site, and which files they are."""
    site = target / "current"
    return {
        path.relative_to(site).as_posix(): path.stat().st_ino for path in site.glob("*/*/S*-*/index.html")
    }


def environment(lake: Path) -> dict[str, str]:
    """What a run on the demo's data finds in its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CATALUNYA_")}
    return {**kept, "ENVIRONMENT": "demo", "CATALUNYA_LAKE": str(lake)}


if __name__ == "__main__":
    sys.exit(main())
