"""A lake in a local folder. Everything that is not data lies in `.lake/`, which no key can name."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from typing_extensions import override

from catalunya.errors import CatalunyaError, UsageError
from catalunya.lake import layout
from catalunya.lake.scratch import check_size, explained, fsync, rename_or_copy, write_all
from catalunya.lake.storage import (
    Conflict,
    Entries,
    Entry,
    KeyExists,
    MissingKey,
    Names,
    Storage,
    Version,
    check_key,
    deletable,
    expect_size,
    folder_key,
    is_key,
)

_HIDDEN = ".lake"
Scanned = list[tuple[os.DirEntry[str], bool]]


class LocalStorage(Storage):
    """A lake in a local folder."""

    is_local = True

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = _readable_path(root)
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
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError | IsADirectoryError):
                raise MissingKey(f"{path} is not in the lake") from error
            raise

    @override
    def exists(self, key: str) -> bool:
        path = self._path(key)
        with explained(path):
            return path.is_file()

    @override
    def folders(self, prefix: str = "") -> Names:
        return self.folders_after(prefix, "")

    @override
    def list(self, prefix: str = "") -> Entries:
        return self.list_after(prefix, "")

    @override
    def list_after(self, prefix: str, name: str) -> Entries:
        strays: dict[str, Names] = {}
        found = sorted(self._walk(self._folder(prefix), strays, name), key=lambda entry: entry.key)
        self._warn(strays)
        return found

    @override
    def files(self, prefix: str = "") -> Names:
        strays: dict[str, Names] = {}
        entries = self._scan(self._folder(prefix), strays, "")
        self._warn(strays)
        return sorted(entry.name for entry, is_folder in entries if not is_folder)

    @override
    def folders_after(self, prefix: str, name: str) -> Names:
        strays: dict[str, Names] = {}
        entries = self._scan(self._folder(prefix), strays, name)
        self._warn(strays)
        return sorted(entry.name for entry, is_folder in entries if is_folder)

    @override
    def put(self, key: str, data: bytes, *, create: bool = False) -> None:
        target = self._path(key)
        with self._staged(target, data) as staged, self._exclusive():
            if create and target.exists():
                raise KeyExists(f"{target} is there already; it was left as it was")
            self._guard()
            self._move(staged, target)

    @override
    def put_file(self, key: str, path: Path, *, size: int | None = None) -> None:
        target = self._path(key)
        with explained(target):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                found = os.fstat(file.fileno())
            expect_size(path, found.st_size, size)
            if found.st_dev != self.root.stat().st_dev:
                with self._staged_copy(path) as staged, self._exclusive():
                    self._guard()
                    self._move(staged, target)
                path.unlink()
            else:
                with self._exclusive():
                    self._guard()
                    self._move(path, target)
            check_size(target, found.st_size)

    @override
    def fetch(self, key: str, folder: Path) -> Path:
        path = self._path(key)
        if not self.exists(key):
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
            self._guard()
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
            self._guard()
            self._move(staged, target)
        return _content_version(data)

    @override
    def delete(self, key: str) -> None:
        path = self._path(key)
        with explained(path), self._exclusive():
            self._guard()
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
                self._guard()
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

    def _walk(self, folder: Path, strays: dict[str, Names], after: str = "") -> Iterator[Entry]:
        for entry, is_folder in self._scan(folder, strays, after):
            if not is_folder:
                with contextlib.suppress(FileNotFoundError):
                    yield Entry(self._shown(entry.path), entry.stat().st_size)
                continue
            try:
                yield from self._walk(Path(entry.path), strays)
            except CatalunyaError:
                # What may be a snapshot or a release is never passed over silently.
                if layout.is_id(entry.name):
                    raise
                strays.setdefault("a folder that this user cannot read", []).append(self._shown(entry.path))

    def _scan(self, folder: Path, strays: dict[str, Names], after: str) -> Scanned:
        """What lies directly in a folder, and which of it are folders; `strays` gets what is passed over."""
        found: Scanned = []
        try:
            with explained(folder), os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name <= after:
                        continue
                    why = _why_passed_over(entry)
                    if why:
                        strays.setdefault(why, []).append(self._shown(entry.path))
                    else:
                        found.append((entry, entry.is_dir()))
        except CatalunyaError as error:
            if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                raise
        return found

    def _shown(self, path: str) -> str:
        return os.path.relpath(path, self.root)

    def _warn(self, strays: dict[str, Names]) -> None:
        for why, keys in strays.items():
            self.stray((key.encode("utf-8", "backslashreplace").decode() for key in keys), why)

    @contextlib.contextmanager
    def _staged(self, target: Path, data: bytes) -> Iterator[Path]:
        staged = self.scratch() / uuid.uuid4().hex
        try:
            with explained(target):
                with staged.open("xb", buffering=0) as file:
                    write_all(file, data)
                    os.fsync(file.fileno())
                check_size(staged, len(data))
                yield staged
        finally:
            staged.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _staged_copy(self, path: Path) -> Iterator[Path]:
        staged = self.scratch() / uuid.uuid4().hex
        try:
            shutil.copyfile(path, staged)
            fsync(staged)
            check_size(staged, path.stat().st_size)
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


_NOT_IN_A_PATH = re.compile(r"[\[\]?*\\\x00-\x1f\x7f]")
"""DuckDB reads the first five as patterns, so that it would read other files or none."""


def _readable_path(root: Path) -> Path:
    """The absolute path of a lake's folder; `UsageError` for one that the engine could not read as it is."""
    text = str(root)
    if "\x00" not in text:
        root = root.expanduser().resolve()
        text = str(root)
    wrong = _NOT_IN_A_PATH.search(text)
    if wrong is None:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"CATALUNYA_LAKE: the folder {text!r} has a name that is not UTF-8; rename it or choose another folder"
            ) from None
        return root
    raise UsageError(
        f"CATALUNYA_LAKE: the folder {text!r} holds {wrong[0]!r}, which the engine reads as a pattern or cannot read; "
        "choose a folder whose path has none of [ ] ? * \\ nor line breaks"
    )


def _why_passed_over(entry: os.DirEntry[str]) -> str:
    """Why an entry of a folder is not the lake's; empty when it is."""
    if not is_key(entry.name):
        return "a name that the lake never gives"
    if not entry.is_symlink():
        return "" if entry.is_file() or entry.is_dir() else "neither a file nor a folder"
    try:
        if entry.is_dir():
            return "a symbolic link to a folder"
        entry.stat()
    except OSError:
        return "a symbolic link that leads nowhere"
    return "" if entry.is_file() else "neither a file nor a folder"


def _content_version(data: bytes) -> Version:
    return Version(hashlib.sha256(data).hexdigest())
