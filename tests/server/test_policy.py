"""Named peers, routes, permissions, aliases and identities through the whole server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sipserver.sip.message import Request, Response
from support.inprocess import Device, Server, statuses
from support.pen import DOMAIN

MakeServer = Callable[..., Server]

CARRIER = "198.51.100.20"
PARTNER = "198.51.100.30"
CONFIG = """
[proxy]
outbound_to = ["example.org", "+43"]
outbound_of = { "carol@example.test" = ["*"] }
named_peers = [
  { name = "carrier", networks = ["198.51.100.20"], target = "sip:198.51.100.20:5080", trusted = true, calls = 2 },
  { name = "partner", networks = ["198.51.100.30"], direction = "in", may_call = ["bob@example.test"], rate = 0.2 },
  { name = "backup", target = "sip:198.51.100.40", direction = "out" },
]
routes = [
  { domain = "example.org", to = "sip:198.51.100.50:5070" },
  { domain = "*", peer = "carrier" },
  { prefix = "+43", peer = "carrier" },
  { prefix = "+43", peer = "backup", priority = 1 },
]
[addresses]
numbers = [{ prefix = "0", to = "+43" }, { pattern = "7(.*)", to = '\\1bob@example.test' }]
[addresses.aliases]
"info@example.test" = "alice@example.test"
"+43199" = "alice@example.test"
"all@example.test" = ["bob@example.test", "guest@example.com"]
"""


class World:
    """A server with peers, and who is there."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.alice = Device(server, "alice")
        self.bob = Device(server, "bob", "192.0.2.8")
        self.carol = Device(server, "carol", "192.0.2.9")
        self.carrier = Device(server, "carrier", CARRIER, 5080)
        self.partner = Device(server, "partner", PARTNER, 5060)
        assert self.bob.register().status == 200

    def call(self, who: Device, uri: str, *lines: str, **options: Any) -> None:
        """An INVITE of a subscriber, with credentials."""
        who.send(who.signed("INVITE", uri, f"Contact: <{who.contact}>", *lines, **options))
        self.server.settle()

    def call_in(self, who: Device, uri: str, *lines: str, **options: Any) -> None:
        """An INVITE of somebody who is no subscriber."""
        given = {"from_": "<sip:+4930@example.org>;tag=peer", **options}
        who.send(who.write("INVITE", uri, f"Contact: <{who.contact}>", *lines, **given))
        self.server.settle()

    def at(self, host: str, port: int = 5060) -> list[Request]:
        """The INVITEs that were sent to somewhere."""
        found = self.server.sent_to(self.server.transports.udp_flow(host, port))
        return [each for each in found if isinstance(each, Request) and each.method == "INVITE"]

    def party(self, address: str) -> str:
        """What stands for an address in the record."""
        (row,) = self.server.rows("SELECT party FROM parties WHERE address = ?", address, store="accounts.db")
        return str(row["party"])


@pytest.fixture
def world(make_server: MakeServer) -> World:
    return World(make_server("alice", "bob", "carol", config=CONFIG))


def only(server: Server, query: str = "SELECT * FROM calls") -> dict[str, Any]:
    """The only row."""
    (row,) = server.rows(query)
    return row


def final(device: Device) -> Response:
    """The final response that came."""
    (found,) = [each for each in device.received() if isinstance(each, Response) and each.status >= 200]
    return found


# Who may send where


def test_a_static_route_is_taken_before_dns_and_leaves_no_trace(world: World) -> None:
    world.call(world.alice, "sip:erin@example.org")
    (invite,) = world.at("198.51.100.50", 5070)
    assert invite.uri_text == "sip:erin@example.org"
    assert not invite.has("route")


def test_a_domain_that_is_not_listed_is_forbidden_and_that_is_on_record(world: World) -> None:
    world.call(world.alice, "sip:erin@example.net")
    assert final(world.alice).status == 403
    assert only(world.server)["outcome"] == "forbidden"
    error = only(world.server, "SELECT * FROM errors")
    assert (error["kind"], error["status"], error["party"]) == ("refused", 403, world.party("alice@example.test"))


def test_a_subscriber_may_have_permissions_of_his_own(world: World) -> None:
    world.call(world.carol, "sip:erin@example.net")
    (invite,) = world.at(CARRIER, 5080)
    assert invite.uri_text == "sip:erin@example.net"


@pytest.mark.parametrize("route", ["<sip:198.51.100.99;lr>", "<sip:example.net;lr>"])
def test_a_preloaded_route_may_lead_only_where_its_sender_may_send(world: World, route: str) -> None:
    world.call(world.alice, "sip:bob@example.test", f"Route: {route}")
    assert final(world.alice).status == 403


