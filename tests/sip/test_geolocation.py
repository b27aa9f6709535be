"""Which document of a message says where its sender is, and whether this server may look at it."""

from __future__ import annotations

import pytest

from sipserver.sip.geolocation import documents, may_look
from sipserver.sip.message import Request
from support.places import located
from support.sip import request, written


def invite(lines: tuple[str, ...], body: bytes) -> Request:
    return request(written("INVITE sip:bob@example.com SIP/2.0", *lines), body)


def test_document_behind_a_session_description_is_found() -> None:
    assert documents(invite(*located(b"<a/>", session=b"v=0\r\n"))) == [b"<a/>"]


def test_body_may_be_the_document_itself() -> None:
    lines = (
        "Geolocation: <cid:a@b>", "Geolocation-Routing: Yes", "Content-Type: application/pidf+xml;charset=utf-8",
        "Content-ID: <a@b>",
    )  # fmt: skip
    assert documents(invite(lines, b"<a/>")) == [b"<a/>"]


def test_references_are_not_followed_and_order_is_the_headers() -> None:
    lines, body = located(b"<a/>")
    values = "<sips:t@ls.example>, <https://ls.example/1>;x=y, nonsense, <cid:here%40example.test>;p=1"
    assert documents(invite((f"Geolocation: {values}", *lines[1:]), body)) == [b"<a/>"]


@pytest.mark.parametrize("routing", [None, "no", "maybe", "yes;x"])
def test_sender_who_does_not_say_yes_is_obeyed(routing: str | None) -> None:
    assert documents(invite(*located(b"<a/>", routing))) == []


def test_routing_that_is_there_twice_is_a_no() -> None:
    lines, body = located(b"<a/>")
    message = invite((*lines, "Geolocation-Routing: yes"), body)
    assert not may_look(message)
    assert documents(message) == []


@pytest.mark.parametrize(
    "value", ["<cid:other@example.test>", "cid:here@example.test", "<cid:>", "<sip:here@example.test>", "<>", ">a<"]
)
def test_reference_to_nothing_in_the_body_finds_nothing(value: str) -> None:
    lines, body = located(b"<a/>")
    assert documents(invite((f"Geolocation: {value}", *lines[1:]), body)) == []


def test_part_of_another_type_is_no_location() -> None:
    lines, body = located(b"<a/>")
    assert documents(invite(lines, body.replace(b"pidf+xml", b"xml"))) == []


def test_message_without_geolocation_or_body_has_none() -> None:
    lines, body = located(b"<a/>")
    assert documents(invite(lines[1:], body)) == []
    assert documents(invite(lines, b"")) == []
