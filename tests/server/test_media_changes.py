"""Offers and answers of every kind through the whole server, and the streams on record afterwards."""

from __future__ import annotations

import pytest

from support.inprocess import Server
from support.sdp import AUDIO, NO_VIDEO, SLIDES, VIDEO, body
from support.talk import Talk, responses, talk

VOICE, BOTH, DECLINED = body(AUDIO), body(AUDIO, VIDEO), body(AUDIO, NO_VIDEO)
RELIABLE = ("Require: 100rel", "RSeq: 1")
BROKEN = b"v=0\r\nm=nonsense\r\n"


@pytest.fixture
def call(server: Server) -> Talk:
    return talk(server)


def held(*sections: str, direction: str) -> bytes:
    return body(*(f"{section}\na={direction}" for section in sections))


def test_offer_in_the_invite_and_answer_in_the_200(call: Talk) -> None:
    call.begin(BOTH, DECLINED)
    assert call.media("kind", "accepted") == [("audio", 1), ("video", 0)]
    call.server.advance(2)
    call.hang_up()
    assert call.media("kind", "to_at NOT NULL") == [("audio", 1), ("video", 1)]
    assert (call.call()["video"], call.call()["video_ms"]) == (0, 0)


def test_offer_in_the_200_and_answer_in_the_ack(call: Talk) -> None:
    call.place()
    call.respond(200, BOTH)
    assert call.media("kind") == []
    call.ack(BOTH)
    assert call.media("kind", "accepted") == [("audio", 1), ("video", 1)]
    call.server.advance(2)
    call.hang_up()
    assert 2_000 <= call.call()["video_ms"] < 2_100


def test_offer_in_a_reliable_183_and_answer_in_its_prack(call: Talk) -> None:
    call.place()
    call.respond(183, BOTH, *RELIABLE)
    call.agree(call.say("PRACK", VOICE, "RAck: 1 1 INVITE"))
    assert call.media("kind", "accepted", early=1) == [("audio", 1), ("video", 0)]
    call.server.advance(1)
    call.respond(200)
    call.ack()
    # The early streams ended with the answer; what was agreed holds on.
    assert call.media("kind", "to_at NOT NULL", early=1) == [("audio", 1), ("video", 1)]
    assert call.media("kind", "accepted") == [("audio", 1), ("video", 0)]
    ((since,), _), answered = call.media("from_at"), call.call()["answered_at"]
    assert since == answered


def test_offer_in_an_unreliable_183_is_none(call: Talk) -> None:
    call.place()
    call.respond(183, BOTH)
    call.respond(200, VOICE)
    call.ack(VOICE)
    assert call.media("kind") == [("audio",)]
    assert call.media("kind", early=1) == []


@pytest.mark.parametrize("lines", [RELIABLE, ()])
@pytest.mark.parametrize("final", [b"", DECLINED])
def test_early_media(call: Talk, lines: tuple[str, ...], final: bytes) -> None:
    call.place(BOTH)
    call.respond(183, DECLINED, *lines)
    assert call.media("kind", "accepted", "branch", early=1) == [("audio", 1, 0), ("video", 0, 0)]
    call.server.advance(3)
    call.respond(200, final)
    call.ack()
    call.server.advance(5)
    call.hang_up()
    assert call.media("kind", "accepted") == [("audio", 1), ("video", 0)]
    assert call.media("to_at", early=1) == [(call.call()["answered_at"],)] * 2


def test_early_media_of_a_call_that_is_not_answered_end_with_it(call: Talk) -> None:
    call.place(BOTH)
    call.respond(183, BOTH)
    call.respond(486)
    assert call.media("kind", "to_at NOT NULL", early=1) == [("audio", 1), ("video", 1)]
    assert (call.call()["video"], call.call()["video_ms"]) == (None, None)


def test_update_before_the_answer(call: Talk) -> None:
    call.place(BOTH)
    call.respond(183, BOTH, *RELIABLE)
    call.agree(call.say("PRACK", b"", "RAck: 1 1 INVITE"))
    call.agree(call.say("UPDATE", VOICE), 200, VOICE)
    assert call.media("kind", "to_at NOT NULL", early=1) == [("audio", 0), ("video", 1)]
    # What the 200 repeats of the first answer is not what holds any more (RFC 3311 §5).
    call.respond(200, BOTH)
    call.ack()
    assert call.media("kind") == [("audio",)]
    call.hang_up()
    assert call.call()["video"] == 0


