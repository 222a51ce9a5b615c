"""The datasets and marts as assets of Airflow, named `landing/<dataset>` and `marts/<mart>`.

It reads file names only, because every DAG file imports it.
"""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import Asset, AssetAlias

import catalunya

HOME = Path(os.environ.get("CATALUNYA_HOME") or Path(catalunya.__file__).parents[2])
DATASETS = sorted(path.stem for path in HOME.glob("datasets/*.yml"))
MARTS = sorted(path.stem for path in HOME.glob("dbt/mart/models/marts/*.sql"))

landed = AssetAlias("landed", group="datasets")
"""Stands for the dataset of a task of `ingest`, which is known only when the task has run."""


def dataset(dataset_id: str) -> Asset:
    """Return the asset of a dataset; its events mean new content."""
    return Asset(f"landing/{dataset_id}", uri=f"x-catalunya://landing/{dataset_id}", group="datasets")


def mart(name: str) -> Asset:
    """Return the asset of a published mart; its events mean a new release."""
    return Asset(f"marts/{name}", uri=f"x-catalunya://marts/{name}", group="marts")
