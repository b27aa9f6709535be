"""The OPTIONS that asks one side of a call whether it is still in it."""

from __future__ import annotations

import pytest

from sipserver.proxy.forward import next_hop
from sipserver.proxy.probe import DialogEnd, callee_end, caller_end, options, outgoing
from sipserver.sip.errors import SipError
from sipserver.sip.message import Message, Request, Response, parse
from support.proxy import flow, request

CALLER = DialogEnd("<sip:alice@example.test>;tag=a", '"A" <sip:alice@192.0.2.1:5070>;+sip.instance="<x>"', ())
CALLEE = DialogEnd("<sip:bob@example.test>;tag=b", "<sip:bob@192.0.2.2:5080>", ())


def asked(to: DialogEnd, from_: DialogEnd) -> Message:
    """The question as it leaves."""
    message, plan = options("call-1", to, from_)
    return parse(outgoing(message, plan, flow(), "b1").data)


def answer(*lines: str) -> Response:
    head = ("SIP/2.0 200 OK", "Via: x", *lines, "To: <sip:bob@example.test>;tag=b", "Contact: <sip:bob@192.0.2.2>", "")
    message = parse("\r\n".join((*head, "")).encode())
    assert isinstance(message, Response)
    return message


def test_callee_is_asked_as_if_by_the_caller() -> None:
    question = asked(CALLEE, CALLER)
    assert isinstance(question, Request)
    assert (question.method, question.uri_text, question.call_id) == ("OPTIONS", "sip:bob@192.0.2.2:5080", "call-1")
    assert (question.from_tag, question.to_tag) == ("a", "b")
    assert len(question.vias) == 1


def test_caller_is_asked_as_if_by_the_callee() -> None:
    question = asked(CALLER, CALLEE)
    assert isinstance(question, Request)
    assert (question.uri_text, question.from_tag, question.to_tag) == ("sip:alice@192.0.2.1:5070", "b", "a")


def test_question_never_counts_as_the_latest_of_the_other_side() -> None:
    assert asked(CALLEE, CALLER).cseq == (0, "OPTIONS")


def test_question_takes_the_route_of_the_dialog() -> None:
    invite = request("INVITE", "sip:bob@example.test", "Record-Route: <sip:near.test;lr>, <sip:far.test;lr>")
    end = caller_end(invite)
    assert end.routes == ("<sip:near.test;lr>", "<sip:far.test;lr>")
    question, plan = options("call-1", end, CALLEE)
    assert next_hop(plan, plan.groups[0][0]).host == "near.test"
    sent = parse(outgoing(question, plan, flow(), "b").data)
    assert sent.values("route") == ["<sip:near.test;lr>", "<sip:far.test;lr>"]


def test_routes_to_the_callee_are_those_above_our_own_nearest_first() -> None:
    recorded = "Record-Route: <sip:far.test;lr>, <sip:near.test;lr>, <sip:us.test;lr;vc=token>, <sip:caller.test;lr>"
    assert callee_end(answer(recorded), "token").routes == ("<sip:near.test;lr>", "<sip:far.test;lr>")


def test_routes_are_unknown_where_our_own_does_not_come_back() -> None:
    assert callee_end(answer("Record-Route: <sip:far.test;lr>"), "token").routes == ()


def test_refresh_moves_the_remote_target() -> None:
    end = callee_end(answer(), "token")
    end.refresh(request("UPDATE", "sip:x@y"))
    assert end.contact == "<sip:alice@192.0.2.1:5070>"
    end.refresh(parse(b"SIP/2.0 200 OK\r\n\r\n"))
    assert end.contact == "<sip:alice@192.0.2.1:5070>"


@pytest.mark.parametrize("contact", ["", "*"])
def test_who_never_said_where_it_is_cannot_be_asked(contact: str) -> None:
    with pytest.raises(SipError):
        options("call-1", DialogEnd("<sip:b@x>;tag=b", contact, ()), CALLER)
