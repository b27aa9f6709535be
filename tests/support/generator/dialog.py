"""Calls as their endpoints have them: the INVITE under way on either side, and the dialog that comes of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from sipserver.server.transactions import ClientUser, ServerTransaction
from sipserver.sip.build import OutgoingRequest, cancel
from sipserver.sip.message import Request, Response
from support.generator.media import describe
from support.generator.plan import CALLEE, CALLER, Act, CallPlan, DevicePlan, Media
from support.generator.station import T1, TIMERS, Exchange, Station, reply
from support.pen import DOMAIN

PATIENCE: Final = 64 * T1


@dataclass(slots=True)
class Answer:
    """What a side says to the next re-INVITE or UPDATE of the other."""

    status: int = 200
    body: bytes = b""
    answer_to_offer: bytes = b""
    """What the ACK carries, where the 2xx brought the offer (on the asking side)."""


class Dialog:
    """One side of an answered call."""

    def __init__(
        self, station: Station, plan: CallPlan, side: str, device: str, call_id: str, local: str, remote: str,
        target: str, routes: list[str], cseq: int,
    ) -> None:  # fmt: skip
        self.station = station
        self.plan = plan
        self.side = side
        self.device = device
        self.call_id = call_id
        self.local = local
        self.remote = remote
        self.target = target
        self.routes = routes
        self.cseq = cseq
        self.over = False
        """Whether this side has hung up, or was told so."""
        self.ended = asyncio.Event()
        self.answers = Answer()
        self.bye_status = 200
        """What a BYE is answered; 0 for nothing."""
        self.referred: asyncio.Future[Request] = asyncio.get_running_loop().create_future()
        self.changing = False
        """A re-INVITE of this side waits for its answer, so another one meets 491 (RFC 3261 §14.2)."""
        self.unacknowledged: dict[int, Repeating] = {}
        """2xx of this side whose ACK has not come, by the number of the INVITE."""

    @property
    def key(self) -> tuple[str, str]:
        """What finds it: Call-ID and own tag."""
        return self.call_id, tag_of(self.local)

    def lines(self, cseq: int, method: str, *, routed: bool = True) -> list[str]:
        """The header lines that make a request one of this dialog."""
        routes = [f"Route: {route}" for route in self.routes] if routed else []
        return [
            *routes, f"From: {self.local}", f"To: {self.remote}", f"Call-ID: {self.call_id}", f"CSeq: {cseq} {method}"
        ]  # fmt: skip

    def request(
        self, method: str, *extra: str, body: bytes = b"", user: ClientUser | None = None
    ) -> tuple[int, Exchange]:
        """Send a request; its number, and what becomes of it unless another user is given."""
        self.cseq += 1
        lines = [*self.lines(self.cseq, method), *extra, f"User-Agent: device {self.device}"]
        if method != "BYE":
            lines.append(f"Contact: <{self.station.contact(self.device)}>")
        return self.cseq, self.station.ask(self.station.write(method, self.target, lines, body), user)

    async def change(self, method: str, body: bytes, ack_body: bytes = b"", *extra: str) -> tuple[int, Response | None]:
        """A re-INVITE or UPDATE; its number and final response. The ACK is sent here."""
        self.changing = method == "INVITE"
        asking = Asking(self, self.cseq + 1, ack_body) if method == "INVITE" else Exchange()
        number, _ = self.request(method, *extra, body=body, user=asking)
        # Of an INVITE that a restarted server knows nothing of nothing is heard any more.
        await asyncio.wait([asking.final], timeout=2 * PATIENCE)
        self.changing = False
        return number, asking.final.result() if asking.final.done() else None

    async def acknowledged(self) -> None:
        """Wait for the ACKs of this side's 2xx: until then it sends no INVITE of its own (RFC 3261 §14.1)."""
        for repeating in list(self.unacknowledged.values()):
            await repeating.over.wait()

    def acknowledge(self, number: int, body: bytes = b"") -> None:
        """The ACK of a 2xx."""
        ack = self.station.write("ACK", self.target, self.lines(number, "ACK"), body)
        self.station.send(self.station.flow, ack.data)

    async def hang_up(self) -> Response | None:
        """BYE; its final response, None for none."""
        self.over = True
        _, exchange = self.request("BYE")
        final = await exchange.final
        self.ended.set()
        return final

    # ------------------------------------------------------------------ what the other side sends

    def serve(self, station: Station, request: Request, transaction: ServerTransaction | None) -> None:
        """A request inside this dialog."""
        method = request.method
        if transaction is None:
            repeating = self.unacknowledged.get(request.cseq[0])
            if repeating is not None:
                repeating.stop()
            return
        contact = f"Contact: <{station.contact(self.device)}>"
        if method == "BYE":
            self._serve_bye(request, transaction)
        elif method in ("INVITE", "UPDATE"):
            self._serve_change(station, request, transaction, contact)
        elif method == "REFER":
            transaction.respond(202, reply(request, 202, "x", contact))
            if not self.referred.done():
                self.referred.set_result(request)
        else:
            transaction.respond(200, reply(request, 200, "x", contact))

    def _serve_bye(self, request: Request, transaction: ServerTransaction) -> None:
        status, self.bye_status = self.bye_status, 200
        if status == 200 and self.over and self.plan.end == "late":
            status = 481
        if status:
            transaction.respond(status, reply(request, status, "x"))
        if status in (0, 200, 481):
            self.over = True
            self.ended.set()
            for repeating in list(self.unacknowledged.values()):
                repeating.stop()

    def _serve_change(self, station: Station, request: Request, transaction: ServerTransaction, contact: str) -> None:
        answer = self.answers
        if self.over:
            transaction.respond(481, reply(request, 481, "x"))
        elif request.method == "INVITE" and self.changing:
            transaction.respond(491, reply(request, 491, "x"))
        else:
            lines = (contact, *agreed_session(request)) if answer.status == 200 else (contact,)
            data = reply(request, answer.status, "x", *lines, body=answer.body if answer.status == 200 else b"")
            transaction.respond(answer.status, data)
            if request.method == "INVITE" and answer.status == 200:
                Repeating(transaction, data, request.cseq[0], self)


