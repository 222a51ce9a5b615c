"""Landed snapshots for tests of the later stages, made the way ingest makes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalunya.datasets import loader
from catalunya.datasets.model import Dataset
from catalunya.lake import layout, snapshot
from catalunya.lake.local import LocalStorage
from catalunya.lake.snapshot import LandedColumn, LandedFile, Manifest
from catalunya.lake.storage import Storage
from catalunya.staging.row_sql import source_names
from tests.project import ROOT

NOW = datetime(2026, 1, 5, tzinfo=UTC)
DEFINITIONS = loader.load(ROOT / "datasets")


def declared(dataset: Dataset) -> dict[str, str | None]:
    """Every declared source column with a type that the definition takes."""
    return dict.fromkeys(source_names(dataset), "text" if dataset.source.protocol == "socrata" else None)


def land(
    storage: Storage,
    dataset: Dataset,
    pages: Sequence[Any],
    *,
    now: datetime = NOW,
    columns: dict[str, str | None] | None = None,
    validators: dict[str, Any] | None = None,
) -> Manifest:
    """Land `pages` (each is written as JSON, or as it is when it is bytes) as one complete snapshot."""
    files, spooled = [], {}
    for index, page in enumerate(pages):
        data = page if isinstance(page, bytes) else json.dumps(page, ensure_ascii=False).encode()
        name = f"page-{index:05d}.json"
        path = storage.scratch() / name
        path.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        levels = (
            [file.level for file in dataset.source.files] if dataset.source.protocol == "download" else []
        )
        role = levels[index] if index < len(levels) else None
        files.append(LandedFile(name=name, url="http://test", size=len(data), sha256=digest, role=role))
        spooled[name] = path
    content = snapshot.content_hash(files)
    found = declared(dataset) if columns is None else columns
    manifest = Manifest(
        dataset_id=dataset.id,
        snapshot_id=layout.make_id(now, content),
        taken_at=now,
        run_id="20260105T000000Z-00000000",
        protocol=dataset.source.protocol,
        request={},
        validators=validators or {},
        columns=tuple(LandedColumn(name=name, type=kind) for name, kind in found.items()),
        rows_before=None,
        rows_after=None,
        rows=0,
        demo=False,
        content_sha256=content,
        requests=0,
        bytes=0,
        files=tuple(files),
    )
    snapshot.write(storage, manifest, spooled)
    return manifest


def local_lake(folder: Path) -> Storage:
    """A local lake, whose folder is there."""
    lake = LocalStorage(folder)
    lake.prepare()
    return lake
