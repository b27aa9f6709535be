"""The dialogs of one call: one for each tag of the callee's side (RFC 3261 §12, §13.2.2.4). Pure.

Two devices may answer at once, and then the caller has two dialogs, of which it ends the one that it does not want.
The call is the dialog that the caller kept: the first one, unless that is ended while another one stands, at once or
without ever having been acknowledged. A dialog stands while it has had its ACK, or may still get it; one that is over
and never got it was not what the caller kept, if another one did.
"""

from __future__ import annotations

from typing import Final

from sipserver.calls.events import Ended
from sipserver.calls.negotiation import Negotiation
from sipserver.calls.places import NOWHERE, Place

AT_ONCE_MS: Final = 32_000
"""64*T1: as long as 2xx of other devices may come, their ACK may take, and a BYE counts as at once (RFC 3261 §13.2.2.4,
§13.3.1.4)."""
MAX_EARLY: Final = 16
"""Early dialogs of one call that are told apart."""
MAX_DIALOGS: Final = 32
"""Dialogs of one call that are told apart."""


class Dialog:
    """What is known of one dialog; before its 2xx it is an early one."""

    __slots__ = (
        "agent", "agreed_at", "answered_at", "branch", "confirmed_at", "end", "key", "negotiation", "network",
        "place", "status", "transport",
    )  # fmt: skip

    def __init__(self, key: str, branch: int) -> None:
        self.key = key
        self.branch = branch
        self.negotiation = Negotiation()
        self.agreed_at = 0
        """When its media were agreed on last."""
        self.answered_at: int | None = None
        self.confirmed_at: int | None = None
        self.end: Ended | None = None
        """How it ended."""
        self.status = 200
        self.agent: str | None = None
        self.transport: str | None = None
        self.network: str | None = None
        self.place = NOWHERE
        """Where the device is."""

    def stands(self, at: int) -> bool:
        """Whether it is up, as far as can be told."""
        if self.answered_at is None or self.end is not None:
            return False
        return self.confirmed_at is not None or at - self.answered_at <= AT_ONCE_MS

    def was_dropped(self, at: int) -> bool:
        """Whether the caller did not want it, since it ends at once or was never acknowledged."""
        return self.confirmed_at is None or self.answered_at is None or at - self.answered_at <= AT_ONCE_MS


class Dialogs:
    """The dialogs of one call, by tag; bounded."""

    __slots__ = ("_dialogs", "_overflowed", "kept")

    def __init__(self) -> None:
        self._dialogs: dict[str, Dialog] = {}
        self._overflowed = False
        self.kept: Dialog | None = None
        """The one that is the call, once it is answered."""

    def make(self, tag: str | None, branch: int, *, early: bool = False) -> Dialog | None:
        """The dialog of this tag, new or known; None where there are too many. A peer without tags has one a branch."""
        key = f" {branch}" if tag is None else tag
        found = self._dialogs.get(key)
        if found is None:
            if len(self._dialogs) >= (MAX_EARLY if early else MAX_DIALOGS):
                self._overflowed = True
                return None
            found = self._dialogs[key] = Dialog(key, branch)
        return found

    def find(self, tag: str | None) -> Dialog | None:
        """The dialog of this tag; without one, or with a callee that sent none, the one that is the call."""
        if tag is None or (self.kept is not None and self.kept.key[0] == " "):
            return self.kept
        return self._dialogs.get(tag)

    def knows(self, tag: str | None) -> bool:
        """Whether a request with this tag of the callee's may belong to the call."""
        return self._overflowed or self.find(tag) is not None

    def has(self, tag: str) -> bool:
        """Whether this is the tag of a dialog that is not over."""
        found = self._dialogs.get(tag)
        return found is not None and found.end is None

    def locate(self, branch: int, place: Place) -> None:
        """Where the device of this branch is has become known after its answer."""
        for dialog in self._dialogs.values():
            if dialog.branch == branch:
                dialog.place = place

    def heir(self, at: int) -> Dialog | None:
        """The first that stands beside the one that was the call."""
        for dialog in self._dialogs.values():
            if dialog is not self.kept and dialog.stands(at):
                return dialog
        return None

    def really_kept(self) -> Dialog | None:
        """The dialog that is what the caller had, since the one taken for the call was never acknowledged: one that
        was over before, or else one that goes on."""
        if self.kept is None or self.kept.confirmed_at is not None:
            return None
        found = None
        for dialog in self._dialogs.values():
            if dialog.confirmed_at is not None:
                if dialog.end is not None:
                    return dialog
                found = found or dialog
        return found
