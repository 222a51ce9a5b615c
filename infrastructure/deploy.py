"""Deploy the stack of one environment, show what it made, and take it down; the Makefile calls it.

    .venv/bin/python -m infrastructure.deploy deploy production
    .venv/bin/python -m infrastructure.deploy destroy production --confirm catalunya-production --delete-lake

The settings are in `infrastructure/environments/<environment>.toml`.
"""

from __future__ import annotations

import argparse
import sys

from botocore.exceptions import BotoCoreError, ClientError

from infrastructure import airflow_session, cdk, destroy, package
from infrastructure.account import Account, AccountError, connect
from infrastructure.cdk import CdkError
from infrastructure.package import OUTPUT, PackageError
from infrastructure.parameters import ENVIRONMENTS, Parameters, SettingsError, read

_OLDEST_BOOTSTRAP = 6
"""The stack's template asks for at least this version of what `cdk bootstrap` makes."""


def say(text: str) -> None:
    """Tell the person what happens."""
    sys.stderr.write(f"{text}\n")


def deploy(settings: Parameters) -> None:
    """Deploy the stack, with everything that it needs before."""
    account = _connect(settings)
    cdk.install()
    if settings.package.parent == OUTPUT:
        say("building the package of the functions")
        package.build("arm64")
    name = settings.prefix
    found = account.stack(name)
    if found and found["StackStatus"] in destroy.NEVER_WORKED:
        say(
            f"the first deployment of {name} failed and left {found['StackStatus']}: deleting what is left of it"
        )
        destroy.delete_stack(account, name, say)
        found = None
    if account.bootstrap_version() < _OLDEST_BOOTSTRAP:
        say(f"preparing {account.region} for the CDK: the stack {destroy.TOOLKIT}")
        cdk.run("bootstrap", f"aws://{account.number}/{account.region}", variables=account.variables)
    adopt = []
    if found is None and settings.is_production and account.has_bucket(f"{name}-lake-{account.number}"):
        say(
            f"the lake {name}-lake-{account.number} was kept by an earlier stack and becomes a part of this one"
        )
        adopt = ["--import-existing-resources"]
    options = [*cdk.app(settings.environment), "--require-approval", "never", "--progress", "events", *adopt]
    cdk.run("deploy", name, *options, variables=account.variables)
    for line in _next_steps(settings):
        say(line)


def _next_steps(settings: Parameters) -> list[str]:
    steps = []
    if settings.budget_usd and not settings.has_budget:
        steps.append(
            f"No budget was made: CloudFormation has none in {settings.region} (docs/aws.md, Settings)."
        )
    if settings.alert_email:
        steps.append(
            f"Confirm the mail that AWS sent to {settings.alert_email}, if this is the first deployment."
        )
    else:
        steps.append("Nobody receives the alarms: set `alert_email` in the settings file.")
    target, what = (
        ("aws-airflow", "Airflow") if settings.airflow else ("aws-variables", "The variables of Airflow")
    )
    steps.append(f"{what}: make {target} ENVIRONMENT={settings.environment}")
    return steps


def diff(settings: Parameters) -> None:
    """Show what a deployment would change."""
    account = _connect(settings)
    cdk.install()
    if not settings.package.is_file():
        package.build("arm64")
    cdk.run("diff", settings.prefix, *cdk.app(settings.environment), variables=account.variables)


def outputs(settings: Parameters) -> None:
    """Print the outputs of the stack."""
    account = _connect(settings)
    for name, value in account.outputs(settings.prefix).items():
        sys.stdout.write(f"{name:16} {value}\n")


def variables(settings: Parameters) -> None:
    """Print the variables by which Airflow and the command `catalunya` use the stack, one a line."""
    account = _connect(settings)
    for name, value in settings.airflow_variables(account.number, account.region).items():
        sys.stdout.write(f"{name}={value}\n")


def airflow(settings: Parameters, port: int) -> None:
    """Forward a port of this machine to Airflow in AWS."""
    airflow_session.forward(_connect(settings), settings, port, say)


def take_down(settings: Parameters, *, confirm: str, delete_lake: bool, delete_toolkit: bool) -> None:
    """Delete the stack and what is told; in production only when its name is given."""
    account = _connect(settings)
    if settings.is_production:
        _confirm(settings.prefix, confirm, "its lake too" if delete_lake else "but not its lake")
    left = destroy.destroy(account, settings, say, delete_lake=delete_lake)
    if delete_toolkit:
        destroy.delete_toolkit(account, say)
    say(f"{settings.prefix} is deleted in {account.region} of account {account.number}")
    for one in left:
        say(f"{one} is kept, and costs what its storage costs; the next `make deploy` uses it again")


def _confirm(name: str, given: str, scope: str) -> None:
    if not given and sys.stdin.isatty():
        given = input(f"Type {name} to delete it, {scope}: ")
    if given != name:
        raise AccountError(f"nothing was deleted: confirm with CONFIRM={name}")


def _connect(settings: Parameters) -> Account:
    account = connect(settings)
    say(f"{settings.prefix} in {account.region} of account {account.number}, as {account.caller}")
    return account


def main() -> int:
    """Run the command that is named; returns 1 when it failed and 2 when a setting is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=["deploy", "diff", "outputs", "variables", "airflow", "destroy"])
    parser.add_argument("environment", help=" or ".join(ENVIRONMENTS))
    parser.add_argument("--confirm", default="", help="destroy: the name of the stack, in production")
    parser.add_argument("--delete-lake", action="store_true", help="destroy: every snapshot and release too")
    parser.add_argument(
        "--delete-toolkit", action="store_true", help="destroy: what `cdk bootstrap` made too"
    )
    parser.add_argument("--port", type=int, default=8080, help="airflow: the port of this machine")
    given = parser.parse_args()
    simple = {"deploy": deploy, "diff": diff, "outputs": outputs, "variables": variables}
    try:
        settings = read(given.environment)
        if given.command == "destroy":
            take_down(
                settings,
                confirm=given.confirm,
                delete_lake=given.delete_lake,
                delete_toolkit=given.delete_toolkit,
            )
        elif given.command == "airflow":
            airflow(settings, given.port)
        else:
            simple[given.command](settings)
    except SettingsError as error:
        say(str(error))
        return 2
    except (AccountError, CdkError, PackageError, ClientError, BotoCoreError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
