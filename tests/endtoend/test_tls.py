"""TLS with real endpoints and real sockets: calls, SIPS, certificates that change and that prove who calls, floods."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support import baresip
from support.baresip import Baresip
from support.certificates import Authority
from support.endpoint import Endpoint
from support.listening import ListeningServer
from support.ports import free_port
from support.server import DOMAIN, sipserver

USERS = ("alice", "bob", "carol")
FLOOD = 2_000


class TlsServer(ListeningServer):
    """A server with a certificate of its own authority."""

    def __init__(
        self, folder: Path, config: str = "", *, domain: str = DOMAIN, users: tuple[str, ...] = USERS, tls_port: int = 0
    ) -> None:
        folder.mkdir(parents=True)
        self.domain = domain
        self.authority = Authority(folder)
        self.tls_port = tls_port or free_port()
        self.renew()
        tls = '[tls]\ncertificate = "server.pem"\nkey = "server.key"\n'
        listen = ("udp:127.0.0.1:{port}", "tcp:127.0.0.1:{port}", f"tls:127.0.0.1:{self.tls_port}")
        super().__init__(folder, users, config=f"{tls}{config}", domains=(domain,), listen=listen)

    def renew(self) -> None:
        """Make a new certificate."""
        self.authority.issue(self.domain, "127.0.0.1", into="server")

    def endpoint(self, *, scheme: str = "sip", context: ssl.SSLContext | None = None) -> Endpoint:
        """One over TLS that verifies the server."""
        context = context or self.authority.client()
        return Endpoint(self.tls_port, transport="TLS", security=context, scheme=scheme)

    def serial_shown(self) -> object:
        """Of the certificate that a new connection sees."""
        with (
            socket.create_connection(("127.0.0.1", self.tls_port), 10) as plain,
            self.authority.client().wrap_socket(plain, server_hostname=DOMAIN) as secure,
        ):
            secure.sendall(b"\r\n\r\n")
            assert secure.recv(2) == b"\r\n"
            return (secure.getpeercert() or {})["serialNumber"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TlsServer]:
    with TlsServer(tmp_path / "server") as made:
        yield made


@pytest.mark.skipif(bool(baresip.why_not()), reason=baresip.why_not())
def test_baresip_calls_over_tls_while_the_certificate_changes(server: TlsServer, tmp_path: Path) -> None:
    with ExitStack() as stack:

        def start(user: str, transport: str) -> Baresip:
            port = server.tls_port if transport == "tls" else server.port
            # Without video an INVITE is small enough for UDP.
            return stack.enter_context(
                Baresip(tmp_path, user, port, transport=transport, video=False, authority=server.authority.file)
            )

        alice, bob, carol = start("alice", "tls"), start("bob", "udp"), start("carol", "tls")
        before = server.serial_shown()
        alice.dial(bob.address)
        alice.wait("CALL_ESTABLISHED")
        server.renew()
        deadline = time.monotonic() + 10
        while server.serial_shown() == before:
            assert time.monotonic() < deadline, server.log_text
            time.sleep(0.1)
        # The connection that the call is on is the one that it was.
        bob.hang_up()
        alice.wait("CALL_CLOSED")
        bob.wait("CALL_CLOSED")
        bob.dial(alice.address)
        bob.wait("CALL_ESTABLISHED", count=2)
        bob.hang_up()
        alice.wait("CALL_CLOSED", count=2)
        carol.dial(alice.address)
        carol.wait("CALL_ESTABLISHED")
        alice.hang_up()
        carol.wait("CALL_CLOSED")
        rows = server.ended_calls(3)
    assert [(row["caller_transport"], row["callee_transport"]) for row in rows] == [
        ("TLS", "UDP"), ("UDP", "TLS"), ("TLS", "TLS")
    ]  # fmt: skip
    assert [(row["outcome"], row["ended_by"], row["end_cause"]) for row in rows] == [
        ("answered", "callee", "bye"), ("answered", "caller", "bye"), ("answered", "callee", "bye"),
    ]  # fmt: skip
    assert server.rows("SELECT * FROM errors") == []


async def test_sips_call_goes_over_tls_from_end_to_end(server: TlsServer) -> None:
    async with (
        server.endpoint(scheme="sips") as alice,
        server.endpoint(scheme="sips") as carol,
        Endpoint(server.port) as bob,
        Endpoint(server.port, transport="TCP", scheme="sips") as weak,
    ):
        for phone, user in ((alice, "alice"), (carol, "carol"), (bob, "bob")):
            assert (await phone.register(user)).status == 200
        assert (await weak.register("bob")).status == 403
        final, dialog = await alice.invite("alice", "carol")
        assert final.status == 200
        assert dialog.routes
        assert all(route.startswith(f"<sips:127.0.0.1:{server.tls_port};lr") for route in dialog.routes)
        assert (await alice.bye(dialog)).status == 200
        assert [each.method for each in carol.received] == ["INVITE", "ACK", "BYE"]
        assert all(each.uri_text.startswith("sips:carol@") for each in carol.received)
        final, _ = await alice.invite("alice", "bob")
        assert final.status == 480
        assert bob.received == []
    rows = server.ended_calls(2)
    assert [(row["outcome"], row["caller_transport"], row["callee_transport"]) for row in rows] == [
        ("answered", "TLS", "TLS"), ("offline", "TLS", None)
    ]  # fmt: skip


async def test_servers_prove_to_each_other_who_they_are(tmp_path: Path) -> None:
    port = free_port()
    near_config = (
        'ca = "../far/authority.pem"\n[proxy]\noutbound = true\nroutes = [\n'
        f'  {{ domain = "far.test", to = "sip:127.0.0.1:{port};transport=tls" }},\n'
        # Whoever is there is not who was asked for.
        f'  {{ domain = "wrong.test", to = "sips:localhost:{port}" }},\n]\n'
    )
    far_config = (
        'clients = "optional"\nclient_ca = "../near/authority.pem"\n'
        f'[proxy]\nnamed_peers = [{{ name = "near", certificates = ["{DOMAIN}"] }}]\n'
    )
    far = TlsServer(tmp_path / "far", far_config, domain="far.test", users=(), tls_port=port)
    sipserver("subscribers", "add", "bob@far.test", "--password-stdin", "--data-dir", far.data_dir, text="pwbob\n")
    with TlsServer(tmp_path / "near", near_config) as near, far:
        async with near.endpoint() as alice, Endpoint(far.port, domain="far.test") as bob:
            assert (await bob.register("bob")).status == 200
            final, dialog = await alice.invite("alice", "bob@far.test")
            assert final.status == 200
            assert (await alice.bye(dialog)).status == 200
            final, _ = await alice.invite("alice", "bob@wrong.test")
            assert final.status >= 400
            # Nobody else is let in, whatever else their certificate says.
            assert [await stranger(far, near, name) for name in ("*.test", "sip.example.test", None)] == [403] * 3
        rows = [*near.ended_calls(2), *far.ended_calls(4)[:1]]
        assert [(row["outcome"], row["caller_transport"], row["callee_transport"]) for row in rows] == [
            ("answered", "TLS", "TLS"), (rows[1]["outcome"], "TLS", None), ("answered", "TLS", "UDP")
        ]  # fmt: skip
        found = {row["kind"]: row["detail"] for row in near.rows("SELECT kind, detail FROM errors")}
        assert found["tls_handshake"] == "certificate is for another name"
        assert "unreachable" in found
        assert {row["kind"] for row in far.rows("SELECT kind FROM errors")} <= {"tls_handshake", "refused"}


async def stranger(far: TlsServer, near: TlsServer, name: str | None) -> int:
    """How a call is answered that comes with a certificate for this name."""
    context = far.authority.client()
    if name is not None:
        files = near.authority.issue(name)
        context.load_cert_chain(files.certificate, files.key)
    async with Endpoint(far.tls_port, domain="far.test", transport="TLS", security=context) as eve:
        lines = [f"From: <sip:eve@{DOMAIN}>;tag=1", "To: <sip:bob@far.test>", f"Call-ID: c-{name}"]
        lines.append(f"Contact: {eve.contact('eve')}")
        return (await eve.request("INVITE", "sip:bob@far.test", lines)).status


async def test_thousands_of_half_open_handshakes_are_nothing_to_others(server: TlsServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < FLOOD + 500:
        pytest.skip(f"a process may open {hard} files here, which is too few for the flood")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FLOOD + 500), hard))
    silent: list[socket.socket] = []
    try:
        began = time.monotonic()
        await talk(server)
        quiet = time.monotonic() - began
        for number in range(FLOOD):
            # From fifty addresses; every other one says as much of a handshake as it takes to be taken for one.
            each = socket.create_connection(("127.0.0.1", server.tls_port), 10, (f"127.0.1.{number % 50 + 1}", 0))
            silent.append(each)
            if number % 2:
                each.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        began = time.monotonic()
        await talk(server)
        assert time.monotonic() - began < max(10 * quiet, 2.0)
        (row,) = server.wait_for_rows(
            "SELECT kind, sum(count) AS count FROM errors WHERE kind = 'tls_handshake' GROUP BY kind",
            lambda rows: bool(rows) and rows[0]["count"] >= FLOOD - 1_000,
        )
        assert row["kind"] == "tls_handshake"
        assert len(server.rows("SELECT id FROM errors WHERE kind = 'tls_handshake'")) < 20
    finally:
        for each in silent:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def talk(server: TlsServer) -> None:
    """Two endpoints register, and call each other in both directions."""
    async with server.endpoint() as alice, Endpoint(server.port) as bob:
        await asyncio.gather(alice.register("alice"), bob.register("bob"))
        for caller, callee, one in (("alice", "bob", alice), ("bob", "alice", bob)):
            final, dialog = await one.invite(caller, callee)
            assert final.status == 200
            assert (await one.bye(dialog)).status == 200
