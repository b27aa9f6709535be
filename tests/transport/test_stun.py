from __future__ import annotations

import ipaddress
import struct

import pytest

from sipserver.transport.stun import COOKIE, answer

TRANSACTION = bytes(range(12))


def request(*attributes: tuple[int, bytes], kind: int = 1, cookie: int = COOKIE, length: int | None = None) -> bytes:
    body = b"".join(struct.pack("!HH", at, len(value)) + value + bytes(-len(value) % 4) for at, value in attributes)
    return struct.pack("!HHI", kind, len(body) if length is None else length, cookie) + TRANSACTION + body


def attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 20
    while at < len(data):
        kind, length = struct.unpack_from("!HH", data, at)
        found[kind] = data[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
    assert at == len(data) == 20 + struct.unpack_from("!H", data, 2)[0]
    return found


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 32853), ("2001:db8:1234:5678:11:2233:4455:6677", 32853)])
def test_binding_request_is_answered_with_its_source(host: str, port: int) -> None:
    data = answer(request(), host, port)
    assert data is not None
    assert (data[:2], data[4:8], data[8:20]) == (b"\x01\x01", COOKIE.to_bytes(4, "big"), TRANSACTION)
    ((kind, value),) = attributes(data).items()
    packed = ipaddress.ip_address(host).packed
    mask = COOKIE.to_bytes(4, "big") + TRANSACTION
    assert kind == 0x0020
    assert value[:2] == bytes((0, 2 if ":" in host else 1))
    assert int.from_bytes(value[2:4], "big") ^ (COOKIE >> 16) == port
    assert bytes(one ^ two for one, two in zip(value[4:], mask, strict=False)) == packed


def test_the_rfcs_own_example() -> None:
    # RFC 5769 §2.2: 192.0.2.1:32853 with this transaction.
    transaction = bytes.fromhex("b7e7a701bc34d686fa87dfae")
    data = answer(request()[:8] + transaction, "192.0.2.1", 32853)
    assert data is not None
    assert attributes(data)[0x20] == bytes.fromhex("0001a147e112a643")


def test_attributes_that_may_be_ignored_are() -> None:
    data = answer(request((0x8022, b"some client"), (0x0006, b"user"), (0x8028, b"crc!")), "192.0.2.1", 5060)
    assert data is not None
    assert data[:2] == b"\x01\x01"


def test_attributes_that_would_have_to_be_understood_are_named() -> None:
    data = answer(request(*[(kind, b"") for kind in (3, 4, 5, 0x7000, 0x7001)]), "192.0.2.1", 5060)
    assert data is not None
    assert data[:2] == b"\x01\x11"
    found = attributes(data)
    assert found[0x0009][:4] == bytes((0, 0, 4, 20))
    assert found[0x000A] == bytes.fromhex("0003000400057000")
    assert len(data) <= 68


@pytest.mark.parametrize(
    "data",
    [
        b"", request()[:19], request(kind=0x0101), request(kind=0x0011), request(kind=2), request(cookie=1),
        request(length=4), request(length=3) + b"abc", request() + b"abcd", request((0x8022, b"abc"))[:-4] + b"",
        struct.pack("!HHI", 1, 4, COOKIE) + TRANSACTION + struct.pack("!HH", 0x8022, 100),
        bytes(20), bytes(100),
    ],
)  # fmt: skip
def test_anything_else_is_not_answered(data: bytes) -> None:
    assert answer(data, "192.0.2.1", 5060) is None
