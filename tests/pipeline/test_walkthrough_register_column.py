"""To carry a column of the register to a mart: the list of kept columns, the periods, and the mart with its YAML."""

from __future__ import annotations

import re
from pathlib import Path

from tests.pipeline.command import LATER, query
from tests.project import ROOT

MODELS = "dbt/mart/models"


def carry_the_phone(home: Path) -> None:
    """Add the column `phone`, which the definition has already, to `service_history`."""
    edit(home / "dbt/mart/macros/register_columns.sql", r"'owner_name', ", r"'owner_name', 'phone', ")
    for name in ("intermediate/int_service_periods.sql", "marts/service_history.sql"):
        edit(home / MODELS / name, r"( +)(\w+\.|)owner_name,\n", r"\g<0>\1\2phone,\n")
    edit(
        home / MODELS / "marts/service_history.yml",
        r"( +)- name: owner_name\n",
        r"\1- name: phone\n\1  data_type: varchar\n\1  description: Telephone number.\n\g<0>",
    )


def edit(file: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, file.read_text("utf-8"))
    assert count, (file, pattern)
    file.write_text(text, "utf-8")


def test_a_register_column_is_carried_to_a_mart_by_four_files(released, home):
    carry_the_phone(home)
    changed = {
        path.relative_to(home).as_posix()
        for path in home.rglob("*.*")
        if path.is_file() and path.read_bytes() != (ROOT / path.relative_to(home)).read_bytes()
    }
    assert len(changed) <= 4, changed
    released.home = home
    answer = released.run(now=LATER)
    assert (answer.code, answer.json["status"]) == (0, "released")
    [(phones, services)] = query(
        answer, "select count(phone), count(*) from marts.service_history where is_current"
    )
    staged = f"read_parquet('{released.lake}/staging/social_services/**/*.parquet')"
    [(expected,)] = query(answer, f"select count(phone) from {staged}")
    assert 0 < phones <= services
    assert phones == expected
