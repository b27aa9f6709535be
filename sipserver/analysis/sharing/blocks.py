"""The pieces of time that are shared: whole weeks or whole months of one zone, and nothing else.

A period is shared as the blocks that it is made of, each with tables of its own, and a block that was shared once is
shared again as it was (``ledger``). So two reports whose periods overlap have the same numbers where they do, and their
difference says nothing that was not said; a day more or less cannot be asked for.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, Literal

from sipserver.analysis.periods import Bucket, buckets

Block = Literal["week", "month"]
BLOCKS: Final[tuple[Block, ...]] = ("week", "month")


def begin_of(at: int, by: Block, where: tzinfo) -> int:
    """The beginning of the block that this moment lies in, in milliseconds."""
    local = datetime.fromtimestamp(at // 1000, where).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    first = local - timedelta(days=local.weekday()) if by == "week" else local.replace(day=1)
    return int(first.astimezone(UTC).timestamp()) * 1000


def last_whole(until: int, by: Block, where: tzinfo) -> tuple[int, int]:
    """The last block that is over by then."""
    end = begin_of(until, by, where)
    return begin_of(end - 1, by, where), end


def whole_blocks(begin: int, end: int, by: Block, where: tzinfo) -> list[Bucket]:
    """The blocks of a period; raises ValueError where it is not made of whole ones."""
    first, last = begin_of(begin, by, where), begin_of(end, by, where)
    if (first, last) != (begin, end):
        if last != end:
            last = _end_of(last, by, where)
        days = [datetime.fromtimestamp(at / 1000, where).date().isoformat() for at in (first, last)]
        raise ValueError(f"what is shared is whole {by}s: use --from {days[0]} --to {days[1]}")
    return buckets(begin, end, by, where)


def _end_of(begin: int, by: Block, where: tzinfo) -> int:
    """The end of the block that begins then."""
    # Longer than any block, and shorter than two.
    later = begin + (8 if by == "week" else 32) * 86_400_000
    return begin_of(later, by, where)
