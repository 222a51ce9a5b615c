"""Evaluate policies as IAM does within one account, from the synthesised template of a stack.

An explicit deny wins, in the policies of the role or in the one of the resource; else an allow in either is needed. A role
is assumed when its trust policy names the caller; where it names the whole account, the caller needs an allow of its own.
Roles of the stack need one in any case here, as is customary; AWS would do without where the trust names them.
Boundaries, session policies and organisations do not occur in the templates. What this evaluator does not know raises
`NotImplementedError`, so that no policy is read more generously than AWS reads it.

Source: IAM's guide, "Policy evaluation logic" and "IAM JSON policy elements: Condition operators".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

ACCOUNT, REGION = "111122223333", "eu-west-1"
_ARNS = {
    "AWS::S3::Bucket": ("BucketName", "arn:aws:s3:::{}"),
    "AWS::IAM::Role": ("RoleName", "arn:aws:iam::{account}:role/{}"),
    "AWS::SQS::Queue": ("QueueName", "arn:aws:sqs:{region}:{account}:{}"),
    "AWS::SNS::Topic": ("TopicName", "arn:aws:sns:{region}:{account}:{}"),
    "AWS::Logs::LogGroup": ("LogGroupName", "arn:aws:logs:{region}:{account}:log-group:{}:*"),
    "AWS::CloudFront::KeyValueStore": ("Name", "arn:aws:cloudfront::{account}:key-value-store/{}"),
    "AWS::Lambda::Function": ("FunctionName", "arn:aws:lambda:{region}:{account}:function:{}"),
}
_OF_RESOURCES = ("AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy")
_ELEMENTS = {
    "Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Principal", "NotPrincipal", "Condition",
}  # fmt: skip
Statement = dict[str, Any]
TLS = {"aws:SecureTransport": "true", "s3:TlsVersion": "1.3"}


class Right(NamedTuple):
    """One action on one resource, as a role's policy allows it; both are patterns."""

    action: str
    resource: str


