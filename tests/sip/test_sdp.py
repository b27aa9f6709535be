"""Reading session descriptions: what the record of a call asks of them, and no fault but SipError."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.sip import sdp
from sipserver.sip.errors import SipError
from support.sdp import AUDIO, SLIDES, VIDEO, body, description, stream


def video(*lines: str) -> sdp.Stream:
    return stream("\n".join(("m=video 5000 RTP/AVP 97", *lines)))


def test_streams_come_in_the_order_of_their_sections() -> None:
    assert [each.kind for each in description(AUDIO, VIDEO, SLIDES).streams] == ["audio", "video", "content"]


def test_codec_is_the_first_format_that_is_one() -> None:
    assert stream("m=audio 1 RTP/AVP 101 13 0\na=rtpmap:101 telephone-event/8000\na=rtpmap:13 CN/8000").codec == "PCMU"


def test_codec_of_a_static_payload_type_needs_no_rtpmap() -> None:
    assert stream("m=audio 1 RTP/AVP 9").codec == "G722"


def test_rtpmap_overrides_a_static_payload_type() -> None:
    assert stream("m=audio 1 RTP/AVP 0\na=rtpmap:0 opus/48000/2").codec == "opus"


def test_codec_without_rtpmap_is_unknown() -> None:
    assert stream("m=audio 1 RTP/AVP 120").codec is None


def test_codec_that_is_no_word_is_unknown() -> None:
    assert stream("m=audio 1 RTP/AVP 96\na=rtpmap:96 <b>/8000").codec is None


def test_payload_type_is_not_taken_for_a_longer_one() -> None:
    assert stream("m=audio 1 RTP/AVP 9\na=rtpmap:96 opus/48000").codec == "G722"


@pytest.mark.parametrize("direction", ["sendrecv", "sendonly", "recvonly", "inactive"])
def test_direction_of_a_stream(direction: str) -> None:
    assert stream(f"{AUDIO}\na={direction}").direction == direction


def test_direction_is_the_session_level_one_unless_the_stream_says_otherwise() -> None:
    streams = description(AUDIO, f"{VIDEO}\na=sendrecv", session="a=recvonly").streams
    assert [each.direction for each in streams] == ["recvonly", "sendrecv"]


def test_direction_is_both_ways_where_nothing_is_said() -> None:
    assert stream(AUDIO).direction == "sendrecv"


def test_tias_is_preferred_to_as() -> None:
    assert video("b=AS:1024", "b=TIAS:900000").bandwidth == 900_000


def test_as_is_in_kilobits() -> None:
    assert video("b=AS:1024").bandwidth == 1_024_000


@pytest.mark.parametrize("value", ["b=AS:", "b=AS:-1", "b=AS:many", "b=AS:99999999999", "b=CT:64", "b=AS:\u00b2"])
def test_bandwidth_that_cannot_be_read_is_unknown(value: str) -> None:
    assert video(value).bandwidth is None


@pytest.mark.parametrize(
    ("codec", "fmtp", "level", "pixels"),
    [
        ("H264/90000", "profile-level-id=42e01f", "3.1", 3_600 * 256),
        ("H264/90000", "profile-level-id=428028", "4.0", 8_192 * 256),
        ("H264/90000", "profile-level-id=42900b", "1b", 99 * 256),
        ("H264/90000", "profile-level-id=64100b", "1.1", 396 * 256),
        ("H264/90000", "profile-level-id=640009", "1b", 99 * 256),
        ("H264/90000", "profile-level-id=42e01f;max-fs=8160", "3.1", 8_160 * 256),
        ("H264/90000", "profile-level-id=42e0ff", None, None),
        ("H264/90000", "profile-level-id=nonsense", None, None),
        ("H264/90000", "profile-level-id=", None, None),
        ("H265/90000", "level-id=93", "3.1", 983_040),
        ("H265/90000", "profile-id=1;level-id=120", "4.0", 2_228_224),
        ("H265/90000", "level-id=1", None, None),
        ("AV1/90000", "level-idx=5; profile=0", "3.1", 1_065_024),
        ("AV1/90000", "level-idx=31", None, None),
        ("VP8/90000", "max-fr=30; max-fs=3600", None, 3_600 * 256),
        ("VP8/90000", "max-fs=99999999", None, None),
        ("VP8/90000", "max-fs=0", None, None),
        ("VP8/90000", "max-fs", None, None),
    ],
)
def test_level_and_largest_picture(codec: str, fmtp: str, level: str | None, pixels: int | None) -> None:
    found = video(f"a=rtpmap:97 {codec}", f"a=fmtp:97 {fmtp}")
    assert (found.level, found.max_pixels) == (level, pixels)


@pytest.mark.parametrize(
    ("codec", "fmtp", "profile"),
    [
        ("H264", "profile-level-id=42e01f", "constrained baseline"),
        ("H264", "profile-level-id=42001f", "baseline"),
        ("H264", "profile-level-id=4d001f", "main"),
        ("H264", "profile-level-id=4d801f", "constrained baseline"),
        ("H264", "profile-level-id=58c01f", "constrained baseline"),
        ("H264", "profile-level-id=58801f", "baseline"),
        ("H264", "profile-level-id=58001f", "extended"),
        ("H264", "profile-level-id=640028", "high"),
        ("H264", "profile-level-id=640c28", "constrained high"),
        ("H264", "profile-level-id=6400ff", "high"),
        ("H264", "profile-level-id=010028", None),
        ("H265", "profile-id=2;level-id=93", "main 10"),
        ("H265", "level-id=93", None),
        ("AV1", "profile=1;level-idx=8", "high"),
        ("VP9", "profile-id=2", "2"),
        ("VP9", "profile-id=7", None),
        ("VP9", "max-fs=12", None),
    ],
)
def test_profile(codec: str, fmtp: str, profile: str | None) -> None:
    assert video(f"a=rtpmap:97 {codec}/90000", f"a=fmtp:97 {fmtp}").profile == profile


@pytest.mark.parametrize(
    ("section", "session", "encryption"),
    [
        ("m=audio 1 RTP/SAVP 0\na=crypto:1 x", "", "sdes"),
        ("m=audio 1 RTP/SAVP 0\na=crypto:1 x", "a=fingerprint:sha-256 00", "sdes"),
        ("m=audio 1 UDP/TLS/RTP/SAVPF 0", "a=fingerprint:sha-256 00", "dtls"),
        ("m=audio 1 UDP/TLS/RTP/SAVPF 0\na=fingerprint:sha-256 00", "", "dtls"),
        ("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "", "dtls"),
        ("m=application 9 UDP/TLS/BFCP *", "", "dtls"),
        ("m=application 9 TCP/TLS/BFCP *", "a=fingerprint:sha-256 00", "tls"),
        ("m=application 9 TCP/BFCP *", "", None),
        ("m=audio 1 RTP/SAVP 0", "", None),
        ("m=audio 1 RTP/AVP 0", "", None),
    ],
)
def test_how_keys_are_agreed_on(section: str, session: str, encryption: str | None) -> None:
    assert stream(section, session).encryption == encryption


@pytest.mark.parametrize(
    ("section", "direction"),
    [
        (f"{AUDIO}\nc=IN IP4 0.0.0.0", "sendonly"),
        (f"{AUDIO}\nc=IN IP6 ::", "sendonly"),
        (f"{AUDIO}\nc=IN IP4 0.0.0.0\na=recvonly", "inactive"),
        (f"{AUDIO}\nc=IN IP4 0.0.0.0\na=inactive", "inactive"),
        (f"{AUDIO}\nc=IN IP4 0.0.0.0\na=ice-ufrag:x", "sendrecv"),
        (f"{AUDIO}\nc=IN IP4 192.0.2.9", "sendrecv"),
    ],
)
def test_who_names_no_address_does_not_receive(section: str, direction: str) -> None:
    assert stream(section).direction == direction


def test_address_of_the_session_counts_where_the_stream_has_none() -> None:
    data = body(AUDIO, f"{VIDEO}\nc=IN IP4 192.0.2.9").replace(b"c=IN IP4 192.0.2.1", b"c=IN IP4 0.0.0.0", 1)
    assert [each.direction for each in sdp.parse(data).streams] == ["sendonly", "sendrecv"]


def test_port_zero_of_a_stream_that_shares_anothers_refuses_nothing() -> None:
    assert not stream("m=video 0 RTP/AVP 97\na=bundle-only").refused


def test_parameters_of_another_format_do_not_count() -> None:
    assert video("a=rtpmap:97 VP8/90000", "a=fmtp:98 max-fs=3600").max_pixels is None


@pytest.mark.parametrize(
    ("line", "resolution"),
    [
        ("a=imageattr:97 send [x=1280,y=720,q=0.6] recv *", "1280x720"),
        ("a=imageattr:97 send *", None),
        ("a=framesize:97 640-480", "640x480"),
        ("a=framesize:97 large", None),
        ("a=label:1", None),
    ],
)
def test_resolution_where_an_attribute_names_it(line: str, resolution: str | None) -> None:
    assert video("a=rtpmap:97 VP8/90000", line).resolution == resolution


@pytest.mark.parametrize("value", ["main", "speaker"])
def test_other_content_than_slides_is_video(value: str) -> None:
    assert stream(f"{VIDEO}\na=content:{value}").kind == "video"


def test_slides_are_content() -> None:
    assert stream(f"{VIDEO}\na=content:slides,main").kind == "content"


def test_floor_control_is_content() -> None:
    found = stream("m=application 9 TCP/TLS/BFCP *")
    assert (found.kind, found.codec, found.encrypted) == ("content", "BFCP", True)


def test_a_stream_that_is_no_rtp_has_its_format_as_codec() -> None:
    assert stream("m=application 9 UDP/DTLS/SCTP webrtc-datachannel").codec == "webrtc-datachannel"


@pytest.mark.parametrize("section", ["m=application 9 TCP/X <b>", "m=application 9 TCP/X"])
def test_a_format_that_is_no_word_is_unknown(section: str) -> None:
    assert stream(section).codec is None


@pytest.mark.parametrize(
    ("section", "session"),
    [
        ("m=audio 1 RTP/SAVP 0", ""),
        ("m=audio 1 UDP/TLS/RTP/SAVPF 0", ""),
        ("m=audio 1 RTP/AVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x", ""),
        ("m=audio 1 RTP/AVP 0\na=fingerprint:sha-256 00", ""),
        ("m=audio 1 RTP/AVP 0", "a=fingerprint:sha-256 00"),
    ],
)
def test_encrypted_by_profile_or_by_offered_keys(section: str, session: str) -> None:
    assert stream(section, session).encrypted


def test_plain_rtp_is_not_encrypted() -> None:
    assert not stream(AUDIO).encrypted


def test_ice_at_either_level() -> None:
    assert stream(f"{AUDIO}\na=ice-ufrag:abcd").ice
    assert stream(AUDIO, "a=ice-ufrag:abcd").ice
    assert not stream(AUDIO).ice


def test_port_zero_refuses() -> None:
    assert stream("m=video 0 RTP/AVP 97").refused
    assert not stream("m=video 5000/2 RTP/AVP 97").refused


def test_lone_line_feeds_end_lines() -> None:
    assert sdp.parse(body(AUDIO, VIDEO).replace(b"\r\n", b"\n")) == description(AUDIO, VIDEO)


def test_the_last_line_needs_no_end() -> None:
    assert sdp.parse(body("m=audio 1 RTP/AVP 0\na=sendonly").rstrip()).streams[0].direction == "sendonly"


def test_a_description_without_streams_is_one() -> None:
    assert description().streams == ()


def test_long_sections_are_read_too() -> None:
    candidates = "\n".join(f"a=candidate:{i} 1 UDP 2130706431 192.0.2.1 {5000 + i} typ host" for i in range(60))
    assert stream(f"{AUDIO}\n{candidates}\na=inactive").direction == "inactive"


@pytest.mark.parametrize(
    "section",
    [
        "m=", "m=audio", "m=audio 1", "m=audio x RTP/AVP 0", "m=audio 65536 RTP/AVP 0", "m=audio 123456 RTP/AVP 0",
        "m=audio -1 RTP/AVP 0", "m=audio \u00b2 RTP/AVP 0", "m= 1 RTP/AVP 0", "m=<b> 1 RTP/AVP 0", "m=audio 1 ",
    ],
)  # fmt: skip
def test_a_broken_media_line_is_refused(section: str) -> None:
    with pytest.raises(SipError, match="Bad media line"):
        stream(section)


@pytest.mark.parametrize("data", [b"", b"hello", b"V=0\r\n", b"\xff\xfe"])
def test_what_is_no_description_is_refused(data: bytes) -> None:
    with pytest.raises(SipError, match="Bad SDP"):
        sdp.parse(data)


def test_streams_are_bounded() -> None:
    assert len(description(*["m=audio 1 RTP/AVP 0"] * sdp.MAX_STREAMS).streams) == sdp.MAX_STREAMS
    with pytest.raises(SipError, match="Too many"):
        description(*["m=audio 1 RTP/AVP 0"] * (sdp.MAX_STREAMS + 1))


def test_formats_are_bounded() -> None:
    formats = " ".join(["101"] * sdp.MAX_FORMATS)
    assert stream(f"m=audio 1 RTP/AVP {formats} 0").codec is None


PIECES = st.sampled_from(
    [b"v=0\r\n", b"m=", b"m=video 1 RTP/AVP 97\r\n", b"\n", b"\r", b"a=rtpmap:97 ", b"H264/90000\r\n", b"a=fmtp:97 ",
     b"profile-level-id=", b"42e01f", b"b=AS:", b"b=TIAS:", b"9" * 30, b"a=imageattr:97 ", b"[x=1,y=2]", b" ", b"/",
     b"a=content:slides\r\n", b"\xb2", b"\x00"]
)  # fmt: skip


@given(st.lists(st.one_of(PIECES, st.binary(max_size=8)), max_size=40))
def test_whatever_the_body_holds_only_sip_error_is_raised(pieces: list[bytes]) -> None:
    with suppress(SipError):
        sdp.parse(b"v=0\r\n" + b"".join(pieces))
