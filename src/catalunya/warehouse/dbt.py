"""dbt in this process: how it is called, and its results as plain data."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import io
import os
import pickle
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from catalunya import signals
from catalunya.errors import BuildFailed
from catalunya.log import get_logger

log = get_logger(__name__)

EXAMPLES = 3
PARSES_KEPT = 12
LATE = (
    "babel.dates", "daff", "dbt.compilation", "dbt.runners", "dbt.task.build", "dbt.task.test",
    "multiprocessing.dummy", "numpy", "sqlparse.cli",
)  # fmt: skip
"""Modules that dbt and DuckDB import only when they use them."""
VALID_COLUMNS = "valid_columns"
"""The generic test of several rules, whose rows say in the column `rule` which of them they break."""
_IMPORTING = threading.Lock()
CANDIDATE = "candidate.duckdb"
"""The name of every candidate's file: dbt names the DuckDB catalogue after it."""


@dataclass(frozen=True)
class NodeResult:
    """Result of one dbt node: a model, seed or test."""

    node_id: str
    name: str
    kind: str
    status: str
    seconds: float
    message: str
    failures: int
    sources: tuple[str, ...]
    """Datasets that the node depends on, however far upstream."""
    examples: tuple[str, ...]
    """The first rows that break a test, as `column=value` pairs."""
    relation: str = ""
    """`schema.table` of a model or seed."""
    parents: tuple[str, ...] = ()
    """`schema.table` of what it reads directly."""
    began_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True)
class MartColumn:
    """A column of a mart as its YAML describes it."""

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class Mart:
    """A published table: its description (which states the grain) and columns."""

    name: str
    description: str
    columns: tuple[MartColumn, ...]


@dataclass(frozen=True)
class Outcome:
    """The results of one dbt command in the order of their end, and the marts of the project."""

    results: tuple[NodeResult, ...]
    marts: tuple[Mart, ...]


@dataclass(frozen=True)
class Target:
    """Where dbt builds: an output of the profile, and the variables that the profile reads."""

    name: str
    variables: tuple[tuple[str, str], ...]
    parsed_with: tuple[tuple[str, str], ...]
    """The variables that the parsed project depends on: targets with equal ones and an equal name share it."""


DUCKDB = Target("duckdb", (("CATALUNYA_CANDIDATE", CANDIDATE),), (("CATALUNYA_CANDIDATE", CANDIDATE),))

Sample = Callable[[str, int], tuple[str, ...]]
"""Returns the first so many rows of a query, in order, as `column=value` pairs."""


@dataclass(frozen=True)
class _Project:
    """A parsed project: dbt's own object, and the content of its `manifest.json`."""

    manifest: Any
    described: dict[str, Any]

    def dumps(self) -> bytes:
        """Return it as bytes, field by field: dbt's own pickle of a manifest leaves one out and shifts those behind it."""
        state = {name: value for name, value in vars(self.manifest).items() if not name.startswith("_")}
        return pickle.dumps((state, self.described), pickle.HIGHEST_PROTOCOL)

    @classmethod
    def loads(cls, kept: bytes) -> _Project:
        """Return what `dumps` was called on, without what dbt derives from it when it is asked for."""
        from dbt.contracts.graph.manifest import Manifest

        state, described = pickle.loads(kept)  # noqa: S301 (the user's own cache, as compiled modules are)
        manifest = Manifest()
        vars(manifest).update(state)
        return cls(manifest, described)


def invoke(
    command: list[str],
    *,
    project: Path,
    digest: str,
    target: Target,
    sample: Sample,
    on_node: Callable[[str], None] | None = None,
) -> Outcome:
    """Run a dbt command on a candidate and return the result of every node, of those that failed too.

    Args:
        command: the command and its options.
        project: the folder of the dbt project.
        digest: names the state of the project; a process parses each state once.
        target: where dbt builds.
        sample: returns example rows of a test that failed.
        on_node: is called with a line about every node that ends.

    Raises:
        BuildFailed: dbt itself could not run.
    """

    def on_event(event: Any) -> None:
        if on_node is not None and event.info.name in {"LogModelResult", "LogSeedResult", "LogTestResult"}:
            node = event.data.node_info
            seconds = event.data.execution_time
            on_node(f"{node.resource_type} {node.node_name}: {event.data.status} in {seconds:.2f} s")

    parsed = parse(project, digest, target)
    with tempfile.TemporaryDirectory(prefix="catalunya-dbt-") as work, _connected(target):
        # The results are in memory; dbt would write the whole project to a file with every command.
        command = [*command, "--no-write-json"]
        result = _call(command, project, Path(work), target.name, manifest=parsed.manifest, callback=on_event)
    return _outcome(result, parsed.described, sample)


