"""The web interface of production, alone: the API server with the log-in of Flask-AppBuilder on a database of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.fernet import Fernet

from orchestration.scripts.airflow_local import BIN
from orchestration.tests.api import TIMEOUT_S
from tests.pipeline.command import CLEAN
from tests.project import ROOT
from tools.processes import LOOPBACK, free_port, process_group

CONFIG = ROOT / "orchestration" / "config"
ROLES = ("Viewer", "User", "Op", "Admin")
REQUESTS = {
    "see DAGs, runs, logs": ("GET", "/api/v2/dags", None),
    "start, repeat and pause": ("POST", "/api/v2/dags/none/dagRuns", {"logical_date": None}),
    "see and change connections and variables": ("GET", "/api/v2/connections", None),
    "see the audit log, manage users and roles": ("GET", "/auth/fab/v1/users", None),
}
"""What docs/log-in.md says that roles may do, each with a request that stands for it."""
PREPARE = f"""
from airflow.utils.db import initdb
initdb()
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
with get_application_builder() as builder:
    for role in {ROLES!r}:
        name = role.lower()
        assert builder.sm.add_user(
            name, role, "Test", name + "@localhost.invalid", builder.sm.find_role(role), "the password of " + name
        )
"""
"""What `airflow db migrate` and four times `airflow users create` do, in one process."""


def password_of(role: str) -> str:
    return f"the password of {role.lower()}"


def variables(folder: Path) -> dict[str, str]:
    """The settings of the containers, with the secrets and the database of this folder."""
    return {
        **CLEAN,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW_CONFIG": str(CONFIG / "airflow.cfg"),
        "AIRFLOW__FAB__CONFIG_FILE": str(CONFIG / "webserver_config.py"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(folder / "plugins"),
        "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
        "AIRFLOW__API__SECRET_KEY": "a key of a test, of some length",
        "AIRFLOW__API_AUTH__JWT_SECRET": "a key of a test that is long enough for a signature of 512 bits, 64 bytes",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        # Behind the proxy of the tests.
        "AIRFLOW__API__BASE_URL": "https://localhost",
        "NO_PROXY": "localhost,127.0.0.1",
    }


def prepare(folder: Path) -> dict[str, str]:
    """Make the database with one user for each role; return the variables of its processes."""
    env = variables(folder)
    subprocess.run([sys.executable, "-c", PREPARE], env=env, cwd=folder, check=True, capture_output=True)
    return env


@contextmanager
def serving(folder: Path, env: dict[str, str], name: str) -> Iterator[str]:
    """Run the API server as `entrypoint.sh` does behind a proxy with TLS; gives its address."""
    port = free_port()
    url, log = f"http://{LOOPBACK}:{port}", folder / f"{name}.log"
    command = [
        *(BIN / "airflow", "api-server", "--proxy-headers", "--apps", "core"),
        *("--host", LOOPBACK, "--port", str(port), "--workers", "1"),
    ]
    with process_group(command, env=env, folder=folder, log=log) as process:
        deadline = time.monotonic() + TIMEOUT_S
        while not answers(f"{url}/api/v2/version"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the API server did not start:\n{log.read_text()}")
            time.sleep(0.5)
        yield url


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10):
            return True
    except OSError:
        return False


def cookie(response: httpx.Response, name: str) -> str:
    """The cookie that a response sets, with its attributes."""
    return next(line for line in response.headers.get_list("set-cookie") if line.startswith(f"{name}="))


def session_of(response: httpx.Response) -> dict[str, str]:
    """The header that continues the session of a response."""
    return {"Cookie": cookie(response, "session").split(";")[0]}


class Browser:
    """Somebody with a browser at `address`, behind a proxy with TLS that names it."""

    def __init__(self, url: str, address: str) -> None:
        headers = {"X-Forwarded-For": address, "X-Forwarded-Proto": "https", "Referer": "https://localhost/"}
        self.client = httpx.Client(base_url=url, headers={**headers, "Host": "localhost"}, timeout=120)

    def log_in(self, name: str, password: str) -> httpx.Response:
        """Send the form of the log-in; a success is a redirect to the first page, where the token is given."""
        # httpx keeps cookies that are `Secure` from addresses with http; the proxy has TLS.
        page = self.client.get("/auth/login/")
        token = re.search(r'csrf_token[^>]*value="([^"]+)"', page.text)
        assert token
        form = {"csrf_token": token[1], "username": name, "password": password}
        return self.client.post("/auth/login/", data=form, headers=session_of(page))


def token(url: str, name: str, password: str) -> httpx.Response:
    return httpx.post(f"{url}/auth/token", json={"username": name, "password": password}, timeout=120)


def token_of(response: httpx.Response) -> str:
    """The token that a log-in gives to the browser."""
    return cookie(response, "_token").split(";")[0].removeprefix("_token=")


def allowed(url: str, bearer: str) -> set[str]:
    """Which of the requests the API answers otherwise than by 403."""
    headers = {"Authorization": f"Bearer {bearer}"}
    found = set()
    for name, (method, path, content) in REQUESTS.items():
        status = httpx.request(method, url + path, json=content, headers=headers, timeout=120).status_code
        assert status in (200, 403, 404), (name, status)
        if status != 403:
            found.add(name)
    return found


def roles_of_the_page() -> dict[str, set[str]]:
    """Read the table of roles in docs/log-in.md."""
    page = (CONFIG.parents[1] / "docs" / "log-in.md").read_text("utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if "|" in line
    ]
    head = next(row for row in rows if row[1:] == list(ROLES))
    found: dict[str, set[str]] = {role: set() for role in head[1:]}
    for row in rows:
        if row[0] in REQUESTS:
            for role, cell in zip(ROLES, row[1:], strict=True):
                if cell == "yes":
                    found[role].add(row[0])
    return found
