"""What AWS asks for before it answers a request: actions, their resources, and the keys of conditions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.aws.policy import ACCOUNT, REGION, Account, Right


@dataclass(frozen=True)
class Need:
    """An action on a resource; `prefix` is the key `s3:prefix` of a request that lists."""

    action: str
    resource: str
    prefix: str | None = None

    @property
    def context(self) -> dict[str, str]:
        return {} if self.prefix is None else {"s3:prefix": self.prefix}


def of_s3(method: str, path: str, headers: Mapping[str, str], body: bytes) -> list[Need]:
    """Return what a request to S3 needs.

    Source: S3's guide, "Required permissions for Amazon S3 API operations"; a write on the condition `If-Match` reads, too:
    "Conditional writes". The size of an object is asked by HEAD, which is `s3:GetObject`.
    """
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    _, bucket, key = [*unquote(parts.path).split("/", 2), "", ""][:3]
    named = {name.lower(): value for name, value in headers.items()}
    where = f"arn:aws:s3:::{bucket}"
    if not key:
        return [_of_bucket(method, where, query)] if "delete" not in query else [
            Need("s3:DeleteObject", f"{where}/{found}") for found in re.findall(r"<Key>(.*?)</Key>", body.decode())
        ]  # fmt: skip
    needs = [Need(_of_object(method, query), f"{where}/{key}")]
    if source := named.get("x-amz-copy-source"):
        needs.append(Need("s3:GetObject", f"arn:aws:s3:::{unquote(source).lstrip('/')}"))
    if method == "PUT" and "if-match" in named:
        needs.append(Need("s3:GetObject", f"{where}/{key}"))
    if method == "POST" and "uploads" in query:
        # Who begins an upload in parts must be able to abort it.
        needs.append(Need("s3:AbortMultipartUpload", f"{where}/{key}"))
    return needs


def _of_bucket(method: str, where: str, query: dict[str, list[str]]) -> Need:
    if method not in {"GET", "HEAD"}:
        raise NotImplementedError(f"{method} {where} {query}")
    for parameter, action in {
        "location": "s3:GetBucketLocation",
        "uploads": "s3:ListBucketMultipartUploads",
        "versions": "s3:ListBucketVersions",
    }.items():
        if parameter in query:
            return Need(action, where)
    return Need("s3:ListBucket", where, query.get("prefix", [""])[0])


def _of_object(method: str, query: dict[str, list[str]]) -> str:
    if "uploadId" in query and method in {"GET", "DELETE"}:
        return "s3:ListMultipartUploadParts" if method == "GET" else "s3:AbortMultipartUpload"
    return {
        "GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject", "POST": "s3:PutObject",
        "DELETE": "s3:DeleteObject",
    }[method]  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where queries run: the account, and what the engine uses there."""

    account: str = ACCOUNT
    region: str = REGION
    workgroup: str = "catalunya-production-build"
    """The workgroup of a request that names a query only."""
    results: str = ""
    """The bucket of results."""
    lake: str = ""
    """The bucket of the lake."""

    def arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"


def of_json(operation: str, content: dict[str, Any], place: Place) -> list[Need]:
    """Return what a request to Athena or Glue needs.

    In Glue these are the resource with all its ancestors, and for a delete with all its children. Source: Glue's guide,
    "Specifying resource ARNs".
    """
    service, _, name = operation.partition(":")
    if operation in {"athena:ListWorkGroups", "athena:ListDataCatalogs"}:
        return [Need(operation, "*")]
    if "CatalogName" in content or operation == "athena:GetDataCatalog":
        return [
            Need(
                operation,
                place.arn("athena", f"datacatalog/{content.get('CatalogName', content.get('Name'))}"),
            )
        ]
    if service == "athena":
        return [
            Need(operation, place.arn("athena", f"workgroup/{content.get('WorkGroup', place.workgroup)}"))
        ]
    return [Need(operation, place.arn("glue", resource)) for resource in _in_glue(name, content)]


