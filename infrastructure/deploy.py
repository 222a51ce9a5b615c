"""Deploy the stack of one environment, show what it made, and take it down; the Makefile calls it.

    .venv/bin/python -m infrastructure.deploy deploy production
    .venv/bin/python -m infrastructure.deploy destroy production --confirm catalunya-production --delete-lake

The settings are in `infrastructure/environments/<environment>.toml`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from infrastructure import airflow_session, alerts, cdk, destroy, package, release, run
from infrastructure.account import Account, AccountError, connect
from infrastructure.cdk import CdkError
from infrastructure.package import OUTPUT, PackageError
from infrastructure.parameters import ENVIRONMENTS, GITHUB, GITHUB_STACK, Parameters, SettingsError, read

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
    cdk.run("deploy", *_github(settings, account), name, *options, variables=account.variables)
    for line in _next_steps(settings, account):
        say(line)


def _github(settings: Parameters, account: Account) -> list[str]:
    """Return the stack that makes the account trust GitHub, where that is wanted and not so yet."""
    if not settings.github_repository or account.stack(GITHUB_STACK):
        return []
    known = account.client("iam").list_open_id_connect_providers()["OpenIDConnectProviderList"]
    return [] if any(one["Arn"].endswith(f"/{GITHUB}") for one in known) else [GITHUB_STACK]


def _next_steps(settings: Parameters, account: Account) -> list[str]:
    steps = []
    if settings.has_budget and not alerts.count_costs_by_tag(account):
        steps.append(
            "The budget counts nothing yet, since AWS learns the tag `project` within a day: deploy again tomorrow."
        )
    if settings.budget_usd and not settings.has_budget:
        steps.append(
            f"No budget was made: CloudFormation has none in {settings.region} (docs/aws.md, Settings)."
        )
    if settings.alert_email:
        steps.append(
            f"After the first deployment {settings.alert_email} confirms the mail from AWS; then: "
            f"make aws-alert ENVIRONMENT={settings.environment}"
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
    site_url = account.outputs(settings.prefix).get("Site") if settings.site else None
    for name, value in settings.airflow_variables(account.number, account.region, site_url).items():
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


def alert(settings: Parameters) -> None:
    """Send a test message to whoever receives the alerts."""
    account = _connect(settings)
    say(f"sent to {', '.join(alerts.send_test(account, settings))}")


def failed(settings: Parameters, *, empty: bool) -> None:
    """Print the failed invocations of the functions, one a line."""
    for line in alerts.failed_invocations(_connect(settings), settings, empty=empty):
        sys.stdout.write(f"{line}\n")


def download(settings: Parameters, folder: Path) -> None:
    """Download the release that readers see."""
    release_id = release.download(_connect(settings), settings, folder)
    say(
        f"release {release_id} is in {folder}: dictionary.md says what the columns mean, LICENCES.md how to cite it"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text)
        one.add_argument("environment", help=" or ".join(ENVIRONMENTS))
        return one

    command("deploy", "deploy the stack")
    command("diff", "what a deployment would change")
    command("outputs", "names and addresses of what is deployed")
    command("variables", "the variables by which Airflow uses the stack")
    command("alert", "send a test message to whoever receives the alerts")
    command("failed", "the failed invocations of the functions").add_argument("--empty", action="store_true")
    command("airflow", "open the Airflow that runs in AWS").add_argument("--port", type=int, default=8080)
    one = command("release", "download the release that readers see")
    one.add_argument("--to", type=Path, default=Path("catalunya-release"))
    one = command("run", "run a command with the variables of the stack")
    one.add_argument("--role", default="", help="a role of the stack; by default the command has your own")
    one.add_argument("--mfa", default="", help="the ARN of your second factor; by default your first one")
    one.add_argument("--code", default="", help="what it shows; asked for by default")
    one.add_argument("words", nargs=argparse.REMAINDER, help="the command, after --")
    one = command("destroy", "take the stack down")
    one.add_argument("--confirm", default="", help="the name of the stack, in production")
    one.add_argument("--delete-lake", action="store_true", help="every snapshot and release too")
    one.add_argument("--delete-toolkit", action="store_true", help="what `cdk bootstrap` made too")
    return parser


def _perform(given: argparse.Namespace) -> int:
    settings = read(given.environment)
    match given.command:
        case "run":
            words = [word for position, word in enumerate(given.words) if position or word != "--"]
            return run.run(_connect(settings), settings, words, given.role, given.mfa, given.code)
        case "destroy":
            take_down(
                settings,
                confirm=given.confirm,
                delete_lake=given.delete_lake,
                delete_toolkit=given.delete_toolkit,
            )
        case "airflow":
            airflow(settings, given.port)
        case "release":
            download(settings, given.to)
        case "failed":
            failed(settings, empty=given.empty)
        case name:
            {"deploy": deploy, "diff": diff, "outputs": outputs, "variables": variables, "alert": alert}[
                name
            ](settings)
    return 0


def main() -> int:
    """Run the command that is named; returns 1 when it failed and 2 when a setting is wrong."""
    try:
        return _perform(_parser().parse_args())
    except SettingsError as error:
        say(str(error))
        return 2
    except (AccountError, CdkError, PackageError, ClientError, BotoCoreError) as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
