"""To add a column type: an entry of `TYPES`, and a column of the new type in a definition."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.project import ROOT, copy_home

ENTRY = """\
    "boolean": ColumnType(
        sql="boolean",
        hive="boolean",
        frictionless="boolean",
        socrata=frozenset({"checkbox", "text"}),
        label="sí or no",
        cast=lambda text: f"case lower({text}) when 'sí' then true when 'no' then false end",
    ),
}
_MART_TYPES"""
COLUMN = """\
  - name: is_accessible
    source: accessible
    type: boolean
    description: Whether a wheelchair can enter.
"""
CODE = """
import json, sys
from dataclasses import asdict
from pathlib import Path
import catalunya, duckdb
from catalunya.datasets import generate, loader
from catalunya.datasets.types import frictionless_type, hive_type
from catalunya.lake import layout
from catalunya.quality.figures import Reference, judge_snapshot
from catalunya.staging.snapshot_typing import stage_snapshot
from tests.factories import land, local_lake

home = Path(sys.argv[1])
datasets = loader.load(home / "datasets")
register, lake = datasets["social_services"], local_lake(home / "lake")
kind = "Servei de centre de dia per a gent gran de caràcter social"
rows = [
    {"registre": f"S{n}", "tipologia": kind, "accessible": value}
    for n, value in enumerate(["Sí", "no", None, "potser"])
]
staged, _ = stage_snapshot(lake, register, land(lake, register, [rows]))
path = lake.fetch(layout.staged(register.id, staged.snapshot_id), home)
known = Reference(staged, path)
findings = judge_snapshot(register, staged, path, reference=known, seeds=home / "dbt/mart/seeds")
sql_type = register.column("is_accessible").kind.sql
print(json.dumps({
    "package": catalunya.__file__,
    "values": duckdb.sql(f"select is_accessible from read_parquet('{path}') order by service_id").fetchall(),
    "invalid": staged.invalid_values,
    "warnings": staged.warnings,
    "errors": [finding.message for finding in findings if finding.is_error and "is_accessible" in finding.message],
    "hive": hive_type(sql_type),
    "frictionless": frictionless_type(sql_type),
    "generated": {
        path.relative_to(home).as_posix(): text
        for path, text in generate.generated_files(home, datasets).items()
    },
}))
"""


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), "utf-8")


def test_a_new_column_type_is_an_entry_in_one_file(tmp_path: Path) -> None:
    home = copy_home(tmp_path)
    shutil.copytree(ROOT / "src", home / "src", ignore=shutil.ignore_patterns("__pycache__"))
    replace(home / "src/catalunya/datasets/types.py", "}\n_MART_TYPES", ENTRY)
    definition = home / "datasets" / "social_services.yml"
    definition.write_text(definition.read_text("utf-8") + COLUMN, "utf-8")

    edited = {
        path.relative_to(home).as_posix()
        for path in home.rglob("*.*")
        if path.is_file() and path.read_bytes() != (ROOT / path.relative_to(home)).read_bytes()
    }
    assert edited == {"src/catalunya/datasets/types.py", "datasets/social_services.yml"}
    assert len(edited | {"the test of the type"}) <= 3

    env = {**os.environ, "PYTHONPATH": f"{home / 'src'}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    found = subprocess.run(
        [sys.executable, "-c", CODE, str(home)], env=env, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    answer = json.loads(found.stdout.splitlines()[-1])
    assert Path(answer["package"]).is_relative_to(home)
    assert answer["values"] == [[True], [False], [None], [None]]
    assert answer["invalid"] == {"is_accessible": 1}
    [warning] = answer["warnings"]
    assert warning.endswith('1 value of is_accessible is not sí or no and was set to null, such as "potser"')
    assert answer["errors"] == []
    assert (answer["hive"], answer["frictionless"]) == ("boolean", "boolean")
    generated = answer["generated"]
    sources = generated["dbt/mart/models/staging/_sources.yml"]
    assert "- name: is_accessible\n      data_type: boolean\n" in sources
    assert "'is_accessible': 'boolean'," in generated["dbt/mart/macros/declared_datasets.sql"]
    assert (
        "| `is_accessible` | `accessible` | boolean |  |  | Whether a wheelchair"
        in generated["docs/datasets.md"]
    )
