"""Who the process is on AWS: the base identity, the role `orchestrator`, and a role for each kind of step.

The base identity is what the machine has: an instance profile, the role of a container, an access key or a profile. It may
assume `<CATALUNYA_ROLES>orchestrator`, which may assume `build`, `publish` and `monitor`. No shell is left as any of them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from catalunya.errors import CatalunyaError, UsageError
from catalunya.settings import Settings, aws_region

Role = Literal["orchestrator", "build", "publish", "monitor"]

_KEYS = {
    "AWS_ACCESS_KEY_ID": "AccessKeyId",
    "AWS_SECRET_ACCESS_KEY": "SecretAccessKey",
    "AWS_SESSION_TOKEN": "SessionToken",
}
_OTHERS = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CREDENTIAL_EXPIRATION")
"""Of the base identity; they do not fit the credentials of a role."""
_LONGEST = timedelta(hours=1)
"""The limit of AWS for a role that is assumed by a role."""
_LEAST = timedelta(minutes=15)
"""Time that the kept credentials of the orchestrator must have left."""
_lock = threading.RLock()
"""The environment belongs to the whole process: one thread at a time is in another role."""
_active: list[_Base] = []
"""The base identity, while a role is assumed."""
_last: dict[tuple[str | None, ...], _Base] = {}


class _Base:
    """The identity that the environment had before any role was assumed."""

    def __init__(self, settings: Settings) -> None:
        try:
            import boto3
        except ImportError as error:
            raise UsageError(
                f"CATALUNYA_ROLES: to assume a role boto3 is needed ({error}): `uv sync --inexact --group athena`"
            ) from None
        self._prefix = settings.roles or ""
        self._external_id = {"ExternalId": settings.external_id} if settings.external_id else {}
        self._session = boto3.Session(region_name=aws_region())
        self._arn = ""
        self._orchestrator: dict[str, Any] | None = None

    def arn(self) -> str:
        """Return the ARN of this identity."""
        if not self._arn:
            with _explained("CATALUNYA_ROLES: AWS does not know who this process is"):
                self._arn = str(self._session.client("sts").get_caller_identity()["Arn"])
        return self._arn

    def credentials(self, role: Role) -> dict[str, Any] | None:
        """Return the credentials of a role, or None when this identity is that role already."""
        if self._is(role):
            return None
        if role == "orchestrator":
            return self._as_orchestrator()
        if self._is("orchestrator"):
            return self._assume(self._session, role, self.arn())
        given = self._as_orchestrator()
        import boto3

        session = boto3.Session(
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
            region_name=aws_region(),
        )
        return self._assume(session, role, f"{self._prefix}orchestrator")

    def _as_orchestrator(self) -> dict[str, Any]:
        """Assume the orchestrator's role, and keep its credentials while they last."""
        known = self._orchestrator
        if known is None or known["Expiration"] - datetime.now(UTC) < _LEAST:
            known = self._assume(self._session, "orchestrator", self.arn(), **self._external_id)
            self._orchestrator = known
        return known

    def _is(self, role: Role) -> bool:
        return role_name(self.arn()) == role_name(f"{self._prefix}{role}")

    def _assume(self, session: Any, role: Role, by: str, **more: str) -> dict[str, Any]:
        role_arn = f"{self._prefix}{role}"
        hint = (
            "its ARN must be among `workers` of the stack, and CATALUNYA_EXTERNAL_ID the stack's `external_id`"
            if role == "orchestrator"
            else "deploy the stack again, which makes the roles"
        )
        with _explained(f"CATALUNYA_ROLES: {by} may not assume {role_arn}: {hint}"):
            answer = session.client("sts").assume_role(
                RoleArn=role_arn,
                RoleSessionName=f"catalunya-{role}",
                DurationSeconds=int(_LONGEST.total_seconds()),
                **more,
            )
        found: dict[str, Any] = answer["Credentials"]
        return found


@contextmanager
def assume_role(role: Role, settings: Settings | None = None) -> Iterator[None]:
    """Assume the role `<CATALUNYA_ROLES><role>` meanwhile; without that variable, keep the present credentials.

    The credentials go into the environment, where every library of this process finds them; they last an hour. Raises
    `UsageError` when the role may not be assumed.
    """
    settings = settings or Settings.load()
    if settings.roles is None:
        yield
        return
    with _lock:
        base = _active[-1] if _active else _base(settings)
        found = base.credentials(role)
        if found is None:
            yield
            return
        assumed = {name: str(found[field]) for name, field in _KEYS.items()}
        before = {name: os.environ.get(name) for name in (*_KEYS, *_OTHERS)}
        _active.append(base)
        try:
            _set({**dict.fromkeys(_OTHERS), **assumed})
            yield
        finally:
            _active.pop()
            _set(before)


def caller(settings: Settings) -> str:
    """Return the ARN of the base identity; raises `UsageError` when there is none."""
    with _lock:
        return _base(settings).arn()


def _base(settings: Settings) -> _Base:
    """The base identity of the present environment, made once."""
    names = [name for name in os.environ if name.startswith("AWS_")]
    key = (settings.roles, settings.external_id, *(f"{n}={os.environ[n]}" for n in sorted(names)))
    if key not in _last:
        _last.clear()
        _last[key] = _Base(settings)
    return _last[key]


def _set(variables: dict[str, str | None]) -> None:
    import boto3

    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    # The session that boto3 shares would keep the credentials that it found first.
    boto3.DEFAULT_SESSION = None


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Raise errors of boto3 as errors of this project."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        kind = (
            UsageError if code in {"AccessDenied", "InvalidClientTokenId", "ExpiredToken"} else CatalunyaError
        )
        raise kind(f"{what} ({error})") from None
    except BotoCoreError as error:
        raise UsageError(
            f"{what} ({error}): give the machine a role (an instance profile, with a hop limit of 2 for containers), or set "
            "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None


def role_name(arn: str) -> str:
    """Return the name of the role of an ARN, of a session or of the role itself; empty for another principal."""
    kind, _, rest = arn.rpartition(":")[2].partition("/")
    if kind == "assumed-role":
        return rest.split("/")[0]
    return rest.rpartition("/")[2] if kind == "role" else ""
