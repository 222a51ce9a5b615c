"""The commands of the public site.

What a command needs is imported when it runs: the help and the other commands do not wait for it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalunya.address import is_loopback_url, origin
from catalunya.cli.console import reporter
from catalunya.cli.output import Json, err, print_answer
from catalunya.errors import UsageError

if TYPE_CHECKING:
    from catalunya.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The public site of a release.")

Folder = Annotated[
    Path | None, typer.Option("--to", help="Folder of the site; `site` in a local lake by default.")
]


@app.command("build")
def build_command(
    release: Annotated[str | None, typer.Option(help="Release; the one that readers see by default.")] = None,
    to: Folder = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="Origin at which the site is served, such as https://data.example.cat; CATALUNYA_SITE_URL."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the site of a release: static files, in Catalan, Spanish and English."""
    from catalunya.cli.context import CommandContext
    from catalunya.operations.query import find_release
    from catalunya.site.build import build_site
    from catalunya.site.publisher import Publisher

    context = CommandContext()
    target = _target(to, context.settings)
    served_at = _origin(url) if url else context.settings.site_url
    found = find_release(context.storage, release)
    began = time.monotonic()
    with reporter(err) as shown:
        shown.begin("site")
        built = build_site(
            context.storage,
            context.datasets,
            found,
            target,
            served_at,
            Publisher.of(context.settings),
            home=context.settings.home,
            reporter=shown,
        )
        seconds = time.monotonic() - began
        shown.end("site", "built", seconds)
    answer = {
        "status": "built",
        "release_id": found.release_id,
        "url": served_at,
        "folder": str(built.folder),
        "pages": built.pages,
        "pages_written": built.pages - built.unchanged,
        "pages_unchanged": built.unchanged,
        "bytes": built.bytes,
        "seconds": round(seconds, 1),
    }
    text = (
        f"{built.pages:,} pages, {built.pages - built.unchanged:,} written and {built.unchanged:,} unchanged, "
        f"{built.bytes / 1e6:.0f} MB in {seconds:.1f} s: {built.folder}\n"
        "look at it with `catalunya site serve`"
    )
    if is_loopback_url(served_at):
        text += f"\nwhole addresses in it begin with {served_at}; to publish it, name its address with --url"
    print_answer(as_json, answer, text)


@app.command("serve")
def serve_command(
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 8081,
    to: Folder = None,
    as_json: Json = False,
) -> None:
    """Show the site on loopback until interrupted."""
    from catalunya.settings import Settings
    from catalunya.site.serve import serve_site

    target = _target(to, Settings.load())
    url = f"http://127.0.0.1:{port}/"
    print_answer(as_json, {"status": "serving", "url": url}, f"the site is at {url}")
    serve_site(target, port)


def _origin(url: str) -> str:
    try:
        return origin(url)
    except ValueError as error:
        raise UsageError(f"--url: {error}") from None


def _target(to: Path | None, settings: Settings) -> Path:
    if to is not None:
        return to
    if "://" in settings.lake:
        raise UsageError("the lake is no local folder: name the folder of the site with --to")
    return Path(settings.lake) / "site"