@dataclass
class Account:
    """An account with the resources of one template."""

    template: dict[str, Any]
    account: str = ACCOUNT
    region: str = REGION
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
                return self._pseudo.get(inner) or self._name(inner)
            if name == "Fn::GetAtt":
                return self._attribute(*inner)
            if name == "Fn::Join":
                return inner[0].join(str(self.resolve(one)) for one in inner[1])
            if name == "Fn::Sub" and isinstance(inner, str):
                return re.sub(r"\$\{(AWS::\w+)\}", lambda found: self._pseudo[found[1]], inner)
            if name.startswith("Fn::"):
                raise NotImplementedError(name)
        return {key: self.resolve(one) for key, one in value.items()}

    @cached_property
    def _pseudo(self) -> dict[str, str]:
        return {
            "AWS::AccountId": self.account,
            "AWS::Region": self.region,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::StackName": "stack",
            "AWS::StackId": f"arn:aws:cloudformation:{self.region}:{self.account}:stack/stack/id",
        }

    def _name(self, logical_id: str) -> str:
        resource = self.resources[logical_id]
        known = _ARNS.get(resource["Type"])
        if resource["Type"] == "AWS::SNS::Topic":
            return self._attribute(logical_id, "Arn")
        properties = resource.get("Properties", {})
        return str(self.resolve(properties[known[0]])) if known and known[0] in properties else logical_id

    def _attribute(self, logical_id: str, attribute: str) -> str:
        if attribute != "Arn":
            return f"{logical_id}.{attribute}"
        resource = self.resources[logical_id]
        known = _ARNS.get(resource["Type"])
        if known is None:
            return f"arn:of:{logical_id}"
        name = self.resolve(resource.get("Properties", {}).get(known[0], logical_id))
        return known[1].format(name, account=self.account, region=self.region)

    @cached_property
    def _roles(self) -> dict[str, dict[str, Any]]:
        return {role["RoleName"]: role for role in self.of_type("AWS::IAM::Role").values()}

    def roles(self) -> dict[str, str]:
        """Return the names of roles to their ARNs."""
        return {name: f"arn:aws:iam::{self.account}:role/{name}" for name in self._roles}

    @cached_property
    def _statements(self) -> dict[str, list[Statement]]:
        found: dict[str, list[Statement]] = {name: [] for name in self._roles}
        for kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
            for policy in self.of_type(kind).values():
                for role in policy["Roles"]:
                    found[role] += policy["PolicyDocument"]["Statement"]
        for name, role in self._roles.items():
            more = role.get("ManagedPolicyArns") or role.get("Policies") or role.get("PermissionsBoundary")
            if more:
                raise NotImplementedError(f"{name} has policies that are not evaluated: {more}")
        return found

    def statements(self, role: str) -> list[Statement]:
        """Return the statements in the policies of a role."""
        return self._statements[role]

    def trust(self, role: str) -> list[Statement]:
        """Return the statements that say who may assume a role."""
        found: list[Statement] = self._roles[role]["AssumeRolePolicyDocument"]["Statement"]
        return found

    @cached_property
    def of_resources(self) -> list[Statement]:
        """The statements in the policies of buckets, queues and topics; each names its resources."""
        return [
            statement
            for kind in _OF_RESOURCES
            for policy in self.of_type(kind).values()
            for statement in policy["PolicyDocument"]["Statement"]
        ]

    def rights(self, role: str) -> set[Right]:
        """Return all that the policies of a role allow, one action on one resource each."""
        return {
            Right(action, resource)
            for one in self.statements(role)
            if one["Effect"] == "Allow"
            for action in _listed(one["Action"])
            for resource in _listed(one["Resource"])
        }

    def without(self, role: str, action: str, resource: str) -> Account:
        """Return a copy in which a role lacks an action on the resources that match a pattern."""
        other = Account(self.template, self.account, self.region)
        kept: list[Statement] = []
        for one in self.statements(role):
            for allowed in _listed(one["Action"]):
                left = [where for where in _listed(one["Resource"]) if not _like(resource, where)]
                if allowed != action:
                    kept.append({**one, "Action": allowed})
                elif left:
                    kept.append({**one, "Action": allowed, "Resource": left})
        assert kept != [
            {**one, "Action": each} for one in self.statements(role) for each in _listed(one["Action"])
        ]
        other._statements[role] = kept
        return other

    def granting(self, role: str, action: str, resource: str, **context: str) -> set[Right]:
        """Return the rights of a role that allow something; empty when it may not do it."""
        principal = self.roles()[role]
        known = {**TLS, "aws:PrincipalArn": principal, **context}
        policies = [*self.statements(role), *self.of_resources]
        if any(_applies(one, "Deny", principal, action, resource, known) for one in policies):
            return set()
        if any(_applies(one, "Allow", principal, action, resource, known) for one in self.of_resources):
            raise NotImplementedError(f"the policy of {resource} allows {action}, beside those of roles")
        return {
            Right(pattern, where)
            for one in self.statements(role)
            if _applies(one, "Allow", principal, action, resource, known)
            for pattern in _listed(one.get("Action", "*"))
            for where in _listed(one.get("Resource", "*"))
            if _like(pattern, action, ignore_case=True) and _like(where, resource)
        }

    def may(self, role: str, action: str, resource: str, **context: str) -> bool:
        """Return whether a role may, over TLS 1.3 unless the context has another version."""
        return bool(self.granting(role, action, resource, **context))

    def administrator_may(self, action: str, resource: str) -> bool:
        """Return whether somebody may whose own policies allow everything."""
        principal = f"arn:aws:iam::{self.account}:role/administrator"
        known = {**TLS, "aws:PrincipalArn": principal}
        return not any(_applies(one, "Deny", principal, action, resource, known) for one in self.of_resources)

    def may_assume(
        self,
        principal: str,
        role: str,
        action: str = "sts:AssumeRole",
        *,
        may_ask: bool = True,
        **context: str,
    ) -> bool:
        """Return whether a principal may assume a role: an ARN, a service, or the ARN of an identity provider.

        `may_ask`: whether the policies of a principal that is no role of the template allow it to assume roles.
        """
        arn = self.roles()[role]
        known = {"aws:PrincipalArn": principal, **context}
        if any(_applies(one, "Deny", principal, action, None, known) for one in self.trust(role)):
            return False
        allowing = [one for one in self.trust(role) if _applies(one, "Allow", principal, action, None, known)]
        names = {role_arn: name for name, role_arn in self.roles().items()}
        if principal in names:
            return bool(allowing) and self.may(names[principal], action, arn)
        return any(may_ask or not self._is_whole_account(one) for one in allowing)

    def _is_whole_account(self, statement: Statement) -> bool:
        named = statement["Principal"]
        arns = _listed(named.get("AWS", [])) if isinstance(named, dict) else [named]
        return bool(arns) and all(one in {f"arn:aws:iam::{self.account}:root", self.account} for one in arns)


