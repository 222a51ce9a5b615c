"""Portals over HTTPS: which certificates are accepted, and the time limit of a response."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from catalunya.errors import SourceUnreadable
from catalunya.sources import Http
from catalunya.sources.responses import decode
from tests.sources.portals import Reply, Server, Timers


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 and portal.example that signed itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    hosts = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("portal.example")]
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


@pytest.fixture
def portal(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = Server(lambda request: Reply({"good": 1}), tls=context)
    yield server
    server.close()


def test_a_certificate_of_an_unknown_authority_is_refused(portal: Server) -> None:
    with Http(attempts=1) as http, pytest.raises(SourceUnreadable, match="CERTIFICATE_VERIFY_FAILED"):
        http.get(portal.url, dataset="population", parse=decode)
    assert portal.requests == []


def test_an_authority_in_ssl_cert_file_is_accepted(
    portal: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Http(attempts=1) as http:
        assert http.get(portal.url, dataset="population", parse=decode).data == {"good": 1}


def test_a_certificate_of_another_host_is_refused(
    portal: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    url = portal.url.replace("127.0.0.1", "localhost")
    with Http(attempts=1) as http, pytest.raises(SourceUnreadable, match="localhost"):
        http.get(url, dataset="population", parse=decode)
    assert portal.requests == []


def test_a_portal_is_read_through_a_tunnel_of_a_proxy(
    portal: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy connects every tunnel to `portal`."""
    received: list[bytes] = []

    class Tunnel(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline().strip():
                received.append(line.lower())
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            with socket.create_connection(("127.0.0.1", portal.port)) as onward:
                back = threading.Thread(target=copy, args=(onward, self.connection))
                back.start()
                copy(self.connection, onward)
                back.join()

    def copy(source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65536):
            target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("https_proxy", f"http://boss:secret@127.0.0.1:{proxy.server_address[1]}")
        with Http(attempts=1) as http:
            answer = http.get("https://portal.example/x", dataset="population", parse=decode)
        proxy.shutdown()
        thread.join()
    assert answer.data == {"good": 1}
    assert received[0].startswith(b"connect portal.example:443 ")
    assert b"proxy-authorization: basic ym9zczpzzwnyzxq=" in received


def test_a_response_over_tls_is_cut_off_when_its_time_is_over(
    portal: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch, timers: Timers
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    portal.answer = lambda request: Reply({"good": "x" * 500}, midway=timers.expire)
    with (
        Http(attempts=1, timeout_s=30) as http,
        pytest.raises(SourceUnreadable, match="not complete after 30 s"),
    ):
        http.get(portal.url, dataset="population", parse=decode)