def test_a_number_goes_to_the_peer_that_its_prefix_says(world: World) -> None:
    world.call(world.alice, "tel:+43-1-234")
    (invite,) = world.at(CARRIER, 5080)
    assert invite.uri_text == "sip:+431234@198.51.100.20:5080;user=phone"
    row = only(world.server)
    assert row["callee"] == world.party("+431234")


def test_a_number_that_is_not_listed_is_forbidden(world: World) -> None:
    world.call(world.alice, "tel:+4930123")
    # No route either: there is no such number.
    assert final(world.alice).status == 404
    world.call(world.carol, "tel:+4930123", call_id="b")
    assert final(world.carol).status == 404


def test_the_next_route_is_tried_where_the_first_fails(world: World) -> None:
    world.call(world.alice, "sip:+431234@example.test;user=phone")
    (invite,) = world.at(CARRIER, 5080)
    world.carrier.send(world.carrier.answer(invite, 503))
    (again,) = world.at("198.51.100.40")
    assert again.uri_text == "sip:+431234@198.51.100.40;user=phone"


def test_a_busy_number_is_not_called_another_way(world: World) -> None:
    world.call(world.alice, "sip:+431234@example.test;user=phone")
    (invite,) = world.at(CARRIER, 5080)
    world.carrier.send(world.carrier.answer(invite, 486))
    world.server.settle()
    assert not world.at("198.51.100.40")
    assert final(world.alice).status == 486


# Aliases and numbers


def test_an_alias_rings_whom_it_stands_for_and_the_record_keeps_who_was_asked_for(world: World) -> None:
    assert world.alice.register().status == 200
    world.call(world.carol, "sip:info@example.test")
    (invite,) = world.at("192.0.2.7", 5070)
    assert invite.uri_text == world.alice.contact
    assert only(world.server)["callee"] == world.party("info@example.test")


def test_an_alias_of_several_forks_and_may_lead_elsewhere(world: World) -> None:
    world.call(world.alice, "sip:all@example.test")
    assert len(world.bob.requests("INVITE")) == 1
    (invite,) = world.at(CARRIER, 5080)
    assert invite.uri_text == "sip:guest@example.com"


def test_what_is_dialled_is_rewritten(world: World) -> None:
    world.call(world.alice, "sip:01234@example.test")
    (invite,) = world.at(CARRIER, 5080)
    assert invite.uri_text.startswith("sip:+431234@")
    world.call(world.alice, "sip:7@example.test", call_id="b")
    assert len(world.bob.requests("INVITE")) == 1
    world.call(world.alice, "tel:7;phone-context=example.test", call_id="c")
    assert len(world.bob.requests("INVITE")) == 1


def test_strangers_dial_no_numbers(make_server: MakeServer) -> None:
    world = World(make_server("alice", "bob", "carol", config=CONFIG.replace("[proxy]", '[proxy]\ninbound = "anyone"')))
    stranger = Device(world.server, "eve", "203.0.113.1")
    world.call_in(stranger, "sip:01234@example.test")
    assert final(stranger).status == 480
    assert not world.at(CARRIER, 5080)


# Peers that call


def test_a_peer_may_call_whatever_strangers_may(world: World) -> None:
    world.call_in(world.partner, "sip:bob@example.test")
    assert len(world.bob.requests("INVITE")) == 1


def test_a_peer_calls_only_whom_it_may(world: World) -> None:
    world.call_in(world.partner, "sip:alice@example.test")
    assert final(world.partner).status == 403
    assert only(world.server)["outcome"] == "forbidden"


def test_a_peer_relays_nothing(world: World) -> None:
    world.call_in(world.carrier, "sip:erin@example.org")
    assert final(world.carrier).status == 403
    world.call_in(world.carrier, "sip:01234@example.test", call_id="b")
    assert final(world.carrier).status == 480


def test_a_peer_that_only_is_called_may_not_call(make_server: MakeServer) -> None:
    text = CONFIG.replace('direction = "in", ', 'direction = "out", ')
    world = World(make_server("alice", "bob", "carol", config=text.replace("[proxy]", '[proxy]\ninbound = "anyone"')))
    world.call_in(world.partner, "sip:bob@example.test")
    assert final(world.partner).status == 403


