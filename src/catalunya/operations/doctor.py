"""Checks of the set-up that dbt and alerts need, each with what to do when it fails (docs/decisions/0009-doctor.md)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import duckdb
import yaml
from packaging.requirements import Requirement

from catalunya.errors import CatalunyaError
from catalunya.identity import assume_role
from catalunya.lake.local import LocalStorage
from catalunya.lake.opening import open_lake
from catalunya.operations import alerts
from catalunya.publication.signature import SecretKey, known_keys
from catalunya.settings import ENGINES, Settings
from catalunya.warehouse import dbt
from catalunya.warehouse.code import code_digest
from catalunya.warehouse.engines import open_engine

_EXTENSIONS = ("parquet", "json", "httpfs", "spatial")
_BUILT_IN = ("parquet", "json")
_HINT = "Correct the file, or take it from the repository"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check; `hint` says what to do. With a hint and `well` it is a warning."""

    what: str
    found: str
    hint: str = ""
    well: bool = True

    def __str__(self) -> str:
        return f"{self.what}: {self.found}" + (f". {self.hint}" if self.hint else "")


class _Wrong(Exception):
    """A check failed: what was found, and what to do."""

    def __init__(self, found: str, hint: str, *, well: bool = False) -> None:
        super().__init__(found)
        self.hint = hint
        self.well = well
        """True where it only warns."""


def examine(settings: Settings, *, deep: bool = False) -> list[CheckResult]:
    """Check versions, adapter, project, profile, connection, extensions and lake; `deep` starts dbt as well.

    A check that fails does not stop the others.
    """
    checks: dict[str, Callable[[Settings], str]] = {
        "dbt-core": lambda _: _supported("dbt-core"),
        "adapter": lambda settings: _supported(f"dbt-{settings.resolved_engine}"),
        "project": _project,
        "profile": _profile,
        **({"identity": _identity} if settings.roles else {}),
        "connection": _connection,
        "extensions": _extensions,
        "lake": _lake,
        "signature": _signature,
        "alerts": _alerts,
        **({"dbt parse": _parse} if deep else {}),
    }
    findings = []
    for what, check in checks.items():
        try:
            findings.append(CheckResult(what, check(settings)))
        except _Wrong as wrong:
            findings.append(CheckResult(what, str(wrong), wrong.hint, well=wrong.well))
    return findings


def _supported(package: str) -> str:
    """Return the installed version; raises `_Wrong` when it is missing or not one that this project was tested with."""
    declared = (Requirement(line) for line in requires("catalunya") or [])
    wanted = next((known for known in declared if known.name == package), Requirement(package))
    name = package.removeprefix("dbt-")
    how = f"uv sync --inexact --group {name}" if name in ENGINES and name != "duckdb" else "make setup"
    hint = f"Install it from the lock: `{how}` (wanted: {wanted})"
    try:
        found = version(package)
    except PackageNotFoundError:
        raise _Wrong(f"{package} is not installed", hint) from None
    if not wanted.specifier.contains(found, prereleases=True):
        raise _Wrong(f"{package} {found} is installed, wanted is {wanted}", hint)
    return f"{package} {found}"


def _dbt_project(settings: Settings) -> Path:
    return settings.home / "dbt" / "mart"


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise _Wrong(
            f"{path} is missing",
            "Set CATALUNYA_HOME to a checkout: it holds `datasets/`, `dbt/mart/` and `orchestration/dbt/`",
        )
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise _Wrong(f"{path} is no YAML: {error}", _HINT) from None
    if not isinstance(content, dict):
        raise _Wrong(f"{path} holds no mapping", _HINT)
    return content


def _project(settings: Settings) -> str:
    path = _dbt_project(settings) / "dbt_project.yml"
    content = _read_yaml(path)
    missing = [key for key in ("name", "profile", "model-paths") if key not in content]
    if missing:
        raise _Wrong(f"{path} lacks `{missing[0]}`", _HINT)
    return f"{content['name']} in {path.parent}"


def _profile(settings: Settings) -> str:
    wanted = str(_read_yaml(_dbt_project(settings) / "dbt_project.yml").get("profile"))
    path = dbt.profiles_folder(_dbt_project(settings)) / "profiles.yml"
    profile = _read_yaml(path).get(wanted)
    if not isinstance(profile, dict):
        raise _Wrong(f"{path} has no profile {wanted!r}, which the project names", _HINT)
    engine, outputs = settings.resolved_engine, profile.get("outputs", {})
    if engine not in outputs:
        raise _Wrong(
            f"profile {wanted!r} has no target {engine!r} (it has: {', '.join(outputs) or 'none'})",
            "Set CATALUNYA_ENGINE to one of them, or add the target",
        )
    return f"{wanted}, target {engine}"


