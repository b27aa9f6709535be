"""The ``sipserver`` command and its groups; a group's module is imported when one of its commands is asked for."""

from __future__ import annotations

import gc
import importlib
from typing import Any

import click

import sipserver
from sipserver.accounts.faults import AccountError
from sipserver.cli.refusal import Refusal, WrongUse
from sipserver.server.config import ConfigError
from sipserver.storage.database import StoreError

COMMANDS = {
    "serve": "sipserver.cli.serve:serve",
    "subscribers": "sipserver.cli.subscribers:subscribers",
    "bindings": "sipserver.cli.bindings:bindings",
    "calls": "sipserver.cli.calls:calls",
    "top": "sipserver.cli.top:top",
    "activity": "sipserver.cli.activity:activity",
    "errors": "sipserver.cli.errors:errors",
    "report": "sipserver.cli.report:report",
    "explore": "sipserver.cli.explore:explore",
    "sample": "sipserver.cli.sample:sample",
    "turn-credentials": "sipserver.cli.turn:turn_credentials",
    "check": "sipserver.cli.check:check",
    "certificate": "sipserver.cli.certificate:certificate",
}


class Commands(click.Group):
    """The groups by name, and the place where a fault becomes a sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which they stand above."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of this name."""
        place = COMMANDS.get(name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        # What is imported is no garbage, and looking for some among it takes time: 20 ms of a start, more of a report.
        gc.disable()
        try:
            command = getattr(importlib.import_module(module), attribute)
        finally:
            gc.enable()
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what stands in its way is told in a sentence, without a traceback."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise WrongUse(str(error)) from error
        except (StoreError, AccountError) as error:
            raise Refusal(str(error)) from error


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(sipserver.__version__, "--version", prog_name="sipserver", help="Show the version and exit.")
def main() -> None:
    """SIP registrar and proxy for video addresses, with a truthful record of every call.

    \b
    Example:
      sipserver serve --domain example.test --listen udp:127.0.0.1:5060 --data-dir var
      sipserver subscribers add alice@example.test --data-dir var
    """
