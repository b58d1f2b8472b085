"""`streamledger up`, `status` and `down`: their options, handed to the embedded runtime.

Rule: signals only set a flag, in a thread that does nothing else; the work ends by itself where
that is safe. A person's wish to stop is no error.
"""

import json
import os
import signal
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from compose.embedded.problems import Interrupted, RuntimeProblem

DATA = Path(".streamledger")
POLL_S = 0.1
DOWN_TIMEOUT_S = 90
NOT_RUNNING = 1

Data = Annotated[Path, typer.Option(help="The folder that everything is kept in.")]
Port = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="The HTTP port.", show_default="8000, or the next free"),
]
KafkaPort = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="Kafka's port.", show_default="9092, or the next free"),
]
PostgresPort = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="Postgres's port.", show_default="5432, or the next free"),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Delete the data and start from nothing.")]
Kafka = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Use this Kafka instead of starting one."),
]
Postgres = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Use this Postgres instead of starting one."),
]
Processors = Annotated[int, typer.Option(min=1, max=64, help="How many processors to run.")]
Brokers = Annotated[
    int, typer.Option(min=1, max=9, help="How many Kafka brokers to run; fixed at the first start.")
]
Secure = Annotated[
    bool | None,
    typer.Option(
        "--secure/--no-secure",
        help="Whether Kafka authenticates clients (SASL) and gives each user least rights (ACLs).",
        show_default="as the last time",
    ),
]
# For short test runs: it also ends with its parent.
FastStart = Annotated[bool, typer.Option("--fast-start", hidden=True)]
Json = Annotated[bool, typer.Option("--json", help="For programs to read.")]


def up(
    data: Data = DATA,
    port: Port = None,
    fresh: Fresh = False,
    kafka: Kafka = None,
    postgres: Postgres = None,
    processors: Processors = 1,
    brokers: Brokers = 1,
    kafka_port: KafkaPort = None,
    postgres_port: PostgresPort = None,
    secure: Secure = None,
    fast_start: FastStart = False,
) -> None:
    """Run all of it on this machine until Ctrl-C: Kafka, Postgres and every service."""
    from compose.embedded import up as embedded
    from compose.embedded.console import Display

    own = embedded.forget_own_settings(data, os.environ)
    given = {"KAFKA_BROKERS": kafka, "DATABASE_URL": postgres}
    os.environ.update({name: value for name, value in given.items() if value is not None})
    options = embedded.UpOptions(
        data=data,
        port=port,
        kafka_port=kafka_port,
        postgres_port=postgres_port,
        fresh=fresh,
        brokers=brokers,
        processors=processors,
        fast_start=fast_start,
        secure=secure,
    )
    settings = embedded.UpSettings.read()
    display = Display()
    if own:
        display.say(f"  this folder's own settings are not read again: {', '.join(own)}")
    stop = threading.Event()
    if fast_start:
        stop_with_parent(stop)
    run = embedded.Up(options, settings, display, stop).run
    with ThreadPoolExecutor(1) as pool:
        listen(stop)
        try:
            wait_for(pool.submit(run))
        except Interrupted:
            display.say("Stopped before it was ready.")
        else:
            display.say("Stopped.")


def status(data: Data = DATA, as_json: Json = False) -> None:
    """Show each part with its address and state; exit code 0 when all of it is ready."""
    from compose.embedded import report
    from compose.embedded.console import Display, Row
    from compose.embedded.data_dir import DataFolder

    running, parts = report.look(DataFolder(data))
    ready = running is not None and running.ready()
    if as_json:
        pid = running.pid if running else None
        url = running.url if running else ""
        shown = {"ready": ready, "pid": pid, "url": url, "parts": [asdict(p) for p in parts]}
        sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    else:
        display = Display()
        if parts:
            display.table([Row(p.name, p.address, p.state, p.log) for p in parts])
        if running is None:
            display.say(f"StreamLedger does not run on {data}.")
    if not ready:
        raise typer.Exit(NOT_RUNNING)


def down(data: Data = DATA) -> None:
    """Stop a running `up` from outside, or what one that was killed has left behind."""
    from compose.embedded import report
    from compose.embedded.console import Display
    from compose.embedded.data_dir import DataFolder
    from compose.embedded.processes import gone

    folder, display = DataFolder(data), Display()
    if not folder.path.exists():
        display.say(f"Nothing runs on {data}.")
        return
    running, _ = report.look(folder)
    if running is not None:
        display.say(f"Stopping pid {running.pid}.")
        running.identity.send(signal.SIGTERM)
        if not gone(running.identity, DOWN_TIMEOUT_S):
            raise RuntimeProblem(
                f"Process {running.pid} has not stopped within {DOWN_TIMEOUT_S} s."
            )
    folder.hold()
    try:
        left = folder.processes.stop_stale()
    finally:
        folder.release()
    if left:
        display.say(f"Stopped what was left behind: {', '.join(left)}.")
    elif running is None:
        display.say(f"Nothing runs on {data}.")


def listen(stop: threading.Event) -> None:
    """From here on a signal means: stop. A hang-up that is ignored (nohup) stays ignored."""

    def on_signal(number: int, frame: object) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN or number is signal.SIGTERM:
            signal.signal(number, on_signal)


def stop_with_parent(stop: threading.Event) -> None:
    """By polling: a parent that was killed by kill -9 sends no signal."""
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            if stop.wait(POLL_S):
                return
        stop.set()

    threading.Thread(target=look, name="parent", daemon=True).start()


def wait_for(work: "Future[None]") -> None:
    """Waits as the thread that signals come to; it must hold no lock that `stop.set` may want."""
    while not work.done():
        wait([work], POLL_S)
    work.result()
