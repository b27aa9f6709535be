"""The world that plans are played in: the endpoints of everybody, the relays, the server and its restarts."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sipserver.server.timers import TimerQueue
from sipserver.server.transactions import ServerTransaction
from sipserver.sip.message import Request
from support.generator.dialog import PATIENCE, Dialog, Played, Ringing
from support.generator.people import CUTTABLE_STATIONS, MORTAL_STATIONS, TCP_STATIONS, UDP_STATIONS, Population
from support.generator.plan import (
    CallPlan,
    DevicePlan,
    UserPlan,
)
from support.generator.probe import Probe
from support.generator.relay import HOST, Network, TcpRelay, UdpRelay
from support.generator.station import Station, reply
from support.server import Row
from support.settable import SettableServer

BEHIND = 4
"""Questions without an answer that are enough to say that the server cannot follow."""
AWAY = 1.0
"""Seconds of a restart in which calls are placed as if nothing was."""


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
    back: float = 0.0
    """Every device that has a connection was registered again."""


@dataclass(slots=True)
class ClockSet:
    """The server's clock was set."""

    written_at: float
    """From here on it may have noticed (UNIX seconds)."""
    noticed_at: float
    """By then it had."""
    ahead: float
    """Seconds that it is ahead since."""


class World:
    """Everybody, and the server between them."""

    def __init__(self, server: SettableServer, people: Population, seed: int) -> None:
        self.server = server
        self.people = people
        self.network = Network((HOST, server.port), seed)
        self.outages: list[Outage] = []
        self.clock = [ClockSet(0.0, 0.0, 0.0)]
        """How the server's clock was set."""
        self._faults: list[Row] = []
        self.played: dict[int, Played] = {}
        """By number."""
        self.probe = Probe()
        self.stream_probe = Probe()
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
        self.riding: list[asyncio.Task[None]] = []
        self._attacker: socket.socket | None = None

    # ------------------------------------------------------------------ begin and end

    async def open(self) -> None:
        """Open the sockets, register every device."""
        for transport, count in (("UDP", UDP_STATIONS), ("TCP", TCP_STATIONS + CUTTABLE_STATIONS + MORTAL_STATIONS)):
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
        self._spawn(self.probe.ask_datagrams(self.network.server))
        self._spawn(self.stream_probe.ask_stream(self.network.server))

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
        if self.outages and self.network.up:
            self.outages[-1].back = time.time()

    def _station(self, device: DevicePlan) -> Station:
        return self._stations[device.transport, device.station]

    def _spawn(self, coroutine: object) -> None:
        assert asyncio.iscoroutine(coroutine)
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for what calls have set off."""
        riding = [task for task in self.riding if not task.done()]
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
        self._faults = self.faults()
        network.wire.run += 1
        await asyncio.to_thread(self.server.start)
        outage.up = time.time()
        network.up = True

    async def set_clock(self, ahead: float) -> None:
        """Set the server's wall clock, and wait until it has noticed."""
        written_at = time.time()
        await asyncio.to_thread(self.server.set_clock, ahead)
        self.clock.append(ClockSet(written_at, time.time(), ahead))

    def faults(self) -> list[Row]:
        """Faults of the server's own that its log tells of."""
        return self._faults + [event for event in list(self.server.events) if event["event"] == "internal.fault"]

    def is_prompt(self) -> bool:
        """Whether the server answers at once; while it is away on purpose, whether that is to be expected."""
        if not self.network.up:
            return time.time() - self.outages[-1].down < AWAY
        probe = self.probe
        first = max(len(probe.asked) - BEHIND, 0)
        return first == 0 or any(number in probe.answered for number in range(first, len(probe.asked)))

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
        if request.method == "PRACK" and transaction is not None:
            self._on_prack(request, transaction)
        elif dialog is not None:
            dialog.serve(station, request, transaction)
        elif transaction is not None:
            transaction.respond(481, reply(request, 481, "x"))

    def _on_prack(self, request: Request, transaction: ServerTransaction) -> None:
        tag = request.to_tag or "d0."
        for ringing in self._ringing.get(int(tag[1:].partition(".")[0]), ()):
            if ringing.tag == tag:
                ringing.on_prack(request, transaction)
                return
        transaction.respond(481, reply(request, 481, "x"))

    async def quiet(self, plan: CallPlan) -> None:
        """Wait until nothing is said in this call any more."""
        said = self.network.wire.calls[self.call_id(plan)]
        still, before = 0, len(said)
        for _ in range(40):
            await asyncio.sleep(0.1)
            still = still + 1 if len(said) == before else 0
            before = len(said)
            if still == 6:
                break

    async def sign_off(self, user: UserPlan) -> None:
        """The device is not registered any more, and hears nothing."""
        device = user.devices[0]
        station = self._station(device)
        await station.register(user.name, device, expires=0)
        station.silent.add(device.name)

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
