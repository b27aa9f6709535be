"""What ``sipserver check`` finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    detail: str
    ok: bool = True
