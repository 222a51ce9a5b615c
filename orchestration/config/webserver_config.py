"""The log-in of the web interface, from variables: users of Airflow's database, of an OpenID provider, or of LDAP.

Airflow executes this file; names in capitals are settings of Flask-AppBuilder. Executed as a program it checks the
variables and names everything that is wrong; `entrypoint.sh` does that before the start. What they mean: docs/log-in.md.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

# The constants of flask_appbuilder.const, whose import takes seconds.
AUTH_DB, AUTH_LDAP, AUTH_OAUTH = 1, 2, 4
ROLES = ("Viewer", "User", "Op", "Admin")
LEAST_PASSWORD_LENGTH = 12
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def login_settings(variables: dict[str, str]) -> tuple[dict[str, object], list[str]]:
    """Return the settings of Flask-AppBuilder that `variables` ask for, and every fault of the variables."""
    faults: list[str] = []
    found = {name: value.strip() for name, value in variables.items() if value.strip()}
    kind = found.get("AIRFLOW_LOGIN", "database")
    if kind == "database":
        return {"AUTH_TYPE": AUTH_DB}, faults
    if kind not in ("oidc", "ldap"):
        return {"AUTH_TYPE": AUTH_DB}, [f"set AIRFLOW_LOGIN to database, oidc or ldap, not {kind!r}"]
    settings = _oidc(found, faults) if kind == "oidc" else _ldap(found, faults)
    settings |= {
        # Whoever logs in becomes a user; roles come from groups, at each log-in. `Public` may do nothing.
        "AUTH_USER_REGISTRATION": True,
        "AUTH_USER_REGISTRATION_ROLE": "Public",
        "AUTH_ROLES_SYNC_AT_LOGIN": True,
        "AUTH_ROLES_MAPPING": _groups(found.get("AIRFLOW_ROLE_GROUPS", ""), faults),
    }
    return settings, faults


def _oidc(found: dict[str, str], faults: list[str]) -> dict[str, object]:
    issuer = found.get("AIRFLOW_OIDC_ISSUER", "").rstrip("/")
    _need(found, "AIRFLOW_OIDC_CLIENT_ID", "the name of Airflow at the provider", faults)
    _check_address("AIRFLOW_OIDC_ISSUER", issuer, "https", faults)
    secret = _secret(found, "AIRFLOW_OIDC_CLIENT_SECRET", faults)
    _check_package("authlib", "the image has it; install the group `airflow` of the lock", faults)
    provider = {
        "name": "oidc",
        "icon": "fa-key",
        "token_key": "access_token",
        "remote_app": {
            "client_id": found.get("AIRFLOW_OIDC_CLIENT_ID"),
            "client_secret": secret,
            "server_metadata_url": f"{issuer}/.well-known/openid-configuration",
            "client_kwargs": {
                "scope": found.get("AIRFLOW_OIDC_SCOPES", "openid profile email"),
                "code_challenge_method": "S256",
            },
        },
    }
    return {"AUTH_TYPE": AUTH_OAUTH, "OAUTH_PROVIDERS": [provider]}


def _ldap(found: dict[str, str], faults: list[str]) -> dict[str, object]:
    server = found.get("AIRFLOW_LDAP_URL", "")
    _check_address("AIRFLOW_LDAP_URL", server, "ldaps", faults)
    _need(found, "AIRFLOW_LDAP_BIND_DN", "the user that looks up the others", faults)
    _need(found, "AIRFLOW_LDAP_SEARCH", "where users are, such as ou=people,dc=example,dc=org", faults)
    authority = found.get("AIRFLOW_LDAP_CA_FILE", "/etc/ssl/certs/ca-certificates.crt")
    if not Path(authority).is_file():
        faults.append(f"set AIRFLOW_LDAP_CA_FILE to a file of certificate authorities: {authority} is none")
    _check_package("ldap", "docs/log-in.md says how to add it to the image", faults)
    field = found.get("AIRFLOW_LDAP_UID_FIELD", "uid")
    return {
        "AUTH_TYPE": AUTH_LDAP,
        "AUTH_LDAP_SERVER": server,
        "AUTH_LDAP_BIND_USER": found.get("AIRFLOW_LDAP_BIND_DN"),
        "AUTH_LDAP_BIND_PASSWORD": _secret(found, "AIRFLOW_LDAP_BIND_PASSWORD", faults),
        "AUTH_LDAP_SEARCH": found.get("AIRFLOW_LDAP_SEARCH"),
        "AUTH_LDAP_UID_FIELD": field,
        # Airflow keeps the roles of an entry that has no attribute it asked for. This one every entry has that was found.
        "AUTH_LDAP_FIRSTNAME_FIELD": field,
        "AUTH_LDAP_TLS_CACERTFILE": authority,
        "AUTH_LDAP_TLS_DEMAND": True,
    }


def _groups(text: str, faults: list[str]) -> dict[str, list[str]]:
    """Read `Role=group; Role=group`: a group may be a name or a DN, which contains `=` and commas itself."""
    mapping: dict[str, list[str]] = {}
    for line in filter(None, (part.strip() for part in re.split(r"[;\n]", text))):
        role, _, group = (part.strip() for part in line.partition("="))
        if role not in ROLES or not group:
            faults.append(
                f"AIRFLOW_ROLE_GROUPS: {line!r} is not ROLE=GROUP with a role of {', '.join(ROLES)}"
            )
        else:
            mapping.setdefault(group, []).append(role)
    if not text.strip():
        faults.append(
            "set AIRFLOW_ROLE_GROUPS, such as 'Viewer=care-readers; Admin=care-admins': without it "
            "nobody who logs in may do anything"
        )
    elif not any("Admin" in roles for roles in mapping.values()):
        faults.append("AIRFLOW_ROLE_GROUPS: give some group the role Admin")
    return mapping


def _secret(found: dict[str, str], name: str, faults: list[str]) -> str | None:
    path = found.get(f"{name}_FILE")
    if path is None:
        return _need(found, name, f"a secret, or {name}_FILE with a file that holds it", faults)
    if name in found:
        faults.append(f"set {name} or {name}_FILE, not both")
        return None
    try:
        value = Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{name}_FILE: {path} cannot be read: {getattr(error, 'strerror', error)}")
        return None
    if not value:
        faults.append(f"{name}_FILE: {path} is empty")
    return value


def _need(found: dict[str, str], name: str, meaning: str, faults: list[str]) -> str | None:
    if name not in found:
        faults.append(f"set {name}: {meaning}")
    return found.get(name)


def _check_address(name: str, address: str, scheme: str, faults: list[str]) -> None:
    """Demand TLS, but for servers of this machine."""
    parts = urlsplit(address)
    plain = scheme.removesuffix("s")
    if not parts.hostname or parts.scheme not in (scheme, plain):
        faults.append(f"set {name} to an address that begins with {scheme}://, not {address!r}")
    elif parts.scheme == plain and parts.hostname not in LOOPBACK:
        faults.append(f"{name}: {address!r} is not encrypted: use {scheme}://")


def _check_package(package: str, hint: str, faults: list[str]) -> None:
    if importlib.util.find_spec(package) is None:
        faults.append(f"the Python package of this log-in, {package}, is not installed: {hint}")


def check_password(password: str) -> None:
    """Refuse a password that is too short or hardly has different characters; raises Flask-AppBuilder's error."""
    from flask_appbuilder.exceptions import PasswordComplexityValidationError

    if len(password) < LEAST_PASSWORD_LENGTH or len(set(password)) < LEAST_PASSWORD_LENGTH // 2:
        raise PasswordComplexityValidationError(
            f"A password has at least {LEAST_PASSWORD_LENGTH} characters, of which at least "
            f"{LEAST_PASSWORD_LENGTH // 2} differ; four random words are a good one."
        )


_settings, _faults = login_settings(dict(os.environ))
if __name__ == "__main__":
    sys.exit("\n".join(f"log-in: {fault}" for fault in _faults) or 0)
if _faults:
    raise ValueError("; ".join(_faults))

WTF_CSRF_ENABLED = True
FAB_PASSWORD_COMPLEXITY_ENABLED = True
FAB_PASSWORD_COMPLEXITY_VALIDATOR = check_password
# Behind a proxy with TLS the cookie of the session never travels without it.
SESSION_COOKIE_SECURE = os.environ.get("AIRFLOW__API__BASE_URL", "").startswith("https://")
SESSION_COOKIE_SAMESITE = "Lax"
globals().update(_settings)
if _settings["AUTH_TYPE"] == AUTH_LDAP:
    # Seconds for each answer of the server, which libldap reads at its first use; without end by default.
    os.environ.setdefault("LDAPTIMEOUT", "10")
