"""Which calls need a media relay, what it is asked, and what becomes of its answers (the ng protocol of rtpengine).

    offer    a description that opens an exchange (RFC 3264): in an INVITE, re-INVITE, UPDATE or PRACK, or in the
             response to an INVITE that had none. Where a relay is needed it is asked, and its addresses go on.
    answer   the description that closes it: in a response, or in the ACK or PRACK. Asked of the relay that knows the
             offer.
    delete   the leg is over. Its answer says what went through (``proxy.relay_statistics``).

A **leg** is one device that a call rings, or what is left of a call whose beginning nobody remembers: a session of the
relay of its own, so that the devices of a fork do not share ports, and one that fails is deleted by itself.
It begins with an offer for which a relay is needed and is used until it ends: what was relayed once is relayed
throughout. Whoever drives this machine keeps order: one question for each call at a time.

A description that came before is not asked again, since a 2xx and its ACK are repeated: each leg remembers its latest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sipserver.proxy.bounded import forget_oldest
from sipserver.proxy.nat import has_dtls, has_ice, host_of, is_behind_nat, is_private, media_addresses
from sipserver.proxy.record_route import CALLEE, CALLER
from sipserver.sip.effects import Effect
from sipserver.sip.flow import Flow

NEVER: Final = "never"
NAT: Final = "nat"
ALWAYS: Final = "always"

OFFER: Final = "offer"
ANSWER: Final = "answer"
DELETE: Final = "delete"

REMEMBERED: Final = 8
"""Descriptions that a leg remembers."""
MAX_LEGS: Final = 64
"""Legs of one call."""
MAX_TAGS: Final = 16
"""Tags of one leg, the caller's included."""
MAX_CONTACTS: Final = 10_000
"""Contacts of which is remembered how they do media."""

_CLOSING: Final = ("ACK", "PRACK")
"""Whose description may answer an offer that a response made (RFC 6337 §2.2)."""
_BROWSER: Final = ("WS", "WSS")
_TO_BROWSER: Final = "UDP/TLS/RTP/SAVPF"
_TO_OTHERS: Final = "RTP/AVP"


@dataclass(slots=True)
class Settings:
    """What the operator decided."""

    policy: str = NEVER
    """NEVER, NAT (either side is behind NAT without ICE) or ALWAYS."""
    bridge: bool = False
    """Whether calls between a browser and an endpoint that is none are relayed, in a form that both understand."""
    refuse: bool = False
    """Whether a call that needs a relay is refused when there is none; else it goes on without."""
    max_legs: int = 10_000
    """Sessions at relays at once."""
    interfaces: tuple[str, ...] = ()
    """Names of a relay's interfaces, towards private addresses and towards all others; none or both."""


@dataclass(slots=True)
class End:
    """One side of an exchange, as its signalling shows it."""

    host: str
    """Where its messages come from."""
    named: str
    """The host of its contact; empty where that is not known."""
    browser: bool
    """Whether it talks over a WebSocket."""
    contact: str = ""
    """Its contact as it is written, to know it again."""


def end_of(flow: Flow, contact: str, host: str = "") -> End:
    """The end that is reached over this flow under this contact; ``host`` is where it registered from, if it did."""
    return End(host or flow.host, host_of(contact) if contact else "", flow.transport in _BROWSER, contact)