def document(*, project: Path, digest: str, target: Target, folder: Path) -> None:
    """Write the documentation of a candidate into `folder`: `static_index.html`, `manifest.json` and `catalog.json`."""
    parsed = parse(project, digest, target)
    with _connected(target):
        command = ["docs", "generate", "--static"]
        _call(command, project, folder.parent, target.name, manifest=parsed.manifest)


def profiles_folder(project: Path) -> Path:
    """Return the folder of `profiles.yml`: `orchestration/dbt/`, in the home that holds the project as `dbt/mart/`."""
    return project.parents[1] / "orchestration" / "dbt"


@contextlib.contextmanager
def _connected(target: Target) -> Iterator[None]:
    """Set the target's variables in the environment; on leaving, close DuckDB's file."""
    try:
        with _environment(**dict(target.variables)):
            yield
    finally:
        if target.name == DUCKDB.name:
            from dbt.adapters.duckdb.connections import DuckDBConnectionManager

            DuckDBConnectionManager.close_all_connections()


def warm_up(project: Path, digest: str) -> None:
    """Parse the project and import what the commands need, for a process that forks those who run them."""
    _import()
    parse(project, digest)


def import_in_background() -> None:
    """Import dbt in a thread, for a run that will need it once its sources are read."""
    threading.Thread(target=_import, name="import of dbt").start()


def parse(project: Path, digest: str, target: Target = DUCKDB) -> _Project:
    """Return the parsed project. What was parsed is kept in the user's cache, which saves seconds."""
    return _parsed(project, digest, target.name, target.parsed_with)


def _import() -> None:
    names = ("dbt.cli.main", *LATE)
    with _IMPORTING:
        if all(name in sys.modules for name in names):
            return
        # The objects of an import stay: to look for garbage among hundreds of thousands takes a tenth of its time.
        gc.disable()
        try:
            for name in names:
                importlib.import_module(name)
            gc.freeze()
        finally:
            gc.enable()


@lru_cache(maxsize=3)
def _parsed(project: Path, digest: str, target: str, variables: tuple[tuple[str, str], ...]) -> _Project:
    _import()
    file = _file_of_parse(project, digest, target, variables)
    return _kept(file) or _parse(project, target, variables, file)


def _parse(project: Path, target: str, variables: tuple[tuple[str, str], ...], file: Path) -> _Project:
    """Parse the project by dbt; its state of the last parse saves it the files that did not change."""
    with tempfile.TemporaryDirectory(prefix="catalunya-dbt-") as work:
        state = Path(work, "target", "partial_parse.msgpack")
        state.parent.mkdir()
        kept_state = file.with_name(f"{file.name.rpartition('-')[0]}.msgpack")
        with contextlib.suppress(OSError):
            shutil.copyfile(kept_state, state)
        with _environment(**dict(variables)):
            manifest = _call(["parse"], project, Path(work), target)
        found = _Project(manifest, msgspec.json.decode(Path(work, "target", "manifest.json").read_bytes()))
        with contextlib.suppress(OSError):
            _keep(kept_state, state.read_bytes())
            _keep(file, found.dumps())
    return found


def _file_of_parse(project: Path, digest: str, target: str, variables: tuple[tuple[str, str], ...]) -> Path:
    """The file that keeps a parse. A parse depends on the project's folder too, which dbt writes into it."""
    versions = [version(name) for name in ("dbt-core", f"dbt-{target}")]
    state = hashlib.sha256(repr((digest, variables, versions, sys.version)).encode()).hexdigest()[:16]
    folder = hashlib.sha256(str(project.resolve()).encode()).hexdigest()[:12]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "catalunya", f"parse-{target}-{folder}-{state}")


def _kept(file: Path) -> _Project | None:
    """A parse that was kept; None without one, or when it cannot be read."""
    try:
        return _Project.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 (damaged or of other versions: it is parsed again)
        log.warning("kept parse ignored", file=str(file), reason=f"{type(error).__name__}: {error}")
        return None


def _keep(file: Path, content: bytes) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.{os.getpid()}")
    new.write_bytes(content)
    new.replace(file)
    kept = sorted(file.parent.glob("parse-*"), key=lambda path: path.stat().st_mtime)
    for old in kept[:-PARSES_KEPT]:
        old.unlink(missing_ok=True)