def test_a_peer_that_calls_too_fast_is_told_when_to_come_again(world: World) -> None:
    for number in range(3):
        world.call_in(world.partner, "sip:bob@example.test", call_id=f"c{number}")
    answers = [each for each in world.partner.received() if isinstance(each, Response) and each.status >= 200]
    assert [each.status for each in answers] == [503]
    assert int(answers[0].header("retry-after") or "") >= 1
    assert only(world.server, "SELECT kind, status FROM errors") == {"kind": "rate", "status": 503}
    assert world.server.service.proxying.too_many == 1
    assert world.server.service.proxying.settings.named.peers["partner"].received == 3
    world.server.advance(6)
    world.call_in(world.partner, "sip:bob@example.test", call_id="later")
    assert 503 not in statuses(world.partner.received())


def test_a_peer_has_no_more_calls_than_it_may(world: World) -> None:
    for number in range(3):
        world.call_in(world.carrier, "sip:bob@example.test", call_id=f"c{number}")
    assert statuses(world.carrier.received()).count(503) == 1
    invite, _ = world.bob.requests("INVITE")
    world.bob.send(world.bob.answer(invite, 486))
    world.server.settle()
    world.server.advance(1)
    world.call_in(world.carrier, "sip:bob@example.test", call_id="later")
    assert statuses(world.carrier.received())[-1] == 100
    assert [row["outcome"] for row in world.server.rows("SELECT outcome FROM calls")].count("failed") == 1


def test_a_full_peer_is_passed_by(world: World) -> None:
    for number in range(3):
        world.call(world.alice, "tel:+431234", call_id=f"c{number}")
    assert (len(world.at(CARRIER, 5080)), len(world.at("198.51.100.40"))) == (2, 1)


def test_a_subscriber_that_calls_too_fast_is_told_when_to_come_again(make_server: MakeServer) -> None:
    server = make_server("alice", config="[limits]\nsubscriber_calls = 0.1\n")
    alice = Device(server, "alice")
    answers = [alice.ask(alice.invite("nobody", call_id=f"c{number}")) for number in range(2)]
    assert [each.status for each in answers] == [404, 503]
    assert answers[1].header("retry-after") in ("10", "11")
    row = only(server, "SELECT * FROM errors WHERE kind = 'rate'")
    assert (row["method"], row["status"]) == ("INVITE", 503)
    assert row["party"] is not None


def test_a_subscriber_that_sends_too_much_is_told_when_to_come_again(make_server: MakeServer) -> None:
    server = make_server("alice", config="[limits]\nsubscriber_requests = 0.2\n")
    alice = Device(server, "alice")
    to = "sip:nobody@example.test"
    answers = [alice.ask(alice.signed("MESSAGE", to, call_id=f"c{number}")).status for number in range(3)]
    assert answers == [404, 404, 503]


# Identities


def test_a_trusted_peer_is_told_who_calls_and_nobody_else_is(world: World) -> None:
    world.call(world.alice, "tel:+431234")
    (invite,) = world.at(CARRIER, 5080)
    assert invite.values("p-asserted-identity") == ["<sip:alice@example.test>", "<tel:+43199>"]
    world.carrier.send(world.carrier.answer(invite, 503))
    (again,) = world.at("198.51.100.40")
    assert not again.has("p-asserted-identity")


def test_the_preferred_identity_is_asserted_where_it_is_the_callers(world: World) -> None:
    world.call(world.alice, "tel:+431", "P-Preferred-Identity: <sip:info@example.test>")
    (invite,) = world.at(CARRIER, 5080)
    assert invite.values("p-asserted-identity") == ["<sip:info@example.test>"]
    assert not invite.has("p-preferred-identity")
    world.call(world.carol, "tel:+431", "P-Preferred-Identity: <sip:bob@example.test>", call_id="b")
    (invite,) = world.at(CARRIER, 5080)
    assert invite.values("p-asserted-identity") == ["<sip:carol@example.test>"]


def test_what_an_endpoint_asserts_itself_goes_nowhere(world: World) -> None:
    world.call(world.carol, "tel:+431", "P-Asserted-Identity: <sip:bob@example.test>")
    (invite,) = world.at(CARRIER, 5080)
    assert invite.values("p-asserted-identity") == ["<sip:carol@example.test>"]


def test_a_trusted_peer_is_believed_about_who_calls(world: World) -> None:
    world.call_in(
        world.carrier, "sip:bob@example.test", 'P-Asserted-Identity: "Erin" <sip:+4930@example.org>, <tel:+4930>',
        from_="<sip:anonymous@anonymous.invalid>;tag=peer",
    )  # fmt: skip
    (invite,) = world.bob.requests("INVITE")
    assert not invite.has("p-asserted-identity")
    assert only(world.server)["caller"] == world.party("+4930@example.org")


