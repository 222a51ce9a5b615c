"""What differs between hosts: line ends of a clone, the version of bash, of Compose and of its plugin buildx."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestration.tests.stack.stack import CLEAN
from tests.project import ROOT
from tools import check_shell

SCRIPTS = ROOT / "orchestration" / "scripts"
CURRENT, OLDEST = ("2.40.3", "v0.29.1"), ("2.20.2", "")
DOCKER = """#!/bin/sh
# A Docker that is there, of the versions that the test chooses, and writes down what it has to start.
case "$*" in
    "compose version --short") echo "$COMPOSE_VERSION" ;;
    "buildx version") [ -n "$BUILDX_VERSION" ] && echo "github.com/docker/buildx $BUILDX_VERSION 28c90ea" ;;
    *" config") printf '  airflow-apiserver:\\n    build:\\n        published: "%s"\\n' "${AIRFLOW_PORT:-8080}" ;;
    *" up "*) for word in "$@"; do echo "$word"; done >"$STARTED" ;;
esac
"""


def old_bash() -> str | None:
    """A bash of version 3.2, as macOS has it, or the one that CATALUNYA_OLD_BASH names."""
    for path in (os.environ.get("CATALUNYA_OLD_BASH"), "/bin/bash"):
        if path and Path(path).exists():
            shown = subprocess.run(
                [path, "-c", "echo $BASH_VERSION"], capture_output=True, text=True, check=True
            )
            if shown.stdout.startswith("3.2"):
                return path
    return None


@pytest.fixture(params=["bash", "bash 3.2"])
def bash(request) -> str:
    path = shutil.which("bash") if request.param == "bash" else old_bash()
    if path is None:
        pytest.skip("no bash 3.2 here; CATALUNYA_OLD_BASH names one")
    return path


def git(*words: str, cwd: Path = ROOT) -> list[str]:
    done = subprocess.run(["git", *words], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_no_tracked_text_file_has_windows_line_ends_and_git_writes_none():
    lines = git("ls-files", "--eol")
    assert len(lines) > 300
    assert [line for line in lines if not re.match(r"i/(lf|none|-text) ", line)] == []
    assert [
        line for line in lines if "i/-text" not in line and not re.search(r"attr/text=auto eol=lf", line)
    ] == []


def test_a_clone_on_windows_has_scripts_that_containers_can_start(tmp_path):
    files = ["orchestration/docker/entrypoint.sh", "orchestration/docker/healthy.py", ".gitattributes"]
    git("init", "--quiet", ".", cwd=tmp_path)
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    git("add", ".", cwd=tmp_path)
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    git(*who, "commit", "--quiet", "--message", "x", cwd=tmp_path)
    git("clone", "--quiet", "--config", "core.autocrlf=true", str(tmp_path), str(tmp_path / "clone"))
    for name in files:
        assert b"\r" not in (tmp_path / "clone" / name).read_bytes(), name


def test_no_script_needs_a_newer_bash_than_that_of_macos():
    assert len(check_shell.scripts()) >= 7
    assert check_shell.main() == 0


@pytest.mark.parametrize(
    "line",
    [
        "mapfile -t lines <file",
        "declare -A ages",
        'echo "${name,,}"',
        'echo "${names[-1]}"',
        "run &>>log",
        "run |& tee log",
        "wait -n",
        "if [[ -v name ]]; then",
        "printf '%(%Y)T'",
        'names=(); run "${names[@]}"',
        "echo {1..9..2}",
        "echo ${name@Q}",
    ],
)
def test_a_construct_that_bash_3_2_does_not_have_is_found(line):
    assert len(check_shell.places("x.sh", line)) == 1


def test_every_script_can_be_read(bash):
    for script in check_shell.scripts():
        subprocess.run([bash, "-n", str(script)], check=True)


def up(bash: str, folder: Path, versions: tuple[str, str], *options: str) -> tuple[int, str, list[str]]:
    """Exit code, message, and what `docker` was to start."""
    docker, started = folder / "docker", folder / "started"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    env = {
        **CLEAN, "PATH": f"{folder}:{os.environ['PATH']}", "STARTED": str(started), "AIRFLOW_PORT": "1",
        "COMPOSE_VERSION": versions[0], "BUILDX_VERSION": versions[1],
    }  # fmt: skip
    command = [bash, str(SCRIPTS / "up.sh"), *options]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stderr, started.read_text().splitlines() if started.exists() else []


@pytest.mark.parametrize("versions", [CURRENT, OLDEST, ("2.26.1-4", "v0.13.1"), ("v5.0.0", "v0.17.0")])
def test_up_starts_the_stack_without_options(bash, tmp_path, versions):
    code, said, started = up(bash, tmp_path, versions)
    assert (code, started) == (0, ["compose", "up", "--build", "--wait", "--detach"]), said
    assert "ready at http://localhost:1" in said


def test_up_sends_each_option_to_compose_or_to_its_up(bash, tmp_path):
    options = ["--profile", "scale", "--scale", "airflow-worker=3", "--env-file", "a file"]
    code, said, started = up(bash, tmp_path, CURRENT, *options)
    assert code == 0, said
    assert started == [
        "compose", "--profile", "scale", "--env-file", "a file", "up", "--build", "--wait", "--detach", "--scale",
        "airflow-worker=3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        (("2.20.1", ""), "Compose 2.20.1 is too old: install Compose 2.20.2 or newer"),
        (("1.29.2", ""), "Compose 1.29.2 is too old: install Compose 2.20.2 or newer"),
        (("5.0.0", ""), "Compose 5.0.0 needs Docker's plugin buildx 0.17 or newer to build; found none"),
        (("2.40.3", "v0.16.9"), "needs Docker's plugin buildx 0.17 or newer to build; found v0.16.9"),
    ],
)
def test_up_names_what_is_too_old_before_it_starts_anything(bash, tmp_path, versions, message):
    code, said, started = up(bash, tmp_path, versions)
    assert (code, started) == (1, [])
    assert message in said


@pytest.mark.parametrize(
    ("ages_s", "executor"),
    [([], "LocalExecutor"), ([61], "LocalExecutor"), ([5], "CeleryExecutor"), ([500, 59], "CeleryExecutor")],
)
def test_the_scheduler_sends_tasks_to_workers_with_a_heartbeat_in_the_last_minute(tmp_path, ages_s, executor):
    for number, age_s in enumerate(ages_s):
        (tmp_path / str(number)).touch()
        os.utime(tmp_path / str(number), (time.time() - age_s,) * 2)
    command = [sys.executable, str(ROOT / "orchestration/docker/healthy.py"), "executor"]
    env = {"CATALUNYA_WORKERS": str(tmp_path)}
    assert (
        subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()
        == executor
    )


def test_no_health_check_and_no_entrypoint_asks_a_name_server_whether_a_service_is_there():
    folder = ROOT / "orchestration" / "docker"
    text = "".join((folder / name).read_text() for name in ("entrypoint.sh", "healthy.py"))
    assert not re.search(r"getent|gethostby|getaddrinfo|nslookup|\bdig\b", text)


def test_a_container_reaches_services_of_the_stack_without_the_host_s_proxy(bash):
    functions = (
        (ROOT / "orchestration/docker/entrypoint.sh").read_text().partition('case "$ENVIRONMENT" in\n')[0]
    )

    def spared(**env: str) -> list[str]:
        script = f'{functions}\nspare_services; echo "$NO_PROXY"; echo "$no_proxy"'
        done = subprocess.run([bash, "-c", script], env=env, capture_output=True, text=True, check=True)
        upper, lower = done.stdout.splitlines()
        assert upper == lower
        return upper.split(",")

    own = spared()
    assert {"localhost", "127.0.0.1", "::1", "airflow-apiserver", "demo-portal", "postgres", "redis"} <= set(
        own
    )
    assert spared(NO_PROXY="intranet, .example.org") == ["intranet", ".example.org", *own]
    assert spared(no_proxy="intranet", NO_PROXY="postgres") == [
        "postgres", "intranet", *(name for name in own if name != "postgres"),
    ]  # fmt: skip
    assert spared(NO_PROXY="*") == ["*"]
