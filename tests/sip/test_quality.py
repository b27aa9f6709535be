"""Reports of voice quality: as RFC 6035 has them, as endpoints write them, and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.sip import quality
from sipserver.sip.errors import SipError
from sipserver.sip.quality import ALERT, INTERVAL, SESSION, Transport, date_time, parse

INFO = """CallID: 9d4e6f2a@192.0.2.10
LocalID: "Alice" <sip:alice@example.test>
RemoteID: Bob <sip:bob@example.test>
OrigID: "Alice" <sip:alice@example.test>
LocalGroup: floor-3
RemoteGroup: gateway-7
LocalAddr: IP=192.0.2.10 PORT=16384 SSRC=0xA1B2C3
LocalMAC: 02:00:5e:00:53:01
RemoteAddr:IP=[2001:db8::7] PORT=30000 SSRC=deadbeef
RemoteMAC: 02:00:5e:00:53:02
"""

METRICS = """Timestamps:START=2026-11-24T10:00:00Z STOP=2026-11-24T10:01:30.250Z
SessionDesc:PT=9 PD=G722 SR=8000;16000 FD=20 FO=160 FPP=1 PPS=50
 FMTP="mode=64 x" PLC=3 SSUP=on
JitterBuffer:JBA=3 JBR=2 JBN=40 JBM=80 JBX=120
PacketLoss:NLR=2.5 JDR=0.75
BurstGapLoss:BLD=12.5 BD=180 GLD=0.5 GD=5000 GMIN=16
Delay:RTD=95 ESD=60 OWD=47 SOWD=110 IAJ=7 MAJ=9
Signal:SL=-21 NL=-58 RERL=50
QualityEst:RLQ=89 RCQ=84 EXTRI=91 EXTRO=92 MOSLQ=4.2 MOSCQ=4.05
   QoEEstAlg=P.564
