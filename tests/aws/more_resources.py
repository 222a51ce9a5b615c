"""ministack, with what CloudFormation knows and ministack does not: it accepts these resources and makes nothing of them.

Its own Python runs this file, as the server; tests read ACCEPTED.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ACCEPTED = {
    "AWS::Budgets::Budget",
    "AWS::IAM::OIDCProvider",
    "AWS::EC2::Volume",
    "AWS::EC2::FlowLog",
}
IMAGE = "/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id"


def _create(logical_id: str, props: dict[str, Any], stack_name: str) -> tuple[str, dict[str, str]]:
    name = f"{stack_name}-{logical_id}"
    return name, {"Arn": f"arn:aws:emulated:::{name}"}


def _update(name: str, old: dict[str, Any], new: dict[str, Any], stack: str) -> tuple[str, dict[str, str]]:
    return name, {"Arn": f"arn:aws:emulated:::{name}"}


def _delete(name: str, props: dict[str, Any]) -> None:
    pass


def _without_expression(value: Any) -> Any:
    """Return the properties of an alarm on an expression as those of an alarm on a metric."""
    if not isinstance(value, dict) or "Metrics" not in value:
        return value
    own = {name: one for name, one in value.items() if name != "Metrics"}
    return {**own, "Namespace": "emulated", "MetricName": "expression", "Statistic": "Sum", "Period": 300}


def _on_metric(handle: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given, **more: handle(*map(_without_expression, given), **more)


def main() -> None:
    from ministack import app  # type: ignore[import-not-found]
    from ministack.services import ssm  # type: ignore[import-not-found]
    from ministack.services.cloudformation import provisioners  # type: ignore[import-not-found]

    for kind in ACCEPTED - set(provisioners._RESOURCE_HANDLERS):
        provisioners._RESOURCE_HANDLERS[kind] = {"create": _create, "update": _update, "delete": _delete}
    alarm = provisioners._RESOURCE_HANDLERS["AWS::CloudWatch::Alarm"]
    alarm.update({name: _on_metric(alarm[name]) for name in ("create", "update") if name in alarm})
    # It refuses the name of a bucket that exists, also of one that the change set imports.
    provisioners.s3_bucket_name_conflict = lambda name: None
    ssm._PUBLIC_AMI_PARAMETERS[IMAGE] = "ami-0ab0ce0123456789a"
    app.main()


if __name__ == "__main__":
    main()
