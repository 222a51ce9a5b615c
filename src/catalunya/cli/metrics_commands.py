"""The command of the metrics.

What a command needs is imported when it runs: the help and the other commands do not wait for it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from catalunya.cli.output import Json, Port, print_answer, print_json, print_text

app = typer.Typer()


@app.command()
def metrics(
    serve: Annotated[
        bool, typer.Option("--serve", help="Answer requests for /metrics until interrupted.")
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Port = 9464,
    as_json: Json = False,
) -> None:
    """Print the metrics of the lake as OpenMetrics, or serve them to Prometheus."""
    from catalunya.cli.context import CommandContext
    from catalunya.operations.metrics import LakeMetrics, exposition, serve_metrics

    context = CommandContext()
    found = LakeMetrics(context.storage, context.datasets, context.settings.now)
    if not serve:
        if as_json:
            samples = [
                {"name": sample.name, "labels": sample.labels, "value": sample.value}
                for family in found.collect()
                for sample in family.samples
            ]
            print_json({"samples": samples})
        else:
            print_text(exposition(found).decode())
        return
    from catalunya.listening import address_of, listen

    with listen(host, port, "the server of the metrics") as listening:
        url = f"http://{address_of(listening, host)}/metrics"
        print_answer(as_json, {"status": "serving", "url": url}, f"the metrics are at {url}")
        serve_metrics(found, listening)
