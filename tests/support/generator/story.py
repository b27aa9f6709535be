"""What the server could see of a call, told by the wire alone. Pure.

Each INVITE that reached the server and was not challenged began a call; everything after is told by its tags. A
message that came again, or that another had made meaningless by then, is left out here as it has to be in the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from support.generator.plan import CALLEE, CALLER
from support.generator.wire import Seen


@dataclass(slots=True)
class Final:
    """What a device answered in the end."""

    at: float
    status: int


@dataclass(slots=True)
class Bye:
    """A BYE that was answered so that the call is over."""

    at: float
    """The answer reached the server."""
    asked_at: float
    """The BYE did."""
    side: str


@dataclass(slots=True)
class Story:
    """One call in one run of the server. Times are UNIX seconds."""

    run: int
    started: float
    branch: str
    number: int
    """The CSeq of the INVITE."""
    rang: dict[str, float] = field(default_factory=dict)
    """By the tag of the device: when it was first heard ringing."""
    rang_late: dict[str, float] = field(default_factory=dict)
    """The same, where the call was answered by then: whether it counts is a matter of which socket is read first."""
    finals: dict[str, Final] = field(default_factory=dict)
    """By the tag of the device."""
    cancelled: float | None = None
    cancel_at: float | None = None
    """When a CANCEL came, even one that came after the answer."""
    passed: Final | None = None
    """The final response as the server passed it on or made it."""
    confirmed: float | None = None
    """When the first ACK came, before the end."""
    acked: float | None = None
    """The same, even after it."""
    changes: list[tuple[float, str, int]] = field(default_factory=list)
    """Re-INVITEs and UPDATEs that were accepted: when, and the tag and number of the request."""
    acks: dict[tuple[str, int], float] = field(default_factory=dict)
    """By tag and number of the INVITE that is acknowledged: when the first ACK came."""
    kept: str = ""
    """The tag of the device whose dialog is the call (``_which_was_kept``)."""
    parted: dict[str, float] = field(default_factory=dict)
    """By the tag of the device: when the caller's BYE for it came first."""
    heard: dict[str, float] = field(default_factory=dict)
    """By the tag of the device: when its first response to the INVITE came, if only 100."""
    pracked: float | None = None
    """When the PRACK of a 183 was accepted."""
    pracked_early: bool = False
    """Whether nobody had answered the INVITE by then."""
    seen_of: dict[str, float] = field(default_factory=dict)
    """By side: when there was a sign of life of it in the answered call last."""
    byes: list[Bye] = field(default_factory=list)
    hung_up: Bye | None = None
    """The first BYE, answered or not."""
    bye_passed: float | None = None
    """The server passed on the answer to the first of them."""

    @property
    def answers(self) -> dict[str, float]:
        """By the tag of the device: when its 2xx came. One that comes after the caller was refused comes too late."""
        until = self.passed.at if self.passed is not None and self.passed.status >= 300 else None
        return {
            tag: each.at
            for tag, each in self.finals.items()
            if each.status < 300 and (until is None or each.at < until)
        }

    @property
    def answered(self) -> float | None:
        """When the 2xx came of the device that the caller kept."""
        return self.answers.get(self.kept)

    @property
    def first_answer(self) -> float | None:
        """When the first 2xx came, of whatever device: nobody rings after it, and nothing can be cancelled."""
        return min(self.answers.values(), default=None)

    @property
    def ringing(self) -> float | None:
        """When the first device was heard ringing."""
        return min(self.rang.values(), default=None)

    @property
    def end(self) -> Bye | None:
        """The BYE that ended it."""
        return self.byes[0] if self.byes else None


def tell(seen: Sequence[Seen], tag: str) -> list[Story]:
    """The calls of the caller with this tag."""
    challenged = {(each.run, each.branch) for each in seen if each.status in (401, 407) and not each.to_server}
    stories: dict[tuple[int, str], Story] = {}
    for each in seen:
        if tag not in (each.from_tag, each.to_tag):
            continue
        if (
            each.to_server and not each.status and each.method == "INVITE" and not each.to_tag
            and (each.run, each.branch) not in challenged
        ):  # fmt: skip
            stories.setdefault((each.run, each.branch), Story(each.run, each.at, each.branch, each.number))
    for story in stories.values():
        story.kept = _which_was_kept(story, tag, seen)
        _Teller(story, tag).tell(seen)
    return sorted(stories.values(), key=lambda story: story.started)


def _which_was_kept(story: Story, tag: str, seen: Sequence[Seen]) -> str:
    """The tag of the device whose dialog is the call, by RFC 3261 §13.2.2.4 and what reached the server.

    Of several that answered it is the one that the caller did not part from, or parted from last; a device that hangs
    up has no say in that, but where it is all that is known. The first is the call as long as nothing is.
    """
    answers: dict[str, float] = {}
    left: dict[str, float] = {}
    over: dict[str, float] = {}
    for each in seen:
        if each.run != story.run or each.link == "attacker" or not each.to_server or each.at < story.started:
            continue
        if (
            each.from_tag == tag
            and each.method == "INVITE"
            and each.number == story.number
            and 200 <= each.status < 300
        ):
            answers.setdefault(each.to_tag, each.at)
        elif each.method == "BYE" and not each.status and each.from_tag == tag:
            story.parted.setdefault(each.to_tag, each.at)
        elif each.method == "BYE" and each.status and _is_over(each.status):
            device = each.from_tag if each.to_tag == tag else each.to_tag
            over.setdefault(device, each.at)
            if each.to_tag == tag:
                left.setdefault(device, each.at)
    # Once no dialog is left and a BYE is answered, the call is over: what the caller says then comes too late.
    never = float("inf")
    alone_at = max((min(story.parted.get(each, never), left.get(each, never)) for each in answers), default=never)
    over_at = min((at for at in over.values() if at >= alone_at), default=never)
    parted = {device: at for device, at in story.parted.items() if at <= over_at}
    stay = [device for device in answers if device not in parted]
    if not stay:
        return _last_parted_from(parted, answers)
    up = [device for device in stay if device not in left]
    return min(up, key=lambda device: answers[device]) if up else max(stay, key=lambda device: left[device])