class Leg:
    """One session at a relay."""

    __slots__ = ("answered", "branch", "call", "ended", "gone", "id", "key", "offerer", "relay", "remembered", "tags")

    def __init__(self, key: str, number: int, branch: int, call: str | None, caller_tag: str) -> None:
        self.key = key
        """The call's."""
        self.id = f"{key}.{number}"
        """The Call-ID that the relay knows it by."""
        self.branch = branch
        """Of the INVITE that began the call; -1 where that is not remembered."""
        self.call = call
        """``calls.id``, where the call is recorded."""
        self.relay = -1
        """Position of the relay that has it; -1 until one has answered."""
        self.tags: dict[str, str] = {caller_tag: CALLER}
        """Tags of the dialog, and whose they are."""
        self.ended: set[str] = set()
        """Tags of dialogs that are over."""
        self.offerer = ""
        """The tag of who made an offer in a response that was not answered yet."""
        self.remembered: dict[tuple[str, bytes], bytes] = {}
        """Descriptions by their sender's tag, and what they became."""
        self.answered = False
        """Whether both sides have their ports."""
        self.gone = False
        """Whether it is over, or there is no relay for it."""

    def known(self, tag: str, description: bytes) -> bytes | None:
        """What this description became when it came before."""
        return self.remembered.get((tag, description))

    def remember(self, tag: str, description: bytes, became: bytes) -> None:
        """Do not ask again for this one."""
        if len(self.remembered) >= REMEMBERED:
            del self.remembered[next(iter(self.remembered))]
        self.remembered[tag, description] = became


@dataclass(slots=True)
class AskRelay(Effect):
    """Put this command to the leg's relay, or to the next that works. Answered by ``on_reply``, or ``on_failed``."""

    leg: Leg
    command: str
    fields: dict[str, Any]
    """What goes to the relay."""
    sender: str
    """The tag of who wrote the description."""
    description: bytes


@dataclass(slots=True)
class Exchange:
    """What a request that passed tells of its responses."""

    leg: Leg | None
    """None where the offer is still to come, in a response."""
    sender: str
    """The tag of who sent the request."""
    near: End
    """Who sent the request."""
    far: End
    branch: int
    """Of a call's first INVITE; -1 within a dialog."""
    side: str
    """Who sent the request."""
    offered: bool
    """Whether the request had an offer; else a description in a response is one."""


class _Call:
    """A call that has, or had, legs."""

    __slots__ = ("legs", "opened")

    def __init__(self) -> None:
        self.legs: list[Leg] = []
        self.opened = 0
        """Legs that there ever were."""