def test_whoever_else_asserts_an_identity_is_not_believed(world: World) -> None:
    world.call_in(world.partner, "sip:bob@example.test", "P-Asserted-Identity: <sip:alice@example.test>")
    assert only(world.server)["caller"] is None
    world.call_in(
        world.partner, "sip:bob@example.test", "P-Asserted-Identity: <sip:alice@example.test>",
        from_="<sip:alice@example.test>;tag=x", call_id="b",
    )  # fmt: skip
    assert statuses(world.partner.received())[-1] == 407


def test_a_subscriber_for_whom_a_trusted_peer_vouches_is_not_challenged_and_has_no_rights(world: World) -> None:
    vouched = {"from_": "<sip:alice@example.test>;tag=x"}
    line = "P-Asserted-Identity: <sip:alice@example.test>"
    world.call_in(world.carrier, "sip:bob@example.test", line, **vouched)
    assert len(world.bob.requests("INVITE")) == 1
    assert only(world.server)["caller"] == world.party("alice@example.test")
    world.call_in(world.carrier, "sip:erin@example.org", line, **vouched, call_id="b")
    assert statuses(world.carrier.received())[-1] == 403


def test_endpoints_are_told_where_the_operator_wants_it_and_the_caller_does_not_mind(make_server: MakeServer) -> None:
    server = make_server("alice", "bob", "carol", config='[proxy]\nasserted_identity = "endpoints"\n')
    world = World(server)
    told = {}
    for privacy in ("", "none", "id", "user", "header", "session"):
        world.call(
            world.alice, "sip:bob@example.test", *([f"Privacy: {privacy}"] if privacy else []), call_id=privacy or "no"
        )
        (invite,) = world.bob.requests("INVITE")
        told[privacy] = invite.has("p-asserted-identity")
    assert told == {"": True, "none": True, "id": False, "user": False, "header": False, "session": True}


def test_a_caller_without_a_name_proves_who_he_is_and_is_told_to_trusted_peers_alone(world: World) -> None:
    nameless = {"from_": '"Anonymous" <sip:anonymous@anonymous.invalid>;tag=x'}
    lines = ("Privacy: id;user;critical", "Proxy-Require: privacy", "User-Agent: Tellphone", "Subject: Secret")
    world.call(world.alice, "tel:+431", *lines, **nameless)
    (invite,) = world.at(CARRIER, 5080)
    assert invite.values("p-asserted-identity") == ["<sip:alice@example.test>", "<tel:+43199>"]
    assert invite.header("privacy") == "id;critical"
    assert {"user-agent", "subject"}.isdisjoint(invite.names)
    row = only(world.server)
    assert (row["caller"], row["caller_agent"]) == (world.party("alice@example.test"), "Tellphone")
    world.call(world.alice, "sip:bob@example.test", "Privacy: user", "Proxy-Require: privacy", **nameless, call_id="b")
    (invite,) = world.bob.requests("INVITE")
    assert {"p-asserted-identity", "privacy", "proxy-require"}.isdisjoint(invite.names)
    assert DOMAIN not in (invite.header("from") or "")


@pytest.mark.parametrize("privacy", ["header;critical", "critical; session", "user;critical", "history;critical"])
def test_privacy_that_cannot_be_had_and_not_be_done_without_is_refused(world: World, privacy: str) -> None:
    world.call(world.alice, "sip:bob@example.test", f"Privacy: {privacy}")
    answer = final(world.alice)
    assert answer.status == 500
    assert privacy.replace("critical", "").strip("; ") in answer.reason


def test_privacy_that_can_be_done_without_is_left_to_others(world: World) -> None:
    world.call(world.alice, "sip:bob@example.test", "Privacy: header;session")
    (invite,) = world.bob.requests("INVITE")
    assert invite.header("privacy") == "header;session"


def test_an_identity_in_an_answer_passes_only_between_trusted_peers(world: World) -> None:
    line = "P-Asserted-Identity: <sip:bob@example.test>"
    world.call_in(world.carrier, "sip:bob@example.test")
    (invite,) = world.bob.requests("INVITE")
    world.bob.send(world.bob.answer(invite, 180, line))
    (answer,) = [each for each in world.carrier.received() if isinstance(each, Response) and each.status == 180]
    assert not answer.has("p-asserted-identity")
    world.call(world.alice, "tel:+431234", call_id="b")
    (invite,) = world.at(CARRIER, 5080)
    world.carrier.send(world.carrier.answer(invite, 180, line))
    (answer,) = [each for each in world.alice.received() if isinstance(each, Response) and each.status == 180]
    assert not answer.has("p-asserted-identity")


