"""From reports and summaries to ``quality_reports``: a row for each direction, joined to its call and stream.

Whoever writes the row finds the call, in the statement itself, since a report may come long after the call is over
and the rows of the call may be in the same commit. A PUBLISH or NOTIFY belongs to the newest call of its sender's party
with the Call-ID that it names (by the keyed hash, as in ``calls``), looked for among the latest calls of that party:
so nobody can put a report to a call they take no part in, nor learn whether there is such a call. What fits no call is
kept without one. A summary in a BYE belongs to the call whose BYE it is, what a media relay measured to the call that
it relayed.

The stream is the one of the same kind and codec, or the only one of its kind; where several fit, none is named. SSRCs
are kept, but the session descriptions rarely say which stream has which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from sipserver.calls.network import NetworkPrefix
from sipserver.calls.recorder import Sink
from sipserver.calls.times import Stamp, uuid7
from sipserver.sip.errors import SipError
from sipserver.sip.quality import Metrics, Report, Transport
from sipserver.sip.rtpstat import Summary
from sipserver.sip.values import Address

LOCAL: Final = "local"
REMOTE: Final = "remote"
PUBLISH: Final = "publish"
NOTIFY: Final = "notify"
BYE: Final = "bye"
BYE_RESPONSE: Final = "bye_response"
RELAY: Final = "relay"
SUMMARY: Final = "summary"

LATEST_CALLS: Final = 10_000
"""Calls of a party among which a report's is looked for."""

METRICS: Final = (
    "duration_ms", "codec", "payload_type", "sample_rate", "format_options", "packets_per_second", "frame_ms",
    "frame_octets", "frames_per_packet", "loss_concealment", "silence_suppression", "jitter_buffer_adaptive",
    "jitter_buffer_rate", "jitter_buffer_ms", "jitter_buffer_max_ms", "jitter_buffer_abs_max_ms", "loss_percent",
    "discard_percent", "burst_loss_percent", "burst_ms", "gap_loss_percent", "gap_ms", "gap_threshold",
    "round_trip_ms", "end_system_ms", "one_way_ms", "symmetric_one_way_ms", "jitter_ms", "mean_jitter_ms",
    "signal_dbm", "noise_dbm", "echo_return_loss_db", "mos_lq", "mos_cq", "r_lq", "r_cq", "external_r_in",
    "external_r_out", "algorithm", "mos_lq_algorithm", "mos_cq_algorithm", "r_lq_algorithm", "r_cq_algorithm",
    "packets_received", "octets_received", "packets_lost", "packets_discarded", "packets_sent", "octets_sent",
)  # fmt: skip
"""The columns that are keys of ``sip.quality.Metrics``."""

_STORED: Final = (
    "id", "digest", "at", "source", "format", "kind", "final", "direction", "from_at", "to_at", "media_kind",
    "alert_metric", "alert_severity", "alert_direction", "receiver_ssrc", "receiver_network", "source_ssrc",
    "source_network", "agent", "node", *METRICS,
)  # fmt: skip
"""The columns that a row brings with it."""
_ASKED: Final = ("known_side", "known_party", "call_hash", "dialog_hash")
"""What the call is found by."""

_GIVEN: Final = ", ".join(f"? AS {name}" for name in (*_STORED, *_ASKED))


def _calls_of(side: str) -> str:
    """The newest call of the party on this side that has one of the two Call-IDs."""
    return f"""
        SELECT * FROM (
            SELECT id, '{side}' AS side FROM (
                SELECT id, call_id FROM calls
                WHERE {side} = (SELECT known_party FROM given)
                ORDER BY rowid DESC LIMIT {LATEST_CALLS}
            ) WHERE call_id IN ((SELECT call_hash FROM given), (SELECT dialog_hash FROM given)) LIMIT 1)
    """  # noqa: S608 - constants alone


