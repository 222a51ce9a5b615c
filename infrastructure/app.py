"""The CDK app: the stacks `catalunya-development` and `catalunya-production`, from the settings file of each.

    .venv/bin/python -m infrastructure.app production     # the template into .artefacts/cdk, without an account

`infrastructure.deploy` runs it by the CDK's command line.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from aws_cdk import App, Validations
from cdk_nag import AwsSolutionsChecks

from infrastructure.github import GithubStack
from infrastructure.package import ROOT
from infrastructure.parameters import ENVIRONMENTS, GITHUB_STACK, Parameters, SettingsError, read
from infrastructure.stack import CatalunyaStack

_FLAGS = {
    # The policy of the bucket allows access logs; without the flag an ACL would, which private buckets do not have.
    "@aws-cdk/aws-s3:serverAccessLogsUseBucketPolicy": True,
}
OUTPUT = ROOT / ".artefacts" / "cdk"


def build(outdir: Path, *settings: Parameters) -> App:
    """Return the app with the stacks of `settings` and the checks of cdk-nag's AwsSolutions, not synthesised yet."""
    app = App(outdir=str(outdir), context=_FLAGS)
    for one in settings:
        CatalunyaStack(app, one.prefix, one)
    if any(one.github_repository for one in settings):
        GithubStack(app, GITHUB_STACK)
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    return app


def main() -> int:
    """Synthesise the stacks of the environments that are named, by default all; returns 2 when a setting is wrong.

    The CDK's command line says which account it deploys to.
    """
    account = os.environ.get("CDK_DEFAULT_ACCOUNT")
    known = {"account": account} if account else {}
    try:
        settings = [
            read(environment).model_copy(update=known) for environment in sys.argv[1:] or ENVIRONMENTS
        ]
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    build(Path(os.environ.get("CDK_OUTDIR", OUTPUT)), *settings).synth()
    return 0


if __name__ == "__main__":
    sys.exit(main())