class MediaRelay:
    """Every leg, and the decisions about them."""

    def __init__(self, settings: Settings, call_of: Callable[[str], str | None]) -> None:
        self.settings = settings
        self.legs = 0
        """Sessions that relays hold, or are asked for."""
        self.refused = 0
        """Calls that got none since there were too many."""
        self._call_of = call_of
        self._calls: dict[str, _Call] = {}
        self._contacts: dict[str, tuple[bool, bool]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._calls

    def calls(self) -> list[str]:
        """The keys of calls that have legs, or had."""
        return list(self._calls)

    # ------------------------------------------------------------------ descriptions

    def on_request(
        self, key: str, method: str, exchange: Exchange, to_tag: str, description: bytes
    ) -> AskRelay | bytes | None:
        """What becomes of the description in a request: what it was turned into before, a question, or nothing."""
        exchange.leg = leg = self._leg_of(key, exchange.branch, exchange.sender if exchange.side == CALLEE else to_tag)
        if method == "ACK":
            # RFC 3264 §4: it closes an offer, and makes none. It comes as often as its 2xx.
            if leg is None:
                return None
            became = leg.known(exchange.sender, description)
            if became is not None or not leg.offerer:
                return became
        if leg is not None and leg.offerer and method in _CLOSING:
            return self._answer(leg, leg.offerer, exchange.sender, exchange.near, description)
        exchange.offered = True
        if leg is None:
            if not self._is_needed(description, exchange.near, exchange.far):
                return None
            exchange.leg = leg = self._open(key, exchange, to_tag)
        if leg is None:
            return None
        # What was agreed before is open to question: the relay may have been started anew meanwhile.
        leg.remembered.clear()
        return self._offer(leg, exchange.sender, to_tag, exchange.near, exchange.far, description)

    def on_response(self, key: str, exchange: Exchange, to_tag: str, description: bytes) -> AskRelay | bytes | None:
        """The same for the description in a response, whose To tag this is."""
        leg = exchange.leg
        if exchange.offered:
            self._learn(exchange.far, description)
            if leg is None or leg.gone:
                return None
            return self._answer(leg, exchange.sender, to_tag, exchange.far, description)
        if leg is None:
            leg = self._leg_of(key, exchange.branch, to_tag if exchange.side == CALLER else exchange.sender)
        if leg is None:
            if not self._is_needed(description, exchange.far, exchange.near):
                return None
            leg = self._open(key, exchange, to_tag)
        if leg is None or leg.gone:
            return None
        exchange.leg = leg
        leg.offerer = to_tag
        return self._offer(leg, to_tag, exchange.sender, exchange.far, exchange.near, description)

    def _offer(
        self, leg: Leg, sender: str, other: str, near: End, far: End, description: bytes
    ) -> AskRelay | bytes | None:
        if leg.gone or not _knows(leg, sender, other):
            return None
        became = leg.known(sender, description)
        if became is not None:
            return became
        fields = self._fields(leg, OFFER, sender, near, description)
        if other:
            fields["to-tag"] = other
        if len(self.settings.interfaces) == 2:
            fields["direction"] = [self._interface(near), self._interface(far)]
        if ":" in near.host or ":" in far.host:
            fields["address-family"] = "IP6" if ":" in far.host else "IP4"
        if has_dtls(description) and b"\na=crypto:" not in description:
            # Keys in the description would be weaker than what was asked for, and a relay offers them by itself.
            fields["SDES"] = ["off"]
        if near.browser != far.browser:
            _translate(fields, far.browser, description)
        return AskRelay(leg, OFFER, fields, sender, description)

    def _answer(self, leg: Leg, offerer: str, sender: str, near: End, description: bytes) -> AskRelay | bytes | None:
        if leg.gone or not _knows(leg, sender, offerer):
            return None
        became = leg.known(sender, description)
        if became is not None:
            return became
        fields = self._fields(leg, ANSWER, offerer, near, description)
        fields["to-tag"] = sender
        return AskRelay(leg, ANSWER, fields, sender, description)

    def on_reply(self, ask: AskRelay, relay: int, reply: dict[str, Any]) -> bytes | None:
        """The relay has answered: the description that goes on instead; None where the answer is of no use."""
        description = reply.get("sdp")
        if reply.get("result") != b"ok" or not isinstance(description, bytes) or not description.startswith(b"v=0"):
            return None
        leg = ask.leg
        leg.relay = relay
        if ask.command == ANSWER:
            leg.answered = True
            leg.offerer = ""
        leg.remember(ask.sender, ask.description, description)
        return description

    def on_failed(self, ask: AskRelay) -> bool:
        """No relay did it. True where the message is to be refused, False where it goes on as it is."""
        leg = ask.leg
        leg.offerer = ""
        if ask.command == OFFER and not leg.answered:
            # The other side was never told of a relay: this device's media go without one.
            leg.gone = True
            return self.settings.refuse
        return False

    # ------------------------------------------------------------------ ends

    def branch_over(self, key: str, branch: int) -> list[Leg]:
        """A device refused, or was given up: the legs that are to be deleted."""
        call = self._calls.get(key)
        return [] if call is None else self._end(call, [leg for leg in call.legs if leg.branch == branch])

    def dialog_over(self, key: str, tag: str | None) -> list[Leg]:
        """A dialog of a call that goes on has ended."""
        call = self._calls.get(key)
        if call is None or tag is None:
            return []
        over = [leg for leg in call.legs if leg.tags.get(tag) == CALLEE]
        for leg in over:
            # The answer to the last command is the record of all that went through, so its tag is needed to the end.
            leg.ended.add(tag)
        return self._end(
            call, [leg for leg in over if CALLEE not in [leg.tags[t] for t in leg.tags.keys() - leg.ended]]
        )

    def call_over(self, key: str) -> list[Leg]:
        """The call is over."""
        call = self._calls.pop(key, None)
        return [] if call is None else self._end(call, call.legs)

    def _end(self, call: _Call, ended: list[Leg]) -> list[Leg]:
        call.legs = [leg for leg in call.legs if leg not in ended]
        self.legs -= len(ended)
        for leg in ended:
            leg.gone = True
        return [leg for leg in ended if leg.relay >= 0]

    # ------------------------------------------------------------------ decisions

    def _is_needed(self, description: bytes, near: End, far: End) -> bool:
        """Whether this offer, from ``near`` to ``far``, needs a relay."""
        policy = self.settings.policy
        if policy != NAT:
            return policy == ALWAYS
        if self.settings.bridge and near.browser != far.browser:
            return True
        ice = has_ice(description)
        if not ice and is_behind_nat(media_addresses(description), near.host):
            return True
        far_ice, far_nat = self._contacts.get(far.contact, (far.browser, False))
        if ice and far_ice:
            # They find their way themselves (RFC 8445).
            return False
        if far_nat or (far.named != "" and is_behind_nat((far.named,), far.host)):
            return True
        return (":" in near.host) != (":" in far.host)

    def _learn(self, end: End, description: bytes) -> None:
        """What the answer tells of this contact, for the next call to it."""
        if not end.contact or self.settings.policy != NAT:
            return
        ice = has_ice(description)
        known = ice, not ice and is_behind_nat(media_addresses(description), end.host)
        if self._contacts.get(end.contact) != known:
            if len(self._contacts) >= MAX_CONTACTS:
                forget_oldest(self._contacts)
            self._contacts[end.contact] = known

    def _open(self, key: str, exchange: Exchange, to_tag: str) -> Leg | None:
        call = self._calls.get(key)
        if self.legs >= self.settings.max_legs or (call is not None and len(call.legs) >= MAX_LEGS):
            self.refused += 1
            return None
        if call is None:
            call = self._calls[key] = _Call()
        call.opened += 1
        caller_tag = exchange.sender if exchange.side == CALLER else to_tag
        leg = Leg(key, call.opened, exchange.branch, self._call_of(key), caller_tag)
        call.legs.append(leg)
        self.legs += 1
        return leg

    def _leg_of(self, key: str, branch: int, callee_tag: str) -> Leg | None:
        """The leg of this branch, or of the dialog with this tag of the callee's."""
        call = self._calls.get(key)
        if call is None:
            return None
        for leg in call.legs:
            if (branch >= 0 and leg.branch == branch) or (branch < 0 and callee_tag in leg.tags):
                return leg
        return None

    def _fields(self, leg: Leg, command: str, from_tag: str, near: End, description: bytes) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "command": command, "call-id": leg.id, "from-tag": from_tag, "sdp": description,
            "replace": ["origin"], "received-from": ["IP6" if ":" in near.host else "IP4", near.host],
        }  # fmt: skip
        if not has_ice(description) and is_behind_nat(media_addresses(description), near.host):
            # What it names leads nowhere: until its first packet comes, the address that its signalling has is best.
            fields["flags"] = ["SIP-source-address"]
        return fields

    def _interface(self, end: End) -> str:
        return self.settings.interfaces[0 if is_private(end.host) else 1]


def _knows(leg: Leg, *tags: str) -> bool:
    """Whether these belong to the leg, or can be taken in: several may answer (RFC 3261 §13.2.2.4)."""
    for tag in tags:
        if tag and tag not in leg.tags:
            if len(leg.tags) >= MAX_TAGS:
                return False
            leg.tags[tag] = CALLEE
    return True


def delete(leg: Leg) -> dict[str, Any]:
    """The command that ends this leg at its relay, at once. Only with a tag does the answer say what went through."""
    return {"command": DELETE, "call-id": leg.id, "from-tag": next(iter(leg.tags)), "delete-delay": 0}


def _translate(fields: dict[str, Any], to_browser: bool, description: bytes) -> None:
    """A browser demands ICE and DTLS (RFC 8827 §6.5, RFC 8834); other endpoints rarely know them."""
    if to_browser:
        if not has_dtls(description):
            fields["transport-protocol"] = _TO_BROWSER
            fields["SDES"] = ["off"]
            fields["rtcp-mux"] = ["offer"]
        if not has_ice(description):
            fields["ICE"] = "force"
    elif has_dtls(description):
        fields["transport-protocol"] = _TO_OTHERS
        fields["ICE"] = "remove"
        fields["rtcp-mux"] = ["demux"]