def agreed_session(request: Request) -> tuple[str, ...]:
    """What a 2xx says of the session interval that was asked for, where the sender knows of it (RFC 4028 §9)."""
    if "timer" not in (request.header("supported") or ""):
        return ()
    return f"Session-Expires: {request.header('session-expires')}", "Require: timer"


class Asking(Exchange):
    """A re-INVITE under way; every 2xx that comes is acknowledged, however late (RFC 3261 §13.2.2.4)."""

    def __init__(self, dialog: Dialog, number: int, body: bytes) -> None:
        super().__init__()
        self._dialog = dialog
        self._number = number
        self._body = body

    def on_response(self, branch: int, response: Response) -> None:
        """From the transaction."""
        if 200 <= response.status < 300:
            self._dialog.acknowledge(self._number, self._body)
        super().on_response(branch, response)


class Repeating:
    """RFC 3261 §13.3.1.4: a 2xx to an INVITE is repeated until its ACK comes, whatever the transport."""

    def __init__(self, transaction: ServerTransaction, data: bytes, number: int, dialog: Dialog) -> None:
        self._number = number
        dialog.unacknowledged[number] = self
        self._transaction = transaction
        self._data = data
        self._dialog = dialog
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + PATIENCE
        self._interval = T1
        self.over = asyncio.Event()
        """Set when the ACK is there, or is not waited for any longer."""
        self._handle: asyncio.TimerHandle | None = self._loop.call_later(T1, self._again)

    def stop(self) -> None:
        """The ACK is here."""
        if self._handle is not None:
            self._handle.cancel()
        self.over.set()
        self._dialog.unacknowledged.pop(self._number, None)

    def _again(self) -> None:
        if self._loop.time() >= self._until:
            self.stop()
            if not self._dialog.over:
                self._dialog.over = True
                self._dialog.request("BYE")
                self._dialog.ended.set()
            return
        # The transaction may be over by now, and a 2xx is none of its business.
        self._dialog.station.send(self._transaction.flow, self._data)
        self._interval = min(2 * self._interval, TIMERS.t2)
        self._handle = self._loop.call_later(self._interval, self._again)


