"""Plans of calls: what every endpoint will do, and what the record has to say of it. Pure, and the same for one seed.

A plan knows no moment of the network. Where the order of two messages decides what becomes of a call (a race), the
plan says what either order means, and the wire tells which it was (``support.generator.story``).
"""

from __future__ import annotations

from dataclasses import dataclass

CALLER = "caller"
CALLEE = "callee"
SERVER = "server"

MIRROR = {"sendonly": "recvonly", "recvonly": "sendonly"}


@dataclass(frozen=True, slots=True)
class Picture:
    """What a codec's parameters say, and what that means."""

    parameters: str = ""
    """As in ``a=fmtp``."""
    profile: str | None = None
    level: str | None = None
    pixels: int | None = None
    """Of the largest picture."""


PICTURES = {
    "opus": (Picture(), Picture("useinbandfec=1")),
    "H264": (
        Picture(), Picture("profile-level-id=42e01f;packetization-mode=1", "constrained baseline", "3.1", 921_600),
        Picture("profile-level-id=640028", "high", "4.0", 2_097_152),
    ),
    "H265": (Picture("profile-id=1;level-id=93", "main", "3.1", 983_040),),
    "VP8": (Picture(), Picture("max-fs=3600", None, None, 921_600)),
    "AV1": (Picture("profile=0;level-idx=8", "main", "4.0", 2_359_296),),
}  # fmt: skip
"""By codec (RFC 6184 §8.1, RFC 7798 §7.1, RFC 7741 §6.1, AV1's RTP payload §7.2)."""
BANDWIDTHS = (None, 64_000, 512_000, 1_234_567)
SECURITIES = ("", "", "sdes", "dtls")


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream that both sides agree on."""

    kind: str
    codec: str
    direction: str = "sendrecv"
    """As the caller sees it."""
    accepted: bool = True
    bandwidth: int | None = None
    """Bits a second."""
    picture: Picture = PICTURES["opus"][0]
    security: str = ""
    """``sdes`` or ``dtls``."""
    ice: bool = False


Media = tuple[Stream, ...]

AUDIO = Stream("audio", "opus")
VIDEO = Stream("video", "H264")
SLIDES = Stream("content", "VP8")
TALK: Media = (AUDIO,)
SEE: Media = (AUDIO, VIDEO)


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """One endpoint of a user."""

    name: str
    transport: str
    station: int
    """Which socket of that transport it shares with others."""
    silent: bool = False
    """Registered, and never heard of again."""


@dataclass(frozen=True, slots=True)
class UserPlan:
    """Who can call and be called."""

    name: str
    devices: tuple[DevicePlan, ...] = ()
    subscriber: bool = True


@dataclass(frozen=True, slots=True)
class Act:
    """What one device does with a call."""

    rings: float | None
    """Seconds until it rings; None: it does not."""
    final: int | None
    """The status it answers with; None: it rings until somebody gives up."""
    after: float = 0.0
    """Seconds from the INVITE to that."""


@dataclass(frozen=True, slots=True)
class Change:
    """A re-INVITE or UPDATE."""

    side: str
    method: str
    media: Media | None
    """What is agreed from then on; None: it has no description and is a sign of life only."""
    status: int = 200
    """What the other side answers."""
    delayed: bool = False
    """The re-INVITE carries no offer; the answer does, and the ACK answers."""
    refresh: int = 0
    """Seconds that the session shall last from then on (RFC 4028); 0: nothing is said of that."""
    glare: bool = False
    """Both sides send theirs at once, are told 491 and try again one after the other (RFC 3261 §14.1)."""


@dataclass(frozen=True, slots=True)
class Forge:
    """A request that somebody sends who has no part in the call; refused, and the call goes on."""

    method: str
    how: str
    """``no_route``: without the route that the server gave out; ``bad_route``: with another one; ``tags``: with the
    right route and wrong tags; ``elsewhere``: a CANCEL from another address, while it rings."""


@dataclass(frozen=True, slots=True)
class RefusedBye:
    """A BYE that the other side refuses, so the call goes on."""

    side: str
    status: int


@dataclass(frozen=True, slots=True)
class Refer:
    """The side asks the other to call somebody else; with ``attended``, in the place of a call that it has there."""

    side: str
    call: CallPlan
    consult: CallPlan | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection of the side breaks; it comes back at once."""

    side: str


Step = Change | Forge | RefusedBye | Refer | Cut


@dataclass(frozen=True, slots=True)
class CallPlan:
    """One call."""

    number: int
    scenario: str
    start: float
    """Seconds after the beginning, for a call that nothing else sets off."""
    caller: UserPlan
    callee: UserPlan
    acts: tuple[Act, ...]
    """For each device of the callee."""
    outcome: str
    """Empty where a race decides."""
    ended_by: str = ""
    end_cause: str = ""
    status: int = 0
    """``sip_status``; 0 where a race decides."""
    agreed: Media = TALK
    """What the answer says; the offer has the same streams, none of them refused."""
    delayed: bool = False
    """The INVITE has no offer: the 200 brings it, and the ACK answers."""
    gives_up: float | None = None
    """Seconds after the first provisional response when the caller cancels."""
    early: bool = False
    """What is agreed on is said before the answer, in a 183 that has its PRACK (RFC 3262)."""
    session: int = 0
    """Seconds of the session interval that the endpoints agree on (RFC 4028); 0: they know of none."""
    refresher: str = CALLER
    lost_acks: int = 0
    """Copies of the ACK that never reach the server; all of them where it is -1."""
    steps: tuple[tuple[float, Step], ...] = ()
    """What is done in the call, each after so many seconds."""
    talks: float = 0.3
    """Seconds from the last step to the end."""
    end: str = "bye"
    """``bye``, ``double`` (from both sides at once), ``late`` (the other side's comes after the end), ``deserted`` (the
    other side does not know the call any more, and says 481), ``unanswered`` (it says nothing), ``unconfirmed``
    (the callee gives up), ``stopped`` (the session is not refreshed any more), ``cut_off`` (the connection of ``gone``
    breaks and does not come back) or ``signed_off`` (it signs off, and is not heard of again)."""
    gone: str = ""
    """The side that vanishes."""
    call_id_of: int = -1
    """The number of the call whose Call-ID this one has too."""
    rides: int = -1
    """The number of the call that sets this one off; -1 where ``start`` does."""
    link: str = ""
    """What joins it to that call: ``transfer``, ``attended`` or ``consult``."""

    @property
    def answerable(self) -> bool:
        """Whether some device would answer it."""
        return any(act.final == 200 for act in self.acts)

    @property
    def wire_id(self) -> int:
        """The number in its Call-ID."""
        return self.number if self.call_id_of < 0 else self.call_id_of
