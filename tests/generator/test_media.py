"""What a plan's media come to: descriptions that the server reads as meant, and rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sipserver.sip import sdp
from support.generator.media import COLUMNS, Row, all_encrypted, describe, has, rows
from support.generator.plan import AUDIO, BANDWIDTHS, CALLEE, CALLER, PICTURES, SLIDES, VIDEO, Picture, Stream

HELD = replace(VIDEO, direction="sendonly")
REFUSED = replace(VIDEO, accepted=False)


def test_description_says_what_is_meant() -> None:
    read = sdp.parse(describe((AUDIO, HELD, SLIDES), CALLER, offer=True)).streams
    assert [(each.kind, each.codec, each.direction) for each in read] == [
        ("audio", "opus", "sendrecv"), ("video", "H264", "sendonly"), ("content", "VP8", "sendrecv")
    ]  # fmt: skip


def test_description_of_the_callee_is_the_other_way_round() -> None:
    assert [each.direction for each in sdp.parse(describe((AUDIO, HELD), CALLEE, offer=False)).streams] == [
        "sendrecv", "recvonly"
    ]  # fmt: skip


def test_stream_is_refused_by_the_answer_alone() -> None:
    for offer, refused in ((True, False), (False, True)):
        assert sdp.parse(describe((AUDIO, REFUSED), CALLEE, offer=offer)).streams[1].refused == refused


@pytest.mark.parametrize("security", ["", "sdes", "dtls"])
@pytest.mark.parametrize("ice", [False, True])
@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
@pytest.mark.parametrize(("codec", "picture"), [(codec, each) for codec, some in PICTURES.items() for each in some])
def test_what_a_stream_is_like_is_read_as_meant(
    codec: str, picture: Picture, bandwidth: int | None, ice: bool, security: str
) -> None:
    stream = Stream("video", codec, bandwidth=bandwidth, picture=picture, security=security, ice=ice)
    (read,) = sdp.parse(describe((stream,), CALLER, offer=True)).streams
    assert (read.codec, read.bandwidth, read.ice, read.encryption) == (codec, bandwidth, ice, security or None)
    assert (read.profile, read.level, read.max_pixels) == (picture.profile, picture.level, picture.pixels)


def column(row: Row, name: str) -> object:
    return row.columns[COLUMNS.index(name)]


def test_row_lasts_while_its_stream_does() -> None:
    made = rows([(1.0, (AUDIO,)), (2.0, (AUDIO, VIDEO)), (3.0, (AUDIO, HELD)), (4.0, (AUDIO, HELD))], 5.0)
    assert [(column(row, "stream"), column(row, "direction"), row.since, row.until) for row in made] == [
        (0, "sendrecv", 1.0, 5.0), (1, "sendrecv", 2.0, 3.0), (1, "sendonly", 3.0, 5.0)
    ]  # fmt: skip


def test_of_a_refused_stream_only_the_kind_is_known() -> None:
    (_, row) = rows([(1.0, (AUDIO, REFUSED)), (2.0, (AUDIO, replace(REFUSED, direction="sendonly")))], 5.0)
    assert (row.columns[:4], set(row.columns[3:]), row.until) == ((1, "video", 0, None), {None}, 5.0)


def test_what_a_call_had() -> None:
    changes = [(1.0, (AUDIO, REFUSED)), (2.0, (replace(AUDIO, security="dtls"), REFUSED, SLIDES))]
    assert (has(changes, "video"), has(changes, "content"), has([], "video")) == (0, 1, None)
    assert (all_encrypted(changes), all_encrypted([]), all_encrypted([(1.0, (replace(AUDIO, security="sdes"),))])) == (
        0, None, 1
    )  # fmt: skip