def _in_glue(name: str, content: dict[str, Any]) -> list[str]:
    if name == "GetDatabases":
        return ["catalog"]
    if name.endswith("Database"):
        database = _name_in(content, "DatabaseInput")
        inside = [f"{kind}/{database}/*" for kind in ("table", "userDefinedFunction")]
        return ["catalog", f"database/{database}", *(inside if name == "DeleteDatabase" else [])]
    table = "*" if name == "GetTables" else content.get("TableName") or _name_in(content, "TableInput")
    database = content["DatabaseName"]
    return ["catalog", f"database/{database}", f"table/{database}/{table}"]


def _name_in(content: dict[str, Any], part: str) -> str:
    return str(content.get(part, content)["Name"])


_DEFINITION = re.compile(
    r"^\s*(?:--[^\n]*\n|/\*.*?\*/|\s)*(create|drop|alter|msck)\b", re.IGNORECASE | re.DOTALL
)


def of_statement(sql: str, place: Place) -> list[Need]:
    """Return what Athena itself asks for in the name of the caller, whatever the statement is about.

    The emulator's engine does not ask for these. Source: Athena's guide, "Configure access to databases and tables in the
    AWS Glue Data Catalog"; AWS re:Post, "Unable to verify/create output bucket".
    """
    catalog = [place.arn("glue", "catalog"), place.arn("glue", "database/default")]
    of_catalog = ["glue:GetDatabase", "glue:GetDatabases"]
    if _DEFINITION.match(sql):
        of_catalog.append("glue:CreateDatabase")
    bucket, result = f"arn:aws:s3:::{place.results}", f"arn:aws:s3:::{place.results}/{_folder(place)}/1.csv"
    return [
        *(Need(action, resource) for action in of_catalog for resource in catalog),
        *(
            Need(f"s3:{action}", result)
            for action in ("GetObject", "PutObject", "AbortMultipartUpload", "ListMultipartUploadParts")
        ),
        Need("s3:ListBucket", bucket, f"{_folder(place)}/"),
        Need("s3:ListBucketMultipartUploads", bucket),
        Need("s3:GetBucketLocation", bucket),
        Need("s3:GetBucketLocation", f"arn:aws:s3:::{place.lake}"),
    ]


def _folder(place: Place) -> str:
    """The folder of a workgroup's results."""
    return place.workgroup.rpartition("-")[2]


def of_lambda(path: str, place: Place) -> list[Need]:
    """Return what the invocation of a function needs."""
    found = re.search(r"/functions/([^/]+)/invocations", unquote(path))
    if found is None:
        raise NotImplementedError(path)
    name = found[1].rpartition(":")[2]
    return [Need("lambda:InvokeFunction", place.arn("lambda", f"function:{name}"))]


def of_store(service: str, method: str, path: str, place: Place) -> Need:
    """Return what a request to a key value store of CloudFront, or about one, needs.

    Source: the service authorization reference, "Actions defined by Amazon CloudFront KeyValueStore".
    """
    whole = unquote(urlsplit(path).path)
    if service == "cloudfront":
        found = re.fullmatch(r"/2020-05-31/key-value-store/([^/]+)", whole)
        if found is None or method != "GET":
            raise NotImplementedError(f"{method} {path}")
        return Need(
            "cloudfront:DescribeKeyValueStore",
            f"arn:aws:cloudfront::{place.account}:key-value-store/{found[1]}",
        )
    found = re.fullmatch(r"/key-value-stores/(arn:[^/]+/[^/]+)(/keys/[^/]+)?", whole)
    if found is None:
        raise NotImplementedError(f"{method} {path}")
    action = (
        {"GET": "GetKey", "PUT": "PutKey", "DELETE": "DeleteKey"}[method]
        if found[2]
        else "DescribeKeyValueStore"
    )
    return Need(f"cloudfront-keyvaluestore:{action}", found[1])


def parsed(body: bytes) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(body or b"{}")
    return content


def necessary(policies: Account, role: str, found: Iterable[Need]) -> set[Right]:
    """Return the rights of a role without each of which something that was needed would be denied."""
    granting = [policies.granting(role, need.action, need.resource, **need.context) for need in found]
    return {right for rights in granting if len(rights) == 1 for right in rights}
