"""A lake in a local folder. Everything that is not data lies in `.lake/`, which no key can name."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from typing_extensions import override

from catalunya.errors import CatalunyaError, UsageError
from catalunya.lake.disk import explained, fsync, rename_or_copy
from catalunya.lake.storage import (
    Conflict,
    Entry,
    KeyExists,
    MissingKey,
    Storage,
    Version,
    check_key,
    deletable,
    folder_key,
    is_key,
)

_HIDDEN = ".lake"


class LocalStorage(Storage):
    """A lake in a local folder."""

    is_local = True

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            (self.root / _HIDDEN / "locks").mkdir(parents=True, exist_ok=True)
            (self.root / _HIDDEN / "scratch").mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root / _HIDDEN):
                pass
        except OSError as error:
            raise UsageError(
                f"CATALUNYA_LAKE: the folder {self.root} cannot be written ({error.strerror}); "
                "give a folder that this user can write"
            ) from error
        self.url = str(self.root)

    def lock_path(self, name: str) -> Path:
        """The file that the lock `name` is taken on."""
        return self.root / _HIDDEN / "locks" / f"{check_key(name)}.lock"

    @override
    def read(self, key: str) -> bytes:
        path = self._path(key)
        try:
            with explained(path):
                return path.read_bytes()
        except CatalunyaError as error:
            if path.is_file():
                raise
            raise MissingKey(f"{path} is not in the lake") from error

    @override
    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    @override
    def folders(self, prefix: str = "") -> list[str]:
        try:
            with os.scandir(self._folder(prefix)) as entries:
                return sorted(e.name for e in entries if e.is_dir() and is_key(e.name))
        except (FileNotFoundError, NotADirectoryError):
            return []

    @override
    def list(self, prefix: str = "") -> list[Entry]:
        return sorted(self._walk(self._folder(prefix)), key=lambda entry: entry.key)

    @override
    def put(self, key: str, data: bytes, *, create: bool = False) -> None:
        target = self._path(key)
        with self._staged(target, data) as staged, self._exclusive():
            if create and target.exists():
                raise KeyExists(f"{target} is there already; it was left as it was")
            self._move(staged, target)

    @override
    def put_file(self, key: str, path: Path) -> None:
        target = self._path(key)
        with explained(target):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                on_other_device = os.fstat(file.fileno()).st_dev != self.root.stat().st_dev
            if on_other_device:
                with self._staged_copy(path) as staged, self._exclusive():
                    self._move(staged, target)
                path.unlink()
            else:
                with self._exclusive():
                    self._move(path, target)

    @override
    def fetch(self, key: str, folder: Path) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise MissingKey(f"{path} is not in the lake")
        return path

    @override
    def read_tail(self, key: str, count: int) -> tuple[int, bytes]:
        path = self.fetch(key, self.root)
        with explained(path), path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - count))
            return size, file.read(count)

    @override
    def copy(self, source: str, target: str) -> None:
        path = self.fetch(source, self.root)
        place = self._path(target)
        with explained(place), self._staged_copy(path) as staged, self._exclusive():
            self._move(staged, place)

    @override
    def read_versioned(self, key: str) -> tuple[bytes, Version] | None:
        try:
            data = self.read(key)
        except MissingKey:
            return None
        return data, _content_version(data)

    @override
    def replace(self, key: str, data: bytes, expected: Version | None) -> Version:
        target = self._path(key)
        with self._staged(target, data) as staged, self._exclusive():
            found = self.read_versioned(key)
            if (found[1] if found else None) != expected:
                raise Conflict(f"{target} was changed by somebody else meanwhile; it was left as it is now")
            self._move(staged, target)
        return _content_version(data)

    @override
    def delete(self, key: str) -> None:
        path = self._path(key)
        with explained(path), self._exclusive():
            path.unlink(missing_ok=True)
            self._remove_empty(path.parent)

    @override
    def delete_folder(self, prefix: str) -> None:
        folder = self.root / deletable(prefix)
        if not folder.resolve().is_relative_to(self.root):
            raise UsageError(f"{folder} leads out of the lake {self.root}; nothing was deleted")
        doomed = self.scratch() / uuid.uuid4().hex
        with explained(folder):
            with self._exclusive():
                if not folder.is_dir():
                    return
                rename_or_copy(folder, doomed)
                self._remove_empty(folder.parent)
            shutil.rmtree(doomed)

    @override
    def uri(self, key: str) -> str:
        check_key(key.replace("*", "x"))
        return str(self.root / key)

    @override
    def duckdb_secret_sql(self) -> str | None:
        return None

    @override
    def _scratch_base(self) -> Path:
        return self.root / _HIDDEN / "scratch"

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _folder(self, prefix: str) -> Path:
        return self.root / folder_key(prefix)

    def _walk(self, folder: Path) -> Iterator[Entry]:
        try:
            with os.scandir(folder) as entries:
                found = [entry for entry in entries if is_key(entry.name)]
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in found:
            if entry.is_dir():
                yield from self._walk(Path(entry.path))
                continue
            with contextlib.suppress(FileNotFoundError):
                yield Entry(Path(entry.path).relative_to(self.root).as_posix(), entry.stat().st_size)

    @contextlib.contextmanager
    def _staged(self, target: Path, data: bytes) -> Iterator[Path]:
        staged = self.scratch() / uuid.uuid4().hex
        try:
            with explained(target):
                with staged.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                yield staged
        finally:
            staged.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _staged_copy(self, path: Path) -> Iterator[Path]:
        staged = self.scratch() / uuid.uuid4().hex
        try:
            shutil.copyfile(path, staged)
            fsync(staged)
            yield staged
        finally:
            staged.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lake's write lock: only around a comparison and a rename, never around copying."""
        with (self.root / _HIDDEN / "write.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _move(self, source: Path, target: Path) -> None:
        made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        rename_or_copy(source, target)
        for folder in {target.parent, *(folder.parent for folder in made)}:
            fsync(folder)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self.root and folder.is_relative_to(self.root):
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return
            folder = folder.parent


def _content_version(data: bytes) -> Version:
    return Version(hashlib.sha256(data).hexdigest())
