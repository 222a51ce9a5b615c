"""The command `catalunya`: text for people goes to standard error, the JSON object of `--json` to standard output."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import traceback
import unicodedata
from typing import Annotated

import typer
from typer._click.exceptions import ClickException

from catalunya import __version__, log, signals
from catalunya.cli import (
    integrity_commands,
    lake_commands,
    metrics_commands,
    query_commands,
    run_commands,
    site_commands,
    tool_commands,
)
from catalunya.cli.console import print_line
from catalunya.cli.output import err, is_answered, print_json, reserve_stdout, set_answered
from catalunya.errors import CatalunyaError, UsageError
from catalunya.signals import Stopped

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for commands in (
    run_commands,
    query_commands,
    lake_commands,
    integrity_commands,
    metrics_commands,
    tool_commands,
):
    app.add_typer(commands.app)
app.add_typer(integrity_commands.lake_app, name="lake")
app.add_typer(integrity_commands.key_app, name="key")
app.add_typer(site_commands.app, name="site")
app.add_typer(tool_commands.datasets_app, name="datasets")
app.add_typer(tool_commands.demo_app, name="demo")


def main() -> None:
    """Run the command and exit with its code, after one clear message and, with `--json`, one JSON object."""
    log.configure_by(_log_to_stderr)
    signals.listen()
    arguments = sys.argv[1:]
    if "--json" in arguments:
        reserve_stdout()
    code = _run(arguments)
    if signals.stopped():
        # A thread that sleeps before it repeats a request would hold the end of the interpreter.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """Run the command; returns its exit code, whatever happens."""
    set_answered(False)
    code: object
    try:
        _reject_empty(arguments)
        with signals.restored():
            code = typer.main.get_command(app).main(arguments, standalone_mode=False)
        if code == Stopped(signal.SIGINT).exit_code and not is_answered():
            # Typer returns this for every KeyboardInterrupt, `Stopped` too.
            signals.check()
    except CatalunyaError as error:
        return _fail(arguments, str(error), error.exit_code)
    except ClickException as error:
        error.show()
        return _fail(arguments, error.format_message(), error.exit_code, printed=True)
    except (typer.Abort, KeyboardInterrupt):
        stopped = signals.stopped() or Stopped(signal.SIGINT)
        return _fail(arguments, str(stopped), stopped.exit_code)
    except SystemExit as done:
        # Whoever read the help, as `head`, has read enough of it.
        code = 0 if isinstance(done.__context__, BrokenPipeError) else done.code
        if code not in (0, None):
            number = code if isinstance(code, int) else 1
            return _fail(arguments, f"a library ended the command: {code}", number)
    except Exception as error:  # noqa: BLE001
        traceback.print_exception(error)
        return _fail(arguments, f"{type(error).__name__}: {error}", 1)
    return code if isinstance(code, int) else 0


def _fail(arguments: list[str], message: str, code: int, *, printed: bool = False) -> int:
    """Print a message for people unless it is `printed`, and one JSON object for programs; returns the code."""
    if "--json" in arguments and not is_answered():
        print_json({"status": "failed", "message": message, "exit_code": code})
    if log.is_json():
        log.get_logger(__name__).error(message, exit_code=code)
    elif not printed:
        err.print("[bold red]error[/] ", end="")
        print_line(err, message)
    return code


def _reject_empty(arguments: list[str]) -> None:
    """Raise `UsageError` for an empty argument: it comes from a variable that is not set, and no command needs one."""
    for number, argument in enumerate(_visible(argument) for argument in arguments):
        option = re.fullmatch(r"(--?[A-Za-z][\w-]*)=", argument)
        if argument and not option:
            continue
        before = arguments[number - 1] if number else ""
        name = option[1] if option else before if before.startswith("-") else f"argument {number + 1}"
        raise UsageError(
            f"{name} is empty; give a value, or leave it out (an unset variable of the shell gives an empty one)"
        )


def _visible(text: str) -> str:
    """Return `text` without spaces, controls and other characters that cannot be seen."""
    return "".join(character for character in text if unicodedata.category(character)[0] not in "CZ")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"catalunya {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Open data on care for older people in Catalonia: from the portals to a published release.

    Text for people goes to standard error, the JSON object of --json to standard output.
    """


def _log_to_stderr() -> None:
    """Log on standard error: warnings for people, who see the rest in progress and tables; every event as JSON."""
    import structlog

    if not log.is_json():
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )
        return
    structlog.configure(
        processors=[
            log.add_bound,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    main()
