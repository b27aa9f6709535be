"""A binding: where an address of record can be reached for a while (RFC 3261 §10), and changes to a set of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

ADDED: Final = "added"
REFRESHED: Final = "refreshed"
REMOVED: Final = "removed"


@dataclass(slots=True, eq=False)
class Binding:
    """One contact of one address. Treat it as read-only: a refresh makes another one.

    Text is as in ``sip.message``, one character a byte, but for ``aor`` and ``user_agent``, which people read.
    """

    aor: str
    """The address of record, canonical."""
    contact: str
    """The contact's URI as written."""
    q: int
    """Preference in thousandths, 0 to 1000."""
    expires_at: float
    """UNIX time in seconds from which on this binding is none."""
    call_id: str
    """Call-ID of the REGISTER that made or last refreshed it."""
    cseq: int
    """Its CSeq number."""
    instance: str | None
    """Its +sip.instance, which names the device (RFC 5626 §4.1); a UUID in lower case."""
    reg_id: int | None
    """Its reg-id, which tells the flows of one device apart (RFC 5626 §4.2); never without an instance."""
    path: tuple[str, ...]
    """The Path values that it came by, nearest to us first (RFC 3327)."""
    user_agent: str | None
    """What its User-Agent says."""
    params: str
    """Contact parameters to give back, each with its semicolon in front; without ``expires``."""
    transport: str
    """Where its REGISTER came from: transport, host, port."""
    host: str
    port: int
    connection: int
    """Number of the connection that its REGISTER came over; 0 for none and after a restart."""
    registered_at: float
    """UNIX time in seconds of that REGISTER."""
    local: str = ""
    """This server's side of that flow: ``Flow.sent_by``."""
    flow_only: bool = False
    """Whether it is reached over that flow and no other way (RFC 5626 §7)."""
    natted: bool = False
    """Whether its contact says of itself what only its own side of a NAT can reach."""
    gruu_since: float = 0.0
    """UNIX time in seconds from which on the temporary GRUUs of its instance are good."""

    @property
    def key(self) -> str:
        """What no two bindings of an address have in common: instance and reg-id, else the contact.

        A contact begins with its scheme, so it never looks like the former.
        """
        if self.instance is None:
            return self.contact
        return f"+{'' if self.reg_id is None else self.reg_id} {self.instance}"

    @property
    def is_connected(self) -> bool:
        """Whether it is of use only as long as a connection lives."""
        return self.flow_only and self.transport != "UDP"

    def remaining(self, now: float) -> int:
        """Whole seconds that are left, at least one: zero would tell an endpoint that it is gone."""
        return max(1, round(self.expires_at - now))


@dataclass(slots=True, eq=False)
class Change:
    """One step of an update of an address: a binding comes, goes, or takes the place of another."""

    before: Binding | None
    """What ends with it."""
    after: Binding | None
    """What holds from then on; never None where ``before`` is."""

    @property
    def kind(self) -> str:
        """ADDED, REFRESHED (which a new contact of the same device is, too) or REMOVED."""
        if self.after is None:
            return REMOVED
        return ADDED if self.before is None else REFRESHED


def apply_changes(current: Iterable[Binding], changes: Iterable[Change]) -> tuple[Binding, ...]:
    """The bindings of an address after these changes, the latest registered first."""
    kept = list(current)
    made = []
    for change in changes:
        # Bindings compare by identity. One may have expired meanwhile, and be gone already.
        if change.before is not None and change.before in kept:
            kept.remove(change.before)
        if change.after is not None:
            made.append(change.after)
    return (*made, *kept)