def test_prack_offers_and_its_200_answers(call: Talk) -> None:
    call.place(BOTH)
    call.respond(183, DECLINED, *RELIABLE)
    call.agree(call.say("PRACK", BOTH, "RAck: 1 1 INVITE"), 200, BOTH)
    assert call.media("kind", "accepted", early=1) == [("audio", 1), ("video", 0), ("video", 1)]
    call.respond(200)
    call.ack()
    assert call.media("kind", "accepted") == [("audio", 1), ("video", 1)]


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("by", ["caller", "callee"])
def test_video_is_switched_on_and_off(call: Talk, method: str, by: str) -> None:
    call.begin(VOICE, VOICE)
    say, agree = (call.say, call.agree) if by == "caller" else (call.say_back, call.agree_back)
    call.server.advance(10)
    agree(say(method, BOTH), 200, BOTH)
    call.server.advance(20)
    agree(say(method, DECLINED), 200, DECLINED)
    call.server.advance(30)
    call.hang_up()
    row = call.call()
    assert row["video"] == 1
    assert 20_000 <= row["video_ms"] < 20_100
    assert 60_000 <= row["talk_ms"] < 60_100
    # What an offer takes out of use is no stream that somebody refused.
    assert call.media("kind", "accepted") == [("audio", 1), ("video", 1)]


def test_slides_are_content(call: Talk) -> None:
    call.begin(BOTH, BOTH)
    slides = body(AUDIO, VIDEO, "m=application 5070 UDP/BFCP *", SLIDES)
    call.agree(call.say("INVITE", slides), 200, slides)
    assert call.media("kind", "codec") == [
        ("audio", "opus"), ("video", "H264"), ("content", "BFCP"), ("content", "VP8")
    ]  # fmt: skip
    assert call.call()["content"] == 1


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("status", [488, 491, 500])
def test_offer_that_is_refused_changes_nothing(call: Talk, method: str, status: int) -> None:
    call.begin(VOICE, VOICE)
    call.agree(call.say(method, BOTH), status)
    assert call.media("kind", "to_at NOT NULL") == [("audio", 0)]
    assert call.events() == ["placed", "answered", "confirmed"]


def test_early_answer_of_a_reinvite_that_is_refused_changes_nothing(call: Talk) -> None:
    call.begin(VOICE, VOICE)
    again = call.say("INVITE", BOTH)
    call.agree(again, 183, BOTH, *RELIABLE)
    call.agree(again, 488)
    assert call.media("kind", "to_at NOT NULL") == [("audio", 0)]
    call.agree(call.say("INVITE"), 200, VOICE)
    call.hang_up()
    assert call.call()["video"] == 0


def test_early_answer_of_a_reinvite_that_is_accepted(call: Talk) -> None:
    call.begin(VOICE, VOICE)
    again = call.say("INVITE", BOTH)
    call.agree(again, 183, BOTH, *RELIABLE)
    call.agree(call.say("PRACK", b"", "RAck: 1 1 INVITE"))
    call.agree(again)
    assert call.media("kind") == [("audio",), ("video",)]


