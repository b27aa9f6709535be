"""Reports of voice quality, ``application/vq-rtcpxr`` (RFC 6035 §4.6).

    VQSessionReport: CallTerm       or VQIntervalReport, or VQAlertReport with what raised it
    CallID, LocalID, RemoteID …     the call, its sides, the addresses and SSRCs of the stream
    LocalMetrics:                   what the sender of the report measured of what it received
    Timestamps:START=… STOP=…
    PacketLoss:NLR=5.0 JDR=2.0      …
    RemoteMetrics:                  what the other side measured, as far as the sender was told

Endpoints leave out what they like, put spaces anywhere and end lines as they please, so a report needs no more than
its first line, a CallID and LocalMetrics. A value that is missing, cannot be read, or lies where no value can lie is
left out: RFC 6035 has no word for "unknown", RFC 3611 says 127 in many of its fields, and endpoints copy that.
"""

from __future__ import annotations

import re
from calendar import timegm
from dataclasses import dataclass, field
from typing import Final

from sipserver.sip.errors import SipError
from sipserver.sip.message import text

MEDIA_TYPE: Final = "application/vq-rtcpxr"
EVENT: Final = "vq-rtcpxr"

MAX_BODY: Final = 16_384
"""Bytes of a body."""
MAX_LINES: Final = 400
MAX_REPORTS: Final = 8
"""Reports in one body (RFC 6035 §3.3: one for each session of a conference)."""
MAX_TEXT: Final = 100
"""Characters kept of a codec, a format or an algorithm."""

SESSION: Final = "session"
INTERVAL: Final = "interval"
ALERT: Final = "alert"

Value = int | float | str
Metrics = dict[str, Value]
"""What one side measured; the keys are the columns of the record, with their units in their names."""

_KINDS: Final = {"vqsessionreport": SESSION, "vqintervalreport": INTERVAL, "vqalertreport": ALERT}
_INTEGER: Final = 0
_REAL: Final = 1
_TEXT: Final = 2
_TIME: Final = 3
_HIGHEST: Final = 4

# Name: the key in Metrics, how it is read, the least and the most that it can be.
_FIELDS: Final[dict[str, tuple[str, int, float, float]]] = {
    "START": ("from_at", _TIME, 0, 0), "STOP": ("to_at", _TIME, 0, 0),
    # SessionDesc
    "PT": ("payload_type", _INTEGER, 0, 127), "PD": ("codec", _TEXT, 0, 0),
    "SR": ("sample_rate", _HIGHEST, 1, 999_999), "PPS": ("packets_per_second", _INTEGER, 1, 99_999),
    "FD": ("frame_ms", _INTEGER, 1, 9_999), "FO": ("frame_octets", _INTEGER, 1, 99_999),
    "FPP": ("frames_per_packet", _INTEGER, 1, 99), "FMTP": ("format", _TEXT, 0, 0),
    # 0 is unspecified.
    "PLC": ("loss_concealment", _INTEGER, 1, 3), "SSUP": ("silence_suppression", _TEXT, 0, 0),
    # JitterBuffer; JBA 0 is unknown, 1 reserved.
    "JBA": ("jitter_buffer_adaptive", _INTEGER, 2, 3), "JBR": ("jitter_buffer_rate", _INTEGER, 0, 15),
    "JBN": ("jitter_buffer_ms", _INTEGER, 0, 65_535), "JBM": ("jitter_buffer_max_ms", _INTEGER, 0, 65_535),
    "JBX": ("jitter_buffer_abs_max_ms", _INTEGER, 0, 65_535),
    # PacketLoss, BurstGapLoss: percent, and milliseconds.
    "NLR": ("loss_percent", _REAL, 0, 100), "JDR": ("discard_percent", _REAL, 0, 100),
    "BLD": ("burst_loss_percent", _REAL, 0, 100), "BD": ("burst_ms", _INTEGER, 0, 3_600_000),
    "GLD": ("gap_loss_percent", _REAL, 0, 100), "GD": ("gap_ms", _INTEGER, 0, 3_600_000),
    "GMIN": ("gap_threshold", _INTEGER, 1, 255),
    # Delay. What takes no time at all was not measured.
    "RTD": ("round_trip_ms", _REAL, 0.001, 65_535), "ESD": ("end_system_ms", _REAL, 0.001, 65_535),
    "OWD": ("one_way_ms", _REAL, 0.001, 65_535), "SOWD": ("symmetric_one_way_ms", _REAL, 0.001, 65_535),
    "IAJ": ("jitter_ms", _REAL, 0, 65_535), "MAJ": ("mean_jitter_ms", _REAL, 0, 65_535),
    # Signal. 127 is unavailable (RFC 3611 §4.7.4).
    "SL": ("signal_dbm", _INTEGER, -126, 126), "NL": ("noise_dbm", _INTEGER, -126, 126),
    "RERL": ("echo_return_loss_db", _INTEGER, 0, 126),
    # QualityEst. 127 is unavailable (RFC 6035 §4.6.2.11), and a MOS is 1 to 5.
    "RLQ": ("r_lq", _REAL, 0, 120), "RCQ": ("r_cq", _REAL, 0, 120),
    "EXTRI": ("external_r_in", _REAL, 0, 120), "EXTR": ("external_r_in", _REAL, 0, 120),
    "EXTRO": ("external_r_out", _REAL, 0, 120),
    "MOSLQ": ("mos_lq", _REAL, 1, 5), "MOSCQ": ("mos_cq", _REAL, 1, 5),
    "QOEESTALG": ("algorithm", _TEXT, 0, 0), "MOSLQESTALG": ("mos_lq_algorithm", _TEXT, 0, 0),
    "MOSCQESTALG": ("mos_cq_algorithm", _TEXT, 0, 0), "RLQESTALG": ("r_lq_algorithm", _TEXT, 0, 0),
    "RCQESTALG": ("r_cq_algorithm", _TEXT, 0, 0),
}  # fmt: skip

