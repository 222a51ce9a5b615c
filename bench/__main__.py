"""Every benchmark with a bound, one after the other: `make bench`.

Prints the machine first, then each benchmark's table and ratios with their bounds. Exits with 1 when a bound is broken,
after all have run, and names the benchmarks.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

BENCHMARKS = (
    ("floor.py",),
    ("stage.py",),
    ("fetch.py",),
    ("warehouse.py",),
    ("site.py",),
    ("growth.py", "--s3", "10", "1000", "5000"),
    ("orchestration.py",),
)


def machine() -> str:
    """Processors, memory and system, and what else runs: the load of the last minute."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{os.cpu_count()} processors ({model}), {memory:.0f} GB of memory, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; load {os.getloadavg()[0]:.1f}; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    )


def main() -> int:
    print(machine())
    broken = []
    for name, *arguments in BENCHMARKS:
        print(f"\n== bench/{name} {' '.join(arguments)}", flush=True)
        if subprocess.run(
            [sys.executable, Path(__file__).with_name(name), *arguments], check=False
        ).returncode:
            broken.append(name)
    print(f"\nbounds broken in: {', '.join(broken)}" if broken else "\nall bounds are kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
