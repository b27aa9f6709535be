"""What a plan's media come to: descriptions that the server reads as meant, and rows."""

from __future__ import annotations

from dataclasses import replace

from sipserver.sip import sdp
from support.generator.media import describe, rows, video_seconds
from support.generator.plan import AUDIO, CALLEE, CALLER, SLIDES, VIDEO

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


def test_row_lasts_while_its_stream_does() -> None:
    made = rows([(1.0, (AUDIO,)), (2.0, (AUDIO, VIDEO)), (3.0, (AUDIO, HELD)), (4.0, (AUDIO, HELD))], 5.0)
    assert [(row.stream, row.direction, row.since, row.until) for row in made] == [
        (0, "sendrecv", 1.0, 5.0), (1, "sendrecv", 2.0, 3.0), (1, "sendonly", 3.0, 5.0)
    ]  # fmt: skip


def test_of_a_refused_stream_only_the_kind_is_known() -> None:
    (_, row) = rows([(1.0, (AUDIO, REFUSED)), (2.0, (AUDIO, replace(REFUSED, direction="sendonly")))], 5.0)
    assert (row.kind, row.accepted, row.codec, row.direction, row.until) == ("video", 0, None, None, 5.0)


def test_video_counts_while_somebody_sends_it() -> None:
    inactive = replace(VIDEO, direction="inactive")
    changes = [(1.0, (AUDIO,)), (2.0, (AUDIO, VIDEO)), (4.0, (AUDIO, inactive)), (5.0, (AUDIO, HELD))]
    assert video_seconds(changes, 6.0) == 3.0
    assert video_seconds([], 6.0) is None
