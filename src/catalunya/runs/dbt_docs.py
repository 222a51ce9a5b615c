"""dbt's own documentation of a release: every model, column and test, and how they depend on each other."""

from __future__ import annotations

import html
import tempfile
from pathlib import Path

from catalunya.build import Candidate, reopen
from catalunya.errors import BuildFailed, UsageError
from catalunya.lake import layout, pointer
from catalunya.lake.storage import Storage
from catalunya.publication import demo_notice
from catalunya.settings import Settings
from catalunya.warehouse import dbt
from catalunya.warehouse.engines import open_engine

INDEX = "index.html"
_BANNER = (
    "<style>#demo-notice{position:fixed;top:0;left:0;right:0;height:24px;z-index:2147483647;background:#9b2c2c;"
    "color:#fff;font:bold 13px/24px sans-serif;text-align:center;white-space:nowrap;overflow:hidden}"
    ".app{top:24px !important;height:calc(100% - 24px) !important}</style>"
    f'<div role="note" id="demo-notice">{html.escape(demo_notice.NOTICE)}</div>'
)
"""dbt's page scrolls inside its element `.app`, which begins below the banner."""
_KEPT = {"static_index.html": INDEX, "manifest.json": "manifest.json", "catalog.json": "catalog.json"}


def generate(storage: Storage, settings: Settings, candidate: Candidate) -> str:
    """Write the documentation of the release made from `candidate`; returns the address of its one page.

    Raises `UsageError` when that candidate was not published.
    """
    found = pointer.read(storage)
    if found is None or found[0].run_id != candidate.candidate_id:
        raise UsageError(
            f"candidate {candidate.candidate_id} is not the release that readers see; publish it first"
        )
    release_id = found[0].release_id
    with tempfile.TemporaryDirectory(prefix="catalunya-docs-") as scratch:
        work = Path(scratch)
        with reopen(open_engine(storage, settings), candidate) as workspace:
            dbt.document(
                project=settings.home / "dbt" / "mart",
                digest=candidate.inputs.code,
                target=workspace.target,
                folder=work / "target",
            )
        for made, name in _KEPT.items():
            data = (work / "target" / made).read_bytes()
            if name == INDEX and any(staged.demo for staged in candidate.staged):
                data = marked(data.decode()).encode()
            storage.put(layout.docs(release_id, name), data)
    return storage.uri(layout.docs(release_id, INDEX))


def marked(page: str) -> str:
    """Return dbt's page with the notice of demo data in its title and in a banner at the top.

    Raises `BuildFailed` when the page has no title or body to put it into: demo data are not shown unmarked.
    """
    for tag, text in (("<title>", "<title>DEMO DATA: "), ("<body>", f"<body>{_BANNER}")):
        before, found, after = page.partition(tag)
        if not found:
            raise BuildFailed(
                f"dbt's documentation page has no {tag}, so it cannot be marked as demo data; it was not stored. "
                "Use the locked version of dbt-core (`make setup`)"
            )
        page = before + text + after
    return page
