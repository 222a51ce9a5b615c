"""dbt's own documentation of a release: every model, column and test, and how they depend on each other."""

from __future__ import annotations

import tempfile
from pathlib import Path

from catalunya import dbt
from catalunya.build import Candidate, reopen
from catalunya.engines import open_engine
from catalunya.errors import UsageError
from catalunya.lake import layout, pointer
from catalunya.lake.storage import Storage
from catalunya.settings import Settings

INDEX = "index.html"
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
            storage.put(layout.docs(release_id, name), (work / "target" / made).read_bytes())
    return storage.uri(layout.docs(release_id, INDEX))