def _stream_of(call: str, kind: str, codec: str) -> str:
    """A join of the latest row of the only stream that is of this kind and codec, or else of this kind."""
    only = f"""
        SELECT CASE WHEN min(stream) = max(stream) THEN max(number) END FROM call_media
        WHERE call = {call} AND accepted = 1 AND early = 0 AND kind = {kind}"""  # noqa: S608 - constants alone
    return f"""
    LEFT JOIN call_media ON call_media.call = {call}
        AND call_media.number = coalesce(({only} AND codec = {codec} COLLATE NOCASE), ({only}))
    """


STATEMENTS: Final = (
    f"""
    INSERT INTO quality_reports (call, side, party, media, stream, {", ".join(_STORED)})
    WITH given AS MATERIALIZED (SELECT {_GIVEN}),
    found AS (
        SELECT * FROM (
            {_calls_of("caller")} UNION ALL {_calls_of("callee")}
        ) ORDER BY id DESC, side IS (SELECT known_side FROM given) DESC LIMIT 1
    )
    SELECT found.id, coalesce(found.side, known_side), known_party, call_media.number, call_media.stream,
        {", ".join(f"given.{name}" for name in _STORED)}
    FROM given LEFT JOIN found ON 1 {_stream_of("found.id", "given.media_kind", "given.codec")}
    WHERE true ON CONFLICT DO NOTHING
    """,  # noqa: S608 - constants alone
    # The call is known, and its BYE waits for the commit.
    f"""
    INSERT INTO quality_reports (call, side, party, media, stream, {", ".join(_STORED)})
    SELECT calls.id, ?, CASE ? WHEN 'caller' THEN caller ELSE callee END, call_media.number, call_media.stream,
        {", ".join("?" for _ in _STORED)}
    FROM calls {_stream_of("calls.id", "?", "?")}
    WHERE calls.id = ? ON CONFLICT DO NOTHING
    """,  # noqa: S608 - constants alone
)
"""For the writer of ``calls.db``, after those of the recorder, so that the call is there before its reports."""

_REPORT: Final = 0
_SUMMARY: Final = 1

_VIDEO_CODECS: Final = ("H26", "H.26", "VP8", "VP9", "AV1", "MP4V", "MPV", "JPEG", "THEORA")


@dataclass(slots=True)
class Sender:
    """Whose endpoint reports, and how it came."""

    source: str
    """PUBLISH, NOTIFY, BYE, BYE_RESPONSE or RELAY."""
    agent: str | None
    party: str | None = None
    """Authenticated; None for a BYE or a relay, whose call says who it is."""
    call: str | None = None
    """``calls.id``, for a BYE and a relay."""
    side: str | None = None
    """``caller`` or ``callee``, for a BYE."""
    is_kept: bool = True
    """Of a BYE: whether its dialog is the call (``calls.dialogs``); the streams are those of that one alone."""


