"""Other servers that have a name: known by their address or by their certificate, believed and told as they may be."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipserver.sip.framing import StreamFramer
from sipserver.sip.message import Limits, Request, Response, parse
from support.certificates import Authority
from support.listening import ListeningServer
from support.pen import DOMAIN
from support.phone import PATIENCE, Phone
from support.ports import free_port

CARRIER = "127.0.0.2"
CONFIG = """
[proxy]
outbound_to = ["+43"]
named_peers = [
  {{ name = "carrier", networks = ["127.0.0.2"], target = "sip:127.0.0.2:{carrier};transport=udp", trusted = true }},
  {{ name = "partner", certificates = ["sip.example.org"], direction = "in", trusted = true }},
]
routes = [{{ prefix = "+43", peer = "carrier" }}]
[addresses]
aliases = {{ "+43199" = "alice@example.test", "desk@example.test" = ["bob@example.test", "carol@example.test"] }}
numbers = [{{ prefix = "0", to = "+43" }}]
[tls]
certificate = "{certificate}"
key = "{key}"
client_ca = "{ca}"
clients = "optional"
"""


class World:
    """A server, its authority, and where it listens."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        files = self.authority.issue(DOMAIN)
        self.tls, self.carrier = free_port(), free_port()
        listen = ("udp:127.0.0.1:{port}", "tcp:127.0.0.1:{port}", "udp:127.0.0.2:{port}", f"tls:127.0.0.1:{self.tls}")
        config = CONFIG.format(
            carrier=self.carrier, certificate=files.certificate, key=files.key, ca=self.authority.file
        )
        self.server = ListeningServer(folder / "server", ("alice", "bob", "carol"), config=config, listen=listen)

    def over_tls(self, data: bytes, *names: str) -> int:
        """The status of the final answer to a request of somebody whose certificate has these names, if any."""
        shown = self.authority.issue(*names, into="client") if names else None
        context = self.authority.client(shown)
        with (
            socket.create_connection(("127.0.0.1", self.tls), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=DOMAIN) as sock,
        ):
            sock.settimeout(PATIENCE)
            sock.sendall(data)
            return final_status(sock)

    def calls_of_erin(self, count: int) -> None:
        """So many calls from outside are on record as those of the caller whom the peers vouched for."""
        self.server.wait_for_rows(
            "SELECT caller FROM calls WHERE caller IS NOT NULL AND caller_transport = 'TLS' AND ended_at IS NOT NULL",
            lambda rows: len(rows) == 1,
        )
        deadline = time.monotonic() + PATIENCE
        parties = "SELECT party FROM parties WHERE address = 'erin@example.org'"
        # Another store than that of the calls, so another moment.
        while not (found := self.server.rows(parties, store="accounts.db")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (known,) = found
        query = f"SELECT id FROM calls WHERE caller = '{known['party']}' AND ended_at IS NOT NULL"
        self.server.wait_for_rows(query, lambda rows: len(rows) == count)


def final_status(sock: ssl.SSLSocket) -> int:
    """The status of the next final response on this connection."""
    framer = StreamFramer(Limits())
    while data := sock.recv(65_536):
        for frame in framer.feed(data):
            message = parse(frame)
            if isinstance(message, Response) and message.status >= 200:
                return message.status
    raise AssertionError("the connection ended before an answer came")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("peers"))
    with made.server:
        yield made
        assert not [event for event in made.server.events if event["event"] == "internal.fault"]


def foreign(call_id: str, to: str = f"sip:nobody@{DOMAIN}") -> bytes:
    """An INVITE of somebody at another domain, for whom a peer vouches."""
    return "\r\n".join(
        (
            f"INVITE {to} SIP/2.0", f"Via: SIP/2.0/TLS 127.0.0.1:9;rport;branch=z9hG4bK{call_id}", "Max-Forwards: 70",
            "From: <sip:erin@example.org>;tag=e", f"To: <{to}>", f"Call-ID: {call_id}", "CSeq: 1 INVITE",
            "Contact: <sip:erin@127.0.0.1:9;transport=tls>", "P-Asserted-Identity: <sip:erin@example.org>",
            "Content-Length: 0", "", "",
        )
    ).encode()  # fmt: skip


def test_a_peer_is_known_by_its_certificate(world: World) -> None:
    assert world.over_tls(foreign("known"), "other.test", "sip.example.org") == 480
    world.calls_of_erin(1)
    assert world.over_tls(foreign("other"), "other.test") == 403
    assert world.over_tls(foreign("none")) == 403


def test_a_number_goes_to_a_trusted_peer_that_is_told_who_calls(world: World) -> None:
    server = world.server
    with (
        Phone(server.port, "alice") as alice,
        Phone(server.port, "gateway", host=CARRIER) as gateway,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening,
    ):
        # The route leads to the port in the configuration, so the gateway listens there.
        listening.bind((CARRIER, world.carrier))
        listening.settimeout(PATIENCE)
        alice.exchange("INVITE", f"sip:01234@{DOMAIN}", f"Contact: <{alice.contact}>", call_id="out")
        alice.expect(100)
        data, source = listening.recvfrom(65_536)
        invite = parse(data)
        assert isinstance(invite, Request)
        assert invite.uri_text == f"sip:+431234@{CARRIER}:{world.carrier};user=phone"
        assert invite.values("p-asserted-identity") == [f"<sip:alice@{DOMAIN}>", "<tel:+43199>"]
        listening.sendto(gateway.answer(invite, 486), source)
        alice.expect(486)
    # Over UDP from its address the same peer is believed, too.
    with Phone(server.port, "gateway", host=CARRIER) as gateway:
        gateway.send(foreign("udp").replace(b"TLS", b"UDP"))
        gateway.expect(480)
    world.calls_of_erin(2)


def test_an_alias_of_two_rings_both_and_the_record_names_the_one_that_was_asked_for(world: World) -> None:
    server = world.server
    with (
        Phone(server.port, "alice") as alice,
        Phone(server.port, "bob") as bob,
        Phone(server.port, "carol", "TCP") as carol,
    ):
        bob.register()
        carol.register()
        alice.exchange("INVITE", f"sip:desk@{DOMAIN}", f"Contact: <{alice.contact}>", call_id="desk")
        alice.expect(100)
        invites = {phone: phone.expect("INVITE") for phone in (bob, carol)}
        bob.respond(invites[bob], 180)
        alice.expect(180)
        carol.respond(invites[carol], 200)
        answer = alice.expect(200)
        bob.expect("CANCEL")
        alice.send(alice.in_dialog("ACK", answer, cseq=answer.cseq[0]))
        carol.expect("ACK")
        alice.send(alice.in_dialog("BYE", answer))
        carol.respond(carol.expect("BYE"), 200)
        alice.expect(200)
    query = "SELECT callee, devices FROM calls WHERE outcome = 'answered' AND ended_at IS NOT NULL"
    rows = server.wait_for_rows(query, lambda rows: len(rows) == 1)
    assert rows == [{"callee": server.party("desk"), "devices": 2}]
