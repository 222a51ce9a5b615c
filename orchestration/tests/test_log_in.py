"""The log-in of production on a real API server: roles, limits, sessions, the proxy with TLS, and an OpenID provider."""

from __future__ import annotations

import configparser
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import RSAKey

from orchestration.tests.log_in import (
    CONFIG,
    REQUESTS,
    ROLES,
    Browser,
    allowed,
    cookie,
    password_of,
    prepare,
    roles_of_the_page,
    serving,
    session_of,
    token,
    token_of,
)
from orchestration.tests.oidc_provider import CLIENT, SECRET, Provider, providing
from tests.project import missing
from tools.processes import free_port, process_group

pytestmark = pytest.mark.xdist_group("log_in")

GROUPS = "Viewer=care-readers; Op=care-operators; Admin=cn=admins,ou=groups,dc=example,dc=org"


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return prepare(tmp_path_factory.mktemp("log_in"))


@pytest.fixture(scope="module")
def url(env: dict[str, str]) -> Iterator[str]:
    with serving(Path(env["AIRFLOW_HOME"]), env, "database") as found:
        yield found


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with providing() as found:
        yield found


@pytest.fixture(scope="module")
def oidc(env: dict[str, str], provider: Provider) -> Iterator[str]:
    secret = Path(env["AIRFLOW_HOME"]) / "client_secret"
    secret.write_text(SECRET + "\n")
    more = {
        "AIRFLOW_LOGIN": "oidc",
        "AIRFLOW_OIDC_ISSUER": provider.issuer,
        "AIRFLOW_OIDC_CLIENT_ID": CLIENT,
        "AIRFLOW_OIDC_CLIENT_SECRET_FILE": str(secret),
        "AIRFLOW_ROLE_GROUPS": GROUPS,
        # Else the roles of a user are remembered for 30 seconds.
        "AIRFLOW__FAB__CACHE_TTL": "0",
    }
    with serving(Path(env["AIRFLOW_HOME"]), {**env, **more}, "oidc") as found:
        yield found


def test_each_role_may_do_what_the_page_says(url):
    written = roles_of_the_page()
    assert set().union(*written.values()) == set(REQUESTS)
    for role in ROLES:
        bearer = token(url, role.lower(), password_of(role)).json()["access_token"]
        assert allowed(url, bearer) == written[role], role


def test_the_sixth_log_in_within_40_seconds_is_refused_for_its_address_alone(url):
    guesser = Browser(url, "192.0.2.1")
    statuses = [guesser.log_in("viewer", f"guess {n}").status_code for n in range(7)]
    # The window of the limit may begin anew between two of them, once.
    assert 429 in statuses and statuses[:2] == [302, 302]
    assert Browser(url, "192.0.2.2").log_in("viewer", password_of("Viewer")).headers["location"] == "/auth/"


def test_tokens_of_the_api_are_limited_by_the_proxy_only(url):
    """What docs/log-in.md says of it. When Airflow limits them itself, the page and the proxy's example can be shorter."""
    assert {token(url, "viewer", f"guess {n}").status_code for n in range(8)} == {401}


def test_sessions_and_cookies_have_the_settings_that_the_page_names(url, env):
    written = configparser.ConfigParser(interpolation=None)
    written.read(CONFIG / "airflow.cfg")
    assert written["fab"]["session_lifetime_minutes"] == "60"
    assert written["fab"]["session_max_lifetime_minutes"] == "480"
    browser = Browser(url, "192.0.2.3")
    done = browser.log_in("viewer", password_of("Viewer"))
    for name in ("session", "_token"):
        for attribute in ("HttpOnly", "Secure", "SameSite=Lax"):
            assert attribute in cookie(done, name)
    ends = re.search("Expires=([^;]+)", cookie(done, "session"))
    assert timedelta(minutes=55) < parsedate_to_datetime(ends[1]) - datetime.now(UTC) <= timedelta(minutes=60)
    claims = jwt.decode(token_of(done), options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] <= 480 * 60


def test_a_weak_password_is_refused_with_the_rule(env):
    script = """
import sys, types
module = types.ModuleType("config")
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), module.__dict__)
for password in ("short", "aaaaaaaaaaaaaa", "four random words hold"):
    try:
        print(module.FAB_PASSWORD_COMPLEXITY_VALIDATOR(password))
    except Exception as error:
        print(type(error).__name__, error)
"""
    command = [sys.executable, "-c", script, str(CONFIG / "webserver_config.py")]
    said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[0] for line in said] == ["PasswordComplexityValidationError"] * 2 + ["None"]
    assert "at least 12 characters" in said[0]


class OidcBrowser(Browser):
    """Follows the redirects between Airflow and the provider, as a browser does."""

    def through_the_provider(self) -> httpx.Response:
        """Return Airflow's answer to what the provider sent back."""
        asked = self.client.get("/auth/login/oidc")
        back = httpx.get(asked.headers["location"]).headers["location"]
        path = back.removeprefix("https://localhost")
        assert path.startswith("/auth/oauth-authorized/oidc?"), back
        return self.client.get(path, headers=session_of(asked))


def person(name: str, *groups: str) -> dict[str, object]:
    return {"preferred_username": name, "email": f"{name}@example.org", "given_name": name, "groups": groups}


