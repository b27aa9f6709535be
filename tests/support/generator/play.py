"""Plays a plan: what the two sides of a call say to each other."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace

from sipserver.sip.build import cancel
from support.generator.dialog import PATIENCE, Answer, Dialog, Invitation
from support.generator.media import describe
from support.generator.plan import (
    CALLEE,
    CALLER,
    CallPlan,
    Change,
    Cut,
    Forge,
    Refer,
    RefusedBye,
)
from support.generator.relay import TcpRelay
from support.generator.world import World
from support.pen import DOMAIN


async def play(world: World, plan: CallPlan) -> None:
    """A call from its INVITE to its end."""
    call = Call(world, plan)
    try:
        await call.play()
    except CallBroken as broken:
        call.played.trouble = str(broken)


class CallBroken(Exception):
    """The call cannot go on as planned: the server was restarted in the middle of it."""


class Call:
    """One call being played: does what its two sides were told to do."""

    def __init__(self, world: World, plan: CallPlan, extra: tuple[str, ...] = ()) -> None:
        self.world = world
        self.plan = plan
        self.played = world.announce(plan)
        self._station, self._device = world.station_of(plan.caller)
        self._invitation = Invitation(self._station, self._device, plan, self.played.call_id, extra)
        self._caller: Dialog
        self._callee: Dialog

    async def play(self) -> None:
        """Until it has ended."""
        await self.connect()
        if self._invitation.kept is not None:
            await self.talk()
            await self.end()
        self.played.done = True

    async def connect(self) -> None:
        """The INVITE, and what comes of it."""
        invitation, plan = self._invitation, self.plan
        await self._station.connected.wait()
        invitation.start()
        if any(isinstance(step, Forge) and step.method == "CANCEL" for _, step in plan.steps):
            await asyncio.wait([invitation.final], timeout=0.35)
            self._forge_cancel()
        if plan.gives_up is not None:
            await _within(PATIENCE, invitation.proceeding)
            _, pending = await asyncio.wait([invitation.final], timeout=plan.gives_up)
            if pending:
                invitation.cancel()
        _, pending = await asyncio.wait([invitation.final], timeout=2 * PATIENCE + 5)
        if pending:
            # The server has forgotten the INVITE: nobody answers any more.
            invitation.cancel()
            raise CallBroken("no final response")
        kept = invitation.kept
        if kept is None:
            if invitation.final.result() is None and plan.gives_up is None:
                raise CallBroken("no final response")
            return
        tag = next(iter(invitation.dialogs))
        self.played.kept = tag
        self.world.know(kept, tag)
        self._caller = kept
        callee = self.world.callee_side(plan.number, tag)
        assert callee is not None, "an answer without a device"
        self._callee = callee
        if plan.gives_up is not None:
            # RFC 3261 §9.1, §15: the answer was faster than the CANCEL, so the call is ended.
            await kept.hang_up()
            self.played.done = True

    async def talk(self) -> None:
        """What happens inside the call."""
        for after, step in self.plan.steps:
            await asyncio.sleep(after)
            if isinstance(step, Change):
                await self._change(step)
            elif isinstance(step, Forge) and step.method == "BYE":
                self._forge_bye(step)
            elif isinstance(step, RefusedBye):
                await self._refused_bye(step)
            elif isinstance(step, Refer):
                await self._refer(step)
            elif isinstance(step, Cut):
                self._cut(step)
        await asyncio.sleep(self.plan.talks)

    def side(self, name: str) -> tuple[Dialog, Dialog]:
        """This side of the call and the other one."""
        return (self._caller, self._callee) if name == CALLER else (self._callee, self._caller)

    async def end(self) -> None:
        """However it was planned."""
        plan = self.plan
        if plan.gives_up is not None:
            return
        if plan.end == "unconfirmed":
            try:
                async with asyncio.timeout(3 * PATIENCE):
                    await self._caller.ended.wait()
            except TimeoutError:
                raise CallBroken("the callee did not end it") from None
            return
        if plan.gone or plan.end == "stopped":
            await self._vanish()
            return
        one, other = self.side(plan.ended_by or CALLER)
        if plan.end == "double":
            await asyncio.gather(one.hang_up(), other.hang_up())
            return
        if plan.end == "deserted":
            other.bye_status = 481
        elif plan.end == "unanswered":
            other.bye_status = 0
        final = await one.hang_up()
        if plan.end == "unanswered":
            return
        if final is None and one.station.reliable:
            await one.station.connected.wait()
            final = await one.hang_up()
        if final is None:
            raise CallBroken("the BYE was not answered")
        if plan.end == "late":
            await asyncio.sleep(0.05)
            await other.hang_up()
        await asyncio.gather(*self._invitation.others)

    async def _vanish(self) -> None:
        """Nobody hangs up any more: the server has to find out."""
        plan, world = self.plan, self.world
        # What is under way arrives before.
        await asyncio.gather(self._caller.acknowledged(), self._callee.acknowledged())
        await world.quiet(plan)
        if plan.end == "signed_off":
            await world.sign_off(plan.caller if plan.gone == CALLER else plan.callee)
        self.played.silent_at = time.time()
        if plan.end == "cut_off":
            self.side(plan.gone)[0].station.vanish()

    # ------------------------------------------------------------------ steps

    async def _change(self, step: Change) -> None:
        one, other = self.side(step.side)
        if not step.glare:
            await self._offer(step, one, other)
            return
        media = step.media or ()
        one.answers = Answer(200, describe(media, step.side, offer=False))
        both = (self._offer(step, one, other), self._offer(replace(step, side=_other(step.side)), other, one))
        await asyncio.gather(*both)
        # Whoever was told 491 tries again, one after the other (RFC 3261 §14.1).
        await asyncio.sleep(0.2)
        await self._offer(step, one, other)

    async def _offer(self, step: Change, one: Dialog, other: Dialog) -> None:
        media, method = step.media, step.method
        offer, answer = b"", b""
        ack_body = b""
        if media is not None:
            if step.delayed:
                answer = describe(media, other.side, offer=True)
                ack_body = describe(media, one.side, offer=False)
            else:
                offer = describe(media, one.side, offer=True)
                answer = describe(media, other.side, offer=False)
        other.answers = Answer(step.status, answer)
        await asyncio.gather(one.acknowledged(), other.acknowledged())
        by = "uac" if step.side == self.plan.refresher else "uas"
        extra = ("Supported: timer", f"Session-Expires: {step.refresh};refresher={by}") if step.refresh else ()
        number, final = await one.change(method, offer, ack_body, *extra)
        if final is None:
            raise CallBroken(f"the {method} was not answered")
        if final.status == 200:
            self.played.changes[one.key[1], number] = media
            if step.delayed:
                self.played.delayed.add((one.key[1], number))
        elif final.status not in (step.status, 491):
            raise CallBroken(f"the {method} was answered {final.status}")

    def _forge_cancel(self) -> None:
        """A CANCEL of the INVITE under way, which has to come from where that came from (RFC 3261 §9.2)."""
        request = self._invitation.request
        self.played.forged.append(("CANCEL", request.branch))
        self.world.attack(cancel(request).data)

    def _forge_bye(self, step: Forge) -> None:
        """A BYE of somebody who has read what passes, but cannot send from where it came."""
        world, caller = self.world, self._caller
        branch = f"z9hG4bKforged{self.plan.number}.{len(self.played.forged)}"
        lines = caller.lines(caller.cseq + 1, "BYE", routed=step.how != "no_route")
        if step.how == "bad_route":
            lines = [line.replace("vc=", "vc=0000") if line.startswith("Route:") else line for line in lines]
        elif step.how == "tags":
            lines = [line.replace(";tag=", ";tag=x") for line in lines]
        head = [
            f"BYE {caller.target} SIP/2.0", f"Via: SIP/2.0/UDP {world.attacker_hostport()};branch={branch};rport",
            "Max-Forwards: 70", *lines, "Content-Length: 0", "", "",
        ]  # fmt: skip
        self.played.forged.append(("BYE", branch))
        world.attack("\r\n".join(head).encode())

    async def _refused_bye(self, step: RefusedBye) -> None:
        one, other = self.side(step.side)
        other.bye_status = step.status
        final = await one.hang_up()
        one.over = False
        if final is None or final.status != step.status:
            raise CallBroken("the BYE was not refused")

    async def _refer(self, step: Refer) -> None:
        """RFC 3515: the other side is asked to call; it accepts, calls, and tells what came of it."""
        world = self.world
        one, other = self.side(step.side)
        consult = None
        target = f"sip:{step.call.callee.name}@{DOMAIN}"
        replaces: tuple[str, ...] = ()
        if step.consult is not None:
            consult = Call(world, step.consult)
            await consult.connect()
            if consult._invitation.kept is None:
                raise CallBroken("nobody to consult")
            kept = consult._invitation.kept
            # RFC 3891 §3: the tags as the callee of that call has them.
            value = f"{kept.call_id};to-tag={consult.played.kept};from-tag={kept.key[1]}"
            replaces = (f"Replaces: {value}", "Require: replaces")
            escaped = value.replace("@", "%40").replace(";", "%3B").replace("=", "%3D")
            target = f"{target}?Replaces={escaped}"
        _, exchange = one.request("REFER", f"Refer-To: <{target}>", f"Referred-By: <sip:{one.device}@{DOMAIN}>")
        final = await exchange.final
        if final is None or final.status != 202:
            raise CallBroken("the REFER was not accepted")
        call = Call(world, step.call, (f"Referred-By: <sip:{one.device}@{DOMAIN}>", *replaces))
        await call.connect()
        lines = ("Event: refer", "Subscription-State: terminated;reason=noresource", "Content-Type: message/sipfrag")
        _, notified = other.request("NOTIFY", *lines, body=b"")
        await notified.final
        if consult is not None:
            # RFC 3891 §3: whose call is replaced ends it.
            await consult.end()
            consult.played.done = True
        if call._invitation.kept is None:
            raise CallBroken("the referred call did not come about")
        world.riding.append(asyncio.create_task(call.finish()))

    async def finish(self) -> None:
        """The rest of a call that is connected."""
        try:
            await self.talk()
            await self.end()
            self.played.done = True
        except CallBroken as broken:
            self.played.trouble = str(broken)

    def _cut(self, step: Cut) -> None:
        one, _ = self.side(step.side)
        relay = one.station.relay
        assert isinstance(relay, TcpRelay)
        self.played.cut = True
        relay.cut()


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for an event, but not longer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _other(side: str) -> str:
    return CALLEE if side == CALLER else CALLER
