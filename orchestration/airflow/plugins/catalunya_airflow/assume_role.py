"""On AWS each task assumes the IAM role of its stage, and no other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Role = Literal["build", "publish", "monitor"]

_NAMES = {
    "AWS_ACCESS_KEY_ID": "AccessKeyId",
    "AWS_SECRET_ACCESS_KEY": "SecretAccessKey",
    "AWS_SESSION_TOKEN": "SessionToken",
}
_LONGEST_S = 3600
"""The limit of AWS for a role that is assumed by a role."""


@contextmanager
def assume_role(role: Role) -> Iterator[None]:
    """Assume the role `<CATALUNYA_ROLES><role>` meanwhile; without that variable, keep the present credentials.

    The credentials go into the environment, where every library of this process finds them; they last an hour. Each task
    has its own process.
    """
    from catalunya.settings import Settings

    prefix = Settings.load().roles
    if prefix is None:
        yield
        return
    import boto3

    before = {name: os.environ.get(name) for name in (*_NAMES, "AWS_PROFILE")}
    try:
        os.environ.update(_credentials(f"{prefix}{role}", role))
        os.environ.pop("AWS_PROFILE", None)
        # The default session of boto3 would keep the credentials that it found first.
        boto3.setup_default_session()
        yield
    finally:
        boto3.DEFAULT_SESSION = None
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _credentials(role_arn: str, role: Role) -> dict[str, str]:
    import boto3

    sts = boto3.Session(region_name=region()).client("sts")
    answer = sts.assume_role(
        RoleArn=role_arn, RoleSessionName=f"catalunya-{role}", DurationSeconds=_LONGEST_S
    )
    return {name: answer["Credentials"][field] for name, field in _NAMES.items()}


def region() -> str | None:
    """Return the region that the rest of the pipeline uses; boto3 itself reads AWS_DEFAULT_REGION only."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