class QualityRecords:
    """Puts rows of ``quality_reports``; ``first`` is the number of STATEMENTS[0] in the writer's list.

    ``call_id_hash`` hashes a Call-ID as ``calls.call_id`` has it (``Recorder.hash_call_id``).
    """

    def __init__(
        self,
        writer: Sink,
        first: int,
        *,
        node: str,
        call_id_hash: Callable[[str], str],
        digest_key: bytes,
        random: Callable[[], bytes],
        network: NetworkPrefix,
    ) -> None:
        self.recorded = 0
        """Rows put."""
        self._put = writer.put
        self._first = first
        self._node = node
        self._call_id_hash = call_id_hash
        self._digest = blake2b(digest_size=16, key=digest_key)
        self._random = random
        self._network = network
        self._stamp = Stamp()

    def report(self, report: Report, sender: Sender, at: int) -> bool:
        """Put the rows of a report; False where the queue is full. ``at`` in milliseconds."""
        hashes = self._call_id_hash(report.call_id), self._call_id_hash(report.dialog) if report.dialog else None
        if sender.side is None:
            sender.side = _side(report)
        common: dict[str, Any] = {
            "format": "vq-rtcpxr", "kind": report.kind, "final": int(report.final),
            "alert_metric": report.alert_metric, "alert_severity": report.alert_severity,
            "alert_direction": report.alert_direction,
        }  # fmt: skip
        put = True
        for direction, metrics, receiver, source in (
            (LOCAL, report.local_metrics, report.local, report.remote),
            (REMOTE, report.remote_metrics, report.remote, report.local),
        ):
            if metrics:
                values = {**common, **self._ends(receiver, source)}
                put = self._row(direction, metrics, values, sender, hashes, at) and put
        return put

    def summary(self, summary: Summary, sender: Sender, at: int) -> bool:
        """Put the rows of a BYE's summary; False where the queue is full."""
        common: dict[str, Any] = {"format": summary.header, "kind": SUMMARY, "final": 1}
        put = True
        for direction, metrics in ((LOCAL, summary.local), (REMOTE, summary.remote)):
            if metrics:
                put = self._row(direction, metrics, common, sender, (None, None), at) and put
        return put

    def relayed(
        self, call: str, side: str, direction: str, kind: str, ssrc: str | None, metrics: Metrics, at: int
    ) -> bool:  # fmt: skip
        """Put what a media relay measured of one stream; False where the queue is full.

        ``side`` is whose stream it is: REMOTE is what this side sent, counted at the relay, and LOCAL what it received,
        by its own receiver reports. ``ssrc`` is that of the stream which it sent.
        """
        common: dict[str, Any] = {
            "format": "rtpengine", "kind": SUMMARY, "final": 1, "media_kind": kind,
            "source_ssrc" if direction == REMOTE else "receiver_ssrc": ssrc,
        }  # fmt: skip
        sender = Sender(RELAY, None, call=call, side=side)
        return self._row(direction, metrics, common, sender, (None, None), at)

    def _row(
        self,
        direction: str,
        metrics: Metrics,
        common: dict[str, Any],
        sender: Sender,
        hashes: tuple[str | None, str | None],
        at: int,
    ) -> bool:
        values: dict[str, Any] = {**metrics, **common}
        values["format_options"] = metrics.get("format")
        values["direction"] = direction
        values.setdefault("media_kind", _media_kind(metrics))
        for name in ("from_at", "to_at"):
            moment = metrics.get(name)
            values[name] = self._stamp(moment) if isinstance(moment, int) else None
        values.update(
            known_call=sender.call, known_side=sender.side, known_party=sender.party, call_hash=hashes[0],
            dialog_hash=hashes[1], source=sender.source,
        )  # fmt: skip
        digest = self._digest.copy()
        digest.update(repr(sorted(values.items())).encode("utf-8", "replace"))
        values.update(
            id=uuid7(at, self._random()), digest=digest.hexdigest(), at=self._stamp(at), agent=sender.agent,
            node=self._node,
        )  # fmt: skip
        self.recorded += 1
        stored = tuple([values.get(name) for name in _STORED])
        if sender.call is None:
            return self._put(self._first + _REPORT, (*stored, *[values[name] for name in _ASKED]))
        kind, codec, side = values["media_kind"] if sender.is_kept else None, values.get("codec"), sender.side
        return self._put(self._first + _SUMMARY, (side, side, *stored, kind, codec, kind, sender.call))

    def _ends(self, receiver: Transport, source: Transport) -> dict[str, Any]:
        return {
            "receiver_ssrc": receiver.ssrc, "receiver_network": self._network(receiver.host),
            "source_ssrc": source.ssrc, "source_network": self._network(source.host),
        }  # fmt: skip


def _media_kind(metrics: Metrics) -> str:
    """RFC 6035 is about voice; some endpoints report of video in the same form."""
    codec = str(metrics.get("codec", "")).upper()
    return "video" if codec.startswith(_VIDEO_CODECS) else "audio"


def _side(report: Report) -> str | None:
    """Which side the sender says it was, by who placed the call; None where it does not say."""
    originator = _address(report.originator_id)
    if originator is None:
        return None
    local, remote = _address(report.local_id), _address(report.remote_id)
    if local == remote:
        return None
    if originator == local:
        return "caller"
    return "callee" if originator == remote else None


def _address(value: str | None) -> str | None:
    try:
        return Address.parse(value).uri.aor() if value else None
    except SipError:
        return None
