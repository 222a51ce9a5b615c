"""The folder of a site in the making: a file that the site of before has as well is that same file."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path


class SiteFolder:
    """Takes the files of a new site, each once.

    A file equal to that of the site of before becomes a hard link to it, and so keeps its time of change. Others are
    created: a name that is there is refused, so that nothing is written through a link into the site of before.
    """

    def __init__(self, path: Path, before: Path) -> None:
        self.path = path
        self.before = before
        self._folders: set[Path] = set()
        self.unchanged: set[str] = set()
        """Names of the files that the site of before has."""

    def put(self, name: str, content: bytes) -> None:
        """Add a file with its content; raises `FileExistsError` when there is one of this name."""
        path = self._place(name)
        try:
            is_old = (self.before / name).read_bytes() == content
        except OSError:
            is_old = False
        if not (is_old and self._link(name, path)):
            with path.open("xb") as file:
                file.write(content)

    def copy(self, name: str, source: Path) -> Path:
        """Add a copy of a file and return its path; raises `FileExistsError` when there is one of this name."""
        path = self._place(name)
        try:
            is_old = filecmp.cmp(self.before / name, source, shallow=False)
        except OSError:
            is_old = False
        if not (is_old and self._link(name, path)):
            with path.open("xb") as file, source.open("rb") as read:
                shutil.copyfileobj(read, file)
        return path

    def _place(self, name: str) -> Path:
        path = self.path / name
        if path.parent not in self._folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(path.parent)
        return path

    def _link(self, name: str, path: Path) -> bool:
        """Link to the file of the site of before; False where the file system has no hard links."""
        try:
            path.hardlink_to(self.before / name)
        except FileExistsError:
            raise
        except OSError:
            return False
        self.unchanged.add(name)
        return True
