"""Plans of random calls, each scenario as often as its weight says. Pure, and the same for one seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from support.generator.people import populate
from support.generator.plan import (
    AUDIO,
    BANDWIDTHS,
    CALLEE,
    CALLER,
    PICTURES,
    SECURITIES,
    SEE,
    SERVER,
    SLIDES,
    TALK,
    VIDEO,
    Act,
    CallPlan,
    Change,
    Cut,
    Forge,
    Media,
    Refer,
    RefusedBye,
    Step,
    Stream,
    UserPlan,
)

LAST_VANISHES = 0.75
"""Part of the calls after which nobody vanishes any more."""
INTERVAL = 2
"""Seconds of a session."""
_FORGED = {"elsewhere": "CANCEL"}


class Planner:
    """Yields plans; each scenario as often as its weight says."""

    def __init__(self, seed: int, calls: int, seconds: float) -> None:
        self.people = populate(seed)
        self._dice = random.Random(f"calls {seed}")
        self._calls = calls
        self._seconds = seconds
        self._number = 0
        self._cuts = self._sessions = 0
        self._mortal = list(self.people.mortal)
        self._shy = list(self.people.shy)
        self._scenarios: tuple[tuple[int, Callable[[], tuple[CallPlan, ...]]], ...] = (
            (22, self._answered), (5, self._busy), (6, self._declined), (4, self._failing), (4, self._no_answer),
            (2, self._rings_for_ever), (8, self._cancelled), (6, self._cancel_race), (2, self._offline),
            (2, self._not_found), (1, self._unreachable), (8, self._fork_answered), (4, self._fork_refused),
            (4, self._fork_twice), (2, self._half_silent), (8, self._changed), (3, self._glare), (4, self._lost_ack),
            (5, self._forged), (2, self._refused_bye), (5, self._two_byes), (2, self._twins), (4, self._transfer),
            (2, self._attended), (1, self._connection_cut), (2, self._unanswered_bye), (4, self._early),
            (2, self._early_refused), (4, self._session), (1, self._cut_off), (1, self._signed_off),
        )  # fmt: skip

    def plans(self) -> Iterator[CallPlan]:
        """Every call, those that others set off among them."""
        kinds = [make for _, make in self._scenarios]
        weights = [weight for weight, _ in self._scenarios]
        # One of each at first, so that a short run has them all.
        turns = list(kinds)
        while self._number < self._calls:
            make = turns.pop() if turns else self._dice.choices(kinds, weights)[0]
            yield from make()

    # ------------------------------------------------------------------ calls that are not answered

    def _busy(self) -> tuple[CallPlan, ...]:
        act = Act(None, self._dice.choice((486, 600)), self._soon())
        status = act.final or 0
        return (self._refused("busy", "busy", status, act),)

    def _declined(self) -> tuple[CallPlan, ...]:
        status = self._dice.choice((603, 486, 607, 608))
        rings = self._soon()
        return (self._refused("declined", "declined", status, Act(rings, status, rings + self._between(0.3, 0.8))),)

    def _failing(self) -> tuple[CallPlan, ...]:
        status, outcome = self._dice.choice(
            ((500, "failed"), (488, "failed"), (404, "not_found"), (484, "not_found"), (403, "forbidden"))
        )
        rings = self._dice.choice((None, self._soon()))
        return (self._refused("failing", outcome, status, Act(rings, status, (rings or 0) + self._between(0.2, 0.6))),)

    def _no_answer(self) -> tuple[CallPlan, ...]:
        rings = self._soon()
        return (self._refused("no_answer", "no_answer", 480, Act(rings, 480, rings + self._between(0.8, 1.6))),)

    def _rings_for_ever(self) -> tuple[CallPlan, ...]:
        plan = self._call("rings_for_ever", self._one(self.people.callees), Act(self._soon(), None))
        return (replace(plan, outcome="no_answer", status=408, ended_by=SERVER, end_cause="timeout"),)

    def _refused(self, scenario: str, outcome: str, status: int, act: Act) -> CallPlan:
        plan = self._call(scenario, self._one(self.people.callees), act)
        return replace(plan, outcome=outcome, status=status, ended_by=CALLEE, end_cause="refused")

    def _cancelled(self) -> tuple[CallPlan, ...]:
        several = self._dice.random() < 0.3
        callee = self._one(self.people.pairs if several else self.people.callees)
        acts = tuple(Act(self._dice.choice((None, self._soon())), None) for _ in callee.devices)
        plan = self._call("cancelled", callee, *acts)
        gives_up = self._dice.choice((0.0, 0.05, 0.3, 0.8, 1.5))
        return (
            replace(
                plan, outcome="cancelled", status=487, ended_by=CALLER, end_cause="cancel", gives_up=gives_up
            ),
        )  # fmt: skip

    def _cancel_race(self) -> tuple[CallPlan, ...]:
        """Whoever is faster: outcome, end and status follow from the wire."""
        at = self._between(0.3, 0.6)
        plan = self._call("cancel_race", self._one(self.people.callees), Act(self._soon(), 200, at))
        return (replace(plan, gives_up=max(at + self._between(-0.06, 0.06), 0.0)),)

    def _offline(self) -> tuple[CallPlan, ...]:
        plan = self._call("offline", self._one(self.people.offline))
        return (replace(plan, outcome="offline", status=480, ended_by=SERVER, end_cause="refused"),)

    def _not_found(self) -> tuple[CallPlan, ...]:
        plan = self._call("not_found", self._one(self.people.ghosts))
        return (replace(plan, outcome="not_found", status=404, ended_by=SERVER, end_cause="refused"),)

    def _unreachable(self) -> tuple[CallPlan, ...]:
        plan = self._call("unreachable", self._one(self.people.silent), Act(None, None))
        return (replace(plan, outcome="offline", status=408, ended_by=SERVER, end_cause="unreachable"),)

    # ------------------------------------------------------------------ answered calls

    def _answered(self) -> tuple[CallPlan, ...]:
        return (self._with_media(self._talk("answered")),)

    def _changed(self) -> tuple[CallPlan, ...]:
        """Hold, resume, video on and off, slides, refreshes, refusals, in any order."""
        dice = self._dice
        plan = self._with_media(self._talk("changed"))
        steps: list[tuple[float, Step]] = []
        media = plan.agreed
        for _ in range(dice.randint(1, 4)):
            change = self._change(media)
            steps.append((self._between(0.1, 0.4), change))
            if change.media is not None and change.status == 200:
                media = change.media
        return (replace(plan, steps=tuple(steps)),)

    def _change(self, media: Media) -> Change:
        dice = self._dice
        side = dice.choice((CALLER, CALLEE))
        method = dice.choice(("INVITE", "INVITE", "UPDATE"))
        what = dice.random()
        if what < 0.3:
            direction = dice.choice(("sendrecv", "sendonly", "recvonly", "inactive"))
            new = tuple(replace(each, direction=direction) if each.accepted else each for each in media)
        elif what < 0.6:
            # RFC 3264 §8: streams are never taken out of a description, only refused; new ones come at its end.
            more = self._dressed(VIDEO, media[0])
            new = (*media, more) if len(media) == 1 else (media[0], self._turned(media[1]), *media[2:])
        elif what < 0.7 and len(media) == 2:
            new = (*media, self._dressed(SLIDES, media[0]))
        elif what < 0.75:
            new = tuple(replace(each, bandwidth=dice.choice(BANDWIDTHS)) for each in media)
        else:
            new = media
        if what > 0.85:
            return Change(side, "UPDATE" if method == "UPDATE" else "INVITE", None if method == "UPDATE" else media)
        refused = dice.random() < 0.1
        return Change(side, method, new, dice.choice((488, 500)) if refused else 200,
                      delayed=method == "INVITE" and not refused and dice.random() < 0.15)  # fmt: skip

    @staticmethod
    def _turned(stream: Stream) -> Stream:
        return replace(stream, accepted=not stream.accepted, direction="sendrecv")

    def _glare(self) -> tuple[CallPlan, ...]:
        plan = self._with_media(self._talk("glare"))
        held = tuple(replace(each, direction="sendonly") if each.accepted else each for each in plan.agreed)
        return (replace(plan, steps=((self._between(0.2, 0.4), Change(CALLER, "INVITE", held, glare=True)),)),)

    def _lost_ack(self) -> tuple[CallPlan, ...]:
        lost = self._dice.choice((1, 2, 3, -1))
        plan = self._talk("lost_ack")
        if lost < 0:
            # RFC 3261 §13.3.1.4: whoever answered and hears no ACK for 64*T1 ends the call with a BYE.
            return (replace(plan, lost_acks=-1, ended_by=CALLEE, end="unconfirmed"),)
        return (replace(plan, lost_acks=lost),)

    def _forged(self) -> tuple[CallPlan, ...]:
        hows = self._dice.sample(("no_route", "bad_route", "tags", "elsewhere"), self._dice.randint(1, 4))
        steps = tuple((self._between(0.05, 0.2), Forge(_FORGED.get(how, "BYE"), how)) for how in hows)
        plan = self._talk("forged", None, Act(self._soon(), 200, self._between(0.4, 0.6)))
        return (replace(plan, steps=steps),)

    def _refused_bye(self) -> tuple[CallPlan, ...]:
        bye = RefusedBye(self._dice.choice((CALLER, CALLEE)), self._dice.choice((403, 500)))
        return (replace(self._talk("refused_bye"), steps=((self._between(0.1, 0.3), bye),), talks=0.4),)

    def _two_byes(self) -> tuple[CallPlan, ...]:
        end = self._dice.choice(("double", "late", "deserted"))
        plan = self._talk(f"bye_{end}")
        return (replace(plan, end=end, ended_by="" if end == "double" else plan.ended_by),)

    def _unanswered_bye(self) -> tuple[CallPlan, ...]:
        return (replace(self._talk("bye_unanswered"), end="unanswered"),)

    def _connection_cut(self) -> tuple[CallPlan, ...]:
        self._cuts += 1
        cuttable = self.people.cuttable
        plan = self._talk("cut", cuttable[self._cuts % len(cuttable)])
        return (replace(plan, steps=((self._between(0.1, 0.2), Cut(CALLEE)),), talks=self._between(0.6, 0.9)),)

    def _early(self) -> tuple[CallPlan, ...]:
        """Media before the answer."""
        return (replace(self._with_media(self._talk("early", None, self._after_early(200))), early=True),)

    def _early_refused(self) -> tuple[CallPlan, ...]:
        plan = self._refused("early_refused", "declined", 603, self._after_early(603))
        return (replace(self._with_media(plan), early=True),)

    def _after_early(self, status: int) -> Act:
        rings = self._soon()
        return Act(rings, status, rings + self._between(0.4, 0.8))

    def _session(self) -> tuple[CallPlan, ...]:
        """A session timer; half of them are not refreshed any more in the end."""
        dice = self._dice
        plan = replace(
            self._with_media(self._talk("session")), session=INTERVAL, refresher=dice.choice((CALLER, CALLEE))
        )
        steps = []
        for _ in range(dice.randint(0, 2)):
            method = dice.choice(("INVITE", "UPDATE"))
            media = plan.agreed if method == "INVITE" else None
            steps.append((0.4 * INTERVAL, Change(plan.refresher, method, media, refresh=INTERVAL)))
        plan = replace(plan, steps=tuple(steps))
        self._sessions += 1
        if self._sessions % 2 == 0:
            return (plan,)
        return (replace(plan, scenario="session_stopped", end="stopped", ended_by=SERVER, end_cause="session_expired"),)

    def _cut_off(self) -> tuple[CallPlan, ...]:
        return self._vanish("cut_off", self._mortal, "connection_lost")

    def _signed_off(self) -> tuple[CallPlan, ...]:
        return self._vanish("signed_off", self._shy, "registration_lost")

    def _vanish(self, end: str, users: list[UserPlan], cause: str) -> tuple[CallPlan, ...]:
        """One side is never heard of again. Where all have vanished, or at the end, an ordinary call: it takes the
        server its time to miss somebody."""
        if not users or self._number > LAST_VANISHES * self._calls:
            return self._answered()
        who, side = users.pop(), self._dice.choice((CALLER, CALLEE))
        plan = self._with_media(self._talk(end, who if side == CALLEE else None))
        if side == CALLER:
            plan = replace(plan, caller=who)
        return (replace(plan, end=end, gone=side, ended_by=SERVER, end_cause=cause),)

    def _twins(self) -> tuple[CallPlan, ...]:
        """Two calls at once that have the same Call-ID."""
        first = self._talk("twins")
        second = self._talk("twins")
        while second.caller is first.caller:
            second = replace(second, caller=self._one(self.people.callers))
        return first, replace(second, call_id_of=first.number, start=first.start + self._between(0.0, 0.1))

    def _transfer(self) -> tuple[CallPlan, ...]:
        """A talks to B and asks it to call C; then the first call ends."""
        plan = self._talk("transfer")
        referrer = self._dice.choice((CALLER, CALLEE))
        asked = plan.callee if referrer == CALLER else plan.caller
        second = replace(self._talk("transferred"), caller=asked, rides=plan.number, link="transfer")
        refer = Refer(referrer, second)
        plan = replace(plan, steps=((self._between(0.1, 0.3), refer),), ended_by=referrer, talks=0.2)
        return plan, second

    def _attended(self) -> tuple[CallPlan, ...]:
        """A talks to B, then to C, and asks B to take A's place in the call with C (RFC 3891, RFC 5589 §7)."""
        plan = self._talk("attended")
        consult = replace(self._talk("consult"), caller=plan.caller, rides=plan.number, link="consult",
                          ended_by=CALLEE)  # fmt: skip
        third = replace(self._talk("attended_to"), caller=plan.callee, callee=consult.callee, rides=plan.number,
                        acts=(Act(None, 200, 0.05),), link="attended")  # fmt: skip
        refer = Refer(CALLER, third, consult)
        plan = replace(plan, steps=((self._between(0.1, 0.3), refer),), ended_by=CALLER, talks=0.2)
        return plan, consult, third

    # ------------------------------------------------------------------ forks

    def _fork_answered(self) -> tuple[CallPlan, ...]:
        """One device answers; of the others some have refused before, the rest are cancelled."""
        dice = self._dice
        callee = self._one(self.people.pairs)
        winner = dice.randrange(len(callee.devices))
        acts = []
        for index in range(len(callee.devices)):
            if index == winner:
                acts.append(Act(self._soon(), 200, self._between(0.9, 1.3)))
            elif dice.random() < 0.4:
                acts.append(Act(dice.choice((None, self._soon())), dice.choice((486, 480)), self._between(0.2, 0.4)))
            else:
                acts.append(Act(dice.choice((None, self._soon())), None))
        return (self._with_media(self._talk("fork_answered", callee, *acts)),)

    def _fork_refused(self) -> tuple[CallPlan, ...]:
        """All devices refuse alike; or one speaks for all with a 6xx."""
        callee = self._one(self.people.pairs)
        acts = tuple(Act(None, 486, self._between(0.1, 0.5)) for _ in callee.devices)
        status = 486
        if self._dice.random() < 0.5:
            status = 603
            acts = (Act(self._soon(), 603, self._between(0.5, 0.8)), *(Act(self._soon(), None) for _ in acts[1:]))
        plan = self._call("fork_refused", callee, *acts)
        outcome = "busy" if status == 486 else "declined"
        return (replace(plan, outcome=outcome, status=status, ended_by=CALLEE, end_cause="refused"),)

    def _fork_twice(self) -> tuple[CallPlan, ...]:
        """Two devices answer in the same moment. The call is the one that the caller keeps."""
        callee = self._one(self.people.pairs)
        at = self._between(0.4, 0.7)
        acts = tuple(Act(self._soon(), 200, at + self._between(0.0, 0.01)) for _ in callee.devices)
        return (self._talk("fork_twice", callee, *acts),)

    def _half_silent(self) -> tuple[CallPlan, ...]:
        callee = self._one(self.people.half_silent)
        acts = (Act(self._soon(), 200, self._between(0.3, 0.6)), Act(None, None))
        return (self._talk("half_silent", callee, *acts),)

    # ------------------------------------------------------------------ parts

    def _call(self, scenario: str, callee: UserPlan, *acts: Act) -> CallPlan:
        self._number += 1
        start = self._number / self._calls * self._seconds
        return CallPlan(self._number, scenario, start, self._one(self.people.callers), callee, acts, "")

    def _talk(self, scenario: str, callee: UserPlan | None = None, *acts: Act) -> CallPlan:
        """A call that is answered, and ended by either side."""
        rings = self._dice.choice((None, self._soon(), self._soon()))
        acts = acts or (Act(rings, 200, (rings or 0) + self._between(0.1, 0.6)),)
        plan = self._call(scenario, callee or self._one(self.people.callees), *acts)
        return replace(
            plan, outcome="answered", status=200, ended_by=self._dice.choice((CALLER, CALLEE)), end_cause="bye",
            talks=self._between(0.2, 1.2),
        )  # fmt: skip

    def _with_media(self, plan: CallPlan) -> CallPlan:
        dice = self._dice
        agreed: Media = dice.choice((TALK, SEE, SEE, (AUDIO, VIDEO, SLIDES)))
        if len(agreed) > 1 and dice.random() < 0.25:
            agreed = (AUDIO, *(replace(each, accepted=False) for each in agreed[1:]))
        first = replace(AUDIO, security=dice.choice(SECURITIES), ice=dice.random() < 0.3)
        agreed = tuple(self._dressed(each, first) for each in agreed)
        return replace(plan, agreed=agreed, delayed=dice.random() < 0.15)

    def _dressed(self, stream: Stream, like: Stream) -> Stream:
        """With a bandwidth and a picture of its own, and the rest as that stream has it."""
        dice = self._dice
        codec = dice.choice(("H264", "H265", "VP8", "AV1")) if stream.kind == "video" else stream.codec
        return replace(
            stream, codec=codec, bandwidth=dice.choice(BANDWIDTHS), picture=dice.choice(PICTURES[codec]),
            security=like.security, ice=like.ice,
        )  # fmt: skip

    def _one(self, of: Sequence[UserPlan]) -> UserPlan:
        return self._dice.choice(of)

    def _soon(self) -> float:
        return self._between(0.0, 0.15)

    def _between(self, least: float, most: float) -> float:
        return self._dice.uniform(least, most)
