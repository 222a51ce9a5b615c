"""The local disk: explained errors, whole writes, durable writes, atomic renames, checksums of files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from catalunya.errors import CatalunyaError

_NO_SPACE = "free space or move CATALUNYA_LAKE to a larger disk"
_NO_RIGHT = "give this user the right to read and write there or move CATALUNYA_LAKE"
_HINTS = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: "raise the limit on file sizes (`ulimit -f`) or move CATALUNYA_LAKE",
    errno.EIO: "the disk is failing: look at the system's log, then move CATALUNYA_LAKE to another disk",
    errno.ELOOP: "remove the symbolic link that leads back to itself",
    errno.EROFS: "mount it writable or move CATALUNYA_LAKE",
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
}


@contextlib.contextmanager
def explained(path: Path, *, known_only: bool = False) -> Iterator[None]:
    """Turn an `OSError` into a `CatalunyaError` that names the path and what to do.

    With `known_only` an error that is not one of the disk or its rights stays as it is.
    """
    try:
        yield
    except OSError as error:
        if known_only and error.errno not in _HINTS:
            raise
        hint = _HINTS.get(error.errno or 0, "check the folder and the disk")
        raise CatalunyaError(f"{error.filename or path}: {error.strerror or error}; {hint}") from error


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


def sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Write a file or a folder through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file and write the copy through to the disk."""
    shutil.copyfile(source, target)
    fsync(target)
    check_size(target, source.stat().st_size)


def rename_or_copy(source: Path, target: Path) -> None:
    """Rename; across file systems (a part of the lake may be mounted) copy beside it, then rename."""
    try:
        source.replace(target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        if source.is_dir():
            shutil.copytree(source, beside, symlinks=True)
        else:
            copy_file(source, beside)
        beside.replace(target)
    except BaseException:
        remove(beside)
        raise
    remove(source)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; nothing happens when it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