"""

WHOLE = {
    "from_at": 1_795_514_400_000, "to_at": 1_795_514_490_250, "payload_type": 9, "codec": "G722",
    "sample_rate": 16000, "frame_ms": 20, "frame_octets": 160, "frames_per_packet": 1, "packets_per_second": 50,
    "format": "mode=64 x", "loss_concealment": 3, "silence_suppression": "on", "jitter_buffer_adaptive": 3,
    "jitter_buffer_rate": 2, "jitter_buffer_ms": 40, "jitter_buffer_max_ms": 80, "jitter_buffer_abs_max_ms": 120,
    "loss_percent": 2.5, "discard_percent": 0.75, "burst_loss_percent": 12.5, "burst_ms": 180,
    "gap_loss_percent": 0.5, "gap_ms": 5000, "gap_threshold": 16, "round_trip_ms": 95, "end_system_ms": 60,
    "one_way_ms": 47, "symmetric_one_way_ms": 110, "jitter_ms": 7, "mean_jitter_ms": 9, "signal_dbm": -21,
    "noise_dbm": -58, "echo_return_loss_db": 50, "r_lq": 89, "r_cq": 84, "external_r_in": 91, "external_r_out": 92,
    "mos_lq": 4.2, "mos_cq": 4.05, "algorithm": "P.564",
}  # fmt: skip


def report(first: str = "VQSessionReport: CallTerm", local: str = METRICS, rest: str = "", info: str = INFO) -> bytes:
    return f"{first}\n{info}LocalMetrics:\n{local}{rest}".replace("\n", "\r\n").encode("latin-1")


def local(line: str) -> dict[str, quality.Value]:
    """What one line of metrics says."""
    (found,) = parse(report(local="PacketLoss:NLR=1\n" + line + "\n"))
    assert found.local_metrics is not None
    return {name: value for name, value in found.local_metrics.items() if name != "loss_percent"}


def test_session_report_with_both_directions() -> None:
    rest = "RemoteMetrics:\nTimestamps:START=2026-11-24T10:00:00Z STOP=2026-11-24T10:01:30Z\nDelay:RTD=95 IAJ=3\n"
    rest += "DialogID:77aa@192.0.2.10;to-tag=8472761;\n   from-tag=9123dh311\n"
    (found,) = parse(report(rest=rest))
    assert (found.kind, found.final, found.call_id, found.dialog) == (
        SESSION, True, "9d4e6f2a@192.0.2.10", "77aa@192.0.2.10",
    )  # fmt: skip
    assert found.local_id == '"Alice" <sip:alice@example.test>'
    assert found.remote_id == "Bob <sip:bob@example.test>"
    assert found.originator_id == found.local_id
    assert found.local == Transport("192.0.2.10", "00a1b2c3")
    assert found.remote == Transport("2001:db8::7", "deadbeef")
    assert found.local_metrics == WHOLE
    assert found.remote_metrics == {
        "from_at": 1_795_514_400_000, "to_at": 1_795_514_490_000, "round_trip_ms": 95, "jitter_ms": 3,
    }  # fmt: skip


def test_interval_report() -> None:
    (found,) = parse(report("VQIntervalReport"))
    assert (found.kind, found.final, found.remote_metrics) == (INTERVAL, False, None)


def test_alert_report_as_the_rfc_s_example_has_it() -> None:
    body = report("VQAlertReport: Type=RLQ Severity=Warning Dir=local").replace(b"LocalMetrics:", b"Metrics:")
    (found,) = parse(body.replace(b"EXTRI", b"EXTR"))
    assert (found.kind, found.alert_metric, found.alert_severity, found.alert_direction) == (
        ALERT, "rlq", "warning", "local",
    )  # fmt: skip
    assert found.local_metrics == WHOLE


def test_alert_of_a_kind_that_is_not_known_says_nothing_of_it() -> None:
    (found,) = parse(report("VQAlertReport: Type=NLR Severity=Terrible Dir=sideways"))
    assert (found.alert_metric, found.alert_severity, found.alert_direction) == ("nlr", None, None)


def test_several_reports_in_one_body() -> None:
    first, second = parse(report() + report("VQIntervalReport"))
    assert (first.kind, second.kind) == (SESSION, INTERVAL)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.replace(b"\r\n", b"\n"),
        lambda body: body.replace(b"\r\n", b"\r"),
        lambda body: body.replace(b":", b" : "),
        lambda body: body.replace(b"NLR=2.5", b"NLR = 2.5").replace(b"RLQ=89", b"RLQ =  89"),
        lambda body: body.replace(b"PD=G722", b'PD="G722"'),
        lambda body: b"\r\n" + body.rstrip(),
        lambda body: body.replace(b"CallID", b"CALLID").replace(b"PacketLoss", b"packetloss"),
        lambda body: body.replace(b"NLR=", b"nlr="),
        lambda body: body.replace(b"GMIN=16", b"GMIN=16 X-NEW=9").replace(b"Signal", b"X-Extra:A=1\r\nSignal"),
    ],
)
def test_what_endpoints_do_to_the_grammar(change: object) -> None:
    assert callable(change)
    body = report()
    assert change(body) != body
    (found,) = parse(change(body))
    metrics = found.local_metrics or {}
    names = ("loss_percent", "r_lq", "codec", "gap_threshold", "mos_cq")
    assert [metrics[name] for name in names] == [WHOLE[name] for name in names]


@pytest.mark.parametrize(
    "line",
    [
        "QualityEst:RLQ=127 RCQ=127 EXTRI=127 MOSLQ=12.7 MOSCQ=0.0",
        "QualityEst:MOSLQ=0 MOSCQ=5.1 RLQ=-1",
        "Signal:SL=127 NL=127 RERL=127",
        "Delay:RTD=0 ESD=0 IAJ=-1 MAJ=N/A",
        "JitterBuffer:JBA=0 JBN=70000",
        "SessionDesc:PT=128 PD= SR=0 PLC=0",
        "PacketLoss:JDR=101",
        "BurstGapLoss:BLD= BD=unknown GMIN=0",
        "Timestamps:START=yesterday STOP=2026-13-01T00:00:00Z",
        "Delay:RTD=1e3 ESD=nan IAJ=\u00b2 MAJ=99999999999",
        "Nothing at all:here",
    ],
)
def test_what_is_not_known_is_left_out(line: str) -> None:
    assert local(line) == {}


def test_zero_is_kept_where_it_can_be_true() -> None:
    assert local("Delay:IAJ=0 MAJ=0.0") == {"jitter_ms": 0, "mean_jitter_ms": 0}
    assert local("BurstGapLoss:BLD=0 BD=0") == {"burst_loss_percent": 0, "burst_ms": 0}


def test_first_of_a_name_counts() -> None:
    assert local("Delay:IAJ=5 IAJ=0") == {"jitter_ms": 5}


def test_text_is_short_and_printable() -> None:
    assert local('SessionDesc:PD="a\x1b[2J\tb"') == {"codec": "a\ufffd[2J\ufffdb"}
    assert local(f"SessionDesc:PD={'x' * 500}") == {"codec": "x" * quality.MAX_TEXT}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\r\n\r\n", 400),
        (b"VQSessionReport: CallTerm\r\n", 400),
        (report().replace(b"VQSession", b"VQOther"), 400),
        (report().replace(b"CallID", b"CallNo"), 400),
        (report().replace(b"LocalMetrics", b"SomeMetrics"), 400),
        (report(local=""), 400),
        (report(local="PacketLoss:NLR=bad\n"), 400),
        (report() + b"no colon here\r\n", 400),
        (report() * 9, 400),
        (report() + b"X: y\r\n" * quality.MAX_LINES, 400),
        (b"x" * (quality.MAX_BODY + 1), 413),
    ],
)
def test_malformed_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(SipError) as raised:
        parse(body)
    assert raised.value.status == status


def test_addresses_that_are_not_told_are_not_known() -> None:
    (found,) = parse(report(info="CallID: x\nLocalAddr: PORT=1 SSRC=0x123456789\nRemoteAddr: unknown\n"))
    assert found.local == found.remote == Transport(None, None)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-24T10:00:00.1239Z", 1_795_514_400_123),
        ("2026-11-24 10:00:00", 1_795_514_400_000),
        ("2026-11-24T11:30:00+01:30", 1_795_514_400_000),
        ("2026-11-24T02:00:00-0800", 1_795_514_400_000),
        ("2026-02-29T10:00:61Z", None),
        ("2026-11-24T24:00:00Z", None),
        ("1969-11-24T10:00:00Z", None),
        ("", None),
    ],
)
def test_time_of_rfc_3339(text: str, at: int | None) -> None:
    assert date_time(text) == at


@given(st.binary(max_size=600), st.integers(0, 40), st.integers(0, 700))
def test_any_body_is_read_or_refused(noise: bytes, cut: int, place: int) -> None:
    body = report(rest="RemoteMetrics:\nDelay:RTD=9\n")
    for each in (noise, body[:place] + noise + body[place + cut :]):
        try:
            found = parse(each)
        except SipError as error:
            assert error.status in (400, 413)  # noqa: PT017
            continue
        for one in found:
            for metrics in (one.local_metrics or {}, one.remote_metrics or {}):
                assert all(isinstance(value, int | float | str) for value in metrics.values())
                assert all(value.isprintable() for value in metrics.values() if isinstance(value, str))


@given(st.dictionaries(st.sampled_from(["NLR", "IAJ", "RTD", "MOSLQ", "RLQ", "JBN", "SL"]), st.floats(-1e9, 1e9)))
def test_numbers_stay_within_their_bounds(values: dict[str, float]) -> None:
    line = "X:" + " ".join(f"{name}={value:.3f}" for name, value in values.items())
    (found,) = parse(report(local=f"Delay:MAJ=1\n{line}\n"))
    metrics = found.local_metrics or {}
    for name, least, most in (("loss_percent", 0, 100), ("mos_lq", 1, 5), ("r_lq", 0, 120), ("signal_dbm", -126, 126)):
        value = metrics.get(name)
        assert value is None or least <= float(value) <= most