def _applies(
    statement: Statement,
    effect: str,
    principal: str,
    action: str,
    resource: str | None,
    context: Mapping[str, str],
) -> bool:
    """Return whether a statement of this effect is about a request; `resource` is None in a trust policy."""
    if unknown := set(statement) - _ELEMENTS:
        raise NotImplementedError(f"elements of a statement: {unknown}")
    return (
        statement["Effect"] == effect
        and _named(statement, "Action", action, ignore_case=True)
        and (resource is None or _named(statement, "Resource", resource))
        and _is_principal(statement, principal)
        and _holds(statement.get("Condition", {}), context)
    )


def _named(statement: Statement, element: str, value: str, *, ignore_case: bool = False) -> bool:
    if f"Not{element}" in statement:
        return not _any(statement[f"Not{element}"], value, ignore_case=ignore_case)
    return _any(statement[element], value, ignore_case=ignore_case)


def _is_principal(statement: Statement, principal: str) -> bool:
    if "NotPrincipal" in statement:
        raise NotImplementedError("NotPrincipal")
    if "Principal" not in statement:
        return True
    named = statement["Principal"]
    if named == "*":
        return True
    account = principal.split(":")[4] if principal.startswith("arn:") else None
    for kind, listed in named.items():
        for one in _listed(listed):
            if one == principal or (kind == "AWS" and one == "*"):
                return True
            if kind == "AWS" and account and one in {account, f"arn:aws:iam::{account}:root"}:
                return ":oidc-provider/" not in principal
    return False


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _any(patterns: Any, value: str, *, ignore_case: bool = False) -> bool:
    return any(_like(pattern, value, ignore_case=ignore_case) for pattern in _listed(patterns))


def _like(pattern: str, value: str, *, ignore_case: bool = False) -> bool:
    return _regex(pattern, ignore_case).fullmatch(value) is not None


@cache
def _regex(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    if "${" in pattern:
        raise NotImplementedError(f"policy variable in {pattern}")
    text = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(text, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def _holds(conditions: dict[str, Any], context: Mapping[str, str]) -> bool:
    return all(
        _compare(operator, context.get(key), [str(one) for one in _listed(wanted)])
        for operator, pairs in conditions.items()
        for key, wanted in pairs.items()
    )


def _compare(operator: str, found: str | None, wanted: list[str]) -> bool:
    """Return whether one condition holds; keys have one value in all requests that are evaluated here."""
    if ":" in operator:
        raise NotImplementedError(operator)
    if operator == "Null":
        return (found is None) is (wanted[0].lower() == "true")
    plain = operator.removesuffix("IfExists")
    negated = plain in {"StringNotEquals", "StringNotLike", "ArnNotEquals", "ArnNotLike"}
    if found is None:
        return negated or plain != operator
    positive = plain.replace("Not", "") if negated else plain
    return any(_equal(positive, found, one) for one in wanted) is not negated


def _equal(operator: str, found: str, wanted: str) -> bool:
    if operator == "StringEquals":
        return found == wanted
    if operator == "Bool":
        return found == wanted.lower()
    if operator == "NumericLessThan":
        return float(found) < float(wanted)
    if operator == "StringLike":
        return _like(wanted, found)
    if operator in {"ArnEquals", "ArnLike"}:
        parts = [one.split(":", 5) for one in (wanted, found)]
        return len(parts[0]) == len(parts[1]) and all(map(_like, *parts))
    raise NotImplementedError(operator)
