"""A small name server for tests: records from a dictionary, over UDP and TCP on one port of loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Zone = dict[tuple[str, str], Sequence[str]]
"""By name and type the records as they stand in a zone file."""

SOA = "ns.test. host.test. 1 3600 600 86400 30"


class NameServer:
    """Answers from a zone; use with ``with``. ``asked`` lists the questions."""

    def __init__(self, zone: Mapping[tuple[str, str], Sequence[str]] | None = None, *, ttl: int = 300) -> None:
        self.zone: Zone = dict(zone or {})
        self.ttl = ttl
        self.silent = False
        """Whether questions go unanswered."""
        self.truncates = False
        """Whether answers over UDP are cut short."""
        self.rcode = dns.rcode.NOERROR
        """What every question is answered where it is not NOERROR."""
        self.forged: list[bytes] = []
        """Datagrams that are sent before each answer."""
        self.asked: list[tuple[str, str, str]] = []
        """Name, type and transport."""

    def __enter__(self) -> Self:
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._tcp.getsockname()[1])
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Whoever waits for a datagram or a connection is woken by one.
        self._closing = True
        with suppress(OSError):
            self._udp.sendto(b"", ("127.0.0.1", self.port))
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        for thread in self._threads:
            thread.join(5)
        self._udp.close()
        self._tcp.close()

    _closing = False

    @property
    def server(self) -> tuple[str, int]:
        """Where it is."""
        return "127.0.0.1", self.port

    @property
    def config(self) -> str:
        """The section that makes a server of ours ask here."""
        return f'[dns]\nservers = ["127.0.0.1:{self.port}"]\n'

    def answer(self, data: bytes, transport: str) -> dns.message.Message:
        """The response to a query."""
        query = dns.message.from_wire(data)
        (question,) = query.question
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind, transport))
        response = dns.message.make_response(query, recursion_available=True)
        response.set_rcode(self.rcode)
        if self.truncates and transport == "udp":
            response.flags |= dns.flags.TC
            return response
        self._fill(response, name, kind)
        return response

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        for _ in range(30):
            records = self.zone.get((name, kind))
            alias = self.zone.get((name, "CNAME"))
            owner = dns.name.from_text(name)
            if records is not None:
                response.answer.append(dns.rrset.from_text_list(owner, self.ttl, "IN", kind, list(records)))
                return
            if alias is None:
                break
            response.answer.append(dns.rrset.from_text_list(owner, self.ttl, "IN", "CNAME", list(alias)))
            name = alias[0].removesuffix(".")
        response.authority.append(dns.rrset.from_text("test.", 900, "IN", "SOA", SOA))
        if not any(known == name for known, _ in self.zone):
            response.set_rcode(dns.rcode.NXDOMAIN if self.rcode == dns.rcode.NOERROR else self.rcode)

    def _serve_udp(self) -> None:
        while True:
            data, peer = self._udp.recvfrom(65_535)
            if self._closing:
                return
            answer = self.answer(data, "udp").to_wire(max_size=65_535)
            for forged in self.forged:
                self._udp.sendto(forged or data, peer)
            if not self.silent:
                self._udp.sendto(answer, peer)

    def _serve_tcp(self) -> None:
        while True:
            connection, _ = self._tcp.accept()
            with connection, suppress(OSError):
                if self._closing:
                    return
                with connection.makefile("rb") as stream:
                    length = int.from_bytes(stream.read(2), "big")
                    query = stream.read(length)
                # Who asked may have gone away before the question was there.
                if query and len(query) == length:
                    answer = self.answer(query, "tcp").to_wire(max_size=65_535)
                    connection.sendall(len(answer).to_bytes(2, "big") + answer)


def sip_zone(
    domain: str, *servers: tuple[str, int], transport: str = "udp", address: str = "127.0.0.1"
) -> dict[tuple[str, str], list[str]]:
    """The records by which a domain is found: its NAPTR, and an SRV of falling preference for each name and port."""
    service = {"udp": "SIP+D2U", "tcp": "SIP+D2T", "tls": "SIPS+D2T"}[transport]
    name = f"{'_sips._tcp' if transport == 'tls' else f'_sip._{transport}'}.{domain}"
    zone = {
        (domain, "NAPTR"): [f'10 50 "s" "{service}" "" {name}.'],
        (name, "SRV"): [f"{number} 10 {port} {host}." for number, (host, port) in enumerate(servers, 1)],
    }
    return zone | {(host, "A"): [address] for host, _ in servers}
