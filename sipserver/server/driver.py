"""From bytes to decisions and back: every message passes through here once.

The driver decides nothing about SIP. It indexes the message, finds the transaction it belongs to,
and hands what is new to the registrar's or the proxy's side of the server; whatever it cannot
read it answers, or drops and counts.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from sipserver.calls import faults, observe
from sipserver.proxy.overload import BEGUN, NEW, Overload
from sipserver.server.context import RETRY_LATER, Context
from sipserver.server.proxying import Proxying
from sipserver.server.registrations import Registrations
from sipserver.sip import build, names
from sipserver.sip.errors import MalformedMessage, SipError
from sipserver.sip.flow import Flow
from sipserver.sip.glance import Glance, glance
from sipserver.sip.message import Request, Response, parse
from sipserver.sip.transaction import keys
from sipserver.sip.validate import check_request, check_response

_TRACE: Final = 1_800
"""Characters of a traceback in a log line."""
OVERLOADED: Final = "Overloaded"
TOO_MANY_TRANSACTIONS: Final = "Too Many Transactions"
"""At the bound that ``limits.transactions`` sets, which an operator can move."""


class Driver:
    """Receives from the transports (``transport.base.Receiver``)."""

    def __init__(
        self, context: Context, registrations: Registrations, batch_end: Callable[[], None], overload: Overload
    ) -> None:
        self.limits = context.limits
        """Bounds on messages."""
        self.stopping = False
        """Whether new requests are turned away, since the server is about to stop."""
        self._context = context
        self._transactions = context.transactions
        self._registrations = registrations
        self._proxying: Proxying
        self._batch_end = batch_end
        self._overload = overload
        self.requests = 0
        self.responses = 0
        self.malformed = 0
        """Messages answered 4xx/5xx, or dropped, because they could not be read."""
        self.stray = 0
        """Responses and ACKs that belong to nothing."""
        self.overloaded = 0
        """Requests answered 503 because a bound was reached, or work waits too long."""
        self.faults = 0
        """Exceptions that nobody expected: each is a mistake of this program."""

    def use_proxy(self, proxying: Proxying) -> None:
        """Where requests go that are no REGISTER; called once, before the first message."""
        self._proxying = proxying

    def on_message(self, data: bytes, flow: Flow) -> None:
        """One datagram, or one frame of a stream. Whatever it sets off, those after it are served."""
        try:
            self._read(data, flow)
        except Exception as fault:
            self.note_fault(fault, flow)
            self._answer_fault(data, flow)

    def note_fault(self, fault: BaseException, flow: Flow | None = None) -> None:
        """A fault of our own, for the operator's log: the end of its traceback says where."""
        self.faults += 1
        trace = "".join(traceback.format_exception(fault))
        context = self._context
        context.log.error("internal.fault", fault=type(fault).__name__, trace=trace[-_TRACE:])
        # The record may be where the fault is.
        with suppress(Exception):
            context.recorder.error(
                at=int(context.wall_clock() * 1000), kind=faults.FAULT, status=500, detail=type(fault).__name__,
                source=flow.host if flow is not None else None,
            )  # fmt: skip

    def _read(self, data: bytes, flow: Flow) -> None:
        try:
            message = parse(data, self.limits)
        except MalformedMessage as error:
            self._on_malformed(error, flow)
            return
        if isinstance(message, Response):
            self._on_response(message, flow)
            return
        # RFC 3261 §8.2.7: an ACK for a response that was sent statelessly means nothing to us. Each call has one, that
        # of its challenge, and it is not worth being checked.
        if message.method == "ACK" and self._context.is_stateless_at_sight(message):
            self.requests += 1
            self.stray += 1
            return
        admitted = False
        if self._overload.shedding and not flow.reliable:
            first = glance(message)
            if first is not None and self._transactions.find_server(first.key) is None:
                admitted = self._overload.admits(NEW, hash(first.key))
                if not admitted:
                    self._shed_at_sight(message, first, flow)
                    return
        try:
            check_request(message)
        except SipError as refusal:
            # Another name than above: compiled, a name has one type.
            self._on_malformed(MalformedMessage(refusal.status, refusal.reason, message), flow, refusal.headers)
            return
        self._on_request(message, flow, admitted)

    def on_malformed(self, error: MalformedMessage, flow: Flow) -> None:
        """A stream that cannot go on; the transport closes it after the answer."""
        try:
            self._on_malformed(error, flow)
        except Exception as fault:
            self.note_fault(fault)

    def on_closed(self, flow: Flow) -> None:
        """A connection is gone."""
        try:
            self._transactions.flow_lost(flow)
            self._proxying.liveness.connection_lost(flow)
            self._registrations.keeper.connection_lost(flow)
        except Exception as fault:
            self.note_fault(fault)

    def on_unsent(self, data: bytes, flow: Flow) -> None:
        """A datagram could not be sent after all. What was sent without a transaction is lost, as any may be."""
        try:
            self._transactions.undelivered(parse(data, self.limits))
        except SipError:
            return
        except Exception as fault:
            self.note_fault(fault, flow)

    def on_batch_end(self) -> None:
        """Everything that had arrived has been looked at: hand over rows and log lines."""
        self._batch_end()

    def _on_request(self, request: Request, flow: Flow, admitted: bool) -> None:
        self.requests += 1
        build.stamp_via(request, flow.host, flow.port)
        key = keys.server_key(request)
        transaction = self._transactions.find_server(key)
        if transaction is not None:
            self._transactions.receive_again(transaction, request)
            return
        method = request.method
        if method == "ACK":
            self.on_ack(request, flow)
        elif method == "CANCEL":
            self._proxying.on_cancel(request, flow, key)
        elif self.stopping or self._transactions.full:
            self.overloaded += 1
            reason = OVERLOADED if self.stopping else TOO_MANY_TRANSACTIONS
            error = SipError(503, reason, RETRY_LATER)
            self._context.refuse_statelessly(request, flow, error, kind=faults.OVERLOAD)
        elif self._overload.shedding and not admitted and self._sheds(request, key):
            self._shed(request, flow)
        elif method == "REGISTER":
            self._registrations.on_request(request, flow, key)
        else:
            self._proxying.on_request(request, flow, key)

    def _sheds(self, request: Request, key: keys.Key) -> bool:
        """Whether this request, which has no transaction yet, is refused while there is overload."""
        # What goes on in a call is carried through, and so is what ends one whoever writes it how.
        if request.to_tag is not None or request.method == "BYE":
            return False
        has_credentials = request.has(names.AUTHORIZATION) or request.has(names.PROXY_AUTHORIZATION)
        return not self._overload.admits(BEGUN if has_credentials else NEW, hash(key))

    def _shed(self, request: Request, flow: Flow) -> None:
        """503, as cheaply as it can be: it is counted in ``errors``, and the log says how many there were."""
        error = SipError(503, OVERLOADED, (self._come_back(),))
        self._context.answer_statelessly(request, flow, error)
        self._note_shed(request.method, observe.agent(request), flow)

    def _shed_at_sight(self, request: Request, first: Glance, flow: Flow) -> None:
        """The same for a request of which no more was seen."""
        self.requests += 1
        context = self._context
        tag, headers = context.stateless_tag_of(first.branch), (self._come_back(), *context.server_header)
        context.transports.send(flow, first.refusal(flow.host, flow.port, 503, OVERLOADED, tag, headers))
        self._note_shed(request.method, observe.agent(request), flow)

    def _come_back(self) -> str:
        return f"Retry-After: {self._overload.retry_after()}"

    def _note_shed(self, method: str, agent: str | None, flow: Flow) -> None:
        self.overloaded += 1
        context = self._context
        context.recorder.error(
            at=int(context.wall_clock() * 1000), kind=faults.OVERLOAD, method=method, status=503, agent=agent,
            detail=OVERLOADED, source=flow.host,
        )  # fmt: skip

    def on_ack(self, ack: Request, flow: Flow) -> None:
        """An ACK that completes no transaction here: that of a 2xx, or a stray one."""
        # As in _read, for one that is written in another way.
        if self._context.is_stateless_tag(ack.to_tag):
            self.stray += 1
        elif not self._proxying.on_ack(ack, flow):
            self.stray += 1
            self._note_stray(ack, "ACK", None, flow)

    def _answer_fault(self, data: bytes, flow: Flow) -> None:
        """500 to the request whose handling failed, where it can still be had (RFC 3261 §21.5.1)."""
        try:
            request = parse(data, self.limits)
            if not isinstance(request, Request) or not build.can_reply(request):
                return
            build.stamp_via(request, flow.host, flow.port)
            transaction = self._transactions.find_server(keys.server_key(request))
            if transaction is None:
                error = SipError(500, build.reason_phrase(500))
                self._context.answer_statelessly(request, flow, error)
            else:
                # A transaction that has answered keeps to its answer.
                tag = self._context.tokens.hex16()
                transaction.respond(500, build.reply(request, 500, to_tag=tag, headers=self._context.server_header))
        except SipError:
            # What cannot be read gets no answer.
            return
        except Exception as fault:
            self.note_fault(fault)

    def _on_response(self, response: Response, flow: Flow) -> None:
        self.responses += 1
        try:
            check_response(response)
        except SipError as error:
            self.malformed += 1
            self._context.rejected(None, flow, error, kind=faults.MALFORMED_RESPONSE)
            return
        if self._transactions.receive_response(response):
            return
        if not self._registrations.keeper.on_response(response, flow):
            self.stray += 1
            self._note_stray(response, response.cseq[1], response.status, flow)

    def _note_stray(self, message: Request | Response, method: str, status: int | None, flow: Flow) -> None:
        """A message that belongs to nothing is dropped, and goes on record."""
        context = self._context
        context.recorder.error(
            at=int(context.wall_clock() * 1000), kind=faults.STRAY, method=method, status=status,
            agent=context.agent_of(message), source=flow.host,
        )  # fmt: skip

    def _on_malformed(self, error: MalformedMessage, flow: Flow, headers: tuple[str, ...] = ()) -> None:
        self.malformed += 1
        message = error.message
        # RFC 3261 §16.3, §18.1.2: a response is never answered, and an ACK neither.
        if not isinstance(message, Request) or message.method == "ACK" or not build.can_reply(message):
            kind = faults.MALFORMED_RESPONSE if isinstance(message, Response) else faults.MALFORMED
            self._context.rejected(None, flow, error, kind=kind)
            return
        build.stamp_via(message, flow.host, flow.port)
        answer = SipError(error.status, error.reason, headers)
        self._context.refuse_statelessly(message, flow, answer, kind=faults.MALFORMED)
