"""Endpoints behind NATs that translate ports, in network namespaces of their own."""

from __future__ import annotations

import socket

from support.nat import SERVER, Network


def test_nat_of_the_tests_translates_ports() -> None:
    with Network() as network:
        home = network.host("home")
        with network.wan.entered():
            outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with home.entered():
            inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with outside, inside:
            outside.bind((SERVER, 5060))
            inside.bind((home.address, 5060))
            outside.settimeout(5)
            inside.settimeout(5)
            inside.sendto(b"out", (SERVER, 5060))
            data, source = outside.recvfrom(100)
            assert (data, source[0]) == (b"out", home.public)
            assert source[1] != 5060
            outside.sendto(b"in", source)
            assert inside.recvfrom(100)[0] == b"in"