def _last_parted_from(parted: dict[str, float], answers: dict[str, float]) -> str:
    kept = ""
    for device in sorted(answers, key=lambda device: parted[device]):
        # Whoever answered only after the caller had hung up is not why it did.
        if not kept or answers[device] <= parted[kept]:
            kept = device
    return kept


def _is_over(status: int) -> bool:
    # RFC 3261 §15.1.1: 481 and 408 say as well as 200 that nobody has the call any longer.
    return 200 <= status < 300 or status in (408, 481)


class _Teller:
    def __init__(self, story: Story, tag: str) -> None:
        self._story = story
        self._tag = tag
        self._byes: dict[tuple[str, int], float] = {}
        self._told: set[tuple[str, str, int, int]] = set()
        self._changed: set[tuple[str, int]] = set()

    def tell(self, seen: Sequence[Seen]) -> None:
        story, tag = self._story, self._tag
        for each in seen:
            if each.run != story.run or tag not in (each.from_tag, each.to_tag) or each.at < story.started:
                continue
            if each.link == "attacker":
                continue
            if each.to_server:
                self._sign(each)
            if each.to_server and each.status:
                self._response(each)
            elif each.to_server:
                self._request(each)
            elif each.status >= 200 and each.branch == story.branch and each.method == "INVITE":
                story.passed = story.passed or Final(each.at, each.status)
            elif each.status >= 200 and each.method == "BYE" and story.byes and story.bye_passed is None:
                story.bye_passed = each.at

    def _sign(self, each: Seen) -> None:
        """A sign of life; what is sent again is none, since transactions keep it from the call."""
        story = self._story
        answer = each.method == "INVITE" and each.number == story.number and each.from_tag == self._tag
        of_call = not self._concerns_another(each) and bool(each.to_tag) and story.kept in story.finals
        told = each.method, each.from_tag, each.number, each.status
        absent = each.status in (408, 481)
        if not of_call or answer or absent or each.status == 100 or (told in self._told and each.method != "ACK"):
            return
        self._told.add(told)
        by_caller = (each.from_tag == self._tag) == (not each.status)
        story.seen_of[CALLER if by_caller else CALLEE] = each.at
        # An ACK and an accepted offer show that the other side has just been there as well.
        if each.method == "ACK" or (each.method in ("INVITE", "UPDATE") and 200 <= each.status < 300):
            story.seen_of[CALLEE if by_caller else CALLER] = each.at

    def _request(self, each: Seen) -> None:
        story = self._story
        if each.method == "CANCEL" and each.branch == story.branch:
            story.cancel_at = story.cancel_at or each.at
            if story.cancelled is None and story.first_answer is None and story.passed is None:
                story.cancelled = each.at
        elif each.method == "ACK" and each.to_tag:
            # That of a later INVITE says as well that the caller has its answer.
            own = each.from_tag == self._tag and not self._concerns_another(each)
            if own and story.answered is not None:
                story.acked = story.acked or each.at
                if not story.byes:
                    story.confirmed = story.confirmed or each.at
            story.acks.setdefault((each.from_tag, each.number), each.at)
        elif each.method == "BYE" and not self._concerns_another(each):
            self._byes.setdefault((each.from_tag, each.number), each.at)
            side = CALLER if each.from_tag == self._tag else CALLEE
            story.hung_up = story.hung_up or Bye(each.at, each.at, side)

    def _response(self, each: Seen) -> None:
        story = self._story
        initial = each.method == "INVITE" and each.from_tag == self._tag and each.number == story.number
        key = each.from_tag, each.number
        if initial and story.passed is None:
            story.heard.setdefault(each.to_tag, each.at)
        if initial and each.to_tag not in story.finals:
            if each.status >= 200:
                story.finals[each.to_tag] = Final(each.at, each.status)
            elif 180 <= each.status < 190:
                early = story.first_answer is None and story.passed is None
                (story.rang if early else story.rang_late).setdefault(each.to_tag, each.at)
        elif initial or self._concerns_another(each):
            return
        elif each.method == "PRACK":
            if 200 <= each.status < 300:
                if story.pracked is None:
                    story.pracked, story.pracked_early = each.at, not story.finals
        elif each.method in ("INVITE", "UPDATE"):
            if 200 <= each.status < 300 and key not in self._changed and not story.byes:
                self._changed.add(key)
                story.changes.append((each.at, *key))
        elif each.method == "BYE" and key in self._byes:
            if _is_over(each.status):
                side = CALLER if each.from_tag == self._tag else CALLEE
                if all(bye.asked_at != self._byes[key] for bye in story.byes):
                    story.byes.append(Bye(each.at, self._byes[key], side))

    def _concerns_another(self, each: Seen) -> bool:
        other = each.to_tag if each.from_tag == self._tag else each.from_tag
        return bool(self._story.kept) and other != self._story.kept
