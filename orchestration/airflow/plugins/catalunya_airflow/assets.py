"""The datasets and marts as Airflow's assets, named `landing/<dataset>` and `marts/<mart>`.

Only file names are read: this is imported whenever a DAG file is.
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
"""What a task of `ingest` landed; which one is known only when it has run."""


def dataset(dataset_id: str) -> Asset:
    """A dataset as it was landed; an event of it means that its content is new."""
    return Asset(f"landing/{dataset_id}", uri=f"x-catalunya://landing/{dataset_id}", group="datasets")


def mart(name: str) -> Asset:
    """A published mart; an event of it means a new release."""
    return Asset(f"marts/{name}", uri=f"x-catalunya://marts/{name}", group="marts")
