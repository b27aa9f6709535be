"""The summaries in BYE, as several makes of endpoints write them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sipserver.sip.message import parse
from sipserver.sip.quality import Metrics
from sipserver.sip.rtpstat import Summary, summaries


def bye(*lines: str) -> list[Summary]:
    """What a BYE with these lines says."""
    return summaries(parse("\r\n".join(("BYE sip:a@192.0.2.1 SIP/2.0", *lines, "", "")).encode("utf-8")))


def only(*lines: str) -> Summary:
    (found,) = bye(*lines)
    return found


def test_baresip_writes_pairs_of_received_and_sent() -> None:
    found = only(
        "X-RTP-Stat: EX=BareSip;CS=5;CD=12;PR=600;PS=601;PL=3,1;PD=2,0;JI=1.2,0.9;"
        "IP=192.0.2.1:1024,192.0.2.2:1026;EN=PCMU/8000;DE=opus/48000"
    )
    assert found.header == "x-rtp-stat"
    assert found.local == {
        "packets_received": 600, "packets_sent": 601, "packets_lost": 3, "packets_discarded": 2, "jitter_ms": 1.2,
        "duration_ms": 12_000, "codec": "opus", "sample_rate": 48000,
    }  # fmt: skip
    assert found.remote == {
        "packets_lost": 1, "packets_discarded": 0, "jitter_ms": 0.9, "codec": "PCMU", "sample_rate": 8000,
    }  # fmt: skip


def test_gateway_with_single_numbers() -> None:
    found = only("X-RTP-Stat: PS=207;OS=49680;;PR=314;OR=50240;PL=1;JI=6;LA=40;")
    assert found.local == {
        "packets_sent": 207, "octets_sent": 49680, "packets_received": 314, "octets_received": 50240,
        "packets_lost": 1, "jitter_ms": 6, "round_trip_ms": 40,
    }  # fmt: skip
    assert found.remote == {}


def test_pairs_of_other_makes_are_not_guessed_at() -> None:
    found = only("X-RTP-Stat: CS=0;PS=829;OS=132640;PR=821;PL=4,7;JI=23,2;DL=19,20,20;EN=-;DE=G722")
    assert found.local == {"packets_sent": 829, "octets_sent": 132640, "packets_received": 821, "codec": "G722"}


def test_p_rtp_stat() -> None:
    found = only("P-RTP-Stat: PS=1500, OS=240000,PR=1490,OR=238400,PL=3,JI=4,LA=60,DU=30,EN=G711u,DE=G729a")
    assert found.header == "p-rtp-stat"
    assert found.local == {
        "packets_sent": 1500, "octets_sent": 240000, "packets_received": 1490, "octets_received": 238400,
        "packets_lost": 3, "jitter_ms": 4, "round_trip_ms": 60, "duration_ms": 30_000, "codec": "G729a",
    }  # fmt: skip


def test_rx_and_tx_stat_of_cisco_are_one_summary() -> None:
    found = only(
        'RTP-RxStat: Dur=5,Pkt=248,Oct=42656,LatePkt=1,LostPkt=2,AvgJit=0,VQMetrics="CCR=0.0;VoRxCodec=PCMU;'
        'MOScq=4.21;MOSlq=3.52;network=wifi"',
        'RTP-TxStat: Dur=5,Pkt=250,Oct=43000,tvqMetrics="TxCodec=PCMU"',
    )
    assert found.header == "rtp-rxstat"
    assert found.local == {
        "duration_ms": 5_000, "packets_received": 248, "octets_received": 42656, "packets_discarded": 1,
        "packets_lost": 2, "codec": "PCMU", "mos_lq": 3.52, "mos_cq": 4.21, "packets_sent": 250,
        "octets_sent": 43000,
    }  # fmt: skip


def test_rx_and_tx_stat_of_snom() -> None:
    found = only("RTP-RxStat: Total_Rx_Pkts=1234,Rx_Pkts_Lost=5", "RTP-TxStat: Total_Tx_Pkts=1240")
    assert found.local == {"packets_received": 1234, "packets_lost": 5, "packets_sent": 1240}


def test_tx_stat_alone() -> None:
    assert only("RTP-TxStat: Pkt=3").header == "rtp-txstat"


def test_of_nothing_nothing_was_lost() -> None:
    found = only("X-RTP-Stat: EX=BareSip;CD=2;PR=0;PS=0;PL=0,0;PD=0,0;JI=0.0,0.0")
    assert found.local == {"packets_received": 0, "packets_sent": 0, "duration_ms": 2_000}
    assert found.remote == {}
    assert only("P-RTP-Stat: PR=0,PL=12,JI=0,LA=0").local == {"packets_received": 0, "packets_lost": 12}


def test_both_headers_are_two_summaries() -> None:
    assert [each.header for each in bye("X-RTP-Stat: PR=1", "P-RTP-Stat: PR=1")] == ["x-rtp-stat", "p-rtp-stat"]


def test_what_says_nothing_is_none() -> None:
    assert bye() == []
    assert bye("X-RTP-Stat: ", "P-RTP-Stat: nonsense", "RTP-RxStat: ;;;,,,") == []
    assert bye("X-RTP-Stat: PS=;PR=-4;PL=abc;JI=1e9;OS=99999999999999") == []


def test_codec_is_printable() -> None:
    assert only("P-RTP-Stat: PR=1,DE=a\x1bb").local["codec"] == "a\ufffdb"


@given(st.sampled_from(["X-RTP-Stat", "P-RTP-Stat", "RTP-RxStat", "RTP-TxStat"]), st.text(max_size=200))
def test_any_value_is_read(name: str, value: str) -> None:
    line = f"{name}: PR=5,PL={value};JI={value},{value}".replace("\r", " ").replace("\n", " ")
    for found in bye(line):
        for metrics in (found.local, found.remote):
            assert_sane(metrics)


def assert_sane(metrics: Metrics) -> None:
    for value in metrics.values():
        assert not isinstance(value, float) or 0 <= value <= 65_535
        assert not isinstance(value, str) or value.isprintable()
