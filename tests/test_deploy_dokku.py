"""The script that deploys to a Dokku host, against a host that keeps what it is told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.project import ROOT

SCRIPT = ROOT / "orchestration" / "scripts" / "deploy.sh"
ARGUMENTS = (
    "--host", "dokku.example.org", "--domain", "airflow.example.org", "--site-domain", "data.example.org",
    "--lake", "s3://care/production",
)  # fmt: skip
SSH = """#!python -IS
import json, os, shlex, sys
path = os.environ["DOKKU_STATE"]
state = json.load(open(path))
words = shlex.split(" ".join(sys.argv[sys.argv.index("dokku@dokku.example.org") + 1:]))
verb, *given = words
flags = [one for one in given if one.startswith("--")]
given = [one for one in given if not one.startswith("--")]
changed = True
code = 0
kind, _, action = verb.partition(":")
if verb in ("version", "plugin:list"):
    changed = False
    print("  ".join(["", *(f"{one} 1.0 enabled\\n" for one in state["plugins"])]))
elif action in ("exists", "linked", "active"):
    changed = False
    known = state.setdefault(f"{kind}:{'create' if action == 'exists' else 'link'}", [])
    if action == "active":
        print("true" if given[0] in state.get("letsencrypt:enable", []) else "false")
    else:
        code = 0 if " ".join(given) in known else 1
elif verb == "config:get":
    changed = False
    app, name = given
    value = state.setdefault("config", {}).setdefault(app, {}).get(name)
    code = 0 if value is not None else 1
    print(value or "")
elif verb == "config:set":
    app, *pairs = given
    state.setdefault("config", {}).setdefault(app, {}).update(pair.split("=", 1) for pair in pairs)
elif verb == "storage:list":
    changed = False
    print("\\n".join(mount for app, mount in state.get("storage", []) if app == given[0]))
elif verb == "storage:mount":
    state.setdefault("storage", []).append(given)
elif action in ("create", "link", "enable"):
    known = state.setdefault(verb, [])
    if " ".join(given) in known:
        sys.exit(f"{verb} {given}: exists already")
    known.append(" ".join(given))
else:
    # Settings: what is set again is the same.
    before = state.setdefault(verb, {}).get(" ".join(given[:2]))
    state[verb][" ".join(given[:2])] = given[2:]
if changed:
    state.setdefault("changes", []).append(words)
json.dump(state, open(path, "w"))
sys.exit(code)
"""
GIT = """#!/usr/bin/env bash
if [ "$1" = push ]; then
    python3 -IS - "${@: -2:1}" <<'P'
import json, os, sys
state = json.load(open(os.environ["DOKKU_STATE"]))
app = sys.argv[1].rpartition(":")[2]
state.setdefault("pushed", []).append(app)
state.setdefault("config", {}).setdefault(app, {})["GIT_REV"] = "0123abc"
json.dump(state, open(os.environ["DOKKU_STATE"], "w"))
P
    exit