def test_reinvite_without_an_offer_is_answered_by_its_own_ack(call: Talk) -> None:
    call.begin(VOICE, VOICE)
    again = call.say_back("INVITE")
    call.agree_back(again, 200, BOTH)
    # The first ACK comes once more; it answers nothing.
    call.ack()
    assert call.media("kind") == [("audio",)]
    call.callee.send(call.written_back("ACK", BOTH, cseq=again.cseq[0]))
    assert len(call.caller.requests("ACK")) == 1
    assert call.media("kind") == [("audio",), ("video",)]
    assert call.events() == ["placed", "answered", "confirmed", "changed"]


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("direction", ["inactive", "sendonly"])
def test_hold_and_resume(call: Talk, method: str, direction: str) -> None:
    call.begin(BOTH, BOTH)
    call.server.advance(10)
    answer = {"inactive": "inactive", "sendonly": "recvonly"}[direction]
    call.agree_back(
        call.say_back(method, held(AUDIO, VIDEO, direction=direction)), 200, held(AUDIO, VIDEO, direction=answer)
    )
    call.server.advance(5)
    call.agree_back(call.say_back(method, BOTH), 200, BOTH)
    call.server.advance(10)
    call.hang_up()
    seen = {"inactive": "inactive", "sendonly": "recvonly"}[direction]
    assert call.media("kind", "direction", "held_by") == [
        ("audio", "sendrecv", None), ("video", "sendrecv", None), ("audio", seen, "callee"), ("video", seen, "callee"),
        ("audio", "sendrecv", None), ("video", "sendrecv", None),
    ]  # fmt: skip
    video_ms = call.call()["video_ms"]
    assert 0 <= video_ms - (20_000 if direction == "inactive" else 25_000) < 100


def test_hold_without_an_address(call: Talk) -> None:
    call.begin(VOICE, VOICE)
    nowhere = VOICE.replace(b"IN IP4 192.0.2.1\r\nt=", b"IN IP4 0.0.0.0\r\nt=")
    call.agree(call.say("INVITE", nowhere), 200, VOICE)
    assert call.media("direction", "held_by") == [("sendrecv", None), ("sendonly", "caller")]


def test_encryption_profile_and_bandwidth_are_on_record(call: Talk) -> None:
    crypto = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x"
    offer = body(f"{AUDIO}\n{crypto}".replace("RTP/AVP", "RTP/SAVP"), VIDEO, session="a=fingerprint:sha-256 00")
    call.begin(offer, offer)
    assert call.media("kind", "encrypted", "encryption", "profile", "level", "max_pixels", "bandwidth") == [
        ("audio", 1, "sdes", None, None, None, None),
        ("video", 1, "dtls", "constrained baseline", "3.1", 921_600, 1_024_000),
    ]  # fmt: skip
    assert call.call()["encrypted"] == 1


@pytest.mark.parametrize("where", ["invite", "200", "183", "reinvite", "reinvite answer", "ack"])
def test_description_that_cannot_be_read_is_noted_and_the_call_goes_on(call: Talk, where: str) -> None:
    call.place(b"" if where == "ack" else BROKEN if where == "invite" else BOTH)
    if where == "183":
        call.respond(183, BROKEN, "Server: Broken/1")
    call.respond(200, BROKEN if where == "200" else b"" if where == "183" else BOTH)
    call.ack(BROKEN if where == "ack" else b"")
    if where.startswith("reinvite"):
        offer, answer = (BROKEN, BOTH) if where == "reinvite" else (BOTH, BROKEN)
        call.agree(call.say("INVITE", offer), 200, answer)
    call.server.advance(3)
    call.hang_up()
    row = call.call()
    assert (row["outcome"], row["video_ms"]) == ("answered", None)
    assert row["video"] == (1 if where.startswith("reinvite") else None)
    ((kind, method, detail, by, party),) = call.table(
        "errors", "id", "kind", "method", "detail", "answered_by", "party"
    )
    assert (kind, detail, by) == ("unreadable_sdp", "Bad media line in SDP", "peer")
    assert method == ("ACK" if where == "ack" else "INVITE")
    assert party == (row["callee"] if where in ("200", "183", "reinvite answer") else row["caller"])


def test_compressed_description_is_unknown(call: Talk) -> None:
    call.place(BOTH, "Content-Encoding: gzip")
    call.respond(200, BOTH)
    assert call.table("errors", "id", "kind", "detail") == [("unreadable_sdp", "Content-Encoding")]


def test_early_media_of_two_devices_are_told_apart(call: Talk) -> None:
    call.place(BOTH)
    call.respond(183, BOTH, tag="one")
    call.respond(183, DECLINED, tag="two")
    call.respond(200, DECLINED, tag="two")
    call.ack()
    assert call.media("kind", "accepted") == [("audio", 1), ("video", 0)]
    assert len(call.media("kind", early=1)) == 4
    assert responses(call.caller.received(), 200) == []
