"""``sipserver top``: who is in a call now, and how the server does."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

import click

from sipserver.cli.gauges import Gauges
from sipserver.cli.panel import SORTS, view
from sipserver.cli.refusal import WrongUse
from sipserver.cli.snapshot import Snapshot, Watch
from sipserver.cli.stores import calls_store, config_option, configured, data_dir_option
from sipserver.server.sections import split_host_port

DUMB_WIDTH = 200
"""Columns of a line that is not printed on a terminal."""


@click.command()
@click.option("--interval", type=click.FloatRange(0.2, 3600), default=1.0, show_default=True, metavar="SECONDS",
    help="How often to look.")  # fmt: skip
@click.option("--sort", type=click.Choice(list(SORTS)), default="longest", show_default=True,
    help="Which calls come first.")  # fmt: skip
@click.option("--minutes", type=click.FloatRange(0.1, 1440), default=5.0, show_default=True,
    help="Errors of the last so many minutes.")  # fmt: skip
@click.option("--metrics", "metrics_at", metavar="HOST:PORT",
    help="Where the server publishes metrics. Default: as configured.")  # fmt: skip
@click.option("--once", is_flag=True, help="Print one moment and end, as without a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each moment.")
@config_option
@data_dir_option
def top(
    interval: float,
    sort: str,
    minutes: float,
    metrics_at: str | None,
    once: bool,
    as_json: bool,
    config_file: Path | None,
    data_dir: Path | None,
) -> None:
    """Show who is in a call now, who is registered, rates, errors and the stores, anew every second, until q.

    Parties are ids, cut short: nobody is named. Messages and stores are known where metrics.listen is configured.

    \b
    Example:
      sipserver top --config /etc/sipserver/sipserver.toml
      sipserver top --once --json | jq .rates
    """
    config = configured(config_file, data_dir)
    address = config.metrics_address
    if metrics_at is not None:
        address = split_host_port(metrics_at)
        if address is None:
            raise WrongUse(f"--metrics: {metrics_at!r} is no HOST:PORT")
    with calls_store(config.data_dir) as connection, suppress(KeyboardInterrupt):
        gauges = Gauges(address) if address is not None else None
        watch = Watch(connection, config.data_dir, gauges, minutes)
        if once or not (sys.stdin.isatty() and sys.stdout.isatty()):
            _print(watch, interval, sort, as_json=as_json, once=once or not as_json, rates=gauges is not None)
        elif as_json:
            _print(watch, interval, sort, as_json=True, once=False, rates=False)
        else:
            _watch(watch, interval, sort)


def _print(watch: Watch, interval: float, sort: str, *, as_json: bool, once: bool, rates: bool) -> None:
    """One moment, or one after the other; ``rates``: it takes two looks to know how fast counters count."""
    moment = watch.take()
    if rates:
        time.sleep(min(interval, 1.0))
        moment = watch.take()
    while True:
        if as_json:
            click.echo(json.dumps(moment.plain()))
        else:
            click.echo("\n".join(text for _, text in view(moment, DUMB_WIDTH, 0, sort=sort)))
        if once:
            return
        time.sleep(interval)
        moment = watch.take()


def _watch(watch: Watch, interval: float, sort: str) -> None:
    """On a terminal, until somebody presses q."""
    from sipserver.cli.terminal import screen  # noqa: PLC0415 - only POSIX has such terminals

    order = list(SORTS)
    paused = False
    with screen() as terminal:
        moment: Snapshot = watch.take()
        due = time.monotonic() + interval
        while True:
            width, height = terminal.size
            terminal.show(view(moment, width, height, sort=sort, paused=paused), width)
            key = terminal.key(interval if paused else due - time.monotonic())
            if key in ("q", "Q", "\x03", "\x1b"):
                return
            if key in ("p", " "):
                paused = not paused
            elif key == "s":
                sort = order[(order.index(sort) + 1) % len(order)]
            if not paused and time.monotonic() >= due:
                moment = watch.take()
                due = time.monotonic() + interval
