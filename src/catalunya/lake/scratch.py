"""The local disk under a lake: explained errors, atomic renames, and scratch folders that die with their process."""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import os
import shutil
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from catalunya.errors import CatalunyaError

_REMEDIES = {
    errno.ENOSPC: "free space or move CATALUNYA_LAKE to a larger disk",
    errno.EDQUOT: "free space or move CATALUNYA_LAKE to a larger disk",
    errno.EFBIG: "raise the limit on file sizes (`ulimit -f`) or move CATALUNYA_LAKE",
    errno.EIO: "the disk is failing: look at the system's log, then move CATALUNYA_LAKE to another disk",
    errno.ELOOP: "remove the symbolic link that leads back to itself",
    errno.EROFS: "mount it writable or move CATALUNYA_LAKE",
    errno.EACCES: "give this user the right to read and write there or move CATALUNYA_LAKE",
    errno.EPERM: "give this user the right to read and write there or move CATALUNYA_LAKE",
}


@contextlib.contextmanager
def explained(path: Path, *, known_only: bool = False) -> Iterator[None]:
    """Turn an `OSError` into a `CatalunyaError` that names the path and the remedy.

    With `known_only` an error that is not one of the disk or its rights stays as it is.
    """
    try:
        yield
    except OSError as error:
        if known_only and error.errno not in _REMEDIES:
            raise
        remedy = _REMEDIES.get(error.errno or 0, "check the folder and the disk")
        raise CatalunyaError(f"{error.filename or path}: {error.strerror or error}; {remedy}") from error


def write_all(file: IO[bytes], data: bytes | memoryview) -> None:
    """Write every byte: an unbuffered file may take only a part at a time. Raises `OSError`."""
    left = memoryview(data)
    while left:
        written = file.write(left)
        if not written:
            raise OSError(errno.EIO, "the disk took only a part of what was written", str(file.name))
        left = left[written:]


def check_size(path: Path, expected: int) -> None:
    """Raise `CatalunyaError` when a file is not as long as what was written to it."""
    found = path.stat().st_size
    if found != expected:
        raise CatalunyaError(
            f"{path}: {found} bytes were stored of {expected}; check the disk and its free space, then run again"
        )


def fsync(path: Path) -> None:
    """Write a file or a folder through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_or_copy(source: Path, target: Path) -> None:
    """Rename; across file systems (a part of the lake may be mounted) copy beside it, then rename."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            if source.is_dir():
                shutil.copytree(source, beside, symlinks=True)
            else:
                size = source.stat().st_size
                shutil.copyfile(source, beside)
                fsync(beside)
                check_size(beside, size)
            beside.replace(target)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            beside.unlink(missing_ok=True)
            raise
        if source.is_dir():
            shutil.rmtree(source)
        else:
            source.unlink()


_scratch_guard = threading.Lock()
_scratches: dict[tuple[int, Path], tuple[Path, BinaryIO]] = {}


def own_scratch(base: Path) -> Path:
    """Make or find this process's folder below `base`; a locked file beside it says that it lives.

    A lock and not the process id, since containers that share a lake do not share ids.
    """
    with _scratch_guard:
        known = _scratches.get((os.getpid(), base))
        folder, alive = known or _claim_scratch(base)
        _scratches[(os.getpid(), base)] = folder, alive
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder


def _claim_scratch(base: Path) -> tuple[Path, BinaryIO]:
    while True:
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        with explained(base):
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            alive = (base / f"{name}.alive").open("xb")
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (base / f"{name}.alive").exists():
                return base / name, alive
        alive.close()


def clean_scratch(base: Path) -> int:
    """Remove the scratch folders of processes that are gone; returns how many."""
    removed = 0
    for marker in base.glob("*.alive"):
        with (
            contextlib.suppress(OSError),
            marker.open("rb") as alive,
        ):
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(marker.with_suffix(""), ignore_errors=True)
            marker.unlink(missing_ok=True)
            removed += 1
    return removed


@atexit.register
def _drop_own_scratch() -> None:
    for (pid, _), (folder, alive) in _scratches.items():
        if pid == os.getpid():
            shutil.rmtree(folder, ignore_errors=True)
            Path(alive.name).unlink(missing_ok=True)
