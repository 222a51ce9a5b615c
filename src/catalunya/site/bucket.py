"""The public site in a bucket behind CloudFront (`infrastructure/site.py`): each site whole under a prefix of its own.

    sites/<release>-<digest>/…    one site; its `site.json` is written last, so that its existence means the site is whole
    assets/…                      the assets of all sites: their names change with their content, and a page that was loaded
                                  before a swap can ask for them after it
    404.html                      the page for an address that leads nowhere

Readers see the site that the key `current` names in CloudFront's key value store of the bucket's name. The function of the
distribution reads it with every request, so one write shows another site as a whole, and nothing has to be invalidated. Old
sites are kept as long as their release: to show one again, after a rollback for example, is that one write.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from catalunya.errors import CatalunyaError, UsageError
from catalunya.lake import layout
from catalunya.lake.temporary import temporary_folder
from catalunya.log import get_logger
from catalunya.settings import aws_region
from catalunya.site.build import Built
from catalunya.site.headers import ASSETS, cache_control, content_type
from catalunya.site.material import Material
from catalunya.site.record import RECORD, SiteRecord, parse

SITES = "sites"
ERROR_PAGE = "404.html"
KEY = "current"
"""Key of the store whose value is the name of the site that readers see."""
_ID = len("20260105T000000Z-1a2b3c4d")
"""The name of a site begins with the id of its release."""
_AT_ONCE = 16
_DELETED_AT_ONCE = 1_000

log = get_logger(__name__)


class SiteMoved(CatalunyaError):
    """Somebody else showed another site meanwhile; theirs is shown."""


class SiteBucket:
    """A bucket of its own, and the key value store of its name."""

    def __init__(self, address: str) -> None:
        found = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/?", address)
        if found is None:
            raise UsageError(f"{address!r} is no bucket of a site: give s3://bucket, without a prefix")
        try:
            importlib.import_module("awscrt")
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise UsageError(
                f"to publish the site in S3 boto3 and awscrt are needed ({error}): `uv sync --inexact --group athena`"
            ) from None
        self._bucket = found[1]
        session = boto3.Session(region_name=aws_region())
        config = Config(max_pool_connections=_AT_ONCE, retries={"total_max_attempts": 9, "mode": "standard"})
        self._s3 = session.client("s3", config=config)
        self._cloudfront = session.client("cloudfront", config=config)
        self._store = session.client("cloudfront-keyvaluestore", config=config)

    def shown(self) -> SiteRecord | None:
        """Return the record of the site that readers see; None when there is none."""
        with self._explained():
            name = self._name_of_shown(self._arn())
            return self._record(name) if name else None

    def publish(self, material: Material) -> Built:
        """Build a site, unless it is there already, upload it, show it, and delete the sites of releases that are gone."""
        with self._explained():
            arn = self._arn()
            before = self._store.describe_key_value_store(KvsARN=arn)["ETag"]
            built = self._kept(material) or self._upload(material)
            self._put_shared(built.folder.name)
            self._swap(arn, before, built.folder.name)
            self._clean(built.folder.name, material.kept_releases())
        return built

    def _kept(self, material: Material) -> Built | None:
        """Return the site of the same record that was uploaded as a whole before; None when there is none."""
        for name in self._sites(material.release.release_id):
            if self._record(name) == material.record:
                sizes = dict(self._list(f"{SITES}/{name}/"))
                pages = sum(key.endswith("/index.html") for key in sizes)
                return Built(Path(SITES, name), pages - 1, pages - 1, sum(sizes.values()))
        return None

    def _upload(self, material: Material) -> Built:
        with temporary_folder(material.storage, "upload-site") as work:
            built = material.build(work / "site")
            name = built.folder.name
            files = [path for path in built.folder.rglob("*") if path.is_file()]

            def put(path: Path) -> None:
                inside = path.relative_to(built.folder).as_posix()
                with path.open("rb") as body:
                    self._s3.put_object(
                        Bucket=self._bucket, Key=f"{SITES}/{name}/{inside}", Body=body, **_properties(inside)
                    )

            record = built.folder / RECORD
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(put, (path for path in files if path != record)))
            put(record)
            log.info("site uploaded", site=name, files=len(files), bytes=built.bytes)
        return replace(built, folder=Path(SITES, name))

    def _put_shared(self, name: str) -> None:
        """Copy the assets and the page for errors out of a site to where they do not depend on what is shown."""
        prefix = f"{SITES}/{name}/"
        for key, _ in [*self._list(f"{prefix}{ASSETS}/"), (f"{prefix}{ERROR_PAGE}", 0)]:
            source = {"Bucket": self._bucket, "Key": key}
            self._s3.copy_object(Bucket=self._bucket, Key=key.removeprefix(prefix), CopySource=source)

    def _swap(self, arn: str, before: str, name: str) -> None:
        """Show a site, if nobody else showed another since `before`."""
        try:
            self._store.put_key(KvsARN=arn, Key=KEY, Value=name, IfMatch=before)
        except self._store.exceptions.ConflictException:
            raise SiteMoved(
                f"another process showed a site of s3://{self._bucket} while {name} was uploaded; that one stays: try again"
            ) from None
        log.info("site shown", site=name)

    def _clean(self, shown: str, kept: list[str]) -> None:
        """Delete the sites of releases that are gone, then the assets that no site has."""
        old = [name for name in self._sites() if name != shown and name[:_ID] not in kept]
        gone = [key for name in old for key, _ in self._list(f"{SITES}/{name}/")]
        # First what makes a site whole: a deletion that is interrupted leaves none that looks whole.
        gone.sort(key=lambda key: not key.endswith(f"/{RECORD}"))
        used = {
            key.partition(f"/{ASSETS}/")[2]
            for name in self._sites()
            if name not in old
            for key, _ in self._list(f"{SITES}/{name}/{ASSETS}/")
        }
        gone += [key for key, _ in self._list(f"{ASSETS}/") if key.removeprefix(f"{ASSETS}/") not in used]
        for start in range(0, len(gone), _DELETED_AT_ONCE):
            keys = [{"Key": key} for key in gone[start : start + _DELETED_AT_ONCE]]
            answer = self._s3.delete_objects(Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True})
            for fault in answer.get("Errors", []):
                raise CatalunyaError(
                    f"s3://{self._bucket}/{fault['Key']} could not be deleted: {fault['Message']}"
                )
        if old:
            log.info("old sites deleted", sites=", ".join(old))

    def _arn(self) -> str:
        """Return the ARN of the key value store."""
        found = self._cloudfront.describe_key_value_store(Name=self._bucket)
        return str(found["KeyValueStore"]["ARN"])

    def _name_of_shown(self, arn: str) -> str | None:
        try:
            return str(self._store.get_key(KvsARN=arn, Key=KEY)["Value"])
        except self._store.exceptions.ResourceNotFoundException:
            return None

    def _record(self, name: str) -> SiteRecord | None:
        try:
            found = self._s3.get_object(Bucket=self._bucket, Key=f"{SITES}/{name}/{RECORD}")
        except self._s3.exceptions.NoSuchKey:
            return None
        return parse(found["Body"].read())

    def _sites(self, release_id: str = "") -> list[str]:
        """Return the names of the sites, whole or not, of a release or of all."""
        prefix = f"{SITES}/{release_id}"
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix, Delimiter="/"
        )
        names = [one["Prefix"].split("/")[1] for page in pages for one in page.get("CommonPrefixes", [])]
        return [name for name in names if layout.is_id(name[:_ID])]

    def _list(self, prefix: str) -> Iterator[tuple[str, int]]:
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                yield str(entry["Key"]), int(entry["Size"])

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (ClientError, BotoCoreError) as error:
            raise CatalunyaError(
                f"the site in s3://{self._bucket} could not be read or changed: {error}; are the bucket and its key value "
                "store deployed (`site = true`), and may this role use them?"
            ) from error


def _properties(name: str) -> dict[str, str]:
    return {"ContentType": content_type(name), "CacheControl": cache_control(name)}
