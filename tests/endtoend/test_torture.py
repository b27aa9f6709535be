"""RFC 4475 against a server that runs: every case is answered as a registrar or proxy has to, and survived.

The server's domain is example.com, as in the RFC. Nobody is registered and nobody has the right password, so a
message that is well-formed ends at a challenge (401, 407), or at a 403 where it claims no address of ours.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import pytest

from sipserver.sip.message import Response, parse
from support.listening import ListeningServer
from support.sip import wire, written
from support.torture import appendix_messages

RFC = Path(__file__).resolve().parents[2] / "../shared/rfc/rfc4475.txt"

# An address of loopback for this process alone: answers come to the ports that the messages' Vias name.
PEER = f"127.{64 + os.getpid() % 64}.{os.getpid() // 64 % 256}.77"
PORTS = (5060, 5050, 5061)
PATIENCE = 10.0

INVITE, OPTIONS = "INVITE sip:bob@example.com SIP/2.0", "OPTIONS sip:bob@example.com SIP/2.0"
LONG = "long" * 50
SDP = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 96\r\n"

_branches = count()


def message(start: str, *extra: str, body: bytes = b"", **changed: str | None) -> bytes:
    """A message of our own; its method is in CSeq unless that is said."""
    lines = {
        "CSeq": f"7 {start.split(' ', maxsplit=1)[0]}", "Via": f"SIP/2.0/UDP {PEER};branch=z9hG4bKt{next(_branches)}",
    } | changed  # fmt: skip
    return wire(written(start, *extra, **lines), body)


def options(*extra: str, body: bytes = b"", **changed: str | None) -> bytes:
    return message(OPTIONS, *extra, body=body, **changed)


def register(*extra: str, body: bytes = b"", **changed: str | None) -> bytes:
    return message("REGISTER sip:example.com SIP/2.0", *extra, body=body, **changed)


def response(start: str, *extra: str, cseq: str = "7 INVITE", body: bytes = b"") -> bytes:
    return message(start, *extra, body=body, CSeq=cseq)


STRANGE = "~Strange.method-09_*+`%'!"
FOLDED = f"""
INVITE sip:lab@chairs.example.com;novelparam SIP/2.0
tO :
 sip:lab@chairs.example.com ;   other    = 77001n
FROM   : "M \\\\ Quote \\\""       <sip:maria@elsewhere.example>
  ;
  tag = 5sd
mAx-fORWards: 0069
CALL-ID: spaces.9@192.0.2.1
cSeq: 0012
  INVITE
Via  : SIP  /   2.0
 /UDP
    {PEER};branch=77kq
