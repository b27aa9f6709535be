"""The collector of quality reports (RFC 6035): PUBLISH and NOTIFY from subscribers, answered when they are on disk.

A report is kept for good, so there is no state that could expire: whatever lifetime a PUBLISH asks for is granted, and
one that only refreshes or removes its state (RFC 3903 §4.1: no body) is answered 200 and changes nothing. The same
report sent twice is one row. When the store fails or takes too long the answer is 503 with Retry-After, and never a
false 200: unlike the answers of calls (``server.gate``) these can be asked for again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sipserver.calls import observe, quality
from sipserver.calls.quality import QualityRecords, Sender
from sipserver.server.context import RETRY_LATER, Context
from sipserver.server.gate import CommitLog
from sipserver.server.timers import TimerQueue
from sipserver.server.transactions import ServerTransaction
from sipserver.sip import build, multipart, names
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request
from sipserver.sip.quality import MEDIA_TYPE, Report, parse
from sipserver.sip.transaction.keys import Key

PATIENCE: Final = 2.0
"""Seconds that an answer waits for its rows at most."""
PER_MINUTE: Final = 60
"""Reports that are taken from one party in a minute (RFC 6035 §3.4); beyond them 503."""
MAX_EXPIRES: Final = 86_400
DEFAULT_EXPIRES: Final = 3_600

_IF_MATCH: Final = "sip-if-match"


class Collector:
    """Takes what ``proxy.route`` found to be a report to this server. ``party`` gives a subscriber's party."""

    def __init__(
        self,
        context: Context,
        writer: CommitLog,
        timers: TimerQueue,
        records: QualityRecords,
        party: Callable[[str | None], str | None],
    ) -> None:
        self.accepted = 0
        """Requests with reports that were answered 200."""
        self.refused = 0
        """Requests with reports that were refused, and those that could not be written."""
        self._context = context
        self._writer = writer
        self._timers = timers
        self._records = records
        self._party = party
        self._minute = 0
        self._counts: dict[str, int] = {}

    def collect(self, request: Request, flow: Flow, key: Key, address: str) -> None:
        """A PUBLISH or NOTIFY of ``vq-rtcpxr`` that proved to come from this address."""
        now = self._context.wall_clock()
        party = self._party(address)
        try:
            expires = _expires(request)
            reports = _reports(request)
            if reports:
                self._check_room(party, int(now))
        except SipError as error:
            self.refused += 1
            self._context.answer_statelessly(request, flow, error)
            self._context.rejected(request, flow, error, kind="quality", party=party)
            return
        transaction = self._context.transactions.serve(key, request, self._context.reply_flow(request, flow))
        pending = _Pending(self, request, transaction, expires)
        if not reports:
            pending.answer(200)
            return
        source = quality.PUBLISH if request.method == "PUBLISH" else quality.NOTIFY
        put = True
        for report in reports:
            sender = Sender(source, observe.agent(request), party)
            put = self._records.report(report, sender, int(now * 1000)) and put
        if not put:
            pending.answer(503)
            return
        self._context.log.info("quality.reported", address=address, reports=len(reports), kind=reports[0].kind)
        self._writer.on_commit(pending.on_commit)
        self._timers.add(PATIENCE, pending, "patience")

    def _check_room(self, party: str | None, now: int) -> None:
        """Raises SipError(503) where the store cannot take a report now, or has had enough of this party's."""
        if party is None or self._writer.failing:
            raise SipError(503, "Store Unavailable", RETRY_LATER)
        if now // 60 != self._minute:
            self._minute = now // 60
            self._counts.clear()
        count = self._counts[party] = self._counts.get(party, 0) + 1
        if count > PER_MINUTE:
            raise SipError(503, "Too Many Reports", (f"Retry-After: {60 - now % 60}",))

    def reply(self, request: Request, status: int, expires: int) -> bytes:
        """The answer to a report."""
        headers = self._context.server_header
        if status == 200 and request.method == "PUBLISH":
            # RFC 3903 §6 step 6: a 200 names the state, and for how long it is kept.
            headers = (f"SIP-ETag: {self._context.tokens.hex16()}", f"Expires: {expires}", *headers)
        elif status == 503:
            headers = (*RETRY_LATER, *headers)
        return build.reply(request, status, to_tag=self._context.tokens.hex16(), headers=headers)


class _Pending:
    """A request whose rows are on their way to disk."""

    __slots__ = ("_collector", "_expires", "_request", "_transaction")

    def __init__(self, collector: Collector, request: Request, transaction: ServerTransaction, expires: int) -> None:
        self._collector = collector
        self._request: Request | None = request
        self._transaction = transaction
        self._expires = expires

    def on_commit(self, committed: bool) -> None:
        """The rows are on disk, or never will be."""
        self.answer(200 if committed else 503)

    def on_timer(self, timer: str) -> None:
        """The store takes too long. The rows may still come to be written; sent again they count once."""
        self.answer(503)

    def answer(self, status: int) -> None:
        """Answer, unless that was done."""
        request, self._request = self._request, None
        if request is None:
            return
        collector = self._collector
        if status == 200:
            collector.accepted += 1
        else:
            collector.refused += 1
        self._transaction.respond(status, collector.reply(request, status, self._expires))


def _expires(request: Request) -> int:
    given = request.number(names.EXPIRES)
    return DEFAULT_EXPIRES if given is None else min(given, MAX_EXPIRES)


def _reports(request: Request) -> list[Report]:
    """The reports in the body; none where a PUBLISH only refreshes or removes what it published before."""
    if not request.body and request.method == "PUBLISH" and request.has(_IF_MATCH):
        return []
    content_type = request.header(names.CONTENT_TYPE) or ""
    kind = content_type.partition(";")[0].strip().lower()
    body = request.body
    if kind.startswith("multipart/"):
        # RFC 6035 §3.3: a body for each session; a body of ours may hold several reports.
        body = b"\r\n".join([part.body for part in multipart.parts(body, content_type) if part.kind == MEDIA_TYPE])
        kind = MEDIA_TYPE if body else ""
    encoding = request.header(names.CONTENT_ENCODING)
    if kind != MEDIA_TYPE or (encoding is not None and encoding.lower() != "identity"):
        raise SipError(415, "Unsupported Media Type", (f"Accept: {MEDIA_TYPE}", "Accept-Encoding: identity"))
    return parse(body)