# White space may stand around the sign, so a value that is missing must not take the next name for itself.
_PAIR: Final = re.compile(
    r'([A-Za-z][A-Za-z0-9]{0,15})[ \t]*=[ \t]*("[^"]*"|(?![A-Za-z][A-Za-z0-9]{0,15}[ \t]*=)[^ \t"]*)'
)
_NUMBER: Final = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?\Z")
_SSRC: Final = re.compile(r"(?:0[xX])?([0-9A-Fa-f]{1,8})\Z")
_DATE_TIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))?\Z"
)


@dataclass(slots=True)
class Transport:
    """One end of the stream (LocalAddr, RemoteAddr); None where it was not told."""

    host: str | None = None
    ssrc: str | None = None
    """Eight hexadecimal digits in lower case."""


@dataclass(slots=True)
class Report:
    """One report. Text is as in ``sip.message``, one character a byte."""

    kind: str
    """SESSION, INTERVAL or ALERT."""
    final: bool = False
    """Whether the session is over (CallTerm)."""
    call_id: str = ""
    """The SIP Call-ID of the call."""
    dialog: str | None = None
    """The Call-ID in DialogID, where there is one; endpoints differ in which of the two is the call's."""
    local_id: str | None = None
    """Who sent it, who is at the other end, and who placed the call: addresses as written."""
    remote_id: str | None = None
    originator_id: str | None = None
    local: Transport = field(default_factory=Transport)
    """The end that received what LocalMetrics measured."""
    remote: Transport = field(default_factory=Transport)
    alert_metric: str | None = None
    alert_severity: str | None = None
    """``warning``, ``critical`` or ``clear``."""
    alert_direction: str | None = None
    """``local`` or ``remote``."""
    local_metrics: Metrics | None = None
    remote_metrics: Metrics | None = None


def parse(body: bytes) -> list[Report]:
    """The reports in a body, one at least; raises SipError(400) for what is none, SipError(413) for too much."""
    if len(body) > MAX_BODY:
        raise SipError(413, "Quality Report Too Large")
    reports: list[Report] = []
    metrics: Metrics | None = None
    for line in _unfolded(body.decode("latin-1")):
        name, colon, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        kind = _KINDS.get(name)
        if kind is not None:
            if len(reports) == MAX_REPORTS:
                raise SipError(400, "Too Many Quality Reports")
            reports.append(_begin(kind, value))
            metrics = None
        elif not reports or not colon:
            raise SipError(400, "Bad Quality Report")
        elif name in ("localmetrics", "metrics"):
            # The example of an alert in RFC 6035 §4.7.4 says "Metrics" where its grammar says "LocalMetrics".
            metrics = reports[-1].local_metrics = {}
        elif name == "remotemetrics":
            metrics = reports[-1].remote_metrics = {}
        else:
            _session_line(reports[-1], name, value)
            if metrics is not None:
                _read_pairs(value, metrics)
    for report in reports:
        if not report.call_id or not report.local_metrics:
            raise SipError(400, "Quality Report Without CallID Or LocalMetrics")
    if not reports:
        raise SipError(400, "Bad Quality Report")
    return reports


