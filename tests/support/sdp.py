"""Session descriptions for tests."""

from __future__ import annotations

from sipserver.sip import sdp

AUDIO = """m=audio 49170 RTP/AVP 96 0 101
a=rtpmap:96 opus/48000/2
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000"""

VIDEO = """m=video 51372 RTP/AVP 97
b=AS:1024
a=rtpmap:97 H264/90000
a=fmtp:97 packetization-mode=1; profile-level-id=42E01F"""

NO_VIDEO = "m=video 0 RTP/AVP 97"

SLIDES = """m=video 51380 RTP/AVP 98
a=rtpmap:98 VP8/90000
a=content:slides"""


def body(*sections: str, session: str = "") -> bytes:
    """A description of these media sections, each from its ``m=`` on."""
    lines = ["v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", "c=IN IP4 192.0.2.1", "t=0 0"]
    lines += session.splitlines()
    for section in sections:
        lines += section.splitlines()
    return "".join(line + "\r\n" for line in lines).encode("latin-1")


def description(*sections: str, session: str = "") -> sdp.Description:
    """The same, read."""
    return sdp.parse(body(*sections, session=session))


def stream(section: str, session: str = "") -> sdp.Stream:
    """The only stream of a description."""
    (only,) = description(section, session=session).streams
    return only