class Invitation:
    """An INVITE on the side of the caller."""

    def __init__(
        self, station: Station, device: str, plan: CallPlan, call_id: str, extra: tuple[str, ...] = ()
    ) -> None:
        self.station = station
        self.plan = plan
        self.call_id = call_id
        self.device = device
        self.final: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
        self.dialogs: dict[str, Dialog] = {}
        """By the tag of the side that answered; the first is the one that is kept."""
        self.kept: Dialog | None = None
        self.others: list[asyncio.Task[Response | None]] = []
        """The BYEs to devices that answered as well."""
        self._extra = (*extra, *self._supported())
        self.early: dict[str, Dialog] = {}
        """Dialogs before the answer, by the tag of the other side."""
        self._uri = f"sip:{plan.callee.name}@{DOMAIN}"
        self._local = f"<sip:{plan.caller.name}@{DOMAIN}>;tag=c{plan.number}"
        self._cseq = 0
        self.request: OutgoingRequest
        """The INVITE that was sent last."""
        self.proceeding = asyncio.Event()
        """Set while the INVITE that was sent last has had a provisional response."""
        self._cancelled = False
        self._acks_to_lose = plan.lost_acks

    def _supported(self) -> tuple[str, ...]:
        plan = self.plan
        if plan.session:
            by = "uac" if plan.refresher == CALLER else "uas"
            return "Supported: timer", f"Session-Expires: {plan.session};refresher={by}"
        return ("Supported: 100rel",) if plan.early else ()

    def start(self) -> None:
        """Send it."""
        self._send(())

    def cancel(self) -> None:
        """Take it back, as soon as that may be done (RFC 3261 §9.1)."""
        if self.final.done() or self._cancelled:
            return
        self._cancelled = True
        if self.proceeding.is_set():
            self._send_cancel()

    def _send(self, credentials: tuple[str, ...]) -> None:
        self._cseq += 1
        self.proceeding.clear()
        lines = [
            f"From: {self._local}", f"To: <{self._uri}>", f"Call-ID: {self.call_id}", f"CSeq: {self._cseq} INVITE",
            f"Contact: <{self.station.contact(self.device)}>", f"User-Agent: device {self.device}", *self._extra,
            *credentials,
        ]  # fmt: skip
        body = b"" if self.plan.delayed else describe(self.plan.agreed, CALLER, offer=True)
        self.request = self.station.write("INVITE", self._uri, lines, body)
        self.station.layer.request(self.request, self.station.flow, self, self._cseq)

    def _send_cancel(self) -> None:
        self.station.ask(cancel(self.request))

    def on_response(self, branch: int, response: Response) -> None:
        """From the transaction."""
        status = response.status
        if branch != self._cseq:
            return
        if status < 200:
            if not self.proceeding.is_set() and self._cancelled:
                self._send_cancel()
            self.proceeding.set()
            if response.header("rseq") is not None:
                self._acknowledge_early(response)
        elif status == 407 and self._cseq < 4:
            self._send((self.station.credentials(self.plan.caller.name, response, "INVITE", self._uri),))
        elif status < 300:
            self._on_success(response)
        else:
            self._finish(response)

    def on_failed(self, branch: int, cause: str) -> None:
        """From the transaction."""
        if branch == self._cseq:
            self._finish(None)

    def _finish(self, final: Response | None) -> None:
        if not self.final.done():
            self.final.set_result(final)

    def _new_dialog(self, response: Response) -> Dialog:
        routes = [f"<{route.uri_text}>" for route in reversed(response.addresses("record-route"))]
        target = response.addresses("contact")[0].uri_text
        return Dialog(
            self.station, self.plan, CALLER, self.device, self.call_id, self._local, response.header("to") or "",
            target, routes, self._cseq,
        )  # fmt: skip

    def _acknowledge_early(self, response: Response) -> None:
        """RFC 3262 §4: a provisional response that is reliable has its PRACK, once."""
        tag = response.to_tag or ""
        if tag in self.early:
            return
        dialog = self.early[tag] = self._new_dialog(response)
        answer = describe(self.plan.agreed, CALLER, offer=False) if self.plan.delayed else b""
        dialog.request("PRACK", f"RAck: {response.header('rseq')} {self._cseq} INVITE", body=answer)

    def _on_success(self, response: Response) -> None:
        tag = response.to_tag or ""
        dialog = self.dialogs.get(tag)
        if dialog is None:
            dialog = self.early.get(tag) or self._new_dialog(response)
            self.dialogs[tag] = dialog
            if self.kept is None:
                self.kept = dialog
            else:
                # RFC 3261 §13.2.2.4: acknowledged, and ended at once.
                self._acknowledge(dialog)
                self.others.append(asyncio.ensure_future(dialog.hang_up()))
                return
        self._acknowledge(dialog)
        self._finish(response)

    def _acknowledge(self, dialog: Dialog) -> None:
        if self._acks_to_lose:
            self._acks_to_lose -= 1
            return
        in_ack = self.plan.delayed and not self.plan.early
        answer = describe(self.plan.agreed, CALLER, offer=False) if in_ack else b""
        dialog.acknowledge(self._cseq, answer)


