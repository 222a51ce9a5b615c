"""However a command ends: one JSON object, and of a run one record in the ledger and one alert."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.pipeline.command import Command, default_signals

BROKEN = """
import sys
from catalunya.cli import main as cli{imports}
def broken(*_, **__): raise RuntimeError("a fault of the code: 5 :id")
{patch} = broken
sys.argv = ["catalunya", *sys.argv[1:]]
cli.main()
"""


def records(lake: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in (lake / "ledger").glob("*.json")]


def python(command: Command, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `code`, which runs the command, with the environment of the command and every signal as at a terminal."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=command.variables(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        preexec_fn=default_signals,
    )


def broken(
    command: Command, patch: str, *arguments: str, imports: str = ""
) -> subprocess.CompletedProcess[str]:
    """The command with a fault in its code."""
    return python(command, BROKEN.format(patch=patch, imports=imports), *arguments, "--json")


@pytest.fixture
def command(tmp_path: Path, webhook_sink) -> Command:
    return Command(
        str(tmp_path / "lake"), "http://127.0.0.1:9", env={"CATALUNYA_NOTIFY_URLS": webhook_sink.channel}
    )


def test_a_damaged_pointer_is_one_alert_one_record_and_one_object(command, webhook_sink, tmp_path):
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "current.json").write_text("{")
    answer = command.run()
    assert (answer.code, answer.json["status"], answer.json["exit_code"]) == (1, "failed", 1)
    assert "current.json is not a pointer" in answer.json["message"]
    [record] = records(tmp_path / "lake")
    assert (record["run_id"], record["message"]) == (answer.json["run_id"], answer.json["message"])
    [alert] = webhook_sink.heard
    assert answer.json["run_id"] in alert["title"]


@pytest.mark.parametrize("arguments", [["run"], ["build"]])
def test_a_fault_of_the_code_is_one_alert_one_record_and_one_object(
    command, webhook_sink, tmp_path, arguments
):
    done = broken(
        command,
        f"Run.{'ingest' if arguments == ['run'] else 'build'}",
        *arguments,
        imports="\nfrom catalunya.runs.pipeline import Run",
    )
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert (answer["status"], answer["exit_code"]) == ("failed", 1)
    assert "RuntimeError: a fault of the code: 5 :id" in answer["message"]
    assert done.stderr.count("Traceback") == 1
    [record] = records(tmp_path / "lake")
    assert (record["status"], record["message"]) == ("failed", answer["message"])
    assert len(webhook_sink.heard) == 1


def test_a_run_that_cannot_open_its_lake_is_an_alert(command, webhook_sink, tmp_path):
    (tmp_path / "lake").write_text("in the way")
    answer = command.run()
    assert answer.code == answer.json["exit_code"] == 2
    assert "CATALUNYA_LAKE" in answer.json["message"]
    assert len(webhook_sink.heard) == 1


@pytest.mark.parametrize(
    ("patch", "arguments"),
    [("status.describe", ["status"]), ("trace.trace", ["trace", "coverage_comarca"])],
)
def test_a_fault_in_a_command_that_reads_is_one_object_and_a_traceback(command, patch, arguments):
    done = broken(command, patch, *arguments, imports="\nfrom catalunya.operations import status, trace")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "status": "failed",
        "message": "RuntimeError: a fault of the code: 5 :id",
        "exit_code": 1,
    }
    assert "Traceback" in done.stderr


STOPPED_IN_DUCKDB = """
import os, sys, threading
import duckdb
from catalunya.cli import main as cli
from catalunya.operations import status
from catalunya.runs.pipeline import Run
def wait(*_, **__):
    threading.Timer(0.3, os.kill, (os.getpid(), {number})).start()
    duckdb.execute("select count(*) from range(100000000000)")
{patch} = wait
sys.argv = ["catalunya", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("patch", "name"), [("status.describe", "status"), ("Run.ingest", "run")])
def test_a_signal_while_duckdb_computes_is_one_object_and_no_traceback(command, patch, name, number):
    done = python(command, STOPPED_IN_DUCKDB.format(patch=patch, number=int(number)), name, "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == answer["exit_code"] == 128 + number
    assert f"stopped by {number.name}" in answer["message"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["frob"], ["status", "--nothing"], ["trace"], ["accept", "x"]])
def test_a_wrong_argument_is_one_object_too(command, arguments):
    answer = command(*arguments)
    assert answer.code == answer.json["exit_code"] == 2
    assert answer.json["status"] == "failed"


@pytest.mark.parametrize(
    "arguments",
    [
        ["rollback", "--to", ""],
        ["rollback", "--to="],
        ["accept", ""],
        ["accept", "20260105T000000Z-1a2b3c4d", "--why", " "],
        ["refuse", "20260105T000000Z-1a2b3c4d", "--why", "\u200b\u2060"],
        ["trace", ""],
        ["trace", "coverage_comarca", "--release", ""],
        ["run", "--dataset", ""],
        ["ingest", "-d", "population", "-d", " "],
        ["parity", "--engines", ""],
        ["demo", "serve", "--host", ""],
    ],
)
def test_an_empty_argument_is_exit_2_and_named(command, arguments):
    answer = command(*arguments)
    assert answer.code == answer.json["exit_code"] == 2
    assert "is empty" in answer.json["message"]


Answer = Callable[[BaseHTTPRequestHandler], bool]


