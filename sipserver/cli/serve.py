"""``sipserver serve``."""

from __future__ import annotations

from pathlib import Path

import click

from sipserver.cli.stores import config_option, data_dir_option
from sipserver.server.app import run
from sipserver.server.config import Config, load


@click.command()
@config_option
@click.option(
    "--domain", "domains", metavar="D", multiple=True, help="A domain whose addresses live here; may be repeated."
)
@click.option(
    "--listen", metavar="LISTENER", multiple=True,
    help="Where to listen, udp:HOST:PORT, or tcp, tls, ws or wss for udp, IPv6 in brackets; may be repeated.",
)  # fmt: skip
@data_dir_option
@click.pass_context
def serve(
    ctx: click.Context,
    config_file: Path | None,
    domains: tuple[str, ...],
    listen: tuple[str, ...],
    data_dir: Path | None,
) -> None:
    """Run the server until SIGTERM or SIGINT. Options override the configuration file.

    Logs go to standard output: JSON lines, or coloured text on a terminal.

    \b
    Example:
      sipserver serve --config /etc/sipserver/sipserver.toml
      sipserver serve --domain example.test --listen udp:127.0.0.1:5060 --data-dir var
    """

    def read() -> Config:
        return load(config_file, domains=domains, listen=listen, data_dir=data_dir)

    ctx.exit(run(read(), read))
