"""Multipart bodies, whole and broken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.sip.multipart import MAX_PARTS, Part, parts

BODY = (
    b"preamble\r\n--x y\r\nContent-Type: Application/SDP;a=b\r\ncontent-id : <1>\r\n\r\nv=0\r\n\r\n--x y  \r\n"
    b"Broken line\r\nX: 1\r\nx: 2\r\n\r\n\r\n--x y--\r\nepilogue\r\n--x y\r\nA: b\r\n\r\nnot a part"
)


def test_parts_have_headers_and_bodies() -> None:
    assert parts(BODY, 'Multipart/Mixed; boundary="x y"') == [
        Part({"content-type": "Application/SDP;a=b", "content-id": "<1>"}, b"v=0\r\n"),
        Part({"x": "1"}, b""),
    ]


def test_type_of_a_part_is_without_parameters_and_in_lower_case() -> None:
    assert [part.kind for part in parts(BODY, 'multipart/mixed;boundary="x y"')] == ["application/sdp", ""]


def test_body_may_begin_with_its_boundary_and_lack_its_end() -> None:
    assert parts(b"--b\r\nA: 1\r\n\r\nhello", "multipart/related;boundary=b") == [Part({"a": "1"}, b"hello")]


def test_part_without_a_blank_line_is_none() -> None:
    assert parts(b"--b\r\nA: 1\r\n--b--", "multipart/mixed;boundary=b") == []


def test_part_may_have_no_headers() -> None:
    assert parts(b"--b\r\n\r\nhello\r\n--b--", "multipart/mixed;boundary=b") == [Part({}, b"hello")]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/sdp", "multipart/mixed", "multipart/mixed;boundary", "multipart/mixed;boundary=",
        f"multipart/mixed;boundary={'x' * 71}", "multipart/mixed;;", 'multipart/mixed;boundary="b',
    ],
)  # fmt: skip
def test_body_without_a_proper_boundary_has_no_parts(content_type: str) -> None:
    assert parts(b"--b\r\nA: 1\r\n\r\nhello\r\n--b--", content_type) == []


def test_parts_are_bounded() -> None:
    assert len(parts(b"--b\r\n\r\nx\r\n" * 100, "multipart/mixed;boundary=b")) == MAX_PARTS


@given(st.binary(max_size=200))
def test_any_bytes_are_taken(body: bytes) -> None:
    parts(body, "multipart/mixed;boundary=b")
    parts(b"--b" + body + b"\r\n--b\r\n" + body, "multipart/mixed;boundary=b")
