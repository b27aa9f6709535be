"""The summaries of a call's media that endpoints put into BYE and into its 200. No RFC has them; these are known:

    X-RTP-Stat: EX=BareSip;CS=5;CD=12;PR=600;PS=601;PL=0,0;PD=0,0;JI=1.2,0.9;IP=…;EN=PCMU/8000;DE=PCMU/8000
    X-RTP-Stat: PS=207;OS=49680;PR=314;OR=50240;PL=0;JI=6;LA=40              (AudioCodes, AVM and others)
    P-RTP-Stat: PS=1500,OS=240000,PR=1490,OR=238400,PL=3,JI=4,LA=60,DU=30,EN=G711u,DE=G711u      (Cisco, Linksys)
    RTP-RxStat: Dur=5,Pkt=248,Oct=42656,LatePkt=0,LostPkt=0,VQMetrics="…;VoRxCodec=PCMU;MOScq=4.21;MOSlq=3.52"
    RTP-TxStat: Dur=5,Pkt=248,Oct=42656                                       (Cisco)
    RTP-RxStat: Total_Rx_Pkts=1234,Rx_Pkts_Lost=0   RTP-TxStat: Total_Tx_Pkts=1240                (Snom)

Only what is known to mean the same everywhere is read. Where nothing was received, zeros for loss and jitter say
nothing, and are left out; so is a latency of zero, which endpoints write that measured none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sipserver.sip.message import Message
from sipserver.sip.quality import Metrics, number, printable

X_RTP_STAT: Final = "x-rtp-stat"
P_RTP_STAT: Final = "p-rtp-stat"
RX_STAT: Final = "rtp-rxstat"
TX_STAT: Final = "rtp-txstat"
HEADERS: Final = frozenset((X_RTP_STAT, P_RTP_STAT, RX_STAT, TX_STAT))
"""The headers that are read, as ``sip.names`` writes them."""

MAX_VALUE: Final = 1_024
"""Characters of a header that are looked at."""
MAX_COUNT: Final = 1e12
"""Packets or octets at most."""

_PAIR: Final = re.compile(r'([A-Za-z][A-Za-z_]{0,23})\s*=\s*("[^"]*"|[^;"]*)')
_COMMA_PAIR: Final = re.compile(r'([A-Za-z][A-Za-z_]{0,23})\s*=\s*("[^"]*"|[^,;"]*)')

_COUNTS: Final = {
    "ps": "packets_sent", "os": "octets_sent", "pr": "packets_received", "or": "octets_received",
}  # fmt: skip
_RX_COUNTS: Final = {
    "pkt": "packets_received", "oct": "octets_received", "lostpkt": "packets_lost", "latepkt": "packets_discarded",
    "total_rx_pkts": "packets_received", "rx_pkts_lost": "packets_lost",
}  # fmt: skip
_TX_COUNTS: Final = {"pkt": "packets_sent", "oct": "octets_sent", "total_tx_pkts": "packets_sent"}


@dataclass(slots=True)
class Summary:
    """What one header says."""

    header: str
    """Its name, lower case."""
    local: Metrics
    """Of the stream that the endpoint received, with the counts of what it sent. Empty where nothing is known."""
    remote: Metrics
    """Of the stream that it sent, as the other side told it."""


def summaries(message: Message) -> list[Summary]:
    """The summaries in a BYE or in its response; those that say nothing are left out."""
    found: list[Summary] = []
    for header in (X_RTP_STAT, P_RTP_STAT):
        value = message.header(header)
        if value is not None:
            found.append(_rtp_stat(header, value[:MAX_VALUE]))
    received, sent = message.header(RX_STAT), message.header(TX_STAT)
    if received is not None or sent is not None:
        found.append(_rx_and_tx((received or "")[:MAX_VALUE], (sent or "")[:MAX_VALUE]))
    return [summary for summary in found if summary.local or summary.remote]


def _rtp_stat(header: str, value: str) -> Summary:
    pairs = {match[1].lower(): match[2].strip() for match in _pairs(value)}
    local: Metrics = {}
    remote: Metrics = {}
    for name, column in _COUNTS.items():
        _count(local, column, pairs.get(name, ""))
    # baresip writes two numbers, received and sent. What others mean by two of them differs, so they are left out.
    is_pair = pairs.get("ex", "").lower() == "baresip"
    _count_pair(local, remote, "packets_lost", pairs.get("pl", ""), is_pair)
    _count_pair(local, remote, "packets_discarded", pairs.get("pd", ""), is_pair)
    jitter, _, remote_jitter = pairs.get("ji", "").partition(",")
    if is_pair or not remote_jitter:
        _real(local, "jitter_ms", jitter, 0)
    if is_pair:
        _real(remote, "jitter_ms", remote_jitter, 0)
    _real(local, "round_trip_ms", pairs.get("la", ""), 0.001)
    _duration(local, pairs.get("du", "") or pairs.get("cd", ""))
    _codec(local, pairs.get("de", "") or pairs.get("en", ""))
    _codec(remote, pairs.get("en", "") if remote else "")
    _drop_what_was_not_received(local)
    if not local.get("packets_sent"):
        remote.clear()
    return Summary(header, local, remote)


def _pairs(value: str) -> list[re.Match[str]]:
    # The commas of X-RTP-Stat stand inside values; where no semicolon is, they stand between them.
    return list((_PAIR if ";" in value else _COMMA_PAIR).finditer(value))


def _rx_and_tx(received: str, sent: str) -> Summary:
    local: Metrics = {}
    pairs = {match[1].lower(): match[2].strip('" ') for match in _COMMA_PAIR.finditer(received)}
    for name, column in _RX_COUNTS.items():
        _count(local, column, pairs.get(name, ""))
    _duration(local, pairs.get("dur", ""))
    quality = {match[1].lower(): match[2] for match in _PAIR.finditer(pairs.get("vqmetrics", ""))}
    _codec(local, quality.get("vorxcodec", ""))
    for name, column in (("moslq", "mos_lq"), ("moscq", "mos_cq")):
        found = number(quality.get(name, ""), 1, 5)
        if found is not None:
            local[column] = found
    for match in _COMMA_PAIR.finditer(sent):
        column = _TX_COUNTS.get(match[1].lower(), "")
        if column:
            _count(local, column, match[2])
    _drop_what_was_not_received(local)
    return Summary(RX_STAT if received else TX_STAT, local, {})


def _count(metrics: Metrics, column: str, value: str) -> None:
    found = number(value, 0, MAX_COUNT)
    if found is not None:
        metrics[column] = int(found)


def _count_pair(local: Metrics, remote: Metrics, column: str, value: str, is_pair: bool) -> None:
    first, _, second = value.partition(",")
    if is_pair or not second:
        _count(local, column, first)
    if is_pair:
        _count(remote, column, second)


def _real(metrics: Metrics, column: str, value: str, least: float) -> None:
    found = number(value, least, 65_535)
    if found is not None:
        metrics[column] = found


def _duration(metrics: Metrics, value: str) -> None:
    found = number(value, 0, 10_000_000)
    if found is not None:
        metrics["duration_ms"] = int(found * 1000)


def _codec(metrics: Metrics, value: str) -> None:
    name, _, rate = value.partition("/")
    codec = printable(name)
    if codec is not None and codec != "-":
        metrics["codec"] = codec
    found = number(rate.partition("/")[0], 1, 999_999)
    if found is not None:
        metrics["sample_rate"] = int(found)


def _drop_what_was_not_received(metrics: Metrics) -> None:
    """Of nothing, nothing was lost: such zeros would look perfect."""
    if metrics.get("packets_received") != 0:
        return
    for column in ("jitter_ms", "mos_lq", "mos_cq"):
        metrics.pop(column, None)
    for column in ("packets_lost", "packets_discarded"):
        if metrics.get(column) == 0:
            del metrics[column]
