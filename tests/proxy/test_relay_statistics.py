from __future__ import annotations

from typing import Any

from sipserver.proxy.relay_statistics import LOCAL, REMOTE, measured, packets


def side(tag: str, ssrc: int, count: int, kind: bytes = b"audio") -> dict[str, Any]:
    stream = {"SSRC": ssrc, "stats": {"packets": count, "bytes": 172 * count, "errors": 0}, "flags": [b"RTP"]}
    control = {"SSRC": ssrc, "stats": {"packets": 3, "bytes": 180, "errors": 0}, "flags": [b"RTCP"]}
    return {"tag": tag.encode(), "medias": [{"type": kind, "codec": b"PCMU/8000", "streams": [stream, control]}]}


def average(**values: int) -> dict[str, Any]:
    return {
        "cumulative loss": 2,
        "average MOS": {"MOS": 43, "round-trip time": 24_500, "jitter": 3, "packet loss": 1, "samples": 2, **values},
    }


REPLY: dict[str, Any] = {
    "result": b"ok",
    "tags": {"A": side("A", 0x11111111, 98), "B": side("B", 0x22222222, 100)},
    "SSRC": {str(0x22222222): average()},
    "totals": {"RTP": {"packets": 198, "bytes": 34_056}},
}


def test_both_sides_are_counted_and_what_a_receiver_said_is_its_own_row() -> None:
    one, two, three = measured(REPLY)
    assert (one.tag, one.direction, one.kind, one.ssrc) == ("A", REMOTE, "audio", "11111111")
    assert one.metrics == {"codec": "PCMU", "sample_rate": 8000, "packets_received": 98, "octets_received": 16_856}
    assert (two.tag, two.direction, two.metrics["packets_received"]) == ("B", REMOTE, 100)
    assert (three.tag, three.direction, three.ssrc) == ("B", LOCAL, "22222222")
    assert three.metrics == {
        "codec": "PCMU", "sample_rate": 8000, "packets_lost": 2, "loss_percent": 1.0, "jitter_ms": 3.0,
        "round_trip_ms": 24.5, "mos_cq": 4.3, "mos_cq_algorithm": "rtpengine",
    }  # fmt: skip
    assert packets(REPLY) == 198


def test_what_was_not_measured_is_left_out() -> None:
    reply = {**REPLY, "SSRC": {str(0x22222222): average(samples=0, MOS=0)}}
    assert measured(reply)[2].metrics == {"codec": "PCMU", "sample_rate": 8000, "packets_lost": 2}
    reply = {**REPLY, "SSRC": {str(0x22222222): average(**{"MOS": 0, "round-trip time": 0})}}
    assert not {"mos_cq", "round_trip_ms"} & set(measured(reply)[2].metrics)
    silent = {"tags": {"A": side("A", 1, 0), "B": side("B", 2, 10, b"image")}}
    assert measured(silent) == []


def test_answers_of_another_shape_say_nothing() -> None:
    shapes: tuple[dict[str, Any], ...] = (
        {}, {"tags": 1}, {"tags": {"A": []}}, {"tags": {"A": {"medias": [1, {"type": 2}]}}}, {"totals": []},
    )  # fmt: skip
    for reply in shapes:
        assert measured(reply) == []
        assert packets(reply) == 0
    wrong = {"tags": {"A": {"medias": [{"type": b"audio", "codec": 1, "streams": [{"SSRC": -1, "stats": b"x"}]}]}}}
    assert measured(wrong) == []