def _identity(settings: Settings) -> str:
    """Assume the role that builds, as the task `check_dbt_connection` does."""
    try:
        with assume_role("build", settings):
            return f"{settings.roles}build"
    except CatalunyaError as error:
        raise _Wrong(str(error), "`catalunya doctor --aws` tries every role") from None


def _connection(settings: Settings) -> str:
    if settings.resolved_engine != "duckdb":
        try:
            with assume_role("build", settings):
                return open_engine(open_lake(settings.lake), settings).check()
        except CatalunyaError as error:
            raise _Wrong(str(error), "See the settings of the engine in docs/configuration.md") from None
    with tempfile.TemporaryDirectory() as folder:
        try:
            with duckdb.connect(Path(folder) / "probe.duckdb") as con:
                con.execute("create table probe as select 42 as answer")
                con.execute("checkpoint")
        except duckdb.Error as error:
            raise _Wrong(
                f"DuckDB cannot write to {folder}: {error}", "Free some disk, or set TMPDIR"
            ) from None
    return f"DuckDB {duckdb.__version__} opens, writes and closes a file"


def _extensions(_: Settings) -> str:
    """Load DuckDB's extensions. Parquet and JSON must load, the others where their package is installed."""
    found = []
    with duckdb.connect() as con:
        for name in _EXTENSIONS:
            try:
                if name not in _BUILT_IN:
                    version(f"duckdb-extension-{name}")
                    from duckdb_extensions import import_extension

                    import_extension(name, con=con)
                con.execute(f"load {name}")
                found.append(name)
            except ImportError:
                found.append(f"{name} is not installed (optional)")
            except (duckdb.Error, ValueError, OSError) as error:
                raise _Wrong(
                    f"{name} does not load: {error}",
                    f"Its package must be of DuckDB's version, {duckdb.__version__}: `make setup`",
                ) from None
    return ", ".join(found)


def _lake(settings: Settings) -> str:
    try:
        with assume_role("build", settings):
            storage = open_lake(settings.lake)
            if isinstance(storage, LocalStorage):
                storage.prepare()
            storage.scratch()
    except (CatalunyaError, OSError) as error:
        raise _Wrong(
            str(error), "Set CATALUNYA_LAKE to a folder or bucket that this process may write to"
        ) from None
    return storage.url


def _signature(settings: Settings) -> str:
    how = "Make a key with `catalunya key new`, and set CATALUNYA_SIGNING_KEY or CATALUNYA_SIGNING_KEY_FILE"
    try:
        known_keys(settings.public_keys, settings.signing_key)
    except CatalunyaError as error:
        raise _Wrong(str(error), "Correct the variable") from None
    if settings.signing_key is not None:
        return f"releases are signed by the key {SecretKey.parse(settings.signing_key, '').public.name}"
    if settings.require_signature:
        raise _Wrong("CATALUNYA_REQUIRE_SIGNATURE is set, and there is no key to sign with", how)
    if settings.environment == "production":
        raise _Wrong("releases are not signed", how, well=True)
    return "releases are not signed, which only production needs"


def _alerts(settings: Settings) -> str:
    known = alerts.channels(settings.alert_addresses)
    if not known:
        return "nobody is told when a run fails, as CATALUNYA_NOTIFY_URLS is empty"
    # Never the address itself: it may hold a password.
    unknown = [str(number) for number, channel in enumerate(known.values(), 1) if channel is None]
    if unknown:
        raise _Wrong(
            f"CATALUNYA_NOTIFY_URLS: {len(unknown)} of {len(known)} addresses cannot be used: number {', '.join(unknown)}",
            "Write each as https://github.com/caronc/apprise/wiki has it for its service",
        )
    return f"{len(known)} address{'es' if len(known) > 1 else ''}; whether messages arrive is not tried"


def _parse(settings: Settings) -> str:
    try:
        parsed = dbt.parse(_dbt_project(settings), code_digest(settings.home))
    except CatalunyaError as error:
        raise _Wrong(str(error), "Correct the model or YAML that dbt names") from None
    return f"{len(dbt.marts(parsed.described))} marts"
