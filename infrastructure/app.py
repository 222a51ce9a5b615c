"""The CDK app: `catalunya-development` and `catalunya-production`, in whatever account it is deployed to.

.venv/bin/python -m infrastructure.app        # templates into .artefacts/cdk, without an account or a network
cd infrastructure && npx cdk deploy catalunya-production -c alert_email=you@example.org
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from aws_cdk import App, Validations
from cdk_nag import AwsSolutionsChecks

from infrastructure.github import GithubStack
from infrastructure.package import ROOT
from infrastructure.parameters import parameters
from infrastructure.stack import CatalunyaStack

_FLAGS = {
    # The policy of the bucket allows access logs; without the flag an ACL would, which private buckets do not have.
    "@aws-cdk/aws-s3:serverAccessLogsUseBucketPolicy": True,
}
ENVIRONMENTS = ("development", "production")


def build(outdir: Path | None = None, context: dict[str, Any] | None = None) -> App:
    """Return the app with the stacks and the checks of cdk-nag's AwsSolutions, not synthesised yet.

    `environment` in the context chooses one environment; without it there is a stack for each.
    """
    app = App(outdir=str(outdir) if outdir else None, context={**_FLAGS, **(context or {})})
    chosen = app.node.try_get_context("environment")
    all_settings = [
        parameters(environment, app.node.try_get_context)
        for environment in ([chosen] if chosen else ENVIRONMENTS)
    ]
    for settings in all_settings:
        CatalunyaStack(app, settings.prefix, settings)
    if any(settings.github_repository for settings in all_settings):
        GithubStack(app, "catalunya-github")
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    return app


if __name__ == "__main__":
    outdir = os.environ.get("CDK_OUTDIR")
    build(Path(outdir) if outdir else ROOT / ".artefacts" / "cdk").synth()
