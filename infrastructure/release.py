"""Download the release that readers see, as the role `reader`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

from catalunya.lake import layout
from infrastructure.account import Account, AccountError
from infrastructure.parameters import Parameters
from infrastructure.run import assume


def download(account: Account, settings: Parameters, folder: Path) -> str:
    """Write the files of the release into `folder`, which is empty or new; returns its id. Raises `AccountError`."""
    if folder.exists() and any(folder.iterdir()):
        raise AccountError(f"{folder} is not empty: give another folder, TO=…")
    found = assume(account, settings, "reader")
    session = boto3.Session(
        region_name=account.region,
        aws_access_key_id=found["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=found["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=found["AWS_SESSION_TOKEN"],
    )
    lake = f"{settings.prefix}-lake-{account.number}"
    s3 = session.client("s3")
    try:
        pointer = s3.get_object(Bucket=lake, Key=layout.CURRENT)
    except ClientError as error:
        # Who may not list every name is told "denied" of a key that is missing.
        if error.response["Error"]["Code"] in {"NoSuchKey", "AccessDenied"}:
            raise AccountError(
                f"s3://{lake} has no release yet, or {account.caller} may not read it"
            ) from error
        raise
    release_id = str(json.loads(pointer["Body"].read())["release_id"])
    _fetch(s3, lake, f"{layout.RELEASES}/{release_id}/", folder)
    return release_id


def _fetch(s3: Any, bucket: str, prefix: str, folder: Path) -> None:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            target = folder / entry["Key"].removeprefix(prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, entry["Key"], str(target))
