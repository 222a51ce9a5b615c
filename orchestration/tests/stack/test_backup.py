"""`make backup` on one machine and `make restore` on an empty one: the same releases, users, runs and secrets."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from orchestration.scripts import airflow_local
from orchestration.tests.api import PIPELINE
from orchestration.tests.stack.stack import Stack, make_stack, removed_at_the_end
from tests.project import ROOT

pytestmark = pytest.mark.stack

LAKE = "/var/lib/catalunya/lake"
GUEST = {"username": "guest", "password": "of the house"}


def make(stack: Stack, *words: str, check: bool = True) -> str:
    """Run a target of the Makefile for a stack, as its operator does."""
    env = {**stack.env, "COMPOSE_FILE": os.pathsep.join(map(str, stack.files)), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert (done.returncode == 0) is check, done.stdout + done.stderr
    return done.stderr


def state(stack: Stack) -> dict[str, Any]:
    """What an operator and a reader would miss."""
    runs = stack.request(f"/dags/{PIPELINE}/dagRuns?limit=100")["dag_runs"]
    lake = (
        f"cd {LAKE} && find landing releases ledger current.json -type f -exec sha256sum {{}} + | sort -k 2"
    )
    return {
        "lake": stack.inside("airflow-scheduler", "sh", "-c", lake),
        "users": sorted(
            user["username"]
            for user in json.loads(
                stack.inside("airflow-scheduler", "airflow", "users", "list", "--output", "json")
            )
        ),
        "runs": {run["dag_run_id"]: run["state"] for run in runs if run["state"] == "success"},
        "kept": stack.request("/variables/kept")["value"],
    }


def test_a_restore_on_an_empty_machine_gives_the_same_releases_users_and_runs(image, tmp_path_factory):
    folder = tmp_path_factory.mktemp("backup")
    stack = make_stack("backup", image, folder)
    backups = folder / "backups"
    with removed_at_the_end(stack):
        stack.up()
        [run] = stack.wait(
            lambda: stack.request(f"/dags/{PIPELINE}/dagRuns")["dag_runs"], "no run was scheduled"
        )
        assert stack.ended(run["dag_run_id"]).state == "success"
        stack.request("/variables", {"key": "kept", "value": "yes"})
        stack.inside(
            "airflow-scheduler", "airflow", "users", "create", "--role", "Viewer", "--username", "guest",
            "--password", "of the house", "--firstname", "G", "--lastname", "G", "--email", "g@localhost.invalid",
        )  # fmt: skip
        before = state(stack)
        said = make(stack, "backup", f"TO={backups}", "KEEP=2")
        assert "NOT encrypted" in said
        again = make(stack, "backup", f"TO={backups}", "KEEP=1")
        [made] = [path for path in backups.iterdir() if path.name.startswith("2")]
        assert "the newest 1 are kept" in again
        # The machine is lost, with all its volumes.
        stack.down("--volumes")
        make(stack, "restore", f"FROM={made}")
        assert "FORCE=yes" in make(stack, "restore", f"FROM={made}", check=False)
        stack.up()
        after = state(stack)
        assert after["runs"].items() >= before["runs"].items()
        assert (after["users"], after["kept"]) == (before["users"], before["kept"])
        # A run may have begun since, which adds to the ledger.
        assert set(before["lake"].splitlines()) <= set(after["lake"].splitlines())
        assert airflow_local.call_api(f"{stack.url}/auth/token", GUEST)["access_token"]
        stack.assert_release_is_whole()
        checked = json.loads(stack.inside("airflow-scheduler", "catalunya", "lake", "check", "--json"))
        assert [fault for fault in checked["faults"] if fault["kind"] == "damage"] == []
