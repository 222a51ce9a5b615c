"""Hooks of the documentation site: pages that lie outside of `docs/`, and links between files of the repository."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "index.md": "README.md",
    "airflow.md": "orchestration/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "report-a-vulnerability.md": "SECURITY.md",
}
"""Page of the site to its file in the repository, for those outside of `docs/`."""
LINK = re.compile(
    r"(?P<text>!?\[(?:[^\[\]]|\[[^\]]*\])*\])\((?!https?:|mailto:|#)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside of `docs/`."""
    for page, path in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site.

    A link to a file that is no page, such as a module, becomes its text. A link to nothing stays, and fails the build.
    """
    here = PurePosixPath(page.file.src_uri)
    source = PurePosixPath(PAGES.get(str(here), f"docs/{here}"))
    known = {path: page_uri for page_uri, path in PAGES.items()}

    def rewritten(link: re.Match[str]) -> str:
        path = os.path.normpath(source.parent / link["path"])
        if (ROOT / path / "README.md").is_file():
            path = f"{path}/README.md"
        target = known.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(target):
            return f"{link['text']}({os.path.relpath(target, here.parent)}{link['anchor'] or ''})"
        return link["text"][1:-1] if (ROOT / path).exists() else link[0]

    return LINK.sub(rewritten, markdown)
