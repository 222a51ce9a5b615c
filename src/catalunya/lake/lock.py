"""An exclusive lock on the lake that becomes free when its holder is killed.

A local lake uses `flock`, which the kernel drops when the process ends. S3 has nothing like it: there the lock is a
lease, an object that its holder rewrites every few seconds and that another process may take over when it is older
than the lease. Its age is `Date` minus `Last-Modified` of one response, both by the storage's clock, and the holder
measures by its own monotonic clock from before each renewal. So times of two clocks are never compared, and the lease
is over for its holder before it is over for another process.

Readers need no lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from catalunya.errors import CatalunyaError, LakeBusy
from catalunya.lake.disk import explained, write_all
from catalunya.lake.local import LocalStorage
from catalunya.lake.storage import Conflict, Storage, Version, check_key
from catalunya.log import get_logger

LEASE_S = 60.0
LOCK_TIMEOUT_S = 0.3
"""How long a local lock is tried again: `lock_owner` holds it for an instant to see whether it is free."""

if TYPE_CHECKING:
    from catalunya.lake.s3 import S3Storage

log = get_logger(__name__)


class LockLost(CatalunyaError):
    """This run no longer holds the lock; it must not publish."""


class Holder(BaseModel):
    """The run that holds a lock, where and since when."""

    model_config = ConfigDict(frozen=True)

    holder: str
    """The run id."""
    host: str
    pid: int
    since: AwareDatetime

    def __str__(self) -> str:
        return (
            f"run {self.holder} (host {self.host}, process {self.pid}, since {self.since:%Y-%m-%d %H:%M:%SZ})"
        )


class Lock(Protocol):
    """A lock that is held."""

    holder: Holder

    def check(self) -> None:
        """Raise `LockLost` unless the storage says that the lock is still held by this run.

        Call it right before the pointer moves and before each deletion (`Storage.guarded` does).
        """


@contextlib.contextmanager
def lake_lock(
    storage: Storage, holder: str, what: str = "run", *, lease_s: float = LEASE_S
) -> Iterator[Lock]:
    """Hold the lake's lock `what` for run `holder`; raises `LakeBusy` at once, which names the holder.

    `lease_s` is used on S3 only: another process may take the lock so many seconds after the last renewal. The lease
    is renewed four times in that time.
    """
    check_key(what)
    me = Holder(
        holder=holder,
        host=socket.gethostname(),
        pid=os.getpid(),
        since=datetime.now(UTC).replace(microsecond=0),
    )
    held: contextlib.AbstractContextManager[Lock]
    if isinstance(storage, LocalStorage):
        held = _file_lock(storage, me, what)
    else:
        held = _lease_lock(_in_s3(storage), me, what, lease_s)
    with held as lock:
        yield lock


def lock_owner(storage: Storage, what: str = "run") -> Holder | None:
    """The holder of the lock `what`; None when it is free. Changes nothing."""
    check_key(what)
    if isinstance(storage, LocalStorage):
        return _file_owner(storage.lock_path(what))
    in_s3 = _in_s3(storage)
    found = _read_lease(in_s3, _lease_key(what))
    return found[0].holder if found and _is_alive(in_s3, what, found[0]) else None


def _in_s3(storage: Storage) -> S3Storage:
    """Return a lake that is in S3; the client of S3 is imported for such a lake only."""
    from catalunya.lake.s3 import S3Storage

    assert isinstance(storage, S3Storage)
    return storage


def _busy(storage: Storage, holder: Holder | None) -> LakeBusy:
    who = str(holder) if holder else "another run that has just begun"
    return LakeBusy(
        f"the lake {storage.url} is held by {who}; nothing was changed: wait until it ends (a lock left by a "
        "killed run frees itself)"
    )


class _FileLock:
    def __init__(self, holder: Holder, path: Path, file: BinaryIO) -> None:
        self.holder = holder
        self._path = path
        self._file = file

    def check(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(self._path.stat(), os.fstat(self._file.fileno())):
                return
        raise LockLost(f"{self._path} was removed while run {self.holder.holder} held it; run again")


_held: set[BinaryIO] = set()


def _drop_inherited() -> None:
    """A forked child must not keep its parent's lock alive."""
    for file in _held:
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_drop_inherited)


