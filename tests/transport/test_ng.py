from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.transport.ng import NgError, NgSocket, ask_once, decode, decode_answer, encode

VALUES = st.recursive(
    st.integers(-(10**9), 10**9) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc-", max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_encoded_is_decoded(value: object) -> None:
    assert decode(encode(value)) == value


def test_a_command_is_written_as_the_protocol_has_it() -> None:
    command = {"command": "offer", "replace": ["origin"], "delete-delay": 0}
    assert encode(command) == b"d7:command5:offer7:replacel6:origine12:delete-delayi0ee"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", b"i1", b"ie", b"i--1e", b"i" + b"9" * 30 + b"e", b"5:abc", b"-1:a", b"l", b"d1:a", b"di1e1:ae",
        b"d1:ae", b"i1ei2e", b"l" * 40 + b"e" * 40, b"99999999999:a",
    ],
)  # fmt: skip
def test_bytes_that_are_no_value_are_refused(data: bytes) -> None:
    with pytest.raises(NgError):
        decode(data)


@given(st.binary(max_size=60))
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(NgError):
        decode(data)


@pytest.mark.parametrize("data", [b"abc", b" de" + b"x", b"c 1:a", b"c" * 70 + b" de"])
def test_datagram_without_cookie_or_dictionary_is_refused(data: bytes) -> None:
    with pytest.raises(NgError):
        decode_answer(data)


async def test_only_the_relay_is_heard() -> None:
    loop = asyncio.get_running_loop()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        for each in (relay, stranger):
            each.bind(("127.0.0.1", 0))
            each.settimeout(5)
        line = NgSocket("127.0.0.1", relay.getsockname()[1])
        assert not line.send(b"too early")
        heard: list[bytes] = []
        ended = asyncio.Event()
        line.open(loop, heard.append, ended.set)
        assert line.send(b"1 de")
        _, address = relay.recvfrom(100)
        stranger.sendto(b"1 stranger", address)
        relay.sendto(b"1 relay", address)
        while not heard:
            await asyncio.wait_for(ended.wait(), 5)
            ended.clear()
        assert heard == [b"1 relay"]
        line.close()


async def test_a_command_of_the_moment_is_answered_or_given_up() -> None:
    class Answering(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(data.partition(b" ")[0] + b" " + encode({"result": "pong"}), addr)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Answering, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    assert await asyncio.to_thread(ask_once, "127.0.0.1", port, {"command": "ping"}, 5.0) == {"result": b"pong"}
    transport.close()
    await asyncio.sleep(0)
    assert await asyncio.to_thread(ask_once, "127.0.0.1", port, {"command": "ping"}, 0.05) is None
