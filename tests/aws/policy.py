"""Evaluate whether a role may do an action on a resource, from a synthesised template, as IAM does within one account.

An explicit deny in the policies of the role or of the bucket wins; otherwise an allow in the policies of the role is
needed. Permission boundaries, session policies and organisations do not occur in the templates and are not evaluated.
An unknown operator or function raises `NotImplementedError`.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

ACCOUNT, REGION = "111122223333", "eu-west-1"
_PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": "stack",
    "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/stack/id",
}
_NAMES = {
    "AWS::S3::Bucket": ("BucketName", "arn:aws:s3:::{}"),
    "AWS::IAM::Role": ("RoleName", f"arn:aws:iam::{ACCOUNT}:role/{{}}"),
    "AWS::SQS::Queue": ("QueueName", f"arn:aws:sqs:{REGION}:{ACCOUNT}:{{}}"),
    "AWS::SNS::Topic": ("TopicName", f"arn:aws:sns:{REGION}:{ACCOUNT}:{{}}"),
    "AWS::Logs::LogGroup": ("LogGroupName", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{{}}:*"),
    "AWS::Lambda::Function": ("FunctionName", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{{}}"),
}


@dataclass
class Account:
    """An account with the resources of one template."""

    template: dict[str, Any]
    resources: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.resources = self.template["Resources"]

    def of_type(self, kind: str) -> dict[str, Any]:
        """Return logical ids to resolved properties."""
        return {
            name: self.resolve(resource.get("Properties", {}))
            for name, resource in self.resources.items()
            if resource["Type"] == kind
        }

    def resolve(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.resolve(one) for one in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            name, inner = next(iter(value.items()))
            if name == "Ref":
                return _PSEUDO.get(inner) or self._name(inner)
            if name == "Fn::GetAtt":
                return self._attribute(*inner)
            if name == "Fn::Join":
                return inner[0].join(str(self.resolve(one)) for one in inner[1])
            if name == "Fn::Sub" and isinstance(inner, str):
                return re.sub(r"\$\{(AWS::\w+)\}", lambda found: _PSEUDO[found[1]], inner)
            if name.startswith("Fn::"):
                raise NotImplementedError(name)
        return {key: self.resolve(one) for key, one in value.items()}

    def _name(self, logical_id: str) -> str:
        resource = self.resources[logical_id]
        known = _NAMES.get(resource["Type"])
        properties = resource.get("Properties", {})
        return str(self.resolve(properties[known[0]])) if known and known[0] in properties else logical_id

    def _attribute(self, logical_id: str, attribute: str) -> str:
        if attribute != "Arn":
            return f"{logical_id}.{attribute}"
        known = _NAMES.get(self.resources[logical_id]["Type"])
        return known[1].format(self._name(logical_id)) if known else f"arn:of:{logical_id}"

    def roles(self) -> dict[str, str]:
        """Return the names of roles to their ARNs."""
        found = (role["RoleName"] for role in self.of_type("AWS::IAM::Role").values())
        return {name: f"arn:aws:iam::{ACCOUNT}:role/{name}" for name in found}

    def statements(self, role: str) -> list[dict[str, Any]]:
        """Return the statements in the policies of a role."""
        found = [
            statement
            for kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")
            for policy in self.of_type(kind).values()
            if role in policy["Roles"]
            for statement in policy["PolicyDocument"]["Statement"]
        ]
        assert not any(
            r.get("ManagedPolicyArns") or r.get("Policies")
            for r in self.of_type("AWS::IAM::Role").values()
            if r["RoleName"] == role
        ), f"{role} has policies that are not evaluated"
        return found

    def of_buckets(self) -> Iterator[dict[str, Any]]:
        for policy in self.of_type("AWS::S3::BucketPolicy").values():
            yield from policy["PolicyDocument"]["Statement"]

    def may(self, role: str, action: str, resource: str, **context: str) -> bool:
        """Return whether the role may, over TLS 1.3 unless the context has another version."""
        arn = self.roles()[role]
        known = {"aws:SecureTransport": "true", "s3:TlsVersion": "1.3", "aws:PrincipalArn": arn, **context}
        own = self.statements(role)
        if _matches("Deny", [*own, *self.of_buckets()], action, resource, known):
            return False
        return _matches("Allow", own, action, resource, known)

    def administrator_may(self, action: str, resource: str) -> bool:
        """Return whether an administrator may: only the policy of a bucket can deny it."""
        known = {
            "aws:SecureTransport": "true",
            "s3:TlsVersion": "1.3",
            "aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/administrator",
        }
        return not _matches("Deny", list(self.of_buckets()), action, resource, known)


def needed(operation: str, content: dict[str, Any], workgroup: str) -> list[str]:
    """Return the resources that a role needs for a request to Athena or Glue.

    In Glue these are the resource with all its ancestors, and for a delete with all its children. Source: AWS Glue's
    guide, "Specifying resource ARNs". A request that names a query, not a workgroup, belongs to `workgroup`.
    """
    service, _, name = operation.partition(":")
    where = f"arn:aws:{service}:{REGION}:{ACCOUNT}"
    if operation == "athena:GetDataCatalog":
        return [f"{where}:datacatalog/{content['Name']}"]
    if service == "athena":
        return [f"{where}:workgroup/{content.get('WorkGroup', workgroup)}"]
    if name == "GetDatabases":
        return [f"{where}:catalog"]
    if name.endswith("Database"):
        database = _name_in(content, "DatabaseInput")
        inside = [f"{where}:{kind}/{database}/*" for kind in ("table", "userDefinedFunction")]
        return [
            f"{where}:catalog",
            f"{where}:database/{database}",
            *(inside if name == "DeleteDatabase" else []),
        ]
    table = "*" if name == "GetTables" else content.get("TableName") or _name_in(content, "TableInput")
    database = content["DatabaseName"]
    return [f"{where}:catalog", f"{where}:database/{database}", f"{where}:table/{database}/{table}"]


def _name_in(content: dict[str, Any], part: str) -> str:
    return str(content.get(part, content)["Name"])


def _matches(effect: str, statements: list[Any], action: str, resource: str, context: dict[str, str]) -> bool:
    return any(
        one["Effect"] == effect
        and _any(one["Action"], action, ignore_case=True)
        and _any(one["Resource"], resource)
        and _holds(one.get("Condition", {}), context)
        for one in statements
    )


def _any(patterns: Any, value: str, *, ignore_case: bool = False) -> bool:
    listed = patterns if isinstance(patterns, list) else [patterns]
    flags = re.IGNORECASE if ignore_case else 0
    return any(re.match(_regex(pattern), value, flags) for pattern in listed)


def _regex(pattern: str) -> str:
    return fnmatch.translate(pattern.replace("[", "[[]"))


def _holds(conditions: dict[str, Any], context: dict[str, str]) -> bool:
    return all(
        _compare(operator, context.get(key), wanted)
        for operator, pairs in conditions.items()
        for key, wanted in pairs.items()
    )


def _compare(operator: str, found: str | None, wanted: Any) -> bool:
    if operator == "ArnNotEquals":
        return found is None or not _any(wanted, found)
    if found is None:
        return False
    if operator == "Bool":
        return found == str(wanted).lower()
    if operator == "NumericLessThan":
        return float(found) < float(wanted)
    if operator in {"StringEquals", "ArnEquals"}:
        return found == wanted
    if operator in {"StringLike", "ArnLike"}:
        return _any(wanted, found)
    raise NotImplementedError(operator)
