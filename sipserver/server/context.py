"""What the registrar's and the proxy's side of the server share: answers, tags, and what is noted of refusals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sipserver.calls import faults, observe
from sipserver.calls.machine import Call
from sipserver.calls.recorder import Recorder
from sipserver.server.challenges import Challenges
from sipserver.server.tokens import Tokens
from sipserver.server.transactions import ServerTransaction, TransactionLayer
from sipserver.sip import build, names
from sipserver.sip.effects import TIMED_OUT
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Limits, Message, Request, Response
from sipserver.sip.nat import NAME, scope
from sipserver.sip.transaction.invite_server import InviteServer
from sipserver.telemetry.log import Log
from sipserver.transport import tcp
from sipserver.transport.base import Transports
from sipserver.transport.contract import HandshakeRefused

RETRY_LATER: Final = ("Retry-After: 5",)
"""Of a 503: the store or the load may have got better by then."""
LOG_LINES_PER_SECOND: Final = 50
"""Lines about refused messages; what a flood brings beyond them is counted in the next line."""


class Context:
    """The server's shared services."""

    def __init__(
        self,
        transports: Transports,
        transactions: TransactionLayer,
        recorder: Recorder,
        log: Log,
        limits: Limits,
        wall_clock: Callable[[], float],
        tokens: Tokens,
        agent: str,
    ) -> None:
        self.transports = transports
        self.transactions = transactions
        self.recorder = recorder
        self.log = log
        self.limits = limits
        self.wall_clock = wall_clock
        """UNIX time in seconds."""
        self.tokens = tokens
        self.challenges = Challenges(recorder)
        """Those that nobody has answered yet."""
        self.challenges_inside = Challenges(recorder, kind=faults.FORGED)
        """The same inside calls; who has no answer has no part in the call."""
        self.server_header = (f"Server: {agent}",) if agent else ()
        """The header line by which this server's own answers say what it is."""
        self.shift = 0
        """Milliseconds that the clock was set forward by since the server started."""
        self._stateless_prefix = "sl" + tokens.hex16()[:8] + "."
        self._stateless_mark = ";tag=" + self._stateless_prefix
        self._log_second = 0
        self._log_lines = 0
        self.log_suppressed = 0
        """Lines about refused messages that were not written."""

    def is_stateless_tag(self, tag: str | None) -> bool:
        """Whether a To tag stood in an answer that was sent without a transaction."""
        return tag is not None and tag.startswith(self._stateless_prefix)

    def is_stateless_at_sight(self, ack: Request) -> bool:
        """Whether that can be seen by the line of To, before an ACK is checked: of nearly all of them."""
        at = ack.places.get(names.TO, -1)
        return at >= 0 and self._stateless_mark in ack.lines[at]

    def stateless_tag(self, request: Request) -> str:
        """The To tag of a stateless answer: the same for each retransmission (RFC 3261 §8.2.7)."""
        return self.stateless_tag_of(request.top_via.branch)

    def stateless_tag_of(self, branch: str | None) -> str:
        """The same by the branch."""
        return self._stateless_prefix + str(hash(branch) & 0xFFFFFFFFFF)

    def reply_flow(self, request: Request, flow: Flow) -> Flow:
        """Where answers to this request go (RFC 3261 §18.2.2, RFC 3581 §4): never to another host than it came from.

        An endpoint behind a NAT need not know it and ask for ``rport``: the port that it names is of its own side.
        """
        if flow.reliable:
            return flow
        via = request.top_via
        port = build.response_port(via)
        if port == flow.port or (via.rport is None and NAME < scope(via.host) < scope(flow.host)):
            return flow
        return (
            self.transports.flow_for("UDP", flow.host, port, listener=flow.listener, local_host=flow.local_host) or flow
        )

    def answer_statelessly(self, request: Request, flow: Flow, error: SipError) -> None:
        """Answer a request without keeping anything of it."""
        if request.method != "ACK":
            tag, headers = self.stateless_tag(request), (*error.headers, *self.server_header)
            data = build.reply(request, error.status, error.reason, tag, headers)
            self.transports.send(self.reply_flow(request, flow), data)

    def challenge(self, request: Request, flow: Flow, status: int, headers: Sequence[str], now: float) -> None:
        """Ask who sends this request, and watch whether they answer; a retransmission gets what the request got.

        ``status`` is 401 or 407, and ``headers`` are the lines of the challenge.
        """
        data = self.challenges.repeated(request)
        if data is None:
            headers = (*headers, *self.server_header)
            data = build.reply(request, status, None, self.stateless_tag(request), headers)
            self.challenges.sent(request, flow, status, now, data)
        self.transports.send(self.reply_flow(request, flow), data)

    def refuse_statelessly(self, request: Request, flow: Flow, error: SipError, *, kind: str) -> None:
        """The same, and note the refusal."""
        self.answer_statelessly(request, flow, error)
        self.rejected(request, flow, error, kind=kind)

    def rejected(
        self, message: Message | None, flow: Flow, error: SipError, *, kind: str = faults.MALFORMED,
        party: str | None = None, target: str | None = None, call: Call | None = None,
    ) -> None:  # fmt: skip
        """Note a message that was refused or could not be read: a row in ``errors`` and a line in the log."""
        now = self.wall_clock()
        method = message.method if isinstance(message, Request) else None
        agent = observe.agent(message) if message is not None else None
        self.recorder.error(
            at=int(now * 1000), kind=kind, method=method, status=error.status, agent=agent, party=party,
            detail=error.reason, source=flow.host, call=call.id if call is not None else None, target=target,
            offset=self.offset(call),
        )  # fmt: skip
        if not self.may_log(now):
            return
        self.log.warning(
            "message.rejected", kind=kind, status=error.status, reason=error.reason, method=method,
            source=flow.label, agent=agent, suppressed=self.log_suppressed or None,
        )  # fmt: skip

    def note_failure(
        self, kind: str, method: str, source: str | None, response: Response | None, *, answered_by: str,
        agent: str | None, party: str | None, target: str | None, call: Call | None,
    ) -> None:  # fmt: skip
        """Note that a request which was sent on failed there: a row in ``errors`` and a line in the log."""
        now = self.wall_clock()
        status = response.status if response is not None else None
        call_id = call.id if call is not None else None
        self.recorder.error(
            at=int(now * 1000), kind=kind, method=method, status=status, agent=agent, party=party,
            detail=response.reason if response is not None else None, source=source, answered_by=answered_by,
            call=call_id, target=target, offset=self.offset(call),
        )  # fmt: skip
        if self.may_log(now):
            self.log.warning(
                "request.failed", kind=kind, method=method, status=status, by=answered_by, call=call_id, agent=agent,
                suppressed=self.log_suppressed or None,
            )  # fmt: skip

    def note_undelivered(self, transaction: ServerTransaction, cause: str, call: Call | None = None) -> None:
        """Note an answer that could not be sent, or was never acknowledged (RFC 3261 §17.2.1)."""
        self.recorder.error(
            at=int(self.wall_clock() * 1000),
            kind=faults.UNACKNOWLEDGED if cause == TIMED_OUT else faults.UNDELIVERED,
            method="INVITE" if isinstance(transaction.machine, InviteServer) else None,
            agent=call.caller_agent if call is not None else None, party=call.caller if call is not None else None,
            source=transaction.flow.host, answered_by=faults.NETWORK, call=call.id if call is not None else None,
            target=call.callee if call is not None else None, offset=self.offset(call),
        )  # fmt: skip

    def note_dropped(self, why: str, host: str, detail: str) -> None:
        """Note a connection that was dropped (``transport.tcp``)."""
        at = int(self.wall_clock() * 1000)
        if why == tcp.INSECURE:
            self.recorder.error(
                at=at, kind=faults.TLS_HANDSHAKE, detail=detail, source=host, answered_by=faults.NETWORK
            )  # fmt: skip
        elif why == tcp.REFUSED:
            self.recorder.error(at=at, kind=faults.CONNECTION_REFUSED, source=host)
        elif why == tcp.CUT_OFF:
            self.recorder.error(at=at, kind=faults.CONNECTION_CUT_OFF, source=host, answered_by=faults.NETWORK)
        elif why == tcp.DEAD:
            self.recorder.error(at=at, kind=faults.CONNECTION_DEAD, source=host, answered_by=faults.NETWORK)
        else:
            self.recorder.error(at=at, kind=faults.CONNECTION_TIMEOUT, source=host, answered_by=faults.NETWORK)

    def note_address(self, address: str, there: bool) -> None:
        """Note that the machine has lost an address that listeners are bound to, or has it again."""
        if there:
            self.log.info("listener.address_back", address=address)
            return
        self.log.error("listener.address_gone", address=address)
        self.recorder.error(
            at=int(self.wall_clock() * 1000), kind=faults.ADDRESS_GONE, source=address, answered_by=faults.NETWORK
        )

    def note_handshake(self, refused: HandshakeRefused) -> None:
        """Note a WebSocket handshake that was refused (``transport.websocket``)."""
        now = self.wall_clock()
        self.recorder.error(
            at=int(now * 1000), kind=faults.HANDSHAKE, status=refused.status, agent=refused.agent,
            detail=refused.reason, source=refused.host,
        )  # fmt: skip
        if self.may_log(now):
            self.log.warning(
                "handshake.refused", status=refused.status, reason=refused.reason, source=refused.host,
                origin=refused.origin, agent=refused.agent, suppressed=self.log_suppressed or None,
            )  # fmt: skip

    def offset(self, call: Call | None) -> int:
        """How far the clock of a call is ahead of the machine's, in milliseconds; what belongs to it is told by it."""
        return call.shift - self.shift if call is not None else 0

    def may_log(self, now: float) -> bool:
        """Whether one more line about a refusal may be written in this second."""
        if int(now) != self._log_second:
            self._log_second, self._log_lines = int(now), 0
        self._log_lines += 1
        if self._log_lines > LOG_LINES_PER_SECOND:
            self.log_suppressed += 1
            return False
        return True

    @staticmethod
    def agent_of(message: Message) -> str | None:
        """What the sender says it is."""
        return observe.agent(message)