@contextmanager
def not_answering(answer: Answer) -> Iterator[tuple[str, threading.Event]]:
    """A portal that never ends what `answer` returns False for; the event is set when it was asked for such a thing."""
    asked, over = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not answer(self):
                asked.set()
                over.wait(600)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            over.set()
            server.shutdown()


@pytest.fixture
def slow_portal() -> Iterator[tuple[str, threading.Event]]:
    """A portal that takes a request and never answers."""
    with not_answering(lambda _: False) as portal:
        yield portal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_one_alert_one_record_and_one_object_and_a_second_one_breaks_nothing_off(
    command, webhook_sink, tmp_path, slow_portal, number
):
    command.url, asked = slow_portal
    process = command.start("run", "--json")
    assert asked.wait(600)
    process.send_signal(number)
    process.send_signal(signal.SIGTERM)
    out, stderr = process.communicate(timeout=600)
    answer = json.loads(out)
    assert process.returncode == answer["exit_code"] == 128 + number, stderr
    assert (answer["status"], "stopped by SIG" in answer["message"]) == ("failed", True)
    [record] = records(tmp_path / "lake")
    assert record["message"] == answer["message"]
    assert len(webhook_sink.heard) == 1
    assert (tmp_path / "lake" / ".lake" / "locks" / "run.lock").stat().st_size == 0


RECEIVED_BY_ANOTHER_THREAD = """
import os, signal, sys, threading, time
import {module}
from catalunya.cli import main as cli
first = threading.Lock()
def wait(*arguments, **more):
    if first.acquire(blocking=False):
        time.sleep(1)  # Until then the main thread waits for this one.
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    ended = {ended}
    os.write(2, b"" if ended else b"not stopped")
    raise RuntimeError("stopped")
{module}.{patch} = wait
sys.argv = ["catalunya", "run", "--json"]
cli.main()
"""


@pytest.mark.parametrize(
    ("module", "patch", "ended"),
    [
        ("catalunya.runs.pipeline", "ingest", "more['stopped'].wait(60)"),
        (
            "catalunya.warehouse.dbt_models",
            "_run",
            "not arguments[0].execute('select count(*) from range(100000000000)')",
        ),
    ],
    ids=["a source is read", "a model is built"],
)
def test_a_signal_that_another_thread_receives_ends_the_command(
    command, small_release, small_project, small_demo, module, patch, ended
):
    """As does one that the main thread receives right before it waits for the other threads."""
    # Its models are built by the statements that `small_release` kept.
    command.url, command.home = small_demo.url, small_project
    code = RECEIVED_BY_ANOTHER_THREAD.format(module=module, patch=patch, ended=ended)
    done = python(command, code)
    assert done.returncode == json.loads(done.stdout)["exit_code"] == 128 + signal.SIGTERM, done.stderr
    assert "not stopped" not in done.stderr


@pytest.fixture(params=["no answer", "asked to wait"])
def portal_without_pages(request, small_demo) -> Iterator[tuple[str, threading.Event]]:
    """The demo portal, but a page of rows never comes, or in 100 seconds."""

    def answer(handler: BaseHTTPRequestHandler) -> bool:
        if "$offset" not in handler.path:
            with urllib.request.urlopen(small_demo.url + handler.path) as found:
                reply(handler, 200, found.read(), {"x-catalunya-demo": found.headers["x-catalunya-demo"]})
            return True
        if request.param == "asked to wait":
            reply(handler, 429, b"", {"retry-after": "100"})
        return False

    def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    with not_answering(answer) as portal:
        yield portal


def test_a_signal_while_a_page_does_not_come_ends_the_command(command, portal_without_pages):
    command.url, asked = portal_without_pages
    process = command.start("run", "--json")
    assert asked.wait(600)
    process.send_signal(signal.SIGTERM)
    out, stderr = process.communicate(timeout=600)
    assert process.returncode == json.loads(out)["exit_code"] == 128 + signal.SIGTERM, stderr


STOPPED_WHILE_IMPORTED = """
import os, signal, sys
signal.signal({number}, signal.SIG_DFL)
class Finder:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})
            {then}
sys.meta_path.insert(0, Finder())
from catalunya.__main__ import main
sys.argv = ["catalunya", "run", "--json"]
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(
    ("module", "then"), [("typer", "pass"), ("duckdb", "pass"), ("urllib3", "raise ImportError")]
)
def test_a_signal_while_the_command_is_imported_is_one_object_and_one_line(command, number, module, then):
    code = STOPPED_WHILE_IMPORTED.format(module=module, number=int(number), then=then)
    done = python(command, code)
    answer = json.loads(done.stdout)
    assert done.returncode == answer["exit_code"] == 128 + number
    assert done.stderr == f"error {answer['message']}\n"


def test_what_a_library_prints_is_not_on_standard_output(command, tmp_path):
    code = BROKEN.format(imports="\nfrom catalunya.cli import context", patch="context.open_lake").replace(
        'raise RuntimeError("a fault of the code: 5 :id")', "print('noise'); raise RuntimeError('x')"
    )
    done = python(command, code, "status", "--json")
    assert json.loads(done.stdout)["status"] == "failed"
    assert "noise" in done.stderr


def test_emoji_codes_and_markup_in_an_address_are_printed_as_they_are(command, tmp_path):
    command.lake = "ftp://host/:id/[red]:smile:"
    answer = command("status")
    assert "/:id/[red]:smile:" in answer.stderr
