"""Plays plans: the endpoints of everybody, the relays, the restarts of the server."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from sipserver.server.timers import TimerQueue
from sipserver.server.transactions import ServerTransaction
from sipserver.sip.build import cancel
from sipserver.sip.message import Request
from support.generator.dialog import PATIENCE, Answer, Dialog, Invitation, Played, Ringing
from support.generator.media import describe
from support.generator.plan import (
    CALLEE,
    CALLER,
    CUTTABLE_STATIONS,
    TCP_STATIONS,
    UDP_STATIONS,
    CallPlan,
    Change,
    Cut,
    DevicePlan,
    Forge,
    Population,
    Refer,
    RefusedBye,
    UserPlan,
)
from support.generator.relay import HOST, Network, TcpRelay, UdpRelay
from support.generator.station import Station, reply
from support.pen import DOMAIN
from support.server import ServerProcess

ASKED_EVERY = 0.02
"""Seconds between two questions of the probe."""


@dataclass(slots=True)
class Outage:
    """A restart of the server."""

    signal: str
    """``KILL`` or ``TERM``."""
    run: int
    """The run that it ended."""
    down: float
    """From here on nothing reached the old server (UNIX seconds)."""
    gone: float = 0.0
    """The old process was no more."""
    up: float = 0.0
    """The new one served."""


@dataclass(slots=True)
class Probe:
    """How long the server took for a question that it answers at once: what stands in its queue takes as long."""

    asked: list[float] = field(default_factory=list)
    answered: dict[int, float] = field(default_factory=dict)


class World:
    """Everybody, and the server between them."""

    def __init__(self, server: ServerProcess, people: Population, seed: int) -> None:
        self.server = server
        self.people = people
        self.network = Network((HOST, server.port), seed)
        self.outages: list[Outage] = []
        self.played: dict[int, Played] = {}
        """By number."""
        self.probe = Probe()
        self._seed = seed
        self._plans: dict[int, CallPlan] = {}
        self._stations: dict[tuple[str, int], Station] = {}
        self._dialogs: dict[tuple[str, str], Dialog] = {}
        self._ringing: dict[int, list[Ringing]] = {}
        self._devices = {
            device.name: (user, index, device) for user in people.everybody for index, device in enumerate(user.devices)
        }
        loop = asyncio.get_running_loop()
        self._timers = TimerQueue(loop.time, loop.call_at)
        self._tasks: set[asyncio.Task[None]] = set()
        self._riding: list[asyncio.Task[None]] = []
        self._attacker: socket.socket | None = None

    # ------------------------------------------------------------------ begin and end

    async def open(self) -> None:
        """Open the sockets, register every device."""
        for transport, count in (("UDP", UDP_STATIONS), ("TCP", TCP_STATIONS + CUTTABLE_STATIONS)):
            for number in range(count):
                name = f"{transport.lower()}{number}"
                relay = UdpRelay(self.network, name) if transport == "UDP" else TcpRelay(self.network, name)
                station = Station(name, relay, self._timers)
                station.on_invite, station.in_dialog = self._on_invite, self._in_dialog
                self._stations[transport, number] = station
                await station.open()
        for _, _, device in self._devices.values():
            station = self._station(device)
            if device.silent:
                station.silent.add(device.name)
        await self._register([(user, device) for user, _, device in self._devices.values()])
        for (transport, number), station in self._stations.items():
            if transport == "TCP":
                station.on_connected = lambda number=number: self._spawn(self._register_again(number))  # type: ignore[misc]
        self._attacker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._attacker.bind(("127.0.0.2", 0))
        self._spawn(self._ask_the_time())

    async def close(self) -> None:
        """Close every socket."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for station in self._stations.values():
            await station.close()
            closed = station.relay.close()
            if closed is not None:
                await closed
        if self._attacker is not None:
            self._attacker.close()
        self._timers.close()

    async def _register(self, devices: Sequence[tuple[UserPlan, DevicePlan]]) -> None:
        for begin in range(0, len(devices), 40):
            some = devices[begin : begin + 40]
            finals = await asyncio.gather(*(self._station(device).register(user.name, device) for user, device in some))
            for final, (_, device) in zip(finals, some, strict=True):
                assert final is not None, f"{device.name} could not register: no answer"
                assert final.status == 200, f"{device.name} could not register: {final.start_line}"

    async def _register_again(self, number: int) -> None:
        devices = [each for each in self._devices.values() if (each[2].transport, each[2].station) == ("TCP", number)]
        station = self._stations["TCP", number]
        await asyncio.gather(*(station.register(user.name, device) for user, _, device in devices))

    def _station(self, device: DevicePlan) -> Station:
        return self._stations[device.transport, device.station]

    def _spawn(self, coroutine: object) -> None:
        assert asyncio.iscoroutine(coroutine)
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for what calls have set off."""
        riding = [task for task in self._riding if not task.done()]
        if riding:
            await asyncio.wait(riding, timeout=4 * PATIENCE)

    # ------------------------------------------------------------------ the server

    async def restart(self, signal: str) -> None:
        """Stop the server as asked and start it again. What is sent meanwhile is lost."""
        network = self.network
        network.up = False
        outage = Outage(signal, network.wire.run, time.time())
        self.outages.append(outage)
        if signal == "KILL":
            # In the middle of its work: what it was given last may not have been looked at.
            await asyncio.sleep(random.Random(f"kill {self._seed} {outage.run}").uniform(0.0, 0.03))
            await asyncio.to_thread(self.server.kill)
        else:
            await asyncio.sleep(0.1)
            code = await asyncio.to_thread(self.server.stop)
            assert code == 0, f"the server ended with {code}"
        outage.gone = time.time()
        network.wire.run += 1
        await asyncio.to_thread(self.server.start)
        outage.up = time.time()
        network.up = True

    async def _ask_the_time(self) -> None:
        """An OPTIONS again and again, straight to the server: tells how far behind it is."""
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind((HOST, 0))
        probe = self.probe

        def read() -> None:
            with suppress(OSError):
                while True:
                    data = sock.recv(65_536)
                    number = int(data.partition(b"Call-ID: probe-")[2].partition(b"\r\n")[0])
                    probe.answered.setdefault(number, time.time())

        loop.add_reader(sock, read)
        try:
            while True:
                number = len(probe.asked)
                host, port = sock.getsockname()
                lines = (
                    f"OPTIONS sip:{HOST}:{self.server.port} SIP/2.0",
                    f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bKprobe{number};rport", "Max-Forwards: 70",
                    "From: <sip:probe@probe.invalid>;tag=p", f"To: <sip:{HOST}:{self.server.port}>",
                    f"Call-ID: probe-{number}", "CSeq: 1 OPTIONS", "Content-Length: 0", "", "",
                )  # fmt: skip
                probe.asked.append(time.time())
                with suppress(OSError):
                    sock.sendto("\r\n".join(lines).encode(), self.network.server)
                await asyncio.sleep(ASKED_EVERY)
        finally:
            loop.remove_reader(sock)
            sock.close()

    # ------------------------------------------------------------------ what comes

    def _on_invite(self, station: Station, invite: Request, transaction: ServerTransaction) -> None:
        number = int((invite.from_tag or "c0")[1:])
        found = self._devices.get(invite.uri.user or "")
        if found is None or number not in self._plans:
            transaction.respond(404, reply(invite, 404, "x"))
            return
        _, index, device = found
        ringing = Ringing(station, invite, transaction, self._plans[number], index, device)
        self._ringing.setdefault(number, []).append(ringing)

    def _in_dialog(self, station: Station, request: Request, transaction: ServerTransaction | None) -> None:
        dialog = self._dialog(request)
        if dialog is not None:
            dialog.serve(station, request, transaction)
        elif transaction is not None:
            transaction.respond(481, reply(request, 481, "x"))

    def _dialog(self, request: Request) -> Dialog | None:
        """The side that this is meant for: of a device by its own tag, of a caller by that of the device."""
        to_tag, from_tag = request.to_tag or "", request.from_tag or ""
        if to_tag.startswith("d"):
            number = int(to_tag[1:].partition(".")[0])
            for ringing in self._ringing.get(number, ()):
                if ringing.dialog is not None and ringing.dialog.key[1] == to_tag:
                    return ringing.dialog
            return None
        return self._dialogs.get((to_tag, from_tag))

    # ------------------------------------------------------------------ a call

    async def play(self, plan: CallPlan, call_id: str = "", extra: tuple[str, ...] = ()) -> None:
        """A call from its INVITE to its end."""
        call = Call(self, plan, extra)
        try:
            await call.play()
        except CallBroken as broken:
            call.played.trouble = str(broken)

    def announce(self, plan: CallPlan) -> Played:
        """The call will come: its devices know what to do."""
        self._plans[plan.number] = plan
        played = Played(plan, self.call_id(plan))
        self.played[plan.number] = played
        return played

    def call_id(self, plan: CallPlan) -> str:
        """The Call-ID."""
        return f"{self._seed}-{plan.wire_id}@generator"

    def know(self, dialog: Dialog, other_tag: str) -> None:
        """The caller's side of a call."""
        self._dialogs[dialog.key[1], other_tag] = dialog

    def callee_side(self, number: int, tag: str) -> Dialog | None:
        """The side of the device with this tag."""
        for ringing in self._ringing.get(number, ()):
            if ringing.dialog is not None and ringing.dialog.key[1] == tag:
                return ringing.dialog
        return None

    def attack(self, data: bytes) -> None:
        """From an address that has no part in anything."""
        assert self._attacker is not None
        if self.network.up:
            self.network.wire.note(data, time.time(), to_server=True, link="attacker")
            self._attacker.sendto(data, self.network.server)

    def attacker_hostport(self) -> str:
        """Where that is."""
        assert self._attacker is not None
        host, port = self._attacker.getsockname()
        return f"{host}:{port}"

    def station_of(self, user: UserPlan) -> tuple[Station, str]:
        """From where this user calls, and its device's name."""
        device = user.devices[0]
        return self._station(device), device.name


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
        number, final = await one.change(method, offer, ack_body)
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
        world._riding.append(asyncio.create_task(call.finish()))

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
