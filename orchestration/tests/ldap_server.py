"""OpenLDAP on loopback with TLS: an authority, the directory of docs/log-in.md, its people and its groups."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tools.processes import LOOPBACK, free_port, is_free, process_group

BASE = "dc=example,dc=org"
SERVICE, PEOPLE, GROUPS = f"cn=airflow,ou=services,{BASE}", f"ou=people,{BASE}", f"ou=groups,{BASE}"
SERVICE_PASSWORD = "the password of the service"
ROOT, ROOT_PASSWORD = f"cn=root,{BASE}", "the password of root"
CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
# As Active Directory does: a name with an empty password is somebody unknown, and not an error.
allow bind_anon_dn
TLSCACertificateFile {folder}/authority.pem
TLSCertificateFile {folder}/chain.pem
TLSCertificateKeyFile {folder}/private.key
database mdb
suffix {base}
directory {folder}/database
rootdn {root}
rootpw "{password}"
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact={service} read by * none
overlay memberof
"""
ENTRIES = f"""
dn: {BASE}
objectClass: domain
dc: example

dn: ou=services,{BASE}
objectClass: organizationalUnit

dn: {PEOPLE}
objectClass: organizationalUnit

dn: {GROUPS}
objectClass: organizationalUnit

dn: {SERVICE}
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword: {SERVICE_PASSWORD}
"""


class Authority:
    """A certificate authority, which makes certificates for servers."""

    def __init__(self, name: str) -> None:
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = _certificate(
            self, self.name, self.key, x509.BasicConstraints(ca=True, path_length=0)
        )

    def write(self, file: Path) -> None:
        file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def certify(self, folder: Path, *hosts: x509.GeneralName) -> None:
        """Write the certificate and the key of a server that has these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "directory")])
        made = _certificate(self, name, key, x509.SubjectAlternativeName(hosts))
        (folder / "chain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (folder / "private.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


def _certificate(
    issuer: Authority, name: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(issuer.name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        .sign(issuer.key, hashes.SHA256())
    )


HERE = x509.IPAddress(ipaddress.ip_address(LOOPBACK))


class Directory:
    """An OpenLDAP server at one address, which can be stopped and started with another certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.log = folder / "slapd.log"
        self.url = f"ldaps://{LOOPBACK}:{self.port}"
        self.authority_file = folder / "authority.pem"
        self.authority = Authority("the authority of the tests")
        self.authority.write(self.authority_file)
        self.running = ExitStack()
        (folder / "database").mkdir()
        (folder / "slapd.conf").write_text(
            CONFIGURATION.format(folder=folder, base=BASE, root=ROOT, password=ROOT_PASSWORD, service=SERVICE)
        )

    def start(self, authority: Authority | None = None, host: x509.GeneralName = HERE) -> None:
        """Run the server, with a certificate of this authority for this host."""
        (authority or self.authority).certify(self.folder, host)
        command = ["slapd", "-d", "stats", "-h", self.url, "-f", self.folder / "slapd.conf"]
        env = {**os.environ, "PATH": PATH}
        process = self.running.enter_context(
            process_group(command, env=env, folder=self.folder, log=self.log)
        )
        while is_free(self.port):
            assert process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        self.running.close()

    def run(self, tool: str, *arguments: str, text: str = "") -> str:
        """Run a tool of OpenLDAP at the server; returns what it says."""
        env = {**os.environ, "LDAPTLS_CACERT": str(self.authority_file)}
        command = [tool, "-x", "-H", self.url, *arguments]
        done = subprocess.run(command, input=text, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def change(self, lines: str) -> None:
        """Make the changes of a text in LDIF, in the name of the root of the directory."""
        self.run("ldapmodify", "-D", ROOT, "-w", ROOT_PASSWORD, text=lines)

    def add(self, entries: str) -> None:
        self.change(
            "\n\n".join(
                entry.replace("\n", "\nchangetype: add\n", 1) for entry in entries.strip().split("\n\n")
            )
            + "\n"
        )

    def add_person(self, name: str, password: str, **attributes: str) -> str:
        """Add somebody; returns the DN."""
        dn = f"uid={name},{PEOPLE}"
        known = {"cn": name, "sn": name.title(), "mail": f"{name}@example.org", **attributes}
        lines = [
            f"dn: {dn}", "objectClass: inetOrgPerson", f"uid: {name}", f"userPassword: {password}",
            *(f"{attribute}: {value}" for attribute, value in known.items()),
        ]  # fmt: skip
        self.add("\n".join(lines))
        return dn

    def add_account(self, name: str, password: str) -> str:
        """Add somebody of whom the directory knows nothing but the name and the password; returns the DN."""
        dn = f"uid={name},{PEOPLE}"
        self.add(
            f"dn: {dn}\nobjectClass: account\nobjectClass: simpleSecurityObject\nuid: {name}\nuserPassword: {password}"
        )
        return dn

    def add_group(self, name: str, *members: str) -> str:
        """Add a group of persons, which the service is a member of, too, because one without members is none."""
        dn = f"cn={name},{GROUPS}"
        lines = [f"dn: {dn}", "objectClass: groupOfNames", f"cn: {name}"]
        self.add("\n".join([*lines, *(f"member: {member}" for member in (SERVICE, *members))]))
        return dn

    def join(self, group: str, person: str) -> None:
        self.change(f"dn: {group}\nchangetype: modify\nadd: member\nmember: {person}\n")

    def leave(self, group: str, person: str) -> None:
        self.change(f"dn: {group}\nchangetype: modify\ndelete: member\nmember: {person}\n")

    def set_password(self, dn: str, password: str) -> None:
        self.change(f"dn: {dn}\nchangetype: modify\nreplace: userPassword\nuserPassword: {password}\n")


PATH = f"{os.environ['PATH']}:/usr/sbin"
"""Debian has the server in a folder that is not on the path of every user."""


def installed() -> bool:
    """Tell whether the server and its tools are there."""
    return all(shutil.which(name, path=PATH) for name in ("slapd", "ldapmodify", "ldapsearch", "ldapwhoami"))


@contextmanager
def directory(folder: Path) -> Iterator[Directory]:
    """Run the server with nobody in it but the service user of Airflow."""
    found = Directory(folder)
    try:
        found.start()
        found.add(ENTRIES)
        yield found
    finally:
        found.stop()


@contextmanager
def silent(at: Directory) -> Iterator[None]:
    """Run another server at the address of a stopped one, with its certificate: it takes connections and never answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(at.folder / "chain.pem", at.folder / "private.key")
    taken: list[socket.socket] = []

    def take() -> None:
        while True:
            try:
                connection, _ = listener.accept()
                taken.append(context.wrap_socket(connection, server_side=True))
            except OSError:
                return

    with socket.create_server((LOOPBACK, at.port)) as listener:
        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in taken:
                connection.close()
