"""Build the package of the functions: a zip for AWS Lambda, reproducible to the byte.

    .venv/bin/python -m infrastructure.package            # both architectures, into .artefacts/
    .venv/bin/python -m infrastructure.package --architecture arm64 --output /tmp/functions

It contains the library, the dataset definitions and the locked dependencies of the functions, without dbt and Airflow.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / ".artefacts"
PYTHON = "3.13"
"""The runtime of the functions."""
ARCHITECTURES = {"arm64": "aarch64-manylinux_2_28", "x86_64": "x86_64-manylinux_2_28"}
"""Names of AWS to names of uv; the runtime is Amazon Linux 2023, whose glibc is newer than 2.28."""
MOST_BYTES = 250 * 1024 * 1024
"""AWS refuses larger packages; counted unpacked."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_NOT_NEEDED = {
    "__pycache__",
    "tests",
    "bin",
    "RECORD",
    "INSTALLER",
    "REQUESTED",
    "WHEEL",
    ".lock",
    "_duckdb-stubs",
}
"""RECORD and INSTALLER describe the installation, not the package."""
_NOT_NEEDED_ENDINGS = (".pyc", ".pyi", ".pxd", ".h", ".a")


class PackageError(Exception):
    """The package could not be built, or is too large for AWS."""


@dataclass(frozen=True)
class Package:
    """A finished zip."""

    path: Path
    architecture: str
    sha256: str
    zipped_bytes: int
    unzipped_bytes: int


def build(architecture: str, output: Path = OUTPUT, python: str = PYTHON) -> Package:
    """Build `functions-<architecture>.zip` in `output`; raises `PackageError`.

    `python` is the version of the runtime; its wheels of the lock are installed, and nothing is compiled.
    """
    with tempfile.TemporaryDirectory(prefix="catalunya-package-") as scratch:
        folder = Path(scratch) / "package"
        folder.mkdir()
        _install(architecture, python, folder, Path(scratch) / "requirements.txt")
        _copy_own(folder)
        files = _files(folder)
        size = sum(path.stat().st_size for path in files.values())
        if size > MOST_BYTES:
            raise PackageError(
                f"{architecture}: {size:,} bytes unpacked, AWS takes {MOST_BYTES:,}; leave something out"
            )
        output.mkdir(parents=True, exist_ok=True)
        target = output / f"functions-{architecture}.zip"
        partial = target.with_suffix(".partial")
        _write(files, partial)
        partial.replace(target)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    return Package(target, architecture, digest, target.stat().st_size, size)


def _install(architecture: str, python: str, folder: Path, requirements: Path) -> None:
    uv = _uv()
    exported = ["export", "--frozen", "--only-group", "functions", "--no-emit-project", "--output-file"]
    _run([uv, *exported, str(requirements)])
    platform = ["--python-platform", ARCHITECTURES[architecture], "--python-version", python]
    wheels = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--link-mode", "copy"]
    _run([uv, "pip", "install", *wheels, *platform, "--target", str(folder), "-r", str(requirements)])


def _copy_own(folder: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "reference")
    shutil.copytree(ROOT / "src" / "catalunya", folder / "catalunya", ignore=ignored)
    shutil.copytree(ROOT / "datasets", folder / "datasets", ignore=shutil.ignore_patterns("__pycache__"))


def _files(folder: Path) -> dict[str, Path]:
    """Return names in the zip to files, sorted, without what the functions do not need."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: found[name]
        for name in sorted(found)
        if not _NOT_NEEDED & set(name.split("/")) and not name.endswith(_NOT_NEEDED_ENDINGS)
    }


def _write(files: dict[str, Path], target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = (0o100755 if ".so" in path.suffixes else 0o100644) << 16
            archive.writestr(entry, path.read_bytes())


def _uv() -> str:
    own = ROOT / ".uv" / "bin" / "uv"
    found = str(own) if own.exists() else shutil.which("uv")
    if found is None:
        raise PackageError("uv is missing; `make setup` installs it")
    return found


def _run(command: list[str]) -> None:
    done = subprocess.run([*command, "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PackageError(f"{' '.join(command[:3])} failed: {done.stderr.strip()}")


def main() -> int:
    """Build the requested zips and print their sizes and checksums; returns 1 when one could not be built."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--architecture", choices=[*ARCHITECTURES], action="append")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--python", default=PYTHON)
    options = parser.parse_args()
    for architecture in options.architecture or ARCHITECTURES:
        try:
            made = build(architecture, options.output, options.python)
        except PackageError as error:
            sys.stderr.write(f"{error}\n")
            return 1
        sizes = f"{made.zipped_bytes / 2**20:.1f} MiB, {made.unzipped_bytes / 2**20:.1f} MiB unpacked"
        sys.stdout.write(f"{made.path}: {sizes}, SHA-256 {made.sha256}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
