"""The account that a command works in: who asks, and what of a stack is there.

Credentials are found as boto3 finds them: the variables AWS_*, the profile AWS_PROFILE (SSO and roles included), or the
instance. Nothing is written into ~/.aws, and no variable of the shell is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infrastructure.parameters import Parameters

_LOG_IN = (
    "log in, for example with `aws sso login`, and name the profile: AWS_PROFILE=… make …; "
    "without SSO, `aws configure` stores the keys of a user"
)


class AccountError(Exception):
    """Something in the account, or the access to it, is not as the command needs it; the message says what to do."""


@dataclass(frozen=True)
class Account:
    """An account in one region, and the credentials that were found for it."""

    session: Any
    number: str
    region: str
    caller: str

    def client(self, service: str) -> Any:
        """Return a client of a service in the region."""
        return self.session.client(service)

    @cached_property
    def variables(self) -> dict[str, str]:
        """Return the variables that give these credentials and the region to another program."""
        found = self.session.get_credentials().get_frozen_credentials()
        given = {
            "AWS_ACCESS_KEY_ID": found.access_key,
            "AWS_SECRET_ACCESS_KEY": found.secret_key,
            "AWS_SESSION_TOKEN": found.token,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
        }
        return {name: value for name, value in given.items() if value}

    def stack(self, name: str) -> dict[str, Any] | None:
        """Return the description of a stack, or None where there is none."""
        try:
            return dict(self.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0])
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise

    def outputs(self, name: str) -> dict[str, str]:
        """Return the outputs of a stack; raises `AccountError` where there is none."""
        found = self.stack(name)
        if found is None:
            raise AccountError(f"there is no stack {name} in {self.region} of account {self.number}")
        return {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}

    def has_bucket(self, name: str) -> bool:
        """Return whether a bucket of this account has this name."""
        try:
            self.client("s3").head_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] in {"404", "NoSuchBucket"}:
                return False
            raise
        return True

    def bootstrap_version(self) -> int:
        """Return the version of what `cdk bootstrap` made in the region; 0 where it made nothing."""
        ssm = self.client("ssm")
        try:
            return int(ssm.get_parameter(Name="/cdk-bootstrap/hnb659fds/version")["Parameter"]["Value"])
        except ssm.exceptions.ParameterNotFound:
            return 0


def connect(settings: Parameters) -> Account:
    """Return the account of the credentials that are found; raises `AccountError`.

    boto3 asks the region's own endpoint of STS: regions that have to be enabled refuse tokens of the global one.
    """
    try:
        session = boto3.Session(region_name=settings.region)
        if session.get_credentials() is None:
            raise AccountError(f"no credentials of AWS were found: {_LOG_IN}")
        found = session.client("sts").get_caller_identity()
    except ClientError as error:
        raise AccountError(
            f"AWS refused the credentials in {settings.region} ({error.response['Error']['Code']}): {_LOG_IN}. "
            "Where they are valid in other regions, enable this one in the account's settings"
        ) from error
    except BotoCoreError as error:
        raise AccountError(f"the credentials of AWS cannot be used ({error}): {_LOG_IN}") from error
    if settings.account not in {None, found["Account"]}:
        raise AccountError(
            f"the credentials are of account {found['Account']}, the settings file names {settings.account}: "
            "use a profile of that account"
        )
    return Account(session, found["Account"], settings.region, found["Arn"])
