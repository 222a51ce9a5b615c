"""The commands of the public site.

What a command needs is imported when it runs: the help and the other commands do not wait for it.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from catalunya.address import is_loopback_url, origin
from catalunya.cli.console import reporter
from catalunya.cli.output import Json, Port, err, print_answer
from catalunya.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="The public site of a release.")

To = Annotated[
    str | None,
    typer.Option(
        "--to",
        help="Folder of the site, or s3://bucket; by default CATALUNYA_SITE, else `site` in a local lake.",
    ),
]


@app.command("build")
def build_command(
    release: Annotated[str | None, typer.Option(help="Release; the one that readers see by default.")] = None,
    to: To = None,
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
    from catalunya.site.material import Material
    from catalunya.site.publisher import Publisher
    from catalunya.site.publishing import open_place, place_of

    context = CommandContext()
    address = place_of(context.settings, to)
    if address is None:
        raise UsageError("the lake is no local folder: name the place of the site by --to or CATALUNYA_SITE")
    place = open_place(address)
    served_at = _origin(url) if url else context.settings.site_url
    found = find_release(context.storage, release)
    publisher = Publisher.of(context.settings)
    began = time.monotonic()
    with reporter(err) as shown:
        shown.begin("site")
        material = Material(
            context.storage, context.datasets, found, served_at, publisher, context.settings.home, shown
        )
        built = place.publish(material)
        seconds = time.monotonic() - began
        shown.end("site", "built", seconds)
    folder = f"{address}/{built.folder}" if "://" in address else str(built.folder)
    answer = {
        "status": "built",
        "release_id": found.release_id,
        "url": served_at,
        "folder": folder,
        "pages": built.pages,
        "pages_written": built.pages - built.unchanged,
        "pages_unchanged": built.unchanged,
        "bytes": built.bytes,
        "seconds": round(seconds, 1),
    }
    text = (
        f"{built.pages:,} pages, {built.pages - built.unchanged:,} written and {built.unchanged:,} unchanged, "
        f"{built.bytes / 1e6:.0f} MB in {seconds:.1f} s: {folder}"
    )
    if "://" not in address:
        text += "\nlook at it with `catalunya site serve`"
    if is_loopback_url(served_at):
        text += f"\nwhole addresses in it begin with {served_at}; to publish it, name its address with --url"
    print_answer(as_json, answer, text)


@app.command("serve")
def serve_command(
    port: Port = 8081,
    host: Annotated[str, typer.Option(help="Address to listen on; loopback by default.")] = "127.0.0.1",
    to: To = None,
    as_json: Json = False,
) -> None:
    """Serve the site until interrupted; a site that is built meanwhile is served from then on."""
    from catalunya.listening import address_of, listen
    from catalunya.settings import Settings
    from catalunya.site.build import CURRENT
    from catalunya.site.publishing import local_folder, place_of
    from catalunya.site.serve import serve_site

    target = local_folder(place_of(Settings.load(), to))
    with listen(host, port, "the server of the site") as listening:
        url = f"http://{address_of(listening, host)}/"
        text = f"the site is at {url}"
        if not (target / CURRENT).exists():
            text += (
                f"\n{target} has no site yet: `catalunya site build` makes it, and it is served from then on"
            )
        print_answer(as_json, {"status": "serving", "url": url}, text)
        serve_site(target, listening)


def _origin(url: str) -> str:
    try:
        return origin(url)
    except ValueError as error:
        raise UsageError(f"--url: {error}") from None
