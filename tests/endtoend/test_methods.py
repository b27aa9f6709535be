"""What endpoints send each other besides INVITE, ACK and BYE is passed on, inside dialogs and outside of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest

from sipserver.sip.message import Request, Response
from support.pen import DOMAIN
from support.phone import Phone
from support.server import ServerProcess

USERS = [f"u{number}" for number in range(60)]
SDP = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
TYPE = "Content-Type: application/sdp"

MakePhone = Callable[..., Phone]

_users = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("methods"), USERS) as server:
        yield server
        assert not [event for event in server.events if event["event"] == "internal.fault"]


@pytest.fixture
def phone(server: ServerProcess) -> Iterator[MakePhone]:
    """Makes a phone of a user that no other test has, or of this one."""
    with ExitStack() as stack:

        def make(transport: str = "UDP", user: str = "", *, registers: bool = True) -> Phone:
            made = stack.enter_context(Phone(server.port, user or f"u{next(_users)}", transport))
            if registers:
                made.register()
            return made

        yield make


def back(phone: Phone, begun: Request, method: str, target: str, *lines: str, **options: Any) -> bytes:
    """A request of whoever was asked, inside the dialog that this request began, before or after it was answered."""
    routes = [f"Route: {value}" for value in begun.values("record-route")]
    tag = options.pop("tag", "callee")
    given = {
        "from_": f"{begun.header('to')};tag={tag}",
        "to": begun.header("from"),
        "call_id": begun.call_id,
        **options,
    }
    return phone.write(method, target, *routes, *lines, **given)


def agree(phone: Phone, other: Phone, method: str, *lines: str) -> Request:
    """The request arrives at one side, and its 200 at the other."""
    request: Request = phone.expect(method)
    phone.respond(request, 200, *lines)
    other.expect(200)
    return request


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_a_call_with_everything_that_may_happen_in_it(phone: MakePhone, transport: str) -> None:
    alice, bob = phone(transport), phone(transport)
    lines = ("Supported: 100rel", TYPE, f"Contact: <{alice.contact}>")
    alice.exchange("INVITE", bob.address, *lines, body=SDP, call_id=f"all{transport}")
    alice.expect(100)
    invite = bob.expect("INVITE")
    assert "100rel" in invite.option_tags("supported")
    # Early media, acknowledged (RFC 3262), and changed before anybody has answered (RFC 3311).
    bob.respond(invite, 183, "Require: 100rel", "RSeq: 1", TYPE, body=SDP)
    early = alice.expect(183)
    assert (early.header("rseq"), early.body) == ("1", SDP)
    alice.send(alice.in_dialog("PRACK", early, f"RAck: 1 {invite.cseq[0]} INVITE"))
    assert agree(bob, alice, "PRACK").header("rack") == f"1 {invite.cseq[0]} INVITE"
    alice.send(alice.in_dialog("UPDATE", early, TYPE, f"Contact: <{alice.contact}>", body=SDP))
    assert agree(bob, alice, "UPDATE").body == SDP
    bob.send(back(bob, invite, "UPDATE", alice.contact, TYPE, f"Contact: <{bob.contact}>", body=SDP))
    agree(alice, bob, "UPDATE")
    bob.respond(invite, 200, TYPE, body=SDP)
    answer = alice.expect(200)
    alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    bob.expect("ACK")
    for method in ("INFO", "MESSAGE", "OPTIONS", "REFER", "SUBSCRIBE", "BREW"):
        contact = f"Contact: <{alice.contact}>"
        alice.send(alice.in_dialog(method, answer, contact, "Refer-To: <sip:u0@example.test>", "Event: refer"))
        agree(bob, alice, method, f"Contact: <{bob.contact}>")
        bob.send(
            back(bob, invite, method, alice.contact, f"Contact: <{bob.contact}>", "Refer-To: <sip:u0@example.test>")
        )
        agree(alice, bob, method, f"Contact: <{alice.contact}>")
    notify = ("Event: refer", "Subscription-State: active", f"Contact: <{bob.contact}>")
    bob.send(back(bob, invite, "NOTIFY", alice.contact, *notify))
    agree(alice, bob, "NOTIFY", f"Contact: <{alice.contact}>")
    bob.send(back(bob, invite, "BYE", alice.contact))
    agree(alice, bob, "BYE")


def test_each_early_dialog_of_a_fork_is_acknowledged_where_it_is(phone: MakePhone) -> None:
    alice, one = phone(), phone()
    other = phone("TCP", user=one.user)
    alice.exchange(
        "INVITE", one.address, "Supported: 100rel", TYPE, f"Contact: <{alice.contact}>", body=SDP, call_id="rel"
    )
    alice.expect(100)
    invites = {device: device.expect("INVITE") for device in (one, other)}
    early: dict[Phone, Response] = {}
    for tag, (device, invite) in enumerate(invites.items()):
        device.respond(invite, 183, "Require: 100rel", f"RSeq: {tag + 7}", TYPE, body=SDP, tag=f"t{tag}")
        early[device] = alice.expect(183)
    for device in (other, one):
        answer = early[device]
        alice.send(alice.in_dialog("PRACK", answer, f"RAck: {answer.header('rseq')} {answer.cseq[0]} INVITE"))
        prack = device.expect("PRACK")
        assert prack.to_tag == answer.to_tag
        device.respond(prack, 200)
        alice.expect(200)
    one.respond(invites[one], 486, tag="t0")
    other.respond(invites[other], 200, TYPE, body=SDP, tag="t1")
    one.expect("ACK")
    answer = alice.expect(200)
    assert answer.to_tag == "t1"
    alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    other.expect("ACK")
    alice.send(alice.in_dialog("BYE", answer))
    agree(other, alice, "BYE")


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_every_device_may_notify_a_subscription_that_forked(phone: MakePhone, transport: str) -> None:
    alice, one = phone(transport), phone(transport)
    other = phone("UDP" if transport == "TCP" else "TCP", user=one.user)
    contact = f"Contact: <{alice.contact}>"
    alice.exchange("SUBSCRIBE", one.address, "Event: presence", "Expires: 60", contact, call_id=f"sub{transport}")
    asked = [(device, device.expect("SUBSCRIBE")) for device in (one, other)]
    # RFC 6665 §4.1.2.4: a NOTIFY may come before the 200, and from devices whose 200 never comes.
    for tag, (device, subscribe) in enumerate(asked):
        state = ("Event: presence", "Subscription-State: active;expires=60", f"Contact: <{device.contact}>")
        device.send(back(device, subscribe, "NOTIFY", alice.contact, *state, tag=f"n{tag}"))
        notify = alice.expect("NOTIFY")
        assert notify.from_tag == f"n{tag}"
        alice.respond(notify, 200, contact)
        device.expect(200)
    device, subscribe = asked[1]
    device.respond(subscribe, 200, "Expires: 60", tag="n1")
    accepted = alice.expect(200)
    assert accepted.to_tag == "n1"
    asked[0][0].respond(asked[0][1], 200, "Expires: 60", tag="n0")
    alice.send(alice.in_dialog("SUBSCRIBE", accepted, "Event: presence", "Expires: 0", contact))
    agree(device, alice, "SUBSCRIBE", "Expires: 0")


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_requests_outside_of_dialogs_pass_with_credentials_and_not_without(phone: MakePhone, transport: str) -> None:
    alice, bob = phone(transport), phone(transport)
    methods = ("MESSAGE", "INFO", "REFER", "OPTIONS", "NOTIFY", "PUBLISH", "BREW")
    for method in methods:
        lines = ("Event: presence", "Refer-To: <sip:u0@example.test>", f"Contact: <{alice.contact}>")
        alice.exchange(method, bob.address, *lines, call_id=f"{method}{transport}")
        request = agree(bob, alice, method, "X-Extra: kept")
        assert not request.has("proxy-authorization")
        assert request.has("record-route") == (method in ("REFER", "NOTIFY", "BREW"))
        alice.send(alice.write(method, bob.address, from_="<sip:eve@elsewhere.example>;tag=e", call_id=f"{method}e"))
        alice.expect(403)


def test_the_server_says_what_it_can_do_to_anybody(phone: MakePhone) -> None:
    eve = phone("TCP", "eve", registers=False)
    for uri in (f"sip:{DOMAIN}", f"sip:127.0.0.1:{eve.server[1]}"):
        eve.send(eve.write("OPTIONS", uri, from_="<sip:eve@elsewhere.example>;tag=e"))
        answer = eve.expect(200)
        assert {"allow", "accept", "accept-encoding", "accept-language", "supported"} <= set(answer.names)


def test_who_registered_through_a_proxy_is_reached_through_it(phone: MakePhone) -> None:
    alice = phone()
    edge = phone(registers=False)
    bob = edge.user
    path = f"<sip:edge@{edge.hostport};lr>"
    lines = (
        "Via: SIP/2.0/UDP 10.0.0.7:5060;branch=z9hG4bKbehind", f"Path: {path}", "Supported: path",
        f"Contact: <sip:{bob}@10.0.0.7:5060>",
    )  # fmt: skip
    answer = edge.register(*lines)
    assert answer.header("path") == path
    alice.exchange("INVITE", edge.address, f"Contact: <{alice.contact}>", call_id="path")
    alice.expect(100)
    invite = edge.expect("INVITE")
    assert invite.uri_text == f"sip:{bob}@10.0.0.7:5060"
    assert invite.values("route") == [path]
    # The edge stays on the path of the call, too.
    recorded = f"Record-Route: <sip:{edge.hostport};lr>\r\nRecord-Route:".encode()
    edge.send(edge.answer(invite, 200).replace(b"Record-Route:", recorded, 1))
    answer = alice.expect(200)
    alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    edge.expect("ACK")
    edge.send(back(edge, invite, "BYE", alice.contact))
    agree(alice, edge, "BYE")
