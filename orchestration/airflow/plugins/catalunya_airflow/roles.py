"""On AWS each task works under the role of its duty, and under no other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Duty = Literal["build", "publish", "monitor"]

_NAMES = {
    "AWS_ACCESS_KEY_ID": "AccessKeyId",
    "AWS_SECRET_ACCESS_KEY": "SecretAccessKey",
    "AWS_SESSION_TOKEN": "SessionToken",
}
_LONGEST_S = 3600
"""AWS gives no more to a role that is taken from within a role."""


@contextmanager
def assume_role(duty: Duty) -> Iterator[None]:
    """Work under the role `<CATALUNYA_ROLES><duty>`; as who one is where that is not set.

    The credentials are put into the environment, which is where every library of this process looks; they last an
    hour. A task has a process of its own.
    """
    from catalunya.settings import Settings

    prefix = Settings.load().roles
    if prefix is None:
        yield
        return
    import boto3

    before = {name: os.environ.get(name) for name in (*_NAMES, "AWS_PROFILE")}
    try:
        os.environ.update(_credentials(f"{prefix}{duty}", duty))
        os.environ.pop("AWS_PROFILE", None)
        # The session that boto3 shares would go on with the credentials that it found first.
        boto3.setup_default_session()
        yield
    finally:
        boto3.DEFAULT_SESSION = None
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _credentials(role_arn: str, duty: Duty) -> dict[str, str]:
    import boto3

    given = (
        boto3.Session(region_name=region())
        .client("sts")
        .assume_role(RoleArn=role_arn, RoleSessionName=f"catalunya-{duty}", DurationSeconds=_LONGEST_S)[
            "Credentials"
        ]
    )
    return {name: given[field] for name, field in _NAMES.items()}


def region() -> str | None:
    """The region that the rest of the pipeline uses; boto3 itself knows AWS_DEFAULT_REGION alone."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
