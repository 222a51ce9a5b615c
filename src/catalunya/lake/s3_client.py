"""The connection to an S3 bucket by obstore: its settings, its errors, and what obstore does not answer."""

from __future__ import annotations

import base64
import contextlib
import importlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import obstore
from obstore import exceptions as s3_errors
from obstore.store import S3Store

from catalunya import address
from catalunya.errors import CatalunyaError, UsageError
from catalunya.lake.storage import Conflict, MissingKey
from catalunya.retries import RetryingCaller

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Without any proxy."""
_process: list[int] = []
"""The id of the process that used S3 first."""


def endpoint() -> str | None:
    """Return the address of a store other than AWS itself, if one is set; raises `UsageError` that names the variable."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if url := os.environ.get(name):
            try:
                address.base_url(url)
            except ValueError as error:
                raise UsageError(
                    f"{name}: {address.redacted(url)!r} is not an address such as http://127.0.0.1:9000: {error}"
                ) from None
            return url
    return None


def connect(bucket: str, prefix: str, region: str, endpoint: str | None, *, retries: int) -> S3Store:
    """Connect to a bucket; a request is tried again `retries` times, for at most a minute."""
    _refuse_after_fork()
    # S3 compares each upload with this checksum and keeps it: `stored_sha256` returns it.
    config: S3Config = {"region": region, "checksum_algorithm": "SHA256"}
    client: ClientConfig = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=60)}
    if endpoint:
        config["endpoint"] = endpoint
        config["virtual_hosted_style_request"] = False
        client["allow_http"] = endpoint.startswith("http://")
    return S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        client_options=client,
        retry_config={
            "max_retries": retries,
            "retry_timeout": timedelta(seconds=60),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=10),
                "base": 2,
            },
        },
        credential_provider=_profile_provider(),
    )


def _refuse_after_fork() -> None:
    """obstore's threads do not survive a fork: in the child its calls would wait for ever."""
    if not _process:
        _process.append(os.getpid())
    elif _process[0] != os.getpid():
        raise CatalunyaError(
            f"process {os.getpid()} was forked from process {_process[0]}, which already used S3; "
            "start it afresh (spawn), or fork before the lake is opened"
        )


def _profile_provider() -> Any:
    """A provider for AWS_PROFILE, which obstore does not read itself; None when obstore finds its own."""
    profile = os.environ.get("AWS_PROFILE")
    has_keys = os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not profile or has_keys:
        return None
    try:
        return importlib.import_module("obstore.auth.boto3").Boto3CredentialProvider()
    except ImportError:
        raise UsageError(
            f"AWS_PROFILE: reading the profile {profile!r} needs boto3; install it, or run "
            "`aws configure export-credentials --format env` and set the AWS_… variables it prints"
        ) from None


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn an error of obstore into one of the project's that names the address `where` and what to do."""
    _refuse_after_fork()
    try:
        yield
    except (FileNotFoundError, s3_errors.NotFoundError):
        raise MissingKey(f"{where} is not in the lake") from None
    except (s3_errors.AlreadyExistsError, s3_errors.PreconditionError) as error:
        if is_contention(error):
            raise CatalunyaError(
                f"{where}: the storage refused every retry because another request is in the way "
                f"({first_line(error)}); run again"
            ) from None
        raise Conflict(f"{where} was changed by somebody else meanwhile") from None
    except (s3_errors.PermissionDeniedError, s3_errors.UnauthenticatedError) as error:
        raise CatalunyaError(
            f"{where}: access denied ({first_line(error)}); check the AWS credentials and that they may "
            "list, read, write and delete below this address"
        ) from None
    except s3_errors.BaseError as error:
        raise CatalunyaError(
            f"{where}: the storage failed after every retry ({first_line(error)}); run again"
        ) from None


def is_contention(error: Exception) -> bool:
    """True for a 409: another request for the key is under way, and nobody has won yet."""
    return isinstance(error, s3_errors.BaseError) and bool(
        re.search(r"409 Conflict|ConditionalRequestConflict|OperationAborted", str(error))
    )


def first_line(error: Exception) -> str:
    """The first line of obstore's message, with S3's own code and message in place of the XML."""
    text = str(error)
    found = re.search(r"<Code>(.*?)</Code>(?:.*?<Message>(.*?)</Message>)?", text, re.DOTALL)
    first = text.splitlines()[0].partition(": <?xml")[0]
    return f"{first}: {': '.join(filter(None, found.groups()))}" if found else first


def headers(store: S3Store, key: str, where: str) -> dict[str, str] | None:
    """The response headers of an object, names in lower case; None when it is not there.

    obstore does not return `Date`, which says what time it is by the storage's own clock.
    """

    def request() -> dict[str, str]:
        url = obstore.sign(store, "HEAD", key, timedelta(minutes=1))
        # Not httpx: it logs addresses, and a signed one is a credential.
        head = urllib.request.Request(url, method="HEAD")  # noqa: S310
        send = _DIRECT.open if address.is_loopback_url(url) else urllib.request.urlopen
        with send(head, timeout=10) as response:
            return {name.lower(): value for name, value in response.headers.items()}

    retrying = RetryingCaller(attempts=9, timeout=60, wait_initial=0.1, wait_max=10, wait_jitter=0.1).on(
        _is_transient
    )
    try:
        return retrying(request)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise CatalunyaError(f"{where} could not be read: HTTP status {error.code}") from None
    except OSError as error:
        raise CatalunyaError(f"{where} could not be read: {error}") from None


def head_client(region: str, endpoint: str | None) -> Any:
    """A client of boto3 for `stored_sha256`, since obstore does not return checksums; None where boto3 is not installed."""
    try:
        boto3, config = importlib.import_module("boto3"), importlib.import_module("botocore.config")
    except ImportError:
        return None
    options = config.Config(
        connect_timeout=5,
        read_timeout=60,
        retries={"total_max_attempts": 9, "mode": "standard"},
        s3={"addressing_style": "path" if endpoint else "virtual"},
    )
    return boto3.Session().client("s3", region_name=region, endpoint_url=endpoint, config=options)


def stored_sha256(client: Any, bucket: str, key: str, where: str) -> str | None:
    """The SHA-256 in hex that S3 keeps of an object; None when it keeps none of the whole object.

    There is none of an object that was uploaded in parts, by other software, or to a store that keeps no checksums.
    """
    faults = importlib.import_module("botocore.exceptions")
    try:
        found = client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED").get("ChecksumSHA256", "")
    except faults.ClientError as error:
        if error.response["Error"]["Code"] in {"404", "NoSuchKey"}:
            raise MissingKey(f"{where} is not in the lake") from None
        raise CatalunyaError(
            f"{where} could not be examined: {error}; check that the role may read it"
        ) from None
    except faults.BotoCoreError as error:
        raise CatalunyaError(f"{where} could not be examined: {error}") from None
    # The checksum of parts is one of their checksums, and ends in their number.
    return None if not found or "-" in found else base64.b64decode(found).hex()


def _is_transient(error: Exception) -> bool:
    """True for what another try may correct: a throttled or broken server, a lost connection."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code == 429 or error.code >= 500
    return isinstance(error, OSError)
