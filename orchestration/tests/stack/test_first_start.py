"""The first start to a release, stop and second start; users, rights, limits and ports of the containers."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import tarfile
import threading
import urllib.error
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from orchestration.scripts import airflow_local
from orchestration.tests.api import PIPELINE
from orchestration.tests.stack.stack import ORCHESTRATION, Stack, docker, service_of
from tests.project import missing

pytestmark = pytest.mark.stack

SERVICES = {
    "postgres", "redis", "secrets-init", "airflow-init", "airflow-apiserver", "airflow-scheduler", "airflow-dag-processor",
    "airflow-triggerer", "airflow-cleanup", "demo-portal", "site",
}  # fmt: skip
INITS = {"secrets-init", "airflow-init"}
MOST_IDLE_MIB = 1536


def test_every_service_is_healthy_and_none_but_init_has_ended(stack):
    containers = {service_of(one): one for one in stack.containers()}
    assert set(containers) == SERVICES
    for name in INITS:
        init = containers.pop(name)
        assert (init["State"]["Status"], init["State"]["ExitCode"]) == ("exited", 0)
    assert {name: one["State"]["Health"]["Status"] for name, one in containers.items()} == dict.fromkeys(
        SERVICES - INITS, "healthy"
    )
    assert all(one["RestartCount"] == 0 for one in containers.values())


def test_the_first_run_starts_by_itself_and_ends_in_a_release(stack):
    [run] = stack.wait(lambda: stack.request(f"/dags/{PIPELINE}/dagRuns")["dag_runs"], "no run was scheduled")
    ended = stack.ended(run["dag_run_id"])
    assert ended.state == "success", ended.states()
    stack.assert_release_is_whole()
    status = json.loads(stack.inside("airflow-scheduler", "catalunya", "status", "--json"))
    assert status["release_id"] == stack.pointer()


def test_dbt_and_duckdb_are_sized_by_the_limits_of_the_container(stack):
    [scheduler] = stack.of("airflow-scheduler")
    given = scheduler["HostConfig"]["Memory"]
    main = "tr '\\0' '\\n' < /proc/$(cat /proc/1/task/1/children | cut -d' ' -f1)/environ"
    env = dict(
        line.split("=", 1)
        for line in stack.inside("airflow-scheduler", "sh", "-c", main).splitlines()
        if line.startswith("CATALUNYA_D")
    )
    assert env["CATALUNYA_DUCKDB_MEMORY"] == f"{given * 40 // 104857600}MB"
    assert env["CATALUNYA_DBT_THREADS"] == "2"
    production = docker(
        [
            *("docker", "run", "--rm", "--memory", "2g", "--cpus", "1"),
            *("--entrypoint", "bash", stack.env["CATALUNYA_IMAGE"], "-c"),
            "sed '/^case \"$ENVIRONMENT\" in/,$d' orchestration/docker/entrypoint.sh > /tmp/e.sh; . /tmp/e.sh;"
            " ENVIRONMENT=production; size_dbt; echo $CATALUNYA_DUCKDB_MEMORY $CATALUNYA_DBT_THREADS",
        ]
    )
    assert production.split() == [f"{2 * 1024 * 70 // 100}MB", "1"]


def test_log_in_unpause_trigger_success_through_the_api_within_the_database_s_connections(stack):
    with pytest.raises(urllib.error.HTTPError, match="401"):
        airflow_local.call_api(f"{stack.url}/auth/token", {"username": "airflow", "password": "wrong"})
    stack.request(f"/dags/{PIPELINE}?update_mask=is_paused", {"is_paused": True}, "PATCH")
    assert stack.request(f"/dags/{PIPELINE}")["is_paused"] is True
    stack.request(f"/dags/{PIPELINE}?update_mask=is_paused", {"is_paused": False}, "PATCH")
    before = stack.pointer()
    with Connections(stack) as connections:
        ended = stack.run(force=True)
    assert ended.state == "success", ended.states()
    assert stack.pointer() != before
    stack.assert_release_is_whole()
    assert len(connections.seen) > 10, "too few looks to say anything"
    limits = pool_limits()
    most = {
        name: max(look.get(name, 0) for look in connections.seen)
        for name in {name for look in connections.seen for name in look}
    }
    assert set(most) <= set(limits), most
    assert {name: count for name, count in most.items() if count > limits[name]} == {}
    most_allowed = int(stack.inside("postgres", "psql", "-U", "airflow", "-Atc", "show max_connections"))
    # The reserve that PostgreSQL keeps for its superuser is 3; three workers of a scaled stack hold 6 each.
    assert sum(limits.values()) + 3 * 6 <= most_allowed - 3


class Connections:
    """Counts the connections to the database by service, several times a second, while it is entered."""

    SQL = (
        "select coalesce(json_object_agg(name, held), '{}') from (select application_name as name,"
        " count(*) as held from pg_stat_activity where datname = 'airflow' and application_name <> 'psql'"
        # Null until a connection has said who it is.
        " and state is not null"
        " group by 1) as counted"
    )

    def __init__(self, stack) -> None:
        self.seen: list[dict[str, int]] = []
        self._stack = stack
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.3):
            answer = self._stack.inside("postgres", "psql", "-U", "airflow", "-Atc", self.SQL)
            self.seen.append(json.loads(answer))


def pool_limits() -> dict[str, int]:
    """What size_pools allows each service in development, for both engines of its process."""
    text = (ORCHESTRATION / "docker" / "entrypoint.sh").read_text()
    declared = re.search(r"local pool=(\d+) overflow=(\d+)", text)
    assert declared is not None
    others = ("dag-processor", "triggerer", "init", "cleanup")
    limits = dict.fromkeys(others, 2 * sum(map(int, declared.groups())))
    for name, pool, overflow in re.findall(r"\*:([a-z-]+)\) pool=(\d+) overflow=(\d+)", text):
        limits[name] = 2 * (int(pool) + int(overflow))
    assert set(limits) == {*others, "api-server", "scheduler"}
    return {**limits, "health": 3}


def test_a_person_logs_in_and_sees_the_dags(stack):
    chromium = shutil.which("chromium")
    if chromium is None:
        missing("no Chromium on the path; install your system's package `chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.goto(stack.url)
        page.fill("input[name=username]", "airflow")
        page.fill("input[name=password]", "airflow")
        page.click("input[type=submit], button[type=submit]")
        page.goto(f"{stack.url}/dags")
        expect(page.get_by_text(PIPELINE).first).to_be_visible(timeout=30_000)
        browser.close()


def test_the_idle_stack_takes_at_most_one_and_a_half_gigabytes(stack):
    stack.wait(lambda: not busy(stack), "runs are still going on")
    names = [one["Name"].lstrip("/") for one in stack.containers() if one["State"]["Running"]]
    # Without the cache of files, which the kernel gives back: the site alone fills some of it.
    read = "cat /sys/fs/cgroup/memory.stat 2>/dev/null || cat /sys/fs/cgroup/memory/memory.stat"
    used = {}
    for name in names:
        found = docker(["docker", "exec", name, "sh", "-c", read])
        used[name] = int(re.search(r"^(?:anon|rss) (\d+)$", found, re.MULTILINE)[1]) / 2**20
    assert len(used) == len(SERVICES - INITS)
    assert sum(used.values()) <= MOST_IDLE_MIB, used


def busy(stack) -> bool:
    return bool(stack.request("/dags/~/dagRuns?state=running&state=queued")["dag_runs"])


def test_nothing_listens_beyond_loopback_runs_as_root_or_can_write_its_own_code(stack):
    for one in stack.containers():
        name, host = service_of(one), one["HostConfig"]
        assert one["Config"]["User"] not in {"", "0", "root"}, name
        assert host["ReadonlyRootfs"] is True, name
        assert host["CapDrop"] == ["ALL"] and not host["CapAdd"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert host["Privileged"] is False and host["Memory"] > 0, name
        assert all("docker.sock" not in mount["Source"] for mount in one["Mounts"]), name
        published = [binding for bindings in (host["PortBindings"] or {}).values() for binding in bindings]
        assert [binding["HostIp"] for binding in published] == (
            ["127.0.0.1"] if name in {"airflow-apiserver", "site"} else []
        ), name
        if one["State"]["Running"]:
            lines = docker(["docker", "top", one["Id"], "-o", "pid,uid"]).splitlines()[1:]
            users = [line.split()[1] for line in lines]
            assert users and not set(users) & {"0", "root"}, (name, users)


def test_no_file_of_the_image_s_code_can_be_written_by_the_user_it_runs_as(stack):
    script = "find /opt/catalunya /usr/bin /usr/lib -writable -not -type l | head"
    found = docker(
        ["docker", "run", "--rm", "--entrypoint", "sh", stack.env["CATALUNYA_IMAGE"], "-c", script]
    )
    assert found == ""
    for folder in (
        "src/catalunya",
        "dbt/mart",
        "orchestration/airflow/dags",
        "orchestration/config",
        "orchestration/dbt",
        ".venv",
    ):
        said = stack.inside("airflow-scheduler", "touch", f"/opt/catalunya/{folder}/x", check=False)
        assert "Read-only file system" in said, folder


def test_no_secret_is_in_the_image_or_the_files(stack):
    inside = stack.inside(
        "airflow-scheduler", "sh", "-c", "cat /run/catalunya/*_key /run/catalunya/jwt_secret"
    )
    password = stack.inside("postgres", "cat", "/run/catalunya/postgres_password")
    assert len(inside) > 100 and len(password) == 64
    shown = stack.compose("config") + json.dumps(stack.containers())
    history = docker(["docker", "history", "--no-trunc", stack.env["CATALUNYA_IMAGE"]])
    assert password not in shown + history
    files = " ".join(path.read_text() for path in ORCHESTRATION.glob("docker-compose*.yml"))
    assert not re.search(r"(PASSWORD|SECRET|FERNET)[A-Z_]*:[ \t]*[^\s$/#]", files)


def test_no_secret_is_in_the_volumes_the_database_or_a_layer_of_the_image(stack):
    secrets = {
        name: stack.inside("airflow-scheduler", "cat", f"/run/catalunya/{name}")
        for name in ("fernet_key", "api_secret_key", "jwt_secret", "postgres_password", "redis_password")
    }
    dump = stack.inside("postgres", "pg_dump", "--username", "airflow", "airflow")
    assert "COPY public.dag_run" in dump
    assert [name for name, secret in secrets.items() if secret in dump] == []
    # Those who can see a container see its environment: what users planted there, but nothing that the stack created.
    described = json.dumps(stack.containers())
    assert [name for name, secret in secrets.items() if secret in described] == []
    label = f"label=com.docker.compose.project={stack.project}"
    volumes = docker(["docker", "volume", "ls", "--quiet", "--filter", label]).split()
    assert {name.split("_")[1] for name in volumes} >= {"secrets", "postgres", "logs", "lake"}
    for volume in volumes:
        found = [name for name, secret in secrets.items() if holds(stack, volume, secret)]
        assert found == (sorted(secrets, key=list(secrets).index) if "_secrets_" in volume else []), volume
    image = stack.folder / "image.tar"
    docker(["docker", "save", "--output", str(image), stack.env["CATALUNYA_IMAGE"]])
    try:
        assert in_layers(image, secrets) == set()
    finally:
        image.unlink()


def in_layers(image: Path, secrets: dict[str, str]) -> set[str]:
    """Return which secrets are in a saved image: each layer is an archive in the archive, compressed or not."""
    found = set()
    longest = max(len(secret) for secret in secrets.values())
    with tarfile.open(image) as saved:
        for member in filter(tarfile.TarInfo.isfile, saved):
            layer = saved.extractfile(member)
            assert layer
            packed = layer.read(2) == b"\x1f\x8b"
            layer.seek(0)
            content, before = gzip.open(layer) if packed else layer, b""  # noqa: SIM115
            while chunk := content.read(1 << 22):
                held = before + chunk
                found |= {name for name, secret in secrets.items() if secret.encode() in held}
                before = held[-longest:]
    return found


def holds(stack: Stack, volume: str, secret: str) -> bool:
    """Tell whether a file of a volume has the text; grep gets it by its input, which no list of processes shows."""
    command = [
        *(
            "docker",
            "run",
            "--rm",
            "--interactive",
            "--user",
            "0",
            "--network",
            "none",
            "--entrypoint",
            "grep",
        ),
        *("--volume", f"{volume}:/volume:ro", stack.env["CATALUNYA_IMAGE"]),
        *("--recursive", "--text", "--quiet", "--fixed-strings", "--file", "-", "/volume"),
    ]
    return subprocess.run(command, input=secret.encode(), check=False).returncode == 0


def test_down_and_up_again_keeps_users_runs_variables_and_releases(stack):
    stack.request("/variables", {"key": "kept", "value": "yes"})
    runs = {run["dag_run_id"] for run in stack.request(f"/dags/{PIPELINE}/dagRuns")["dag_runs"]}
    release, before = stack.pointer(), stack.containers()
    pids = [one["State"]["Pid"] for one in before if one["State"]["Running"]]
    stack.inside(
        "airflow-scheduler", "airflow", "users", "create", "--role", "Viewer", "--username", "guest",
        "--password", "of the house", "--firstname", "G", "--lastname", "G", "--email", "g@localhost.invalid",
    )  # fmt: skip
    stack.down()
    assert stack.containers() == []
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    label = f"label=com.docker.compose.project={stack.project}"
    assert docker(["docker", "network", "ls", "--quiet", "--filter", label]) == ""
    stack.up()
    assert stack.request("/variables/kept")["value"] == "yes"
    assert runs <= {run["dag_run_id"] for run in stack.request(f"/dags/{PIPELINE}/dagRuns")["dag_runs"]}
    assert stack.pointer() == release
    assert airflow_local.call_api(
        f"{stack.url}/auth/token", {"username": "guest", "password": "of the house"}
    )
    names = docker(["docker", "ps", "--all", "--format", "{{.Names}}", "--filter", label]).split()
    assert len(names) == len(SERVICES)
