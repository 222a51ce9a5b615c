"""How the project is parsed."""

from __future__ import annotations

import shutil

from catalunya import dbt
from catalunya.build import code_digest
from tests.conftest import copy_home


def test_what_is_remembered_of_a_checkout_that_is_gone_does_not_mislead_another(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    gone, here = copy_home(tmp_path / "gone"), copy_home(tmp_path / "here")
    for home in (gone, here):
        nodes = dbt.parse(home / "dbt" / "mart", code_digest(home)).described["nodes"].values()
        seeds = {node["root_path"] for node in nodes if node["resource_type"] == "seed"}
        assert seeds == {str(home / "dbt" / "mart")}
        shutil.rmtree(gone, ignore_errors=True)
