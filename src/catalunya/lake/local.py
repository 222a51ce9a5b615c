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
from catalunya.lake.disk import check_size, copy_file, explained, fsync, rename_or_copy, write_all
from catalunya.lake.scratch import own_scratch, private_base
from catalunya.lake.storage import (
    INVALID_NAME,
    Conflict,
    Entries,
    Entry,
    MissingKey,
    Names,
    Storage,
    Version,
    check_key,
    deletable,
    folder_key,
    is_key,
)

_PATTERNS = re.compile(r"[\[\]?*\\\x00-\x1f\x7f]")
"""DuckDB reads the first five as patterns, so that it would read other files or none."""
_Scanned = list[tuple[os.DirEntry[str], bool]]


class LocalStorage(Storage):
    """A lake in a local folder."""

    is_local = True
    HIDDEN = ".lake"
    """Folder of the locks and of temporary files."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = _readable_path(root)
        self._hidden = self.root / self.HIDDEN
        self._scratch_base = self._hidden / "scratch"
        self._is_prepared = False
        # Unlike those of `Path`, these functions are false where this user may not look.
        if not os.path.isdir(self.root) and not _could_be_made(self.root):  # noqa: PTH112
            self.prepare()
        self.url = str(self.root)

    def prepare(self) -> None:
        """Make the lake's folders: before the first write, so that reading leaves nothing and needs no right to write.

        Raises `UsageError` that names CATALUNYA_LAKE when it cannot be written.
        """
        if self._is_prepared:
            return
        try:
            self._scratch_base.mkdir(parents=True, exist_ok=True)
            (self._hidden / "locks").mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self._hidden):
                pass
        except OSError as error:
            raise UsageError(
                f"CATALUNYA_LAKE: the folder {self.root} cannot be written ({error.strerror}); "
                "give a folder that this user can write"
            ) from error
        self._is_prepared = True

    @override
    def scratch(self) -> Path:
        try:
            self.prepare()
        except UsageError:
            # Whoever only reads the lake has temporary files, too; whoever writes it has prepared it before.
            return own_scratch(private_base())
        return super().scratch()

    def lock_path(self, name: str) -> Path:
        """The file that the lock `name` is taken on."""
        return self._hidden / "locks" / f"{check_key(name)}.lock"

    @override
    def read_versioned(self, key: str) -> tuple[bytes, Version] | None:
        path = self._path(key)
        with explained(path):
            try:
                data = path.read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None
        return data, _version(data)

    @override
    def exists(self, key: str) -> bool:
        path = self._path(key)
        with explained(path):
            return path.is_file()

    @override
    def list(self, prefix: str = "", *, after: str = "") -> Entries:
        return sorted(self._walk(self.root / folder_key(prefix), after))

    @override
    def folders(self, prefix: str = "", *, after: str = "") -> Names:
        entries = self._scan(self.root / folder_key(prefix), after)
        return sorted(entry.name for entry, is_folder in entries if is_folder)

    @override
    def files(self, prefix: str = "") -> Names:
        entries = self._scan(self.root / folder_key(prefix))
        return sorted(entry.name for entry, is_folder in entries if not is_folder)

    @override
    def _overwrite(self, key: str, data: bytes) -> None:
        target = self._path(key)
        with self._written(target, data) as temporary, self._exclusive():
            self._move(temporary, target)

    @override
    def replace(self, key: str, data: bytes, expected: Version | None) -> Version:
        target = self._path(key)
        with self._written(target, data) as temporary, self._exclusive():
            found = self.read_versioned(key)
            if (found[1] if found else None) != expected:
                raise Conflict(f"{target} was changed by somebody else meanwhile; it was left as it is now")
            self._move(temporary, target)
        return _version(data)

    @override
    def put_file(self, key: str, path: Path) -> None:
        self.prepare()
        target = self._path(key)
        with explained(target):
            fsync(path)
            if path.stat().st_dev != self.root.stat().st_dev:
                self._copy(path, target)
                path.unlink()
                return
            with self._exclusive():
                self._move(path, target)

    @override
    def copy(self, source: str, target: str) -> None:
        self._copy(self.fetch(source, self.root), self._path(target))

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
        removed = self.scratch() / uuid.uuid4().hex
        with explained(folder):
            with self._exclusive():
                if not folder.is_dir():
                    return
                self._guard()
                rename_or_copy(folder, removed)
                self._remove_empty(folder.parent)
            shutil.rmtree(removed)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _walk(self, folder: Path, after: str = "") -> Iterator[Entry]:
        for entry, is_folder in self._scan(folder, after):
            if not is_folder:
                with contextlib.suppress(FileNotFoundError):
                    yield Entry(self._relative(entry), entry.stat().st_size)
                continue
            try:
                yield from self._walk(Path(entry.path))
            except CatalunyaError:
                # What may be a snapshot or a release is never ignored.
                if layout.is_id(entry.name):
                    raise
                self.ignore([self._relative(entry)], "a folder that this user cannot read")

    def _scan(self, folder: Path, after: str = "") -> _Scanned:
        """The entries of a folder, each with whether it is a folder; warns of those that are ignored."""
        found: _Scanned = []
        ignored: dict[str, Names] = {}
        with explained(folder):
            try:
                entries = os.scandir(folder)
            except (FileNotFoundError, NotADirectoryError):
                return []
            with entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name <= after:
                        continue
                    reason = _reason_to_ignore(entry)
                    if reason:
                        ignored.setdefault(reason, []).append(self._relative(entry))
                    else:
                        found.append((entry, entry.is_dir()))
        for reason, keys in ignored.items():
            self.ignore(keys, reason)
        return found

    def _relative(self, entry: os.DirEntry[str]) -> str:
        path = os.path.relpath(entry.path, self.root)
        return path.encode("utf-8", "backslashreplace").decode()

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        self.prepare()
        path = self.scratch() / uuid.uuid4().hex
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _written(self, target: Path, data: bytes) -> Iterator[Path]:
        """A temporary file with `data` that is on the disk already."""
        with explained(target), self._temporary() as path:
            with path.open("xb", buffering=0) as file:
                write_all(file, data)
                os.fsync(file.fileno())
            check_size(path, len(data))
            yield path

    def _copy(self, path: Path, target: Path) -> None:
        with explained(target), self._temporary() as temporary:
            copy_file(path, temporary)
            with self._exclusive():
                self._move(temporary, target)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lake's write lock: only around a comparison and a rename, never around copying."""
        self.prepare()
        with (self._hidden / "write.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _move(self, source: Path, target: Path) -> None:
        self._guard()
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


def _could_be_made(root: Path) -> bool:
    """Return whether this user may make the folder, so far as the rights of the folders above it say."""
    above = next(folder for folder in root.parents if os.path.exists(folder))  # noqa: PTH110
    return os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK)  # noqa: PTH112


def _readable_path(root: Path) -> Path:
    """The absolute path of a lake's folder; `UsageError` for one that the engine could not read as it is."""
    # RuntimeError: a link that leads to itself.
    with contextlib.suppress(ValueError, RuntimeError):
        root = root.expanduser().resolve()
        str(root).encode()
        if not _PATTERNS.search(str(root)):
            return root
    raise UsageError(
        f"CATALUNYA_LAKE: the engine cannot read the folder {str(root)!r}, or would read its name as a pattern; "
        "choose a folder whose path is UTF-8 and has none of [ ] ? * \\ nor line breaks"
    )


def _reason_to_ignore(entry: os.DirEntry[str]) -> str:
    """Why an entry of a folder is not the lake's; empty when it is."""
    if not is_key(entry.name):
        return INVALID_NAME
    if entry.is_symlink():
        try:
            entry.stat()
        except OSError:
            return "a symbolic link that leads nowhere"
        if entry.is_dir():
            return "a symbolic link to a folder"
    return "" if entry.is_file() or entry.is_dir() else "neither a file nor a folder"


def _version(data: bytes) -> Version:
    return Version(hashlib.sha256(data).hexdigest())
