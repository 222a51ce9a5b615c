"""Folders for temporary files, one a process, which are removed when their process has ended or was killed."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
import threading
import uuid
from pathlib import Path
from typing import BinaryIO

from catalunya.lake.disk import explained

_scratch_guard = threading.Lock()
_scratches: dict[tuple[int, Path], tuple[Path, BinaryIO]] = {}


def private_base() -> Path:
    """The folder of this user's scratch folders, for a lake that is not on a disk of this machine or cannot be written."""
    return Path(tempfile.gettempdir()) / f"catalunya-{os.getuid()}"


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


def abandoned(base: Path) -> list[Path]:
    """Return the scratch folders of processes that are gone, or their markers where a folder is not there."""
    live, found = set(), []
    for marker in sorted(base.glob("*.alive")):
        folder = marker.with_suffix("")
        if _is_alive(marker):
            live.add(folder)
        else:
            found.append(folder if folder.exists() else marker)
    others = (path for path in sorted(base.glob("*")) if path.suffix != ".alive")
    return list(dict.fromkeys([*found, *(path for path in others if path not in live)]))


def _is_alive(marker: Path) -> bool:
    try:
        with marker.open("rb") as alive:
            fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


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