class Ringing:
    """An INVITE on the side of a device that is called."""

    def __init__(
        self, station: Station, invite: Request, transaction: ServerTransaction, plan: CallPlan, index: int,
        device: DevicePlan,
    ) -> None:  # fmt: skip
        self.station = station
        self.plan = plan
        self.dialog: Dialog | None = None
        self._invite = invite
        self._transaction = transaction
        self._device = device
        # An INVITE that is sent again after a restart is another one to the device, too.
        self.tag = f"d{plan.number}.{index}.{invite.cseq[0]}"
        self._lines = (f"Contact: <{station.contact(device.name)}>", f"User-Agent: device {device.name}")
        self._done = False
        self._pracked = asyncio.Event()
        """The 183 is acknowledged."""
        transaction.user = self
        act: Act = plan.acts[index]
        loop = asyncio.get_running_loop()
        # As an endpoint does that has to ask its user: the caller's server need not repeat itself meanwhile.
        self._respond(100)
        if act.rings is not None:
            loop.call_later(act.rings, self._ring)
        if act.final is not None:
            loop.call_later(act.after, self._decide, act.final)

    def on_server_cancel(self, cancel_request: Request) -> None:
        """The caller, or the server, has given up."""
        if not self._done:
            self._done = True
            self._respond(487)

    def on_server_failed(self, cause: str) -> None:
        """A refusal was not acknowledged; nothing follows from that."""

    def on_prack(self, request: Request, transaction: ServerTransaction) -> None:
        """The 183 has arrived (RFC 3262 §3)."""
        transaction.respond(200, reply(request, 200, self.tag))
        self._pracked.set()

    def _respond(self, status: int, body: bytes = b"", *lines: str) -> bytes:
        data = reply(self._invite, status, self.tag, *self._lines, *lines, body=body)
        self._transaction.respond(status, data)
        return data

    def _ring(self) -> None:
        if self._done:
            return
        if self.plan.early:
            self._ring_reliably(T1)
        else:
            self._respond(180)

    def _ring_reliably(self, again: float) -> None:
        """RFC 3262 §3: repeated until its PRACK comes."""
        if self._done or self._pracked.is_set() or again > PATIENCE:
            return
        body = describe(self.plan.agreed, CALLEE, offer=self.plan.delayed)
        self._respond(183, body, "Require: 100rel", "RSeq: 1")
        asyncio.get_running_loop().call_later(again, self._ring_reliably, 2 * again)

    def _decide(self, status: int) -> None:
        if self._done:
            return
        if status == 200 and self.plan.early and not self._pracked.is_set():
            # RFC 3262 §5: no 2xx before an offer or answer in a 183 is acknowledged.
            asyncio.get_running_loop().call_later(0.02, self._decide, status)
            return
        self._done = True
        if status != 200:
            self._respond(status)
            return
        plan, invite = self.plan, self._invite
        body = b"" if plan.early else describe(plan.agreed, CALLEE, offer=plan.delayed)
        data = self._respond(200, body, *agreed_session(invite))
        self.dialog = Dialog(
            self.station, plan, CALLEE, self._device.name, invite.call_id, f"{invite.header('to')};tag={self.tag}",
            invite.header("from") or "", invite.addresses("contact")[0].uri_text,
            [f"<{route.uri_text}>" for route in invite.addresses("record-route")], 0,
        )  # fmt: skip
        Repeating(self._transaction, data, invite.cseq[0], self.dialog)


@dataclass(slots=True)
class Played:
    """What came of a plan when it was played, as far as its endpoints know."""

    plan: CallPlan
    call_id: str
    kept: str = ""
    """The tag of the device whose answer the caller kept."""
    changes: dict[tuple[str, int], Media | None] = field(default_factory=dict)
    """By the tag and number of the request: what was agreed by it."""
    delayed: set[tuple[str, int]] = field(default_factory=set)
    """Those of them whose ACK brought the answer."""
    forged: list[tuple[str, str]] = field(default_factory=list)
    """Method and branch of requests that nobody in the call sent."""
    silent_at: float = 0.0
    """When the call was over for its endpoints, where nobody hung up (UNIX seconds)."""
    cut: bool = False
    done: bool = False
    """Whether the plan was played to its end."""
    trouble: str = ""


def tag_of(address: str) -> str:
    """The tag in a From or To."""
    return address.rpartition(";tag=")[2]