@contextlib.contextmanager
def _file_lock(storage: LocalStorage, me: Holder, what: str) -> Iterator[Lock]:
    storage.prepare()
    path = storage.lock_path(what)
    with contextlib.ExitStack() as opened:
        with explained(path):
            file = opened.enter_context(path.open("a+b", buffering=0))
        if not _flock(file):
            raise _busy(storage, _parse_holder(path))
        _held.add(file)
        try:
            with explained(path):
                file.truncate(0)
                write_all(file, me.model_dump_json().encode())
            yield _FileLock(me, path, file)
        finally:
            _held.discard(file)
            with contextlib.suppress(OSError):
                file.truncate(0)


def _flock(file: BinaryIO) -> bool:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


def _file_owner(path: Path) -> Holder | None:
    with explained(path):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return _parse_holder(path)
    return None


def _parse_holder(path: Path) -> Holder | None:
    try:
        return Holder.model_validate_json(path.read_bytes())
    except (ValidationError, OSError):
        return None


class _Lease(BaseModel):
    """The object in the bucket; its age is the age of the lease."""

    holder: Holder
    lease_s: float
    released: bool = False
    renewal: str = ""
    """New with every renewal, so that each has an ETag of its own."""


def _lease_key(what: str) -> str:
    return f"locks/{what}.json"


def _read_lease(storage: S3Storage, key: str) -> tuple[_Lease, Version] | None:
    found = storage.read_versioned(key)
    if found is None:
        return None
    try:
        return _Lease.model_validate_json(found[0]), found[1]
    except ValidationError:
        unknown = Holder(holder="unknown", host="unknown", pid=0, since=datetime.fromtimestamp(0, UTC))
        return _Lease(holder=unknown, lease_s=LEASE_S), found[1]


def _is_alive(storage: S3Storage, what: str, lease: _Lease) -> bool:
    """Ages are whole seconds: a lease is over one second after its time."""
    if lease.released:
        return False
    age_s = storage.age_s(_lease_key(what))
    return age_s is not None and age_s <= lease.lease_s + 1


class _LeaseLock:
    """Renews its lease from a thread until it is released or lost."""

    def __init__(self, storage: S3Storage, key: str, lease: _Lease, expected: Version | None) -> None:
        self.holder = lease.holder
        self._storage = storage
        self._key = key
        self._lease = lease
        self._ended = threading.Event()
        self._lost = False
        self._version: Version | None = expected
        self._renew()
        self._thread = threading.Thread(target=self._keep, name=f"lease {key}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        self._check_time()
        found = _read_lease(self._storage, self._key)
        if found is None or found[0].holder != self.holder or found[0].released:
            self._lost = True
        # Reading took time, and the process may have been suspended meanwhile.
        self._check_time()

    def _check_time(self) -> None:
        if self._lost or _elapsed_s() >= self._good_until_s:
            raise LockLost(
                f"run {self.holder.holder} lost its lock {self._storage.uri(self._key)}: another run took it "
                f"over or it could not be renewed for {self._lease.lease_s:.0f} s; run again"
            )

    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        try:
            self._check_time()
            self._write(released=True)
        except CatalunyaError as error:
            log.warning("lock not released", key=self._key, holder=self.holder.holder, reason=str(error))

    def _keep(self) -> None:
        while not self._ended.wait(self._lease.lease_s / 4):
            try:
                self._renew()
            except Conflict:
                self._lost = True
                return
            except CatalunyaError as error:
                log.warning("lock not renewed", key=self._key, holder=self.holder.holder, reason=str(error))

    def _renew(self) -> None:
        began_s = _elapsed_s()
        self._write(released=False)
        self._good_until_s = began_s + self._lease.lease_s

    def _write(self, *, released: bool) -> None:
        body = self._lease.model_copy(update={"renewal": uuid.uuid4().hex, "released": released})
        self._version = self._storage.replace(self._key, body.model_dump_json().encode(), self._version)


@contextlib.contextmanager
def _lease_lock(storage: S3Storage, me: Holder, what: str, lease_s: float) -> Iterator[Lock]:
    key = _lease_key(what)
    found = _read_lease(storage, key)
    if found and _is_alive(storage, what, found[0]):
        raise _busy(storage, found[0].holder)
    try:
        lock = _LeaseLock(storage, key, _Lease(holder=me, lease_s=lease_s), found[1] if found else None)
    except Conflict:
        raise _busy(storage, lock_owner(storage, what)) from None
    try:
        yield lock
    finally:
        lock.release()


def _elapsed_s() -> float:
    """Seconds of a monotonic clock, which includes suspend where the system has one that does."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