@pytest.mark.parametrize(
    ("group", "role"), [("care-readers", "Viewer"), ("cn=admins,ou=groups,dc=example,dc=org", "Admin")]
)
def test_a_group_of_the_provider_gives_its_role(oidc, provider, group, role):
    provider.user = person(f"person-{role}", group, "others")
    browser = OidcBrowser(oidc, "192.0.2.4")
    done = browser.through_the_provider()
    assert done.headers["location"] == "/auth/"
    assert allowed(oidc, token_of(done)) == roles_of_the_page()[role]


def test_who_left_the_group_has_no_role_at_the_next_log_in(oidc, provider):
    provider.user = person("leaver", "care-operators")
    browser = OidcBrowser(oidc, "192.0.2.5")
    assert allowed(oidc, token_of(browser.through_the_provider())) == roles_of_the_page()["Op"]
    provider.user = person("leaver", "others")
    done = OidcBrowser(oidc, "192.0.2.5").through_the_provider()
    assert allowed(oidc, token_of(done)) == set()


def test_whose_address_a_user_has_cannot_log_in(oidc, provider):
    """What docs/log-in.md says of it. When Airflow refuses it in the form, the page can be shorter."""
    provider.user = person("same-address", "care-readers") | {"email": "viewer@localhost.invalid"}
    done = OidcBrowser(oidc, "192.0.2.7").through_the_provider()
    assert done.status_code == 500
    assert "IntegrityError" not in done.text


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"changed": {"aud": "another client"}}, id="a token for another client"),
        pytest.param({"changed": {"iss": "https://elsewhere.example"}}, id="a token of another provider"),
        pytest.param({"changed": {"nonce": "of an earlier log-in"}}, id="a token used again"),
        pytest.param({"changed": {"exp": 1}}, id="a token that is over"),
        pytest.param({"signer": RSAKey.generate_key(2048)}, id="a token with another signature"),
    ],
)
def test_a_forged_token_is_no_log_in(oidc, provider, change, monkeypatch):
    provider.user = person("forger", "cn=admins,ou=groups,dc=example,dc=org")
    for name, value in change.items():
        monkeypatch.setattr(provider, name, value)
    done = OidcBrowser(oidc, "192.0.2.6").through_the_provider()
    assert done.headers["location"] == "https://localhost/auth/login/"
    assert not any(line.startswith("_token=") for line in done.headers.get_list("set-cookie"))


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "chain.pem", folder / "private.key"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return chain, private


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers every request with the headers that it got."""

    def do_GET(self) -> None:
        body = str(self.headers).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[str]:
    """The proxy of the example in front of a server that repeats headers."""
    nginx = shutil.which("nginx") or missing("nginx is not installed: apt-get install nginx-light")
    chain, private = certificate(tmp_path)
    port = free_port()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        text = (CONFIG / "proxy" / "airflow.conf").read_text("utf-8")
        for there, here in {
            "listen 80;": f"listen 127.0.0.1:{free_port()};",
            "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
            "/etc/ssl/airflow.example.org.pem": str(chain),
            "/etc/ssl/private/airflow.example.org.key": str(private),
            "http://127.0.0.1:8080": f"http://127.0.0.1:{server.server_port}",
        }.items():
            assert there in text
            text = text.replace(there, here)
        (tmp_path / "airflow.conf").write_text(text)
        places = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log;"
            f"events {{}} http {{ access_log off; {places} include {tmp_path}/airflow.conf; }}"
        )
        command = [nginx, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
        subprocess.run([*command, "-t"], check=True, capture_output=True)
        with process_group(command, env={}, folder=tmp_path, log=tmp_path / "out.log") as process:
            while not listens(port):
                assert process.poll() is None, (tmp_path / "error.log").read_text()
            yield f"https://127.0.0.1:{port}"
        server.shutdown()
        thread.join()


def listens(port: int) -> bool:
    try:
        httpx.get(f"https://127.0.0.1:{port}/", verify=False, timeout=10)
    except httpx.TransportError:
        return False
    return True


def test_the_proxy_example_limits_log_ins_and_sends_the_headers(proxied):
    with httpx.Client(base_url=proxied, verify=False) as client:
        seen = client.get("/", headers={"X-Forwarded-For": "192.0.2.9"})
        assert "X-Forwarded-For: 127.0.0.1\n" in seen.text.replace("\r", "")
        assert "X-Forwarded-Proto: https" in seen.text
        assert "frame-ancestors 'none'" in seen.headers["content-security-policy"]
        assert seen.headers["x-frame-options"] == "DENY"
        assert seen.headers["x-content-type-options"] == "nosniff"
        assert seen.headers["referrer-policy"] == "same-origin"
        assert seen.headers["strict-transport-security"] == "max-age=31536000"
        assert client.get("/execution/task-instances").status_code == 404
        assert {client.get("/auth/login/").status_code for _ in range(12)} == {200}
        tries = [client.post("/auth/token", json={}).status_code for _ in range(12)]
        assert tries[:6] == [200] * 6 and tries[-1] == 429
        assert client.post("/auth/token/cli", json={}).status_code == 429
        assert client.post("/api/v2/dags/x/dagRuns", json={}).status_code == 200
