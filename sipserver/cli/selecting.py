"""What listings are chosen by: times, addresses, how many. The options that say the same in every command."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, tzinfo
from typing import Any

import click

_AGO = re.compile(r"(\d{1,6})([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Moment(click.ParamType[int]):
    """A time, as UNIX milliseconds: ISO 8601 (UTC where it has no offset), or so long ago (90s, 30m, 2h, 1d, 1w)."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The milliseconds that the text means."""
        if isinstance(value, int):
            return value
        try:
            return moment(value, time.time())
        except ValueError as error:
            self.fail(str(error), param, ctx)


def moment(text: str, now: float, where: tzinfo = UTC) -> int:
    """The time that a text means, in milliseconds; raises ValueError with a sentence.

    ISO 8601, in the zone where it has no offset; or so long before ``now``, which is in seconds.
    """
    ago = _AGO.match(text)
    if ago:
        return int((now - int(ago[1]) * _SECONDS[ago[2]]) * 1000)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: use 2026-11-23, 2026-11-23T21:02, or 90s, 30m, 2h, 1d, 1w") from None
    return int((found if found.tzinfo else found.replace(tzinfo=where)).timestamp() * 1000)


address_option = click.option("--address", metavar="ADDRESS", help="Of this address only.")
party_option = click.option("--party", metavar="ID", help="Of this party id only.")
names_option = click.option(
    "--names/--no-names", default=True, help="Show addresses where accounts.db may be read, or party ids."
)
since_option = click.option("--since", type=Moment(), metavar="TIME", help="From then on (2026-11-23, 2h, 1d).")
until_option = click.option("--until", type=Moment(), metavar="TIME", help="Before this time.")
limit_option = click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="The newest so many at most."
)
