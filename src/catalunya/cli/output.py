"""Where a command answers: text for people on standard error, with `--json` one object on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console

from catalunya.cli.console import print_line
from catalunya.errors import CatalunyaError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]

Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")]

err = Console(stderr=True, emoji=False, width=None if sys.stderr.isatty() else 132)
_stdout: list[TextIO] = []
"""Standard output, while it is reserved."""
_printed: list[bool] = []
"""Not empty once the JSON object was printed."""


def reserve_stdout() -> None:
    """Keep standard output for the one JSON object: what a library prints goes to standard error."""
    _stdout.append(sys.stdout)
    sys.stdout = sys.stderr


@contextmanager
def standard_output() -> Iterator[TextIO]:
    """Give standard output, and flush it at the end; raises `CatalunyaError` when it cannot be written.

    When its reader has read enough, as `head` has, the rest is dropped without an error.
    """
    stream = _stdout[-1] if _stdout else sys.stdout
    try:
        yield stream
        stream.flush()
    except OSError as error:
        # The interpreter flushes what is left once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            raise CatalunyaError(
                f"the answer cannot be written to standard output: {error.strerror}; what the command did is done"
            ) from error


def is_answered() -> bool:
    """Return True when the command has answered."""
    return bool(_printed)


def set_answered(answered: bool) -> None:
    """Record whether the command has answered: an error that follows prints no second JSON object."""
    _printed[:] = [True] if answered else []


def print_json(content: dict[str, Any]) -> None:
    """Print the JSON object of the command."""
    set_answered(True)
    with standard_output() as stream:
        stream.write(json.dumps(content, ensure_ascii=False) + "\n")


def print_text(text: str) -> None:
    """Print text for programs on standard output."""
    set_answered(True)
    with standard_output() as stream:
        stream.write(text)


def print_answer(as_json: bool, content: dict[str, Any], text: str) -> None:
    """Print `text` for people, and with `as_json` the object for programs."""
    if as_json:
        print_json(content)
    print_line(err, text)
