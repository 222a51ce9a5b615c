"""The evaluator of policies reads them as AWS does, and none more generously."""

from __future__ import annotations

from typing import Any

import pytest

from tests.aws.policy import ACCOUNT, Account

ROLE = "worker"
BUCKET = "arn:aws:s3:::lake"
KEY = f"{BUCKET}/a/b.json"
Allow = dict[str, Any]


def allow(**more: Any) -> Allow:
    return {"Effect": "Allow", "Action": "s3:GetObject", "Resource": KEY, **more}


def account(*statements: Allow, bucket: Allow | None = None, trust: Allow | None = None) -> Account:
    """Return an account with one role that has these statements."""
    trusts = trust or {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}
    properties: dict[str, Any] = {"RoleName": ROLE, "AssumeRolePolicyDocument": {"Statement": [trusts]}}
    resources: dict[str, Any] = {
        "Role": {"Type": "AWS::IAM::Role", "Properties": properties},
        "Policy": {
            "Type": "AWS::IAM::Policy",
            "Properties": {"Roles": [ROLE], "PolicyDocument": {"Statement": list(statements)}},
        },
    }
    if bucket:
        policy = {"Bucket": "lake", "PolicyDocument": {"Statement": [bucket]}}
        resources["Bucket"] = {"Type": "AWS::S3::BucketPolicy", "Properties": policy}
    return Account({"Resources": resources})


def may(*statements: Allow, resource: str = KEY, bucket: Allow | None = None, **context: str) -> bool:
    return account(*statements, bucket=bucket).may(ROLE, "s3:GetObject", resource, **context)


def test_what_is_not_allowed_is_denied():
    assert may(allow())
    assert not may()
    assert not may(allow(Action="s3:PutObject"))
    assert not may(allow(Resource=f"{BUCKET}/a/c.json"))


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        (f"{BUCKET}/*", True),
        (f"{BUCKET}/a/?.json", True),
        (f"{BUCKET}/?", False),
        (f"{BUCKET}/[a]/b.json", False),
        (f"{BUCKET}/A/*", False),
        ("*", True),
    ],
)
def test_patterns_of_resources(pattern, matches):
    assert may(allow(Resource=pattern)) is matches
    assert may(allow(Resource=["arn:aws:s3:::other", pattern])) is matches


def test_the_case_of_actions_does_not_matter():
    assert may(allow(Action="S3:getobject"))
    assert may(allow(Action="s3:Get*"))


def test_everything_but_what_is_named():
    without = {k: v for k, v in allow().items() if k != "Action"}
    assert may({**without, "NotAction": "s3:PutObject"})
    assert not may({**without, "NotAction": "s3:Get*"})
    without = {k: v for k, v in allow().items() if k != "Resource"}
    assert may({**without, "NotResource": "arn:aws:s3:::other/*"})
    assert not may({**without, "NotResource": f"{BUCKET}/*"})


def test_a_deny_wins_in_the_policy_of_the_role_and_in_the_one_of_the_bucket():
    assert not may(allow(), {**allow(), "Effect": "Deny"})
    denies = {**allow(Principal="*"), "Effect": "Deny"}
    assert not may(allow(), bucket=denies)
    assert may(allow(), bucket={**denies, "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:role/other"}})


@pytest.mark.parametrize(
    ("condition", "without", "right", "wrong"),
    [
        ({"StringEquals": {"k": ["a", "b"]}}, False, "b", "c"),
        ({"StringLike": {"k": "releases/*"}}, False, "releases/x", "landing/x"),
        ({"StringNotEquals": {"k": ["a", "b"]}}, True, "c", "b"),
        ({"StringEqualsIfExists": {"k": "a"}}, True, "a", "b"),
        ({"Bool": {"k": "true"}}, False, "true", "false"),
        ({"BoolIfExists": {"k": "true"}}, True, "true", "false"),
        ({"NumericLessThan": {"k": "1.2"}}, False, "1.1", "1.2"),
        ({"Null": {"k": "true"}}, True, None, "x"),
        ({"Null": {"k": "false"}}, False, "x", None),
        ({"ArnLike": {"k": "arn:aws:iam::1:role/a*"}}, False, "arn:aws:iam::1:role/ab", "arn:aws:iam::2:role/ab"),
        ({"ArnNotEquals": {"k": "arn:aws:iam::1:role/a"}}, True, "arn:aws:iam::1:role/b", "arn:aws:iam::1:role/a"),
    ],
)  # fmt: skip
def test_conditions(condition, without, right, wrong):
    def holds(value: str | None) -> bool:
        return may(allow(Condition=condition), **({} if value is None else {"k": value}))

    assert holds(None) is without
    assert holds(right)
    assert not holds(wrong)


def test_every_condition_has_to_hold():
    both = allow(Condition={"StringEquals": {"k": "a"}, "Bool": {"aws:SecureTransport": "true"}})
    assert may(both, k="a")
    assert not may(both, k="a", **{"aws:SecureTransport": "false"})


@pytest.mark.parametrize(
    "statement",
    [
        allow(Condition={"ForAnyValue:StringEquals": {"k": "a"}}),
        allow(Condition={"DateLessThan": {"k": "2026-01-01"}}),
        allow(Resource=f"{BUCKET}/${{aws:username}}/*"),
        allow(Surprise="x"),
        allow(NotPrincipal="*"),
    ],
)
def test_what_the_evaluator_does_not_know_is_an_error(statement):
    with pytest.raises(NotImplementedError):
        may(statement, k="a")


def test_who_may_assume_a_role():
    def may_assume(principal: str, trusted: Any, **more: Any) -> bool:
        trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": trusted}
        return account(trust=trust).may_assume(principal, ROLE, **more)

    person = f"arn:aws:iam::{ACCOUNT}:user/anna"
    root = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    assert may_assume(person, {"AWS": person}, may_ask=False)
    assert may_assume(person, root)
    assert not may_assume(person, root, may_ask=False)
    assert not may_assume("arn:aws:iam::999999999999:user/eve", root)
    assert may_assume("lambda.amazonaws.com", {"Service": "lambda.amazonaws.com"})
    assert not may_assume("ec2.amazonaws.com", {"Service": "lambda.amazonaws.com"})
