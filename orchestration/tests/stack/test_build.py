"""The image behind a mirror of PyPI in a network that opens TLS, and from a clone that only its owner can read."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from orchestration.tests.stack.stack import docker
from tests.project import ROOT

pytestmark = pytest.mark.stack
BUILD = ["docker", "build", "--progress", "plain", "--file", "orchestration/Dockerfile"]
BUILDKIT = {**os.environ, "DOCKER_BUILDKIT": "1"}


class Mirror(BaseHTTPRequestHandler):
    """An index that has uv, and none of the packages of the lock."""

    asked: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        self.asked.add(self.path)
        body = b""
        if self.path == "/simple/uv/":
            with urllib.request.urlopen("https://pypi.org/simple/uv/", timeout=900) as answer:
                body = answer.read()
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def clone(folder: Path, *readable: str) -> Path:
    """The files of the image, but for those named readable by their owner only."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if name.startswith(("src/", "datasets/", "dbt/", "orchestration/")) or "/" not in name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    subprocess.run(["chmod", "-R", "go=", str(folder)], check=True)
    for name in readable:
        (folder / name).chmod(0o644)
    return folder


def certificate_of_localhost(authorities: Path, folder: Path) -> tuple[Path, Path]:
    """Certificate and key of `localhost`, of a new authority that is put into a folder."""
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    own, own_key = authorities / "own.crt", folder / "own.key"
    certificate, key = folder / "localhost.crt", folder / "localhost.key"
    issued = [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-addext",
        "basicConstraints=CA:FALSE",
    ]
    for command in (
        [*new, "-subj", "/CN=Own", "-keyout", str(own_key), "-out", str(own)],
        [
            *new,
            *issued,
            "-CA",
            str(own),
            "-CAkey",
            str(own_key),
            "-keyout",
            str(key),
            "-out",
            str(certificate),
        ],
    ):
        subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def test_packages_come_from_the_mirror_that_is_named_over_tls_of_an_authority_that_is_added(engine, tmp_path):
    where = clone(tmp_path / "clone")
    certificate, key = certificate_of_localhost(where / "orchestration" / "config" / "certificates", tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    index = f"https://localhost:{server.server_port}/simple"
    command = [
        *BUILD,
        "--network",
        "host",
        "--build-arg",
        f"PIP_INDEX_URL={index}",
        "--target",
        "dependencies",
        ".",
    ]
    done = subprocess.run(
        command, cwd=where, env=BUILDKIT, capture_output=True, text=True, timeout=900, check=False
    )
    server.shutdown()
    assert done.returncode != 0
    assert "not found in the package registry" in done.stderr, done.stderr
    assert len(Mirror.asked) > 1, done.stderr


def test_the_image_of_a_clone_that_only_its_owner_can_read_starts(image, tmp_path):
    tag = f"{image}-umask"
    # As they are in the other image, whose packages are used again.
    where = clone(tmp_path / "clone", "pyproject.toml", "uv.lock")
    subprocess.run([*BUILD, "--tag", tag, "."], cwd=where, env=BUILDKIT, check=True, timeout=900)
    try:
        said = docker(["docker", "run", "--rm", "--network", "none", tag, "secrets"])
        unreadable = "find /opt/catalunya ! -readable | head"
        assert docker(["docker", "run", "--rm", "--entrypoint", "sh", tag, "-c", unreadable]) == "", said
    finally:
        docker(["docker", "image", "rm", tag])


def test_a_mounted_file_that_cannot_be_read_is_named_with_the_command_that_corrects_it(image, tmp_path):
    (tmp_path / "src").mkdir(mode=0o700)
    mount = ["--volume", f"{tmp_path / 'src'}:/opt/catalunya/src:ro"]
    command = ["docker", "run", "--rm", "--network", "none", *mount, image, "secrets"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 1
    assert "/opt/catalunya/src cannot be read by user 50000" in done.stderr
    assert "chmod -R go+rX" in done.stderr


def test_the_image_holds_one_airflow_and_each_extension_of_duckdb_once(image):
    script = (
        "find / -xdev -type d -name 'apache_airflow_core-*' 2>/dev/null;"
        "find / -xdev -type f -name '*.duckdb_extension' 2>/dev/null | sort; test -e /home/airflow/.local || echo removed"
    )
    found = docker(["docker", "run", "--rm", "--entrypoint", "sh", image, "-c", script]).split()
    names = [Path(line).name for line in found]
    extensions = [f"{name}.duckdb_extension" for name in ("excel", "httpfs", "spatial")]
    assert names[1:] == [*extensions, "removed"], found
    assert found[0].startswith("/opt/catalunya/.venv/")
