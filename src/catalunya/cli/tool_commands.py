"""The commands about the project itself: set-up, engines, dataset definitions, the demo portal.

What a command needs is imported when it runs: the help and the other commands do not wait for it.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from catalunya.cli.console import print_line, reporter
from catalunya.cli.output import Json, Port, err, print_answer, print_json
from catalunya.errors import UsageError

app = typer.Typer()
datasets_app = typer.Typer(no_args_is_help=True, help="The dataset definitions.")
demo_app = typer.Typer(no_args_is_help=True, help="The offline demo portal.")


@app.command()
def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="Start dbt and parse the project, too.")] = False,
    aws: Annotated[
        bool, typer.Option("--aws", help="Try on AWS what each role of the stack has to do, instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find what is wrong with the set-up that dbt and alerts need, and say how to correct it."""
    from catalunya.settings import Settings

    settings = Settings.load()
    if aws:
        from catalunya.operations.doctor_aws import examine_aws

        findings = examine_aws(settings)
    else:
        from catalunya.operations.doctor import examine

        findings = examine(settings, deep=deep)
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    for finding in findings:
        well = "[yellow]warn[/]  " if finding.hint else "[green]well[/]  "
        err.print(well if finding.well else "[bold red]wrong[/] ", end="")
        print_line(err, str(finding))
    if not all(finding.well for finding in findings):
        raise typer.Exit(UsageError.exit_code)


@app.command()
def parity(
    engines: Annotated[
        str, typer.Option(help="Engines to compare with the first of them, comma-separated.")
    ] = "duckdb,trino,athena",
    as_json: Json = False,
) -> None:
    """Build every mart from the staged snapshots on each engine and compare them row for row."""
    from catalunya.cli.context import CommandContext
    from catalunya.operations import parity as comparison

    names = comparison.parse_engines(engines)
    context = CommandContext()
    with context.lock(), reporter(err) as progress:
        progress.begin("parity")
        found = comparison.parity(
            context.storage,
            context.datasets,
            context.settings,
            names,
            now=context.now,
            on_step=lambda line: progress.step("parity", line),
        )
    lines = [str(difference) for difference in found.differences]
    lines += [f"{table}: {count} differences" for table, count in found.different.items()]
    marts = found.built[0].rows
    equal = f"{', '.join(names)} agree on {sum(marts.values())} rows of {len(marts)} marts"
    status = "different" if found.different else "equal"
    answer = {"status": status, **found.model_dump(mode="json")}
    print_answer(as_json, answer, "\n".join(lines) or equal)
    if found.different:
        raise typer.Exit(1)


@datasets_app.command("check")
def datasets_check(as_json: Json = False) -> None:
    """Find every mistake in the definitions, with file, line and how to correct it."""
    from catalunya.datasets import loader
    from catalunya.settings import Settings

    folder = Settings.load().home / "datasets"
    good, mistakes = loader.check(folder)
    if as_json:
        found = [{"file": str(m.file), "line": m.line, "message": m.message} for m in mistakes]
        print_json({"datasets": [d.id for d in good], "mistakes": found})
    for mistake in mistakes:
        print_line(err, str(mistake))
    if mistakes:
        print_line(err, f"{len(mistakes)} mistakes in {folder}")
        raise typer.Exit(UsageError.exit_code)
    print_line(err, f"{len(good)} definitions are right: {', '.join(d.id for d in good)}")


@datasets_app.command("generate")
def datasets_generate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail when a file is stale.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the files that are made from the definitions: dbt sources, dictionary, attribution."""
    from catalunya.datasets import generate, loader
    from catalunya.settings import Settings

    home = Settings.load().home
    wanted = generate.generated_files(home, loader.load(home / "datasets"))
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    names = [path.relative_to(home).as_posix() for path in stale]
    if not check:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], "utf-8")
    verb = "stale" if check else "written"
    print_answer(as_json, {"stale": names}, f"{verb}: {', '.join(names) or 'nothing'}")
    if check and stale:
        raise typer.Exit(1)


@demo_app.command("serve")
def demo_serve(
    port: Port = 8081,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    day: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="State of the demo register on this day.")
    ] = None,
    files: Annotated[
        Path | None, typer.Option("--from", help="Serve the real files of this folder instead.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Make a register of so many rows, for benchmarks.")
    ] = None,
    fault: Annotated[
        list[str] | None, typer.Option(help="Inject a fault, NAME[=VALUE]; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve the demo portal: Socrata, Idescat and ICGC on one loopback port."""
    from catalunya.demo import server
    from catalunya.settings import PORTAL_VARIABLES, Settings

    def announce(base: str) -> None:
        variables = " ".join(f"{name}={base}" for name in PORTAL_VARIABLES)
        text = f"demo portal at {base}; point the pipeline at it with\n  {variables}"
        print_answer(as_json, {"url": base}, text)

    moment = day or Settings.load().now_override
    server.serve(
        host=host,
        port=port,
        day=moment.date() if moment else None,
        files=files,
        faults=fault or [],
        rows=rows,
        on_listening=announce,
    )
