"""What stands in the way of a change to an account; apart, since every command knows it and few have to do with one."""

from __future__ import annotations


class AccountError(Exception):
    """What stands in the way of a change, as a sentence for the operator."""
