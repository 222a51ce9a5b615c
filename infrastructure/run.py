"""Run one command as a role of the stack, with the variables of the stack; the shell and ~/.aws stay as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from infrastructure.account import Account, AccountError
from infrastructure.parameters import Parameters

WITH_SECOND_FACTOR = ("publish", "steward")
"""Roles that ask people for a second factor; IAM Identity Center has asked for it before."""


def run(
    account: Account, settings: Parameters, command: Sequence[str], role: str, mfa: str, code: str
) -> int:
    """Run `command` as `role`, as whoever asks when that is empty, and return its exit code.

    `mfa` is the ARN of a device and `code` what it shows; asked for when the role needs them. Raises `AccountError`.
    """
    if not command:
        raise AccountError("name the command: RUN='.venv/bin/catalunya status'")
    identity = assume(account, settings, role, mfa, code) if role else account.variables
    mine = {
        name: value for name, value in os.environ.items() if name not in {"AWS_PROFILE", "AWS_SESSION_TOKEN"}
    }
    site_url = account.outputs(settings.prefix).get("Site") if settings.site else None
    given = settings.airflow_variables(account.number, account.region, site_url)
    # The credentials are of the role already.
    given.pop("CATALUNYA_ROLES")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        return subprocess.run(
            command, env={**mine, **given, **identity, "PATH": path}, check=False
        ).returncode
    except FileNotFoundError as error:
        raise AccountError(f"{command[0]} is not installed") from error


def assume(
    account: Account, settings: Parameters, role: str, mfa: str = "", code: str = ""
) -> dict[str, str]:
    """Return the variables with the credentials of a role of the stack."""
    arn = f"arn:aws:iam::{account.number}:role/{settings.prefix}-{role}"
    factor = {}
    if role in WITH_SECOND_FACTOR and (mfa or "/AWSReservedSSO_" not in account.caller):
        factor = {"SerialNumber": mfa or _device(account), "TokenCode": code or _type_code(role)}
    answer = account.client("sts").assume_role(RoleArn=arn, RoleSessionName="catalunya", **factor)
    found = answer["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": found["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
        "AWS_SESSION_TOKEN": found["SessionToken"],
    }


def _device(account: Account) -> str:
    devices = account.client("iam").list_mfa_devices()["MFADevices"]
    if not devices:
        raise AccountError(
            f"{account.caller} has no second factor: register one in the console (IAM, Users, Security credentials), "
            "or name it: MFA=arn:aws:iam::…:mfa/…"
        )
    return str(devices[0]["SerialNumber"])


def _type_code(role: str) -> str:
    if not sys.stdin.isatty():
        raise AccountError(f"the role {role} asks for a second factor: CODE=… is what the device shows")
    return input("Code of the second factor: ").strip()