def _unfolded(body: str) -> list[str]:
    """The lines that are not empty; one that begins with white space continues the line before it."""
    lines: list[str] = []
    found = body.replace("\r\n", "\n").replace("\r", "\n").split("\n", MAX_LINES)
    if len(found) > MAX_LINES:
        raise SipError(400, "Quality Report Has Too Many Lines")
    for line in found:
        if line[:1] in (" ", "\t") and lines:
            lines[-1] += " " + line.strip()
        elif line.strip():
            lines.append(line)
    return lines


def _begin(kind: str, value: str) -> Report:
    report = Report(kind, final=value.lower() == "callterm")
    if kind == ALERT:
        found = {match[1].lower(): match[2] for match in _PAIR.finditer(value)}
        report.alert_metric = _word(found.get("type"))
        report.alert_severity = _word(found.get("severity"), ("warning", "critical", "clear"))
        report.alert_direction = _word(found.get("dir"), ("local", "remote"))
    return report


def _session_line(report: Report, name: str, value: str) -> None:
    """A line of SessionInfo, or DialogID, which follows the metrics."""
    if name == "callid":
        report.call_id = value[:256]
    elif name == "dialogid":
        report.dialog = value.partition(";")[0].strip()[:256] or None
    elif name == "localid":
        report.local_id = value or None
    elif name == "remoteid":
        report.remote_id = value or None
    elif name == "origid":
        report.originator_id = value or None
    elif name == "localaddr":
        report.local = _transport(value)
    elif name == "remoteaddr":
        report.remote = _transport(value)


def _transport(value: str) -> Transport:
    found = {match[1].upper(): match[2] for match in _PAIR.finditer(value)}
    ssrc = _SSRC.match(found.get("SSRC", ""))
    host = found.get("IP", "").strip("[]")
    return Transport(host[:64] or None, ssrc[1].lower().zfill(8) if ssrc else None)


def _read_pairs(value: str, metrics: Metrics) -> None:
    """Every ``NAME=value`` that is known, whatever line it stands on; the first of a name counts."""
    for match in _PAIR.finditer(value):
        spec = _FIELDS.get(match[1].upper())
        if spec is None or spec[0] in metrics:
            continue
        read = _value(match[2].strip('"'), spec)
        if read is not None:
            metrics[spec[0]] = read


def _value(given: str, spec: tuple[str, int, float, float]) -> Value | None:
    _, how, least, most = spec
    if how == _TEXT:
        return printable(given)
    if how == _TIME:
        return date_time(given)
    if how == _HIGHEST:
        # A codec that changes its rate has the lowest and the highest here: 8000;16000.
        rates = [rate for rate in (number(each, least, most) for each in given.split(";")) if rate is not None]
        return int(max(rates)) if rates else None
    found = number(given, least, most)
    if found is None or how == _REAL:
        return found
    return round(found)


def number(given: str, least: float, most: float) -> float | None:
    """A decimal number in these bounds, None for anything else."""
    given = given.strip(" \t,;")
    if not _NUMBER.match(given):
        return None
    found = float(given)
    return found if least <= found <= most else None


def printable(given: str | None) -> str | None:
    """Text as people read it, short and without what moves a cursor; None for none."""
    read = text((given or "").strip()[: MAX_TEXT * 4])[:MAX_TEXT]
    if not read.isprintable():
        read = "".join([char if char.isprintable() else "\ufffd" for char in read])
    return read or None


def _word(given: str | None, known: tuple[str, ...] = ()) -> str | None:
    """A word in lower case; where only some are known, one of them."""
    read = printable(given)
    if read is None:
        return None
    read = read.lower()
    return read if not known or read in known else None


def date_time(given: str) -> int | None:
    """A time of RFC 3339 as UNIX milliseconds; UTC where it has no offset. None for anything else."""
    match = _DATE_TIME.match(given)
    if match is None:
        return None
    year, month, day, hour, minute, second = [int(match[i]) for i in range(1, 7)]
    # RFC 3339 §5.6: 60 is a leap second.
    if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return None
    seconds = timegm((year, month, day, hour, minute, second))
    if match[8]:
        offset = int(match[9]) * 3600 + int(match[10]) * 60
        seconds += offset if match[8] == "-" else -offset
    return seconds * 1000 + int((match[7] or "0")[:3].ljust(3, "0"))
