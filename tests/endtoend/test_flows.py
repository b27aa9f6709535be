"""RFC 3665's flows message by message, against a server that runs, and what is on record of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest

from sipserver.sip.message import Request, Response
from support.listening import ListeningServer
from support.pen import DOMAIN
from support.phone import Phone
from support.server import Row
from support.transport import need_ipv6

USERS = [f"u{number}" for number in range(100)]
SDP = (
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
    b"m=video 4002 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n"
)
TYPE = "Content-Type: application/sdp"
MIXED = [("UDP", "UDP"), ("TCP", "TCP"), ("UDP", "TCP"), ("TCP", "UDP")]

MakePhone = Callable[..., Phone]

_users = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ListeningServer]:
    listen = ["udp:127.0.0.1:{port}", "tcp:127.0.0.1:{port}"]
    try:
        need_ipv6()
    except pytest.skip.Exception:
        pass
    else:
        listen += ["udp:[::1]:{port}", "tcp:[::1]:{port}"]
    with ListeningServer(tmp_path_factory.mktemp("flows"), USERS, listen=tuple(listen)) as server:
        yield server
        assert not [event for event in server.events if event["event"] == "internal.fault"]


@pytest.fixture
def phone(server: ListeningServer) -> Iterator[MakePhone]:
    """Makes a phone of a user that no other test has, or of this one."""
    with ExitStack() as stack:

        def make(transport: str = "UDP", host: str = "127.0.0.1", user: str = "", *, listens: bool = False) -> Phone:
            user = user or f"u{next(_users)}"
            return stack.enter_context(Phone(server.port, user, transport, host, listens=listens))

        yield make


def record(server: ListeningServer, caller: Phone) -> Row:
    """The row of the only call of this caller, once it has ended."""
    party = server.party(caller.user)
    (row,) = server.wait_for_rows(
        f"SELECT * FROM calls WHERE caller = '{party}'",
        lambda rows: len(rows) == 1 and rows[0]["ended_at"] is not None,
    )
    return row


def call(caller: Phone, callee: Phone, *lines: str, body: bytes = b"") -> Request:
    """F1 to F6: INVITE, 407, ACK, INVITE, 100; the INVITE as the callee got it."""
    uri = f"sip:{callee.user}@{DOMAIN}"
    caller.exchange("INVITE", uri, f"Contact: <{caller.contact}>", *lines, call_id=f"c{caller.user}", body=body)
    caller.expect(100)
    invite = callee.expect("INVITE")
    assert isinstance(invite, Request)
    return invite


def pick_up(caller: Phone, callee: Phone, invite: Request, *lines: str, body: bytes = b"") -> Response:
    """F7 to F13: 180, 200, ACK; the 200 as the caller got it."""
    callee.respond(invite, 180)
    caller.expect(180)
    callee.respond(invite, 200, *lines, body=body)
    answer = caller.expect(200)
    assert isinstance(answer, Response)
    caller.send(caller.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    ack = callee.expect("ACK")
    assert ack.uri_text == callee.contact
    return answer


def hang_up(caller: Phone, callee: Phone, answer: Response, *lines: str) -> None:
    """F14 to F17: BYE, 200."""
    caller.send(caller.in_dialog("BYE", answer, *lines, cseq=answer.cseq[0] + 5))
    callee.respond(callee.expect("BYE"), 200)
    caller.expect(200)


# ---- RFC 3665 §2, registration


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_2_1_new_registration(server: ListeningServer, phone: MakePhone, transport: str) -> None:
    bob = phone(transport)
    answer = bob.register()
    assert answer.header("contact") == f"<{bob.contact}>;expires=3600"
    assert answer.header("date") is not None
    (row,) = server.rows(f"SELECT * FROM bindings WHERE aor = '{bob.user}@{DOMAIN}'", store="location.db")
    assert (row["contact"], row["transport"]) == (bob.contact, transport)
    rows = server.wait_for_rows(f"SELECT * FROM sign_ins WHERE party = '{server.party(bob.user)}'", bool)
    assert [row["outcome"] for row in rows] == ["bound"]


def test_2_2_to_2_4_update_request_and_cancel_of_contacts(phone: MakePhone) -> None:
    bob = phone()
    bob.register()
    answer = bob.register("Contact: <sip:bob@192.0.2.99>;expires=600")
    assert len(answer.addresses("contact")) == 2
    answer = bob.register("Subject: what is there")
    assert sorted(each.uri_text for each in answer.addresses("contact")) == sorted([bob.contact, "sip:bob@192.0.2.99"])
    answer = bob.register("Contact: *", "Expires: 0")
    assert not answer.has("contact")


def test_2_5_unsuccessful_registration(server: ListeningServer, phone: MakePhone) -> None:
    bob = phone()
    bob.exchange("REGISTER", f"sip:{DOMAIN}", f"Contact: <{bob.contact}>", password="wrong")
    bob.expect(401)
    rows = server.wait_for_rows(f"SELECT * FROM sign_ins WHERE party = '{server.party(bob.user)}'", bool)
    assert [(row["outcome"], row["status"]) for row in rows] == [("refused", 401)]


# ---- RFC 3665 §3, sessions through a proxy


@pytest.mark.parametrize(("here", "there"), MIXED)
def test_3_2_session_establishment(server: ListeningServer, phone: MakePhone, here: str, there: str) -> None:
    alice, bob = phone(here), phone(there)
    bob.register()
    invite = call(alice, bob, TYPE, body=SDP)
    assert bob.came_by == there
    assert [via.transport for via in invite.vias] == [there, here]
    # RFC 5658: a route for each side where the transport changes between them.
    assert len(invite.addresses("record-route")) == (1 if here == there else 2)
    assert (invite.number("max-forwards"), invite.body, invite.uri_text) == (69, SDP, bob.contact)
    answer = pick_up(alice, bob, invite, TYPE, body=SDP)
    assert (len(answer.vias), answer.body) == (1, SDP)
    hang_up(alice, bob, answer)
    row = record(server, alice)
    assert (row["outcome"], row["ended_by"], row["end_cause"]) == ("answered", "caller", "bye")
    assert (row["callee"], row["video"], row["devices"]) == (server.party(bob.user), 1, 1)
    assert (row["caller_transport"], row["callee_transport"]) == (here, there)
    assert row["confirmed_at"] is not None


@pytest.mark.parametrize(("here", "there"), MIXED)
def test_callee_hangs_up(server: ListeningServer, phone: MakePhone, here: str, there: str) -> None:
    alice, bob = phone(here), phone(there)
    bob.register()
    invite = call(alice, bob)
    answer = pick_up(alice, bob, invite)
    routes = [f"Route: {value}" for value in invite.values("record-route")]
    from_, to = answer.header("to") or "", answer.header("from") or ""
    reason = "Reason: Q.850;cause=16;text=Enough"
    bob.send(bob.write("BYE", alice.contact, *routes, reason, from_=from_, to=to, call_id=invite.call_id))
    alice.respond(alice.expect("BYE"), 200)
    bob.expect(200)
    row = record(server, alice)
    assert (row["outcome"], row["ended_by"], row["reason"]) == ("answered", "callee", "Enough")


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_session_over_ipv6(server: ListeningServer, phone: MakePhone, transport: str) -> None:
    need_ipv6()
    alice, bob = phone(transport, "::1"), phone(transport, "::1")
    bob.register()
    invite = call(alice, bob)
    assert invite.top_via.host == "::1"
    assert f"<sip:[::1]:{server.port};" in invite.values("record-route")[0]
    hang_up(alice, bob, pick_up(alice, bob, invite))
    assert record(server, alice)["outcome"] == "answered"


def test_session_between_ip_versions(server: ListeningServer, phone: MakePhone) -> None:
    need_ipv6()
    alice, bob = phone("UDP", "::1"), phone("UDP", "127.0.0.1")
    bob.register()
    invite = call(alice, bob)
    assert len(invite.addresses("record-route")) == 2
    hang_up(alice, bob, pick_up(alice, bob, invite))
    assert record(server, alice)["ended_by"] == "caller"


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_3_8_unsuccessful_no_answer(server: ListeningServer, phone: MakePhone, transport: str) -> None:
    alice, bob = phone(transport), phone(transport)
    bob.register()
    uri = f"sip:{bob.user}@{DOMAIN}"
    invite = call(alice, bob)
    bob.respond(invite, 180)
    alice.expect(180)
    given: dict[str, Any] = {"call_id": invite.call_id, "branch": invite.vias[1].branch or ""}
    alice.send(alice.write("CANCEL", uri, "Reason: SIP;cause=487;text=Patience", **given, cseq=alice.cseq))
    alice.expect(200)
    cancel = bob.expect("CANCEL")
    assert cancel.header("reason") == "SIP;cause=487;text=Patience"
    bob.respond(cancel, 200)
    bob.respond(invite, 487)
    bob.expect("ACK")
    final = alice.expect(487)
    alice.send(alice.write("ACK", uri, to=final.header("to"), **given, cseq=alice.cseq))
    row = record(server, alice)
    assert (row["outcome"], row["sip_status"], row["ended_by"]) == ("cancelled", 487, "caller")
    assert (row["answered_at"], row["talk_ms"]) == (None, None)


@pytest.mark.parametrize(("here", "there"), MIXED)
def test_3_9_unsuccessful_busy(server: ListeningServer, phone: MakePhone, here: str, there: str) -> None:
    alice, bob = phone(here), phone(there)
    bob.register()
    invite = call(alice, bob)
    bob.respond(invite, 486)
    bob.expect("ACK")
    final = alice.expect(486)
    branch = invite.vias[1].branch or ""
    uri = f"sip:{bob.user}@{DOMAIN}"
    alice.send(alice.write("ACK", uri, to=final.header("to"), call_id=invite.call_id, branch=branch, cseq=alice.cseq))
    row = record(server, alice)
    assert (row["outcome"], row["sip_status"], row["ended_by"]) == ("busy", 486, "callee")


def test_3_10_unsuccessful_no_response(server: ListeningServer, phone: MakePhone) -> None:
    alice, bob = phone(), phone()
    bob.exchange("REGISTER", f"sip:{DOMAIN}", f"Contact: <{bob.contact};transport=tcp>")
    bob.expect(200)
    uri = f"sip:{bob.user}@{DOMAIN}"
    alice.exchange("INVITE", uri, f"Contact: <{alice.contact}>", call_id=f"c{alice.user}")
    alice.expect(100)
    # Nobody listens there, so nobody has to be waited for.
    alice.expect(480)
    assert record(server, alice)["outcome"] == "offline"


# ---- what RFC 3665 does not show


def test_two_devices_ring_and_one_gets_the_call(server: ListeningServer, phone: MakePhone) -> None:
    alice, desk = phone(), phone("TCP")
    mobile = phone("UDP", user=desk.user)
    desk.register()
    mobile.register()
    at_desk = call(alice, desk)
    at_mobile = mobile.expect("INVITE")
    desk.respond(at_desk, 180, tag="desk")
    alice.expect(180)
    mobile.respond(at_mobile, 180, tag="mobile")
    alice.expect(180)
    mobile.respond(at_mobile, 200, tag="mobile")
    answer = alice.expect(200)
    assert answer.to_tag == "mobile"
    desk.respond(desk.expect("CANCEL"), 200)
    desk.respond(at_desk, 487, tag="desk")
    desk.expect("ACK")
    alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    mobile.expect("ACK")
    hang_up(alice, mobile, answer)
    row = record(server, alice)
    assert (row["outcome"], row["devices"], row["callee_transport"]) == ("answered", 2, "UDP")
    branches = server.rows("SELECT outcome FROM call_branches WHERE call = ? ORDER BY transport", row["id"])
    assert len(branches) == 2
    assert branches[1]["outcome"] == "answered"


def test_large_invite_changes_from_udp_to_tcp(server: ListeningServer, phone: MakePhone) -> None:
    alice, bob = phone(), phone(listens=True)
    bob.register()
    invite = call(alice, bob, body=b"x" * 1400)
    assert (bob.came_by, invite.top_via.transport, len(invite.body)) == ("TCP", "TCP", 1400)
    answer = pick_up(alice, bob, invite)
    hang_up(alice, bob, answer)
    assert record(server, alice)["callee_transport"] == "TCP"


def test_large_invite_stays_with_udp_where_nobody_listens_on_tcp(server: ListeningServer, phone: MakePhone) -> None:
    alice, bob = phone(), phone()
    bob.register()
    invite = call(alice, bob, body=b"x" * 1400)
    assert (bob.came_by, len(invite.body)) == ("UDP", 1400)
    hang_up(alice, bob, pick_up(alice, bob, invite))
    assert record(server, alice)["callee_transport"] == "UDP"


def test_contact_is_reached_over_the_connection_that_registered_it(phone: MakePhone) -> None:
    alice, bob = phone("UDP"), phone("TCP")
    # What such a contact says of itself leads nowhere.
    bob.register("Contact: <sip:bob@browser.invalid;transport=tcp>")
    invite = call(alice, bob)
    assert invite.uri_text == "sip:bob@browser.invalid;transport=tcp"
    bob.respond(invite, 486)
    alice.expect(486)


def test_compact_forms_and_odd_spelling_make_the_same_call(server: ListeningServer, phone: MakePhone) -> None:
    alice, bob = phone(), phone()
    bob.register()
    uri = f"sip:{bob.user}@{DOMAIN}"
    plain = alice.write("INVITE", uri, f"Contact: <{alice.contact}>", call_id="compact", cseq=1, branch="z9hG4bKc1")
    alice.send(plain)
    challenge = alice.expect(407)
    credentials = alice.credentials(challenge, "INVITE", uri)
    data = alice.write("INVITE", uri, f"Contact: <{alice.contact}>", credentials, call_id="compact", cseq=2, body=SDP)
    for long, short in ((b"Via:", b"v :"), (b"From:", b"f:"), (b"To:", b"t\t:"), (b"Call-ID:", b"I:\r\n "),
                        (b"Contact:", b"m:"), (b"Content-Length:", b"L:"), (b"CSeq:", b"cSEQ:")):  # fmt: skip
        data = data.replace(long, short, 1)
    alice.send(data.replace(b"\r\n\r\n", b"\r\nc:application/sdp\r\n\r\n", 1))
    alice.expect(100)
    invite = bob.expect("INVITE")
    assert b"\r\nI:\r\n  compact\r\n" in invite.to_bytes()
    hang_up(alice, bob, pick_up(alice, bob, invite, TYPE, body=SDP))
    assert record(server, alice)["video"] == 1


def test_change_of_media_is_on_record(server: ListeningServer, phone: MakePhone) -> None:
    alice, bob = phone("TCP"), phone()
    bob.register()
    only_audio = SDP.partition(b"m=video")[0]
    answer = pick_up(alice, bob, call(alice, bob, TYPE, body=only_audio), TYPE, body=only_audio)
    contact = f"Contact: <{alice.contact}>"
    alice.send(alice.in_dialog("INVITE", answer, contact, TYPE, cseq=answer.cseq[0] + 1, body=SDP))
    alice.expect(100)
    bob.respond(bob.expect("INVITE"), 200, TYPE, body=SDP)
    again = alice.expect(200)
    alice.send(alice.in_dialog("ACK", answer, cseq=again.cseq[0]))
    bob.expect("ACK")
    hang_up(alice, bob, answer)
    row = record(server, alice)
    assert (row["video"], row["outcome"]) == (1, "answered")
    assert row["video_ms"] <= row["talk_ms"]


def test_refused_bye_ends_nothing(server: ListeningServer, phone: MakePhone) -> None:
    alice, bob = phone(), phone()
    bob.register()
    answer = pick_up(alice, bob, call(alice, bob))
    alice.send(alice.in_dialog("BYE", answer, cseq=answer.cseq[0] + 1))
    bob.respond(bob.expect("BYE"), 403)
    alice.expect(403)
    hang_up(alice, bob, answer)
    row = record(server, alice)
    assert (row["ended_by"], row["sip_status"]) == ("caller", 200)
