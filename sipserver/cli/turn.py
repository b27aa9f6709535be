"""``sipserver turn-credentials``: what a browser or another endpoint needs to use the TURN server for a while."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click

from sipserver.accounts.turn import load_secret, make_credentials
from sipserver.cli.refusal import Refusal
from sipserver.cli.stores import config_option, configured, data_dir_option, subscribers_without_key


@click.command("turn-credentials")
@click.argument("address")
@config_option
@data_dir_option
def turn_credentials(address: str, config_file: Path | None, data_dir: Path | None) -> None:
    """Print credentials of the subscriber ADDRESS for the TURN server, as JSON: an entry of iceServers, and its ttl.

    The username names the party, not the address. The secret that is shared with the TURN server comes from
    $SIPSERVER_TURN_SECRET, the systemd credential sipserver.turn, or turn.secret in the data folder.

    \b
    Example:
      sipserver turn-credentials alice@example.test --config /etc/sipserver/sipserver.toml
    """
    config = configured(config_file, data_dir)
    if not config.turn.urls:
        raise Refusal("turn.urls is empty: the configuration names no TURN server")
    secret = load_secret(config.data_dir, os.environ)
    with subscribers_without_key(config.data_dir, readonly=True) as store:
        subscriber = store.show(address)
    if subscriber.disabled or subscriber.party is None:
        raise Refusal(f"{subscriber.address} is disabled")
    made = make_credentials(secret, subscriber.party, int(time.time()) + config.turn.ttl)
    entry = {"urls": list(config.turn.urls), **made._asdict(), "ttl": config.turn.ttl}
    click.echo(json.dumps(entry))
