"""A front of the emulators that answers "access denied" as AWS would, and records what every role asked for.

The emulators enforce no permissions. Whoever signs a request is known by the access key: the emulator's STS says which role
has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs

from tests.aws import needs
from tests.aws.needs import Need, Place
from tests.aws.policy import Account

Answer = tuple[int, bytes] | None
ADMINISTRATOR = "test"
"""The key of the tests themselves, which may do everything."""
ENGINE = "trino"
"""The key of the engine that stands for Athena: its requests are made in the name of who asked the query."""
_SIGNED = re.compile(r"Credential=([^/]+)/[^/]*/(?:[^/]*/)??([^/]+)/aws4_request")
"""Access key and service; the scope of a signature for all regions (SigV4A) names none."""


@dataclass
class Gate:
    """The policies of an account between clients and the emulators."""

    policies: Account
    place: Place
    role_of: Callable[[str], str]
    """Access key to the name of its role, or the ARN of another principal; "" for who may do everything."""
    asker: Callable[[], str] = lambda: ADMINISTRATOR
    """Returns the access key of whose query the engine runs."""
    needed: dict[str, set[Need]] = field(default_factory=dict)
    """Role to all that its requests needed."""
    by_engine: dict[str, set[Need]] = field(default_factory=dict)
    """The same of the engine's own requests, of which none is denied."""
    denied: list[tuple[str, str, str]] = field(default_factory=list)
    """Principal, action and resource."""
    _groups: dict[str, str] = field(default_factory=dict)
    """Access key to the workgroup of its last query."""

    def check(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return the answer to a request that may not be made, None for any other."""
        named = {name.lower(): value for name, value in headers.items()}
        signed = _SIGNED.search(named.get("authorization", "") or _in_address(path))
        if signed is None:
            return None
        key, service = signed[1], signed[2]
        is_engine = key == ENGINE
        key = self.asker() if is_engine else key
        if key == ADMINISTRATOR:
            return None
        if service == "sts":
            return self._assume(key, parse_qs(body.decode()))
        principal = self.role_of(key)
        if not principal:
            return None
        if is_engine:
            if "Athena" in named.get("x-amz-target", ""):
                # The emulator uses an Athena that it has; Athena itself has none.
                return None
            found = self._needs(key, service, method, path, named, body)
            self.by_engine.setdefault(principal, set()).update(found)
            return None
        for need in self._needs(key, service, method, path, named, body):
            if principal.startswith("arn:"):
                return self._deny(service, principal, need)
            self.needed.setdefault(principal, set()).add(need)
            if not self.policies.may(principal, need.action, need.resource, **need.context):
                return self._deny(service, principal, need)
        return None

    def _needs(
        self, key: str, service: str, method: str, path: str, named: Mapping[str, str], body: bytes
    ) -> list[Need]:
        if service == "s3":
            return needs.of_s3(method, path, named, body)
        if service == "lambda":
            return needs.of_lambda(path, self.place)
        if service.startswith("cloudfront"):
            return [needs.of_store(service, method, path, self.place)]
        if service == "sns":
            return [Need("sns:Publish", parse_qs(body.decode())["TopicArn"][0])]
        target = named["x-amz-target"].rpartition(".")
        kind = "athena" if "Athena" in target[0] else "glue"
        content = needs.parsed(body)
        if target[2] == "StartQueryExecution":
            self._groups[key] = content.get("WorkGroup", "primary")
        # A request that names a query only is about one of the workgroup that its owner asks queries in.
        place = replace(self.place, workgroup=self._groups.get(key, self.place.workgroup))
        found = needs.of_json(f"{kind}:{target[2]}", content, place)
        if target[2] == "StartQueryExecution":
            found += needs.of_statement(content["QueryString"], place)
        return found

    def _assume(self, key: str, form: dict[str, list[str]]) -> Answer:
        if form["Action"] != ["AssumeRole"]:
            return None
        principal = self.role_of(key)
        role = form["RoleArn"][0].rpartition("/")[2]
        own = self.policies.roles()
        if principal in own:
            self.needed.setdefault(principal, set()).add(Need("sts:AssumeRole", form["RoleArn"][0]))
        context = {}
        if "ExternalId" in form:
            context["sts:ExternalId"] = form["ExternalId"][0]
        if "TokenCode" in form:
            context["aws:MultiFactorAuthPresent"] = "true"
        if role in own and self.policies.may_assume(own.get(principal, principal), role, **context):
            return None
        return self._deny("sts", principal, Need("sts:AssumeRole", form["RoleArn"][0]))

    def _deny(self, service: str, principal: str, need: Need) -> tuple[int, bytes]:
        self.denied.append((principal, need.action, need.resource))
        message = (
            f"User: {principal} is not authorized to perform: {need.action} on resource: {need.resource} because no "
            f"identity-based policy allows the {need.action} action"
        )
        if service == "s3":
            quoted = message.replace(need.resource, f"&quot;{need.resource}&quot;")
            return 403, f"<Error><Code>AccessDenied</Code><Message>{quoted}</Message></Error>".encode()
        if service == "sts":
            error = f"<Error><Type>Sender</Type><Code>AccessDenied</Code><Message>{message}</Message></Error>"
            return 403, f"<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>".encode()
        if need.action.startswith("athena:"):
            message = (
                f"You are not authorized to perform: {need.action} on the resource. After your AWS administrator or you "
                "have updated your permissions, please try again."
            )
        if service == "cloudfront":
            error = f"<Error><Type>Sender</Type><Code>AccessDenied</Code><Message>{message}</Message></Error>"
            return 403, f"<ErrorResponse>{error}</ErrorResponse>".encode()
        body: dict[str, Any] = {"__type": "AccessDeniedException", "message": message, "Message": message}
        return (403 if service == "lambda" else 400), json.dumps(body).encode()


def _in_address(path: str) -> str:
    """The credential in a signed address, in the form of the header."""
    found = re.search(r"X-Amz-Credential=([^&]+)", path)
    return f"Credential={found[1].replace('%2F', '/')}/" if found else ""
