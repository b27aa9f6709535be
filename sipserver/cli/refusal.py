"""How a command that cannot do its work says so."""

from __future__ import annotations

from typing import IO, Any

import click


class Refusal(click.ClickException):
    """A sentence, or several, on standard error; exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it."""
        for line in self.message.splitlines():
            click.echo(f"sipserver: {line}", file, err=True)


class WrongUse(Refusal):
    """A fault in how the command was called or configured; exit code 2."""

    exit_code = 2
