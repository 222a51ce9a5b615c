"""Open Airflow's web interface on the instance, through Session Manager: no port of the instance is open."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable

from infrastructure.account import Account, AccountError
from infrastructure.parameters import Parameters

PLUGIN = "session-manager-plugin"
_DOCUMENT = "AWS-StartPortForwardingSession"
_PLUGIN_PAGE = (
    "https://docs.aws.amazon.com/systems-manager/latest/userguide/"
    "session-manager-working-with-install-plugin.html"
)


def forward(account: Account, settings: Parameters, port: int, say: Callable[[str], None]) -> None:
    """Forward a port of this machine to Airflow until Ctrl-C; raises `AccountError`."""
    if shutil.which(PLUGIN) is None:
        raise AccountError(f"{PLUGIN} is missing: install it, {_PLUGIN_PAGE}")
    outputs = account.outputs(settings.prefix)
    if "Airflow" not in outputs:
        raise AccountError("the stack has no Airflow: set `airflow = true` in the settings file and deploy")
    target = _instance(account, outputs["Airflow"])
    ports = {"portNumber": ["8080"], "localPortNumber": [str(port)]}
    request = {"Target": target, "DocumentName": _DOCUMENT, "Parameters": ports}
    ssm = account.client("ssm")
    session = ssm.start_session(**request)
    session.pop("ResponseMetadata", None)
    password = account.client("secretsmanager").get_secret_value(SecretId=outputs["AirflowPassword"])
    say(f"Airflow: http://localhost:{port}, user admin, password {password['SecretString']}; Ctrl-C ends")
    # The plugin is called as AWS's own command line calls it, which hands Ctrl-C to it as well.
    command = [
        PLUGIN, json.dumps(session), account.region, "StartSession", "", json.dumps(request), ssm.meta.endpoint_url,
    ]  # fmt: skip
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        subprocess.run(command, check=False)
    finally:
        signal.signal(signal.SIGINT, before)


def _instance(account: Account, group: str) -> str:
    groups = account.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[group])
    running = [
        one["InstanceId"]
        for found in groups["AutoScalingGroups"]
        for one in found["Instances"]
        if one["LifecycleState"] == "InService"
    ]
    if not running:
        raise AccountError(
            f"no instance of {group} is in service: the group starts one by itself, look again in a minute"
        )
    return str(running[0])
