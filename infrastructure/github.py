"""The account's trust in GitHub, which the deployment roles of all environments share.

An account has one provider for GitHub at most. It has a stack of its own, so that it stays when the stack of an environment
is destroyed; where the account knows GitHub already, this stack is not deployed.
"""

from __future__ import annotations

from typing import Any

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from infrastructure.parameters import GITHUB


class GithubStack(Stack):
    """GitHub's OIDC provider."""

    def __init__(self, scope: Construct, name: str, **kwargs: Any) -> None:
        super().__init__(scope, name, termination_protection=True, **kwargs)
        iam.CfnOIDCProvider(self, "Github", url=f"https://{GITHUB}", client_id_list=["sts.amazonaws.com"])
