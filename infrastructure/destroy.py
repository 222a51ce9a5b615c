"""Take the stack of an environment down, whatever state it is in.

What CloudFormation cannot delete by itself is prepared before: the protection of the stack, buckets with objects in them,
the bucket policy that denies deletes to everybody. Schemas that Athena made are not in the stack and are deleted after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from infrastructure.account import Account, AccountError
from infrastructure.parameters import ENVIRONMENTS, GITHUB_STACK, Parameters

NEVER_WORKED = {"REVIEW_IN_PROGRESS", "CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED"}
"""States of a stack whose first deployment failed: it can only be deleted."""
TOOLKIT = "CDKToolkit"
_POLL_S = 5.0
_LONGEST_S = 3600.0
_TRIES = 3
Say = Callable[[str], None]


def destroy(account: Account, settings: Parameters, say: Say, *, delete_lake: bool) -> list[str]:
    """Delete the stack and, if `delete_lake`, the lake; returns what is left in the account. Raises `AccountError`.

    In development the lake is a part of the stack and is always deleted.
    """
    name = settings.prefix
    lake, results, logs = (f"{name}-{kind}-{account.number}" for kind in ("lake", "results", "logs"))
    delete_lake = delete_lake or not settings.is_production
    emptied = [results, logs, f"{name}-site-{account.number}", *([lake] if delete_lake else [])]
    if delete_lake and account.has_bucket(lake):
        _allow_deletes(account, lake)
    delete_stack(account, name, say, emptied=emptied)
    if delete_lake:
        _delete_bucket(account, lake, say)
    for database in _databases(account, settings.database):
        say(f"deleting the Glue database {database}")
        account.client("glue").delete_database(Name=database)
    return [f"s3://{lake}"] if account.has_bucket(lake) else []


def delete_stack(account: Account, name: str, say: Say, emptied: list[str] | None = None) -> None:
    """Delete a stack, after the objects in the buckets `emptied`; raises `AccountError` when it cannot be deleted."""
    stacks = account.client("cloudformation")
    for _ in range(_TRIES):
        found = account.stack(name)
        if found is None:
            return
        if found.get("EnableTerminationProtection"):
            stacks.update_termination_protection(StackName=name, EnableTerminationProtection=False)
        # Access logs arrive late: a bucket that was emptied can have objects again.
        for bucket in emptied or []:
            _empty(account, bucket, say)
        say(f"deleting the stack {name}")
        stacks.delete_stack(StackName=name)
        if _is_gone(account, found["StackId"]):
            return
    reasons = [
        f"{one['LogicalResourceId']}: {one.get('ResourceStatusReason', '')}"
        for one in stacks.describe_stack_events(StackName=name)["StackEvents"]
        if one["ResourceStatus"] == "DELETE_FAILED" and one["LogicalResourceId"] != name
    ]
    raise AccountError(f"the stack {name} could not be deleted: {'; '.join(dict.fromkeys(reasons))}")


def delete_toolkit(account: Account, say: Say) -> None:
    """Delete what all stacks share, unless one of the project is left: the trust in GitHub, and what `cdk bootstrap` made.

    Raises `AccountError`.
    """
    left = [name for name in (f"catalunya-{one}" for one in ENVIRONMENTS) if account.stack(name)]
    if left:
        raise AccountError(f"{TOOLKIT} is still used by {' and '.join(left)}: destroy these first")
    delete_stack(account, GITHUB_STACK, say)
    bucket = f"cdk-hnb659fds-assets-{account.number}-{account.region}"
    delete_stack(account, TOOLKIT, say)
    _delete_bucket(account, bucket, say)


def _is_gone(account: Account, stack_id: str) -> bool:
    deadline = time.monotonic() + _LONGEST_S
    while time.monotonic() < deadline:
        found = account.stack(stack_id)
        if found is None or found["StackStatus"] == "DELETE_COMPLETE":
            return True
        if not found["StackStatus"].endswith("IN_PROGRESS"):
            return False
        time.sleep(_POLL_S)
    return False


def _allow_deletes(account: Account, bucket: str) -> None:
    """Delete the policy of the lake's bucket, which denies to everybody the deletion of what landed."""
    account.client("s3").delete_bucket_policy(Bucket=bucket)


def _empty(account: Account, bucket: str, say: Say) -> None:
    if not account.has_bucket(bucket):
        return
    say(f"deleting every object and version in {bucket}")
    found: Any = account.session.resource("s3").Bucket(bucket)
    found.object_versions.delete()


def _delete_bucket(account: Account, bucket: str, say: Say) -> None:
    if account.has_bucket(bucket):
        _empty(account, bucket, say)
        account.client("s3").delete_bucket(Bucket=bucket)


def _databases(account: Account, prefix: str) -> list[str]:
    pages = account.client("glue").get_paginator("get_databases").paginate()
    try:
        names = [one["Name"] for page in pages for one in page["DatabaseList"]]
    except ClientError as error:
        raise AccountError(f"the databases of Glue cannot be listed: {error}") from error
    return [name for name in names if name.startswith(f"{prefix}_")]