s :
OddHeader: ,;;,,;;;,
Content-Length   : 0
"""

# The name that the RFC gives each case, our own message for it, and the status it is answered with; None is silence.
CASES: dict[str, tuple[bytes, int | None]] = {
    "wsinv": (wire(FOLDED), 403),
    "intmeth": (message(f"{STRANGE} sip:0_odd.User~(or-not!)&can't+it$/really?,/;;*@example.com SIP/2.0"), 407),
    "esc01": (message("INVITE sip:sips%3Abob%40example.com@example.net SIP/2.0"), 407),
    "escnull": (register("Contact: <sip:%00@a.example>", To="<sip:no-%00-thing@example.com>"), 401),
    "esc02": (message("RE%47IST%45R sip:registrar.example.com SIP/2.0", "C%6Fntact: <sip:a@b>"), 407),
    "lwsdisp": (options(From="carol<sip:carol@example.com>;tag=3"), 407),
    "longreq": (message(INVITE, f"X-{LONG}: {LONG}", *["v: SIP/2.0/TCP h"] * 33, To=f'"{LONG}" <sip:b@c>'), 407),
    "dblreq": (register("Content-Length: 0", body=message(INVITE)), 401),
    "semiuri": (message("OPTIONS sip:bob;par=x%40example.net@example.com SIP/2.0"), 407),
    "transports": (options(*(f"Via: SIP/2.0/{each} a.example" for each in ("SCTP", "TLS", "UNKNOWN"))), 407),
    "mpart01": (message("MESSAGE sip:kim@example.com SIP/2.0", "Content-Type: multipart/mixed", body=b"\0"), 407),
    "unreason": (response("SIP/2.0 200 = 2**3 * 5**2 но сто"), None),
    "noreason": (response("SIP/2.0 100 "), None),
    "badinv01": (message(INVITE, Via=f"SIP/2.0/UDP {PEER};;,;,,"), 400),
    "clerr": (message(INVITE, "Content-Length: 9999", body=SDP), 400),
    "ncl": (message(INVITE, "Content-Length: -999", body=SDP), 400),
    "scalar02": (register(CSeq="36893488147419103232 REGISTER"), 400),
    "scalarlg": (response("SIP/2.0 503 No", cseq="9292394834772304023312 OPTIONS"), None),
    "quotbal": (message(INVITE, To='"Mr. B. User <sip:bob@example.com>'), 400),
    "ltgtruri": (message("INVITE <sip:bob@example.com> SIP/2.0"), 400),
    "lwsruri": (message("INVITE sip:bob@example.com; lr SIP/2.0"), 400),
    "lwsstart": (message("INVITE  sip:bob@example.com  SIP/2.0"), 400),
    "trws": (message(f"{OPTIONS}  "), 400),
    "escruri": (message("INVITE sip:bob@example.com?Route=%3Csip:example.com%3E SIP/2.0"), 400),
    "baddate": (message(INVITE, "Date: Sat, 02 Jan 2010 16:00:00 EST"), 407),
    "regbadct": (register("Contact: sip:bob@example.com?Route=%3Csip:sip.example.com%3E"), 401),
    "badaspec": (options(To='"Wong, Tam" < sip:t.wong@example.org >'), 400),
    "baddn": (options(From="Best, Alex <sip:a.best@example.com>;tag=43"), 400),
    "badvers": (message("OPTIONS sip:bob@example.com SIP/7.0", Via=f"SIP/7.0/UDP {PEER}"), 505),
    "mismatch01": (options(CSeq="8 INVITE"), 400),
    "mismatch02": (message("NEWMETHOD sip:bob@example.com SIP/2.0", CSeq="8 INVITE"), 400),
    "bigcode": (response("SIP/2.0 4294967301 still standing"), None),
    "badbranch": (options(Via=f"SIP/2.0/UDP {PEER};branch=z9hG4bK"), 407),
    "insuf": (message(INVITE, Call_ID=None, From=None, To=None), 400),
    "unkscm": (message("OPTIONS schemeNobodyKnows:opaque SIP/2.0"), 416),
    "novelsc": (message("OPTIONS soap.beep://192.0.2.9:3002 SIP/2.0"), 416),
    "unksm2": (register("Contact: <name:Jane_Smith>", To="isbn:2983792873", From="<http://a.example>;tag=3"), 404),
    "bext01": (options("Require: nothingHasThis", "Proxy-Require: noProxyHas, This"), 420),
    "invut": (message(INVITE, "Content-Type: application/unheardof", body=b"<audio/>"), 407),
    "regaut01": (register("Authorization: NobodyKnowsThis opaque-data=here"), 401),
    "multi01": (message(INVITE, "CSeq: 8 INVITE", "Call-ID: x", "From: <sip:a@b>", "To: <sip:c@d>"), 400),
    "mcl01": (options("Content-Length: 13", "Content-Length: 5", body=b"How long is this?"), 400),
    "bcast": (response("SIP/2.0 200 OK", "Via: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK1s"), None),
    "zeromf": (message(INVITE, Max_Forwards="0"), 483),
    "cparam01": (register("Contact: sip:+19725550100@gw1.example.net;odd"), 401),
    "cparam02": (register("Contact: <sip:+19725550100@gw1.example.net;odd>"), 401),
    "regescrt": (register("M: <sip:bob@example.com?Route=%3Csip:sip.example.com%3E>"), 401),
    "sdp01": (message(INVITE, "Accept: text/unheardof", body=SDP), 407),
    "inv2543": (message(INVITE, From="<sip:+13035550111@client.example.net>", Via=f"SIP/2.0/UDP {PEER}"), 403),
}  # fmt: skip

# The RFC's own messages, and the status each gets from a registrar and proxy of example.com that knows nobody.
EXACT: dict[str, int | None] = {
    "badaspec": 400, "badbranch": 403, "baddate": 403, "baddn": 400, "badinv01": 400, "badvers": 505, "bcast": None,
    "bext01": 420, "bigcode": None, "clerr": 400, "cparam01": 401, "cparam02": 401, "dblreq": 401, "esc01": 403,
    "esc02": 407, "escnull": 401, "escruri": 400, "insuf": 400, "intmeth": 407, "inv2543": 403, "invut": 403,
    "longreq": 403, "ltgtruri": 400, "lwsdisp": 407, "lwsruri": 400, "lwsstart": 400, "mcl01": 400, "mismatch01": 400,
    "mismatch02": 400, "mpart01": 407, "multi01": 400, "ncl": 400, "noreason": None, "novelsc": 416, "quotbal": 400,
    "regaut01": 401, "regbadct": 401, "regescrt": 401, "scalar02": 400, "scalarlg": None, "sdp01": 403, "semiuri": 403,
    "test": None, "transports": 407, "trws": 400, "unkscm": 416, "unksm2": 404, "unreason": None, "wsinv": 403,
    "zeromf": 200,
}  # fmt: skip
# On a stream a head without its blank line, or a body that is too short, is one of which the rest has not come yet;
# and without a Content-Length nobody can tell where the message ends (RFC 3261 §18.3).
OVER_TCP = EXACT | {"baddn": None, "clerr": None, "inv2543": 400}


class Peer:
    """Sends bytes to the server and sees what it says to them."""

    def __init__(self, server: ListeningServer, stack: ExitStack) -> None:
        self.address = ("127.0.0.1", server.port)
        self._seen: set[bytes] = set()
        """Refusals of INVITEs are repeated, since nobody acknowledges them here."""
        self._sockets = [stack.enter_context(closing(self._bound(port))) for port in PORTS]

    @staticmethod
    def _bound(port: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((PEER, port))
        return sock

    def over_udp(self, data: bytes) -> list[int]:
        """The final statuses that came for this datagram until an OPTIONS sent after it was answered."""
        probe = f"probe{next(_branches)}"
        self._sockets[0].sendto(data, self.address)
        self._sockets[0].sendto(self._probe(probe), self.address)
        found: list[int] = []
        while True:
            ready, _, _ = select.select(self._sockets, [], [], PATIENCE)
            assert ready, "the server does not answer any more"
            # What was sent first arrives first, whatever port it was sent to: the probe's own port comes last.
            for sock in sorted(ready, key=self._sockets.index, reverse=True):
                received = sock.recv(65_535)
                answer = parse(received)
                assert isinstance(answer, Response)
                if answer.header("call-id") == probe:
                    return found
                if received not in self._seen:
                    found.append(answer.status)
                self._seen.add(received)

    def over_tcp(self, data: bytes, *, size: int) -> list[int]:
        """The statuses that came over a connection on which these bytes were sent in pieces of this size."""
        with socket.create_connection(self.address, PATIENCE) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for start in range(0, len(data), size):
                    sock.sendall(data[start : start + size])
                sock.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError, OSError):
                # The server has said what it thinks of the beginning, and hung up.
                pass
            received = b""
            try:
                while piece := sock.recv(65_536):
                    received += piece
            except ConnectionResetError:
                pass
        return [int(line.split(b" ")[1]) for line in received.split(b"\r\n") if line.startswith(b"SIP/2.0 ")]

    @staticmethod
    def _probe(call_id: str) -> bytes:
        return options(Call_ID=call_id, Via=f"SIP/2.0/UDP {PEER};branch=z9hG4bK{call_id}")


@pytest.fixture(scope="class")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ListeningServer]:
    folder = tmp_path_factory.mktemp("torture")
    with ListeningServer(folder, domains=("example.com",), config="[tcp]\npartial = 2\n") as server:
        yield server


@pytest.fixture(scope="class")
def peer(server: ListeningServer) -> Iterator[Peer]:
    with ExitStack() as stack:
        yield Peer(server, stack)


@pytest.fixture(scope="class")
def exact() -> dict[str, bytes]:
    if not RFC.is_file():
        pytest.skip("the text of RFC 4475 does not lie beside the repository")
    return appendix_messages(RFC)


def expected(status: int | None) -> list[int]:
    return [] if status is None else [status]


# A class each, and so a server each: the same message once more would find the transaction of the first.
class Survives:
    """Whatever was sent: the server runs, answers, and has no fault of its own in its log."""

    @pytest.fixture(autouse=True)
    def no_fault(self, server: ListeningServer, peer: Peer) -> Iterator[None]:
        """Looked at after each test."""
        yield
        assert peer.over_udp(b"") == []
        assert server.process.poll() is None
        assert not [event for event in server.events if event["event"] == "internal.fault"]


class TestOurOwnMessages(Survives):
    @pytest.mark.parametrize("name", CASES)
    def test_case_is_answered_as_it_has_to_be(self, peer: Peer, name: str) -> None:
        data, status = CASES[name]
        assert peer.over_udp(data) == expected(status)


class TestOverUdp(Survives):
    @pytest.mark.parametrize("name", EXACT)
    def test_exact_message_over_udp(self, peer: Peer, exact: dict[str, bytes], name: str) -> None:
        assert peer.over_udp(exact[name]) == expected(EXACT[name])


class TestOverTcp(Survives):
    @pytest.mark.parametrize("name", EXACT)
    def test_exact_message_over_tcp(self, peer: Peer, exact: dict[str, bytes], name: str) -> None:
        assert peer.over_tcp(exact[name], size=65_536)[:1] == expected(OVER_TCP[name])


class TestOverTcpByteByByte(Survives):
    @pytest.mark.parametrize("name", EXACT)
    def test_exact_message_over_tcp_byte_by_byte(self, peer: Peer, exact: dict[str, bytes], name: str) -> None:
        assert peer.over_tcp(exact[name], size=1)[:1] == expected(OVER_TCP[name])


def test_every_case_of_the_rfc_has_a_message_of_our_own(exact: dict[str, bytes]) -> None:
    assert len(CASES) == 49
    assert set(CASES) == set(EXACT) - {"test"}
    assert sorted(exact) == sorted(EXACT)
