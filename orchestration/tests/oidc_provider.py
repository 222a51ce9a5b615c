"""A small OpenID provider on loopback: discovery, authorization code with PKCE, signed ID tokens, userinfo."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "airflow", "the secret of the client"


@dataclass
class Provider:
    """The provider, and who is at its log-in page."""

    issuer: str
    user: dict[str, Any] = field(default_factory=dict)
    """Claims of the person who logs in, `groups` included."""
    changed: dict[str, Any] = field(default_factory=dict)
    """Claims of the ID token that a forger changes."""
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "1", "use": "sig"}))
    signer: RSAKey | None = None
    """Another key to sign with, which the provider does not publish."""
    given: dict[str, dict[str, str]] = field(default_factory=dict)
    """Codes that were given out, with what the client asked for."""

    def authorize(self, query: dict[str, str]) -> str:
        code = secrets.token_urlsafe(16)
        self.given[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict[str, str], authorization: str) -> dict[str, Any] | None:
        asked = self.given.pop(form["code"])
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest())
        known = base64.b64encode(f"{CLIENT}:{SECRET.replace(' ', '+')}".encode()).decode()
        plain = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if challenge.rstrip(b"=").decode() != asked["code_challenge"]:
            return None
        if authorization not in (f"Basic {known}", f"Basic {plain}"):
            return None
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "sub": "1", "iat": now, "exp": now + 300}
        claims |= {"nonce": asked["nonce"], **self.user, **self.changed}
        signed = jwt.encode({"alg": "RS256", "kid": "1"}, claims, self.signer or self.key)
        return {"access_token": "opaque", "token_type": "Bearer", "expires_in": 300, "id_token": signed}

    def metadata(self) -> dict[str, Any]:
        paths = ("authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri")
        return {"issuer": self.issuer, **{name: f"{self.issuer}/{name}" for name in paths}}


@contextmanager
def providing() -> Iterator[Provider]:
    """Run the provider; gives it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if parts.path.endswith("/openid-configuration"):
                self._answer(provider.metadata())
            elif parts.path == "/jwks_uri":
                self._answer({"keys": [provider.key.as_dict(private=False)]})
            elif parts.path == "/userinfo_endpoint" and self.headers["Authorization"] == "Bearer opaque":
                self._answer({"sub": "1", **provider.user})
            elif parts.path == "/authorization_endpoint":
                self.send_response(302)
                self.send_header("Location", provider.authorize(query))
                self.end_headers()
            else:
                self.send_error(404)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self._answer(provider.token(form, self.headers["Authorization"] or ""))

        def _answer(self, content: object) -> None:
            body = json.dumps(content or {"error": "invalid_grant"}).encode()
            self.send_response(200 if content else 400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider = Provider(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield provider
        server.shutdown()
        thread.join()
