"""``sipserver bindings``: where endpoints are registered now."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from sipserver.accounts.subscribers import subscriber_address
from sipserver.cli.output import Form, form_options, plain, show_rows
from sipserver.cli.refusal import Refusal, WrongUse
from sipserver.cli.stores import LOCATION_FILE, store_options
from sipserver.location.query import list_bindings, request_removal
from sipserver.registrar.binding import Binding
from sipserver.sip.errors import SipError
from sipserver.sip.message import text

COLUMNS = (
    "address", "contact", "transport", "from", "reached_by", "nat", "instance", "reg_id", "expires_in", "agent"
)  # fmt: skip


@click.group()
def bindings() -> None:
    """Look at and remove bindings: the endpoints that are registered for an address.

    \b
    Example:
      sipserver bindings list alice@example.test
    """


@bindings.command("list")
@click.argument("address", required=False)
@form_options
@store_options
def list_(address: str | None, form: Form | None, data_dir: Path) -> None:
    """List the bindings of everybody, or of [ADDRESS] alone.

    \b
    Example:
      sipserver bindings list
      sipserver bindings list alice@example.test --json
    """
    aor = subscriber_address(address) if address is not None else None
    now = time.time()
    rows = [as_row(binding, now) for binding in list_bindings(data_dir / LOCATION_FILE, now, aor)]
    show_rows(rows, form, COLUMNS, "No bindings.")


@bindings.command()
@click.argument("address")
@click.option("--contact", metavar="URI", help="Only the binding with this contact, as the list shows it.")
@store_options
def remove(address: str, contact: str | None, data_dir: Path) -> None:
    """Remove the bindings of ADDRESS; a running server forgets them within two seconds.

    An endpoint that registers again is there again: to keep it out, disable the subscriber.

    \b
    Example:
      sipserver bindings remove alice@example.test
      sipserver bindings remove alice@example.test --contact sip:alice@192.0.2.7:5060
    """
    aor = subscriber_address(address)
    try:
        removed = request_removal(data_dir / LOCATION_FILE, time.time(), aor, contact)
    except SipError as error:
        raise WrongUse(f"--contact: {contact!r} is no SIP URI") from error
    if not removed:
        raise Refusal(f"{aor} has no such binding" if contact else f"{aor} has no binding")
    for binding in removed:
        click.echo(f"{plain(text(binding.contact))} removed")


def as_row(binding: Binding, now: float) -> dict[str, Any]:
    """What is shown of a binding."""
    host = f"[{binding.host}]" if ":" in binding.host else binding.host
    return {
        "address": binding.aor,
        "contact": text(binding.contact),
        "q": binding.q / 1000,
        "transport": binding.transport,
        "from": f"{host}:{binding.port}",
        "to": binding.local,
        "reached_by": _reached_by(binding),
        "nat": binding.natted,
        "expires_in": round(binding.expires_at - now),
        "registered_at": _utc(binding.registered_at),
        "expires_at": _utc(binding.expires_at),
        "instance": binding.instance,
        "reg_id": binding.reg_id,
        "path": [text(each) for each in binding.path],
        "agent": binding.user_agent,
    }


def _reached_by(binding: Binding) -> str:
    """How requests get there: over the flow that it registered by, by its Path, or as its contact says."""
    if binding.flow_only:
        return "flow"
    return "path" if binding.path else "contact"


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