fi
echo 0123abc
"""


@dataclass
class DokkuHost:
    folder: Path

    def deploy(self, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
        given = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "DOKKU_STATE": str(self.folder / "state.json"),
            **env,
        }
        return subprocess.run(
            [str(SCRIPT), *ARGUMENTS, *more],
            env=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return found


@pytest.fixture
def host(tmp_path: Path) -> DokkuHost:
    for name, text in {"ssh": SSH, "git": GIT}.items():
        # Without the modules of `site`, an interpreter starts ten times as fast, and there are hundreds.
        (tmp_path / name).write_text(text.replace("#!python", f"#!{sys.executable}"))
        (tmp_path / name).chmod(0o755)
    (tmp_path / "state.json").write_text(json.dumps({"plugins": ["postgres", "redis", "letsencrypt"]}))
    return DokkuHost(tmp_path)


@pytest.mark.slow
def test_an_empty_host_gets_everything_once_and_no_secret_is_printed(host: DokkuHost) -> None:
    before = host.state
    tried = host.deploy("--dry-run", "--email", "you@example.org", SOCRATA_APP_TOKEN="a-token-of-portals")
    assert tried.returncode == 0, tried.stderr
    assert {key: value for key, value in host.state.items() if value and key != "config"} == before
    assert not any(host.state["config"].values())
    said = [line for line in tried.stderr.splitlines() if "would run" in line]
    for command in ("apps:create catalunya", "postgres:link", "config:set", "git push", "letsencrypt:enable"):
        assert any(command in line for line in said), command
    assert "SOCRATA_APP_TOKEN=…" in tried.stderr and "a-token-of-portals" not in tried.stderr

    done = host.deploy("--email", "you@example.org")
    assert done.returncode == 0, done.stderr
    state = host.state
    assert state["apps:create"] == ["catalunya", "catalunya-site"]
    assert state["postgres:link"] == state["redis:link"] == ["catalunya catalunya"]
    assert state["pushed"] == ["catalunya", "catalunya-site"]
    config = state["config"]["catalunya"]
    assert config["ENVIRONMENT"] == "production"
    assert config["CATALUNYA_LAKE"] == "s3://care/production"
    assert config["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://catalunya.web:5000/execution/"
    secrets = {name: value for name, value in config.items() if re.search("SECRET|KEY|PASSWORD", name)}
    assert len(secrets) == 4 and len(set(secrets.values())) == 4
    assert not [name for name, value in secrets.items() if value in done.stdout + done.stderr]
    assert len(config["AIRFLOW__CORE__FERNET_KEY"]) == 44
    mounts = {mount for app, mount in state["storage"] if app == "catalunya-site"}
    assert mounts == {"/var/lib/dokku/data/storage/catalunya/site:/var/lib/catalunya/site:ro"}
    assert not [mount for _, mount in state["storage"] if "/lake:" in mount], "the lake is in S3"
    assert state["letsencrypt:enable"] == ["catalunya", "catalunya-site"]
    assert state["ps:set"]["catalunya stop-timeout"] == ["120"]
    assert state["ps:set"]["catalunya restart-policy"] == ["unless-stopped"]

    again = host.deploy()
    assert again.returncode == 0, again.stderr
    after = host.state
    new = after.pop("changes")[len(state.pop("changes")) :]
    assert after == state
    # Only settings, which are what they were.
    assert not [
        words
        for words in new
        if words[0].endswith((":create", ":link", ":mount")) or words[0] == "config:set"
    ]
    assert "catalunya runs 0123abc already" in again.stderr


@pytest.mark.slow
def test_services_outside_of_the_host_and_a_lake_in_a_folder_are_options(host: DokkuHost) -> None:
    url = "postgres://care:p%40 ss@db.example.org/care?sslmode=verify-full"
    done = host.deploy(
        "--environment", "development", "--lake", "/var/lib/catalunya/lake", "--app", "care",
        DATABASE_URL=url, REDIS_URL="rediss://:x@cache.example.org:6380",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert host.state["config"]["care"]["DATABASE_URL"] == url
    assert not host.state.get("postgres:create")
    assert ["care", "/var/lib/dokku/data/storage/care/lake:/var/lib/catalunya/lake"] in host.state["storage"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lake", "/srv/lake"], "the lake of production is in S3"),
        (["--colour", "red"], "unknown option --colour"),
    ],
)
def test_a_wrong_option_is_named(host: DokkuHost, arguments: list[str], said: str) -> None:
    done = host.deploy(*arguments)
    assert (done.returncode, said in done.stderr) == (1, True)
    assert "apps:create" not in host.state


def test_a_missing_plugin_is_named_with_the_command_that_installs_it(host: DokkuHost) -> None:
    (host.folder / "state.json").write_text(json.dumps({"plugins": ["redis"]}))
    done = host.deploy()
    assert done.returncode == 1
    assert "dokku plugin:install https://github.com/dokku/dokku-postgres.git postgres" in done.stderr


def test_every_process_of_the_procfile_has_a_check_and_is_scaled() -> None:
    lines = (ROOT / "Procfile").read_text().splitlines()
    processes = {line.partition(":")[0] for line in lines} - {"release"}
    assert set(json.loads((ROOT / "app.json").read_text())["healthchecks"]) == processes
    script = SCRIPT.read_text()
    assert {name for name in processes if f" {name}=" in script} == processes
    entrypoint = (ROOT / "orchestration" / "docker" / "entrypoint.sh").read_text()
    assert {line.split()[-1] for line in lines} <= {
        "release", *(word for word in entrypoint.split() if word in {"api-server", *processes}),
    }  # fmt: skip
