"""The stack in containers: Compose, its containers, and the API of its Airflow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.tests.api import PIPELINE, TIMEOUT_S, AirflowApi, EndedRun
from tests.project import ROOT
from tools.processes import free_port

ORCHESTRATION = ROOT / "orchestration"
HURRY = Path(__file__).with_name("hurry.yml")
"""Makes Airflow notice killed tasks in seconds; merged over the files of the stack."""

DEVELOPMENT = (
    ORCHESTRATION / "docker-compose.yml",
    ORCHESTRATION / "docker-compose.override.yml",
    HURRY,
)
PRODUCTION = (ORCHESTRATION / "docker-compose.yml",)
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("AIRFLOW", "CATALUNYA_", "COMPOSE_", "AWS_", "ENVIRONMENT"))
}


@dataclass
class Stack(AirflowApi):
    """One compose project on a port of its own."""

    project: str
    env: dict[str, str]
    files: tuple[Path, ...] = DEVELOPMENT
    profiles: tuple[str, ...] = ()
    env_file: Path | None = None

    def compose(self, *words: str, check: bool = True) -> str:
        """Return what `docker compose` prints; fails with its whole output."""
        named = [word for path in self.files for word in ("--file", str(path))]
        chosen = [word for name in self.profiles for word in ("--profile", name)]
        if self.env_file:
            named += ["--env-file", str(self.env_file)]
        command = ["docker", "compose", "--project-directory", str(ORCHESTRATION), *named, *chosen, *words]
        return docker(command, self.env, check=check)

    def up(self, *options: str) -> None:
        """Start everything and wait until all is healthy."""
        self.compose("up", "--wait", "--wait-timeout", f"{TIMEOUT_S:g}", *options)

    def down(self, *options: str) -> None:
        """Stop everything."""
        self.compose("down", "--timeout", "20", "--remove-orphans", *options)

    def containers(self) -> list[dict[str, Any]]:
        """Return the description of every container of the project, ended ones too."""
        label = f"label=com.docker.compose.project={self.project}"
        ids = docker(["docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", label], self.env).split()
        if not ids:
            return []
        found: list[dict[str, Any]] = json.loads(docker(["docker", "inspect", *ids], self.env))
        return sorted(found, key=service_of)

    def of(self, service: str) -> list[dict[str, Any]]:
        """The containers of one service."""
        return [one for one in self.containers() if service_of(one) == service]

    def inside(self, service: str, *command: str, check: bool = True) -> str:
        """Return what a command prints in a container of a service."""
        return self.compose("exec", "--no-TTY", service, *command, check=check)

    def kill(self, container: dict[str, Any]) -> None:
        """Send SIGKILL to the main process, so that the engine takes it for a crash."""
        os.kill(container["State"]["Pid"], signal.SIGKILL)

    def is_back(self, before: dict[str, Any]) -> bool:
        """Tell whether a container that was killed runs again and is healthy."""
        found = json.loads(docker(["docker", "inspect", before["Id"]], self.env))[0]
        again = found["RestartCount"] > before["RestartCount"]
        return bool(again and found["State"].get("Health", {}).get("Status") == "healthy")

    def executor(self) -> str:
        """The executor of the scheduler; what went wrong while it restarts."""
        script = "import healthy; print(healthy.environment(1)['AIRFLOW__CORE__EXECUTOR'])"
        path = "PYTHONPATH=/opt/catalunya/orchestration/docker"
        return self.inside("airflow-scheduler", "env", path, "python", "-c", script, check=False).strip()

    def wait_for_executor(self, name: str) -> None:
        """Wait until the scheduler runs with an executor, and is healthy."""

        def look() -> bool:
            [scheduler] = self.of("airflow-scheduler")
            healthy = scheduler["State"].get("Health", {}).get("Status") == "healthy"
            return healthy and self.executor() == name

        self.wait(look, f"the scheduler did not start with {name}")

    def request(self, path: str, content: Any = None, method: str | None = None) -> Any:
        """Like `AirflowApi.request`, but waits for an API server that is down for a while."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                return super().request(path, content, method)
            except (urllib.error.HTTPError, OSError) as error:
                down = not isinstance(error, urllib.error.HTTPError) or error.code >= 500
                if not down or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    @property
    def site_url(self) -> str:
        """Where the public site is served."""
        return f"http://localhost:{self.env['CATALUNYA_SITE_PORT']}"

    def running(self, run_id: str, task_id: str) -> dict[str, Any]:
        """Return the instance of a task as soon as it runs."""

        def look() -> Any:
            found = self.request(f"/dags/{PIPELINE}/dagRuns/{run_id}/taskInstances?limit=100")[
                "task_instances"
            ]
            return next(
                (task for task in found if task["task_id"] == task_id and task["state"] == "running"), None
            )

        found: dict[str, Any] = self.wait(look, f"{task_id} of {run_id} did not run")
        return found

    def pointer(self) -> str:
        """The release that readers see."""
        found = json.loads(self.inside("airflow-scheduler", "cat", "/var/lib/catalunya/lake/current.json"))
        return str(found["release_id"])

    def assert_release_is_whole(self) -> None:
        """Compare every file of the current release with its checksum."""
        folder = f"/var/lib/catalunya/lake/releases/{self.pointer()}"
        script = f"cd {folder} && sha256sum --check --quiet SHA256SUMS && wc -l < SHA256SUMS"
        assert int(self.inside("airflow-scheduler", "sh", "-c", script)) > 20

    def assert_this_or_the_next_run_succeeds(self, run_id: str) -> EndedRun:
        """Wait for the end of a disturbed run; if it failed, the next run must succeed."""
        ended = self.ended(run_id)
        if ended.state != "success":
            corrected = self.run(force=True)
            assert corrected.state == "success", (ended.states(), corrected.states())
        self.assert_release_is_whole()
        return ended


def service_of(container: dict[str, Any]) -> str:
    """The service that a container belongs to."""
    return str(container["Config"]["Labels"]["com.docker.compose.service"])


def docker(command: list[str], env: dict[str, str] | None = None, *, check: bool = True) -> str:
    """Return what a command prints; with `check`, fail with its whole output when it fails."""
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode and check:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout + ("" if check else done.stderr)


def make_stack(name: str, image: str, folder: Path, **env: str) -> Stack:
    """A stack that is not started yet, on a free port."""
    port, site_port = free_port(), free_port()
    project = f"catalunya-{name}"
    return Stack(
        f"http://localhost:{port}",
        folder,
        project=project,
        env={
            **CLEAN,
            "COMPOSE_PROJECT_NAME": project,
            "CATALUNYA_IMAGE": image,
            "AIRFLOW_PORT": str(port),
            "CATALUNYA_SITE_PORT": str(site_port),
            **env,
        },
    )


@contextmanager
def removed_at_the_end(stack: Stack) -> Iterator[Stack]:
    """Remove the stack at the end; its logs are kept in its folder."""
    try:
        yield stack
    finally:
        (stack.folder / "containers.log").write_text(stack.compose("logs", "--no-color", check=False))
        stack.profiles = ("scale",)
        stack.down("--volumes")