def test_who_is_told_by_one_trusted_peer_is_told_to_another_as_it_came(world: World) -> None:
    line = 'P-Asserted-Identity: "Erin, of Vienna" <sip:+4930@example.org;user=phone>'
    world.call_in(world.carrier, "sip:all@example.test", line, "Privacy: id")
    told = [invite.headers("p-asserted-identity") for invite in world.at(CARRIER, 5080)]
    assert told == [['"Erin, of Vienna" <sip:+4930@example.org;user=phone>']]
    (invite,) = world.bob.requests("INVITE")
    assert not invite.has("p-asserted-identity")


def test_an_identity_that_may_not_be_kept_back_is_not(world: World) -> None:
    line = "P-Asserted-Identity: <sip:+4930@example.org>"
    world.call_in(world.carrier, "sip:bob@example.test", line, "Privacy: none")
    (invite,) = world.bob.requests("INVITE")
    assert invite.values("p-asserted-identity") == ["<sip:+4930@example.org>"]


@pytest.mark.parametrize("broken", ["", "<", "<urn:x>", "bob", ", ,", "<sip:>", '"', "<tel:x>"])
def test_an_identity_that_cannot_be_read_is_none(world: World, broken: str) -> None:
    world.call_in(world.carrier, "sip:bob@example.test", f"P-Asserted-Identity: {broken}")
    assert len(world.bob.requests("INVITE")) == 1
    assert only(world.server)["caller"] is None
    world.call(world.alice, "tel:+431", f"P-Preferred-Identity: {broken}", call_id="b")
    (invite,) = world.at(CARRIER, 5080)
    assert len(invite.values("p-asserted-identity")) == 2


def test_a_trusted_peer_is_believed_about_access_networks(make_server: MakeServer) -> None:
    places = '[location]\nsites = [{ access = "dsl-location=line-17", site = "Home", country = "AT" }]\n'
    world = World(make_server("alice", "bob", "carol", config=CONFIG + places))
    line = 'P-Access-Network-Info: ADSL; dsl-location="line-17"'
    for peer in (world.carrier, world.partner):
        world.call_in(peer, "sip:bob@example.test", line, call_id=peer.user)
    rows = world.server.rows("SELECT caller_site FROM calls ORDER BY started_at, rowid")
    assert [row["caller_site"] for row in rows] == ["Home", None]


def test_a_peer_may_speak_in_its_call_from_another_of_its_hosts(make_server: MakeServer) -> None:
    text = CONFIG.replace('["198.51.100.20"]', '["198.51.100.20", "198.51.100.21"]')
    world = World(make_server("alice", "bob", "carol", config=text))
    world.call_in(world.carrier, "sip:bob@example.test")
    (invite,) = world.bob.requests("INVITE")
    world.bob.send(world.bob.answer(invite, 200))
    world.server.settle()
    answer = world.carrier.received()[-1]
    assert isinstance(answer, Response)
    world.carrier.send(world.carrier.in_dialog("ACK", answer, cseq=answer.cseq[0]))
    other = Device(world.server, "carrier", "198.51.100.21", first=50)
    other.send(other.in_dialog("BYE", answer))
    assert len(world.bob.requests("BYE")) == 1


# Questions


def test_options_to_the_server_is_answered_to_anybody_with_what_is_true(world: World) -> None:
    for device, from_ in (
        (world.alice, ""),
        (Device(world.server, "eve", "203.0.113.1"), "<sip:eve@example.com>;tag=e"),
    ):
        answer = device.ask(device.write("OPTIONS", "sip:example.test", from_=from_))
        assert answer.status == 200
        assert answer.header("accept") == "application/sdp, application/vq-rtcpxr"
        assert {"allow", "supported", "accept-encoding", "accept-language"} <= set(answer.names)


def test_options_to_a_subscriber_goes_on(world: World) -> None:
    world.alice.send(world.alice.signed("OPTIONS", "sip:bob@example.test"))
    assert len(world.bob.requests("OPTIONS")) == 1


def test_a_reload_changes_peers_and_keeps_their_calls(world: World) -> None:
    for number in range(2):
        world.call_in(world.carrier, "sip:bob@example.test", call_id=f"c{number}")
    world.server.service.reload(world.server.service.config)
    world.call_in(world.carrier, "sip:bob@example.test", call_id="c2")
    assert statuses(world.carrier.received()).count(503) == 1
