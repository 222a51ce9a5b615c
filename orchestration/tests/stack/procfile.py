"""A host of a Procfile, as Dokku starts the processes of an app: the image, one container a process, links as URLs."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
import urllib.parse
import urllib.request
from base64 import urlsafe_b64encode
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestration.tests.api import TIMEOUT_S, AirflowApi, EndedRun
from orchestration.tests.stack.stack import docker
from tests.project import ROOT
from tools.processes import free_port

PROCESSES = dict(
    line.split(": ", 1)
    for line in (ROOT / "Procfile").read_text().splitlines()
    if not line.startswith("release")
)
CHECKS: dict[str, list[dict[str, Any]]] = json.loads((ROOT / "app.json").read_text())["healthchecks"]
HURRY = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "CATALUNYA_RETRY_DELAY_SECONDS": "2",
}
STOP_S = 120
"""The stop-timeout that scripts/deploy.sh sets."""
RESTART = "unless-stopped"
"""The restart-policy that it sets."""


@dataclass
class Host(AirflowApi):
    """An app on a network of its own, with a PostgreSQL and a Redis that answer over TLS only."""

    image: str
    name: str
    web_port: int = field(default_factory=free_port)
    site_port: int = field(default_factory=free_port)
    password: str = "p@ss/w?r#d%41 [ü]"
    running: dict[str, str] = field(default_factory=dict)
    """Process to the id of its container."""

    def __post_init__(self) -> None:
        self.admin = secrets.token_hex(16)
        self.certificates = self.folder / "certificates"

    @property
    def config(self) -> dict[str, str]:
        """The variables of the app, as `dokku config:set` and the links have set them."""
        encoded = urllib.parse.quote(self.password, safe="")
        tls = "sslmode=verify-full&sslrootcert=/certificates/ca.crt"
        return {
            "ENVIRONMENT": "demo",
            "CATALUNYA_DEMO_PORTAL": "1",
            "DATABASE_URL": f"postgres://care:{encoded}@{self.name}-postgres:5432/care?{tls}",
            "REDIS_URL": f"rediss://:{encoded}@{self.name}-redis:6379?ssl_ca_certs=/certificates/ca.crt",
            "AIRFLOW__CORE__FERNET_KEY": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW_ADMIN_USERNAME": "chief",
            "AIRFLOW_ADMIN_PASSWORD": self.admin,
            "AIRFLOW__API__BASE_URL": "https://airflow.example.org",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{self.name}.web:5000/execution/",
            **HURRY,
        }

    def prepare(self) -> None:
        """Make network, certificates, services and folders, and keep the variables."""
        self.prepare_services()
        self._service("portal", self.image, "--network-alias", "demo-portal", after=["portal"])

    def prepare_services(self) -> None:
        """Make the network, and on it a PostgreSQL and a Redis; keep the variables that lead to them."""
        self.variables = self.config
        self.certificates.mkdir()
        self._certify("postgres", "redis")
        docker(["docker", "network", "create", self.name])
        folder = f"{self.certificates}:/certificates:ro"
        self._service(
            "postgres", "postgres:15", "--volume", folder, "--env", "POSTGRES_USER=care", "--env",
            f"POSTGRES_PASSWORD={self.password}",
            after=["postgres", "-c", "ssl=on", "-c", "ssl_cert_file=/certificates/postgres.crt", "-c",
                   "ssl_key_file=/certificates/postgres.key"],
        )  # fmt: skip
        self._service(
            "redis", "redis:7.2-alpine", "--volume", folder, "--entrypoint", "redis-server",
            after=["--port", "0", "--tls-port", "6379", "--tls-cert-file", "/certificates/redis.crt", "--tls-key-file",
                   "/certificates/redis.key", "--tls-ca-cert-file", "/certificates/ca.crt", "--tls-auth-clients", "no",
                   "--protected-mode", "no", "--requirepass", self.password],
        )  # fmt: skip

    def _certify(self, *services: str) -> None:
        def openssl(*words: str) -> None:
            subprocess.run(["openssl", *words], cwd=self.certificates, check=True, capture_output=True)

        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key",
                "-out", "ca.crt")  # fmt: skip
        for service in services:
            host = f"{self.name}-{service}"
            (self.certificates / "names").write_text(f"subjectAltName=DNS:{host}\n")
            openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host}", "-keyout", f"{service}.key",
                    "-out", "request")  # fmt: skip
            openssl("x509", "-req", "-in", "request", "-days", "2", "-CA", "ca.crt", "-CAkey", "ca.key",
                    "-CAcreateserial", "-extfile", "names", "-out", f"{service}.crt")  # fmt: skip
            # Both services run as user 999, in the replacements as in the official images.
            subprocess.run(["chown", "999", f"{service}.key"], cwd=self.certificates, check=True)
        (self.certificates / "ca.crt").chmod(0o644)

    def _service(self, service: str, image: str, *options: str, after: list[str]) -> None:
        name = f"{self.name}-{service}"
        user = ["--user", "999"] if service in {"postgres", "redis"} else []
        docker(
            [
                "docker",
                "run",
                "--detach",
                "--name",
                name,
                "--network",
                self.name,
                *user,
                *options,
                image,
                *after,
            ]
        )

    def run(self, *command: str, check: bool = True, **more: str) -> str:
        """Run a command in a container of its own, as the release step or `dokku run`."""
        return docker(["docker", "run", "--rm", *self._options(more), self.image, *command], check=check)

    def _options(self, more: dict[str, str]) -> list[str]:
        env = {**self.variables, **more}
        mounts = {
            "lake": "/var/lib/catalunya/lake",
            "site": "/var/lib/catalunya/site",
            "logs": "/opt/airflow/logs",
        }
        return [
            "--network", self.name, "--volume", f"{self.certificates / 'ca.crt'}:/certificates/ca.crt:ro",
            *(word for name, value in env.items() for word in ("--env", f"{name}={value}")),
            *(word for name, path in mounts.items() for word in ("--volume", f"{self.name}-{name}:{path}")),
        ]  # fmt: skip

    def deploy(self, version: str) -> None:
        """Do what a deployment does: the release step, new containers, their checks, then the old ones are stopped."""
        release = next(
            line for line in (ROOT / "Procfile").read_text().splitlines() if line.startswith("release")
        )
        self.run(*release.split(": ", 1)[1].split())
        old = dict(self.running)
        self.web_port, self.site_port = free_port(), free_port()
        ports = {"web": self.web_port, "site": self.site_port}
        for process, command in PROCESSES.items():
            publish = ["--publish", f"127.0.0.1:{ports[process]}:5000"] if process in ports else []
            port = "5000" if process in ports else ""
            env = {"DYNO": f"{process}.1", "PORT": port, "GIT_REV": version}
            self.running[process] = docker(
                ["docker", "run", "--detach", "--name", f"{self.name}.{process}.{version}", "--restart", RESTART,
                 "--network-alias", f"{self.name}.{process}", *publish, *self._options(env), self.image, *command.split()]
            ).strip()  # fmt: skip
        for process in PROCESSES:
            self.check(process)
        self.url = f"http://localhost:{self.web_port}"
        stopping = [
            subprocess.Popen(["docker", "stop", "--time", str(STOP_S), container], stdout=subprocess.DEVNULL)
            for container in old.values()
        ]
        for one in stopping:
            one.wait(TIMEOUT_S)

    def check(self, process: str) -> None:
        """Wait until the checks of app.json succeed."""
        for check in CHECKS[process]:
            self.wait(
                lambda check=check: self._succeeds(process, check), f"{process}: {check['name']} failed"
            )

    def _succeeds(self, process: str, check: dict[str, Any]) -> bool:
        container = self.running[process]
        if "command" in check:
            said = subprocess.run(
                ["docker", "exec", container, *check["command"]], capture_output=True, check=False
            )
            return said.returncode == 0
        if "path" in check:
            with suppress(OSError):
                port = self.web_port if process == "web" else self.site_port
                with urllib.request.urlopen(f"http://localhost:{port}{check['path']}", timeout=10) as answer:
                    return bool(answer.status == 200)
            return False
        time.sleep(check["uptime"])
        return bool(self.state(process)["Running"])

    def state(self, process: str) -> dict[str, Any]:
        """What the engine says of the container of a process."""
        [found] = json.loads(docker(["docker", "inspect", self.running[process]]))
        return dict(found["State"], restarts=found["RestartCount"])

    def request(self, path: str, content: Any = None, method: str | None = None) -> Any:
        """Like `AirflowApi.request`, as the first user; waits for a web process that is down for a while."""
        from orchestration.scripts import airflow_local

        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                if not self.token:
                    login = {"username": "chief", "password": self.admin}
                    self.token = str(airflow_local.call_api(f"{self.url}/auth/token", login)["access_token"])
                return airflow_local.call_api(f"{self.url}/api/v2{path}", content, self.token, method)
            except OSError as error:
                if getattr(error, "code", 500) < 500 or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def state_of(self, run_id: str, task_id: str) -> str | None:
        """The state of a task of a run."""
        path = f"/dags/catalunya_data_pipeline/dagRuns/{run_id}/taskInstances?limit=100"
        found = self.request(path)["task_instances"]
        return next((task["state"] for task in found if task["task_id"] == task_id), None)

    def pointer(self) -> str:
        """The release that readers see."""
        said = docker(
            ["docker", "exec", self.running["worker"], "cat", "/var/lib/catalunya/lake/current.json"]
        )
        return str(json.loads(said)["release_id"])

    def assert_release_is_whole(self) -> None:
        """Compare every file of the current release with its checksum."""
        script = (
            f"cd /var/lib/catalunya/lake/releases/{self.pointer()} && sha256sum --check --quiet SHA256SUMS"
        )
        docker(["docker", "exec", self.running["worker"], "sh", "-c", script])

    def this_or_the_next_run_succeeds(self, run_id: str) -> EndedRun:
        """Wait for the end of a disturbed run; if it failed, the next run must succeed."""
        ended = self.ended(run_id)
        if ended.state != "success":
            ended = self.ended(self.trigger(force=True))
            assert ended.state == "success", ended.states()
        self.assert_release_is_whole()
        return ended

    def remove(self) -> None:
        """Remove everything; the logs of the containers stay in the folder."""
        ids = docker(["docker", "ps", "--all", "--quiet", "--filter", f"name={self.name}"]).split()
        with (self.folder / "containers.log").open("w") as log:
            for one in ids:
                subprocess.run(["docker", "logs", one], stdout=log, stderr=log, check=False)
        if ids:
            docker(["docker", "rm", "--force", "--volumes", *ids])
        docker(["docker", "network", "rm", self.name], check=False)
        for volume in ("lake", "site", "logs"):
            docker(["docker", "volume", "rm", "--force", f"{self.name}-{volume}"], check=False)


def environment_of(container: str) -> dict[str, str]:
    """The variables of the process that runs in a container, beyond those that the container was given."""
    script = "cat /proc/$(cut -d' ' -f1 /proc/1/task/1/children)/environ"
    said = docker(["docker", "exec", container, "sh", "-c", script])
    return dict(pair.split("=", 1) for pair in said.split("\0") if "=" in pair)


def make_host(image: str, folder: Path, name: str = "care") -> Host:
    """An app that is not deployed yet, under a name that no other test has."""
    return Host("", folder, image=image, name=f"{name}-{secrets.token_hex(4)}")
