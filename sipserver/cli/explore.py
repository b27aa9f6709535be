"""``sipserver explore``: web pages over the record of calls, on this machine."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import threading
import webbrowser
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

import click

from sipserver.analysis.questions import Question, fitting_days, within_days
from sipserver.cli.polite import stand_back, step_forward
from sipserver.cli.refusal import Refusal, WrongUse
from sipserver.cli.stores import CALLS_FILE, calls_store, store_options

PACKAGES = ("datasette", "datasette_dashboards")
LOOPBACK = frozenset(("localhost", "127.0.0.1", "[::1]"))
STOP_SECONDS = 2
"""How long what is being answered may still take once it is told to end."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="The address to serve at.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="The port. Default: one that is free.")
@click.option("--expose", is_flag=True, help="Serve at an address that other machines reach, without any password.")
@click.option("--name", "names", multiple=True, metavar="HOST",
    help="Also answer to this name, of a proxy in front that asks for a password.")  # fmt: skip
@click.option("--time-limit", type=click.FloatRange(0.1, 600), default=10.0, show_default=True, metavar="SECONDS",
    help="What a query may take at most.")  # fmt: skip
@click.option("--rows", type=click.IntRange(10, 100_000), default=2_000, show_default=True,
    help="What a page may show at most.")  # fmt: skip
@click.option("--open", "open_browser", is_flag=True, help="Open the pages in the browser.")
@store_options
def explore(
    host: str,
    port: int,
    expose: bool,
    names: tuple[str, ...],
    time_limit: float,
    rows: int,
    open_browser: bool,
    data_dir: Path,
) -> None:
    """Explore the record of calls with a browser: dashboards, questions with parameters, tables, your own SQL.

    It reads calls.db, also while a server writes, changes nothing and fetches nothing from elsewhere. Nobody is asked
    for a password: who has an account on this machine can look at it while it runs. Ctrl-C ends it.

    \b
    Example:
      sipserver explore --data-dir var --open
      ssh -L 8001:127.0.0.1:8001 sip.example.test sipserver explore --port 8001     # from another machine
    """
    missing = [name.replace("_", "-") for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise Refusal(f"explore needs {', '.join(missing)}: pip install 'sipserver[analysis]'")
    _check_address(host, expose)
    with calls_store(data_dir) as connection:
        questions = within_days(fitting_days(connection))
    with _listening(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}/"
        click.echo(f"Exploring {data_dir / CALLS_FILE} at {url} until Ctrl-C.")
        if expose and not _is_loopback(host):
            click.echo("sipserver: whoever reaches this address sees the whole record of calls: there is no password",
                err=True)  # fmt: skip
        if open_browser:
            # Some browsers are programs of the terminal, which would be waited for.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        # After the browser was started, which is nothing to stand back with.
        stand_back()
        hosts = None if expose else LOOPBACK | {shown, *(name.lower() for name in names)}
        _serve(data_dir / CALLS_FILE, listener, questions, hosts, time_limit, rows)


def _check_address(host: str, expose: bool) -> None:
    if not expose and not _is_loopback(host):
        raise WrongUse(
            f"{host} may be reached from other machines, and nobody is asked for a password. Serve at 127.0.0.1, and "
            "come through ssh -L, or through a proxy that asks for one (--name); --expose serves it as it is"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise Refusal(f"cannot serve at {host} port {port}: {error.strerror or error}") from error


def _serve(
    path: Path,
    listener: socket.socket,
    questions: Collection[Question],
    hosts: Collection[str] | None,
    time_limit: float,
    rows: int,
) -> None:
    import uvicorn  # noqa: PLC0415

    from sipserver.cli.site import guarded, site  # noqa: PLC0415

    # uvicorn passes the signal that ended it on to whoever was there before.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    datasette, store = site(path, questions, time_limit=time_limit, rows=rows)
    config = uvicorn.Config(
        guarded(datasette.app(), hosts), log_level="warning", access_log=False, server_header=False, lifespan="on",
        timeout_graceful_shutdown=STOP_SECONDS,
    )  # fmt: skip

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Whoever waits for a query is told that it came to nothing, and is not waited for; nor does the end wait
            # until everybody else on a busy machine has had their turn.
            step_forward()
            store.end()
            await super().shutdown(sockets)

    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run(sockets=[listener])