def _call(
    command: list[str],
    project: Path,
    work: Path,
    target: str,
    *,
    manifest: Any = None,
    callback: Callable[[Any], None] | None = None,
) -> Any:
    arguments = [
        *command,
        "--project-dir", str(project),
        "--profiles-dir", str(profiles_folder(project)),
        "--target", target,
        "--target-path", str(work / "target"),
        "--log-path", str(work / "logs"),
        "--log-level", "none",
        "--log-level-file", "none",
        "--quiet",
        "--no-use-colors",
        "--no-version-check",
        # Its threads do not survive a fork: a child process would wait for them for ever.
        "--no-static-parser",
    ]  # fmt: skip
    _import()
    with contextlib.redirect_stdout(io.StringIO()):
        from dbt.cli.main import dbtRunner

        answer = dbtRunner(manifest=manifest, callbacks=[callback] if callback else []).invoke(arguments)
    signals.check()
    if answer.result is None:
        is_disk = isinstance(answer.exception, OSError)
        hint = "; check the disk and its free space, then run again" if is_disk else ""
        raise BuildFailed(f"dbt {command[0]} could not run on {project}: {answer.exception}{hint}")
    return answer.result


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _outcome(result: Any, described: dict[str, Any], sample: Sample) -> Outcome:
    found: list[NodeResult] = []
    for ended in result.results:
        whole = _result(ended, described)
        if whole.status not in {"warn", "fail"} or not ended.node.compiled_code:
            found.append(whole)
        elif _test_metadata(ended.node.to_dict()).get("name") == VALID_COLUMNS:
            found += _broken_rules(whole, ended.node.compiled_code, sample)
        else:
            found.append(replace(whole, examples=sample(ended.node.compiled_code, EXAMPLES)))
    return Outcome(tuple(found), marts(described))


def _result(ended: Any, described: dict[str, Any]) -> NodeResult:
    node_id, parents = ended.node.unique_id, described["parent_map"]
    return NodeResult(
        node_id=node_id,
        name=ended.node.name,
        kind=str(ended.node.resource_type),
        status=str(ended.status),
        seconds=round(float(ended.execution_time), 3),
        message=str(ended.message or ""),
        failures=int(ended.failures or 0),
        sources=_sources(node_id, parents),
        examples=(),
        relation=_relation(described, node_id),
        parents=tuple(_relation(described, parent) for parent in sorted(parents[node_id])),
        began_at=ended.timing[0].started_at if ended.timing else None,
        ended_at=ended.timing[-1].completed_at if ended.timing else None,
    )


def _broken_rules(test: NodeResult, query: str, sample: Sample) -> Iterator[NodeResult]:
    """A result per rule of `valid_columns` that some row breaks: each is named, judged and accepted for itself."""
    for row in sample(
        f"select rule, count(*) as failures from ({query}) as broken group by rule", test.failures
    ):
        rule, _, failures = row.removeprefix("rule=").rpartition(", failures=")
        broken = f"select * from ({query}) as broken where rule = '{rule}'"
        yield replace(
            test,
            node_id=f"{test.node_id} {rule}",
            name=f"{test.name} ({rule})",
            failures=int(failures),
            examples=sample(broken, EXAMPLES),
        )


def _relation(described: dict[str, Any], node_id: str) -> str:
    """`schema.table` as the project names it; an engine may name the schema differently."""
    found = described["nodes"].get(node_id) or described["sources"].get(node_id) or {}
    if not found.get("relation_name"):
        return ""
    return f"{found.get('source_name') or found['config'].get('schema') or found['schema']}.{found['name']}"


def pairs(names: list[str], rows: Iterable[Iterable[Any]]) -> tuple[str, ...]:
    """Return rows as `column=value` pairs, without the nulls."""
    return tuple(
        ", ".join(f"{name}={value}" for name, value in zip(names, row, strict=True) if value is not None)
        for row in rows
    )


def marts(manifest: dict[str, Any]) -> tuple[Mart, ...]:
    """Return the published tables of a dbt manifest, by name."""
    found = [
        Mart(
            name=node["name"],
            description=node["description"].strip(),
            columns=tuple(
                MartColumn(c["name"], c.get("data_type") or "", c["description"].strip())
                for c in node["columns"].values()
            ),
        )
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["config"].get("schema") == "marts"
    ]
    return tuple(sorted(found, key=lambda mart: mart.name))


def _test_metadata(node: dict[str, Any]) -> dict[str, Any]:
    return node.get("test_metadata") or {}


def keys(manifest: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Model or seed to the columns that its test `unique_combination_of_columns` declares for its key."""
    found: dict[str, tuple[str, ...]] = {}
    for node in manifest["nodes"].values():
        test = _test_metadata(node)
        if test.get("name") == "unique_combination_of_columns" and node.get("attached_node"):
            found[node["attached_node"].rsplit(".", 1)[-1]] = tuple(test["kwargs"]["combination_of_columns"])
    return found


def _sources(node_id: str, parents: dict[str, list[str]]) -> tuple[str, ...]:
    """The names of the sources upstream of a node."""
    found: set[str] = set()
    to_visit = [node_id]
    while to_visit:
        new = set(parents.get(to_visit.pop(), [])) - found
        found |= new
        to_visit += new
    return tuple(sorted(name.rsplit(".", 1)[-1] for name in found if name.startswith("source.")))
