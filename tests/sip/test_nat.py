from __future__ import annotations

import pytest

from sipserver.sip.nat import MACHINE, NAME, NOWHERE, SITE, WORLD, is_behind_nat, scope
from sipserver.sip.uri import Uri


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("0.0.0.0", NOWHERE), ("::", NOWHERE), ("127.0.0.5", MACHINE), ("::1", MACHINE), ("10.1.2.3", SITE),
        ("172.31.0.1", SITE), ("172.32.0.1", WORLD), ("192.168.1.7", SITE), ("169.254.7.7", SITE),
        ("100.64.0.1", SITE), ("fd00::7", SITE), ("fe80::7", SITE), ("192.0.2.7", WORLD), ("2001:db8::7", WORLD),
        ("phone.example.com", NAME), ("1.2.3", NAME),
    ],
)  # fmt: skip
def test_scope_is_from_where_an_address_can_be_reached(host: str, wanted: int) -> None:
    assert scope(host) == wanted


@pytest.mark.parametrize(
    ("contact", "via", "source", "natted"),
    [
        # The truth, and another port than it sends from.
        ("sip:a@192.0.2.7:5060", "192.0.2.7", "192.0.2.7", False),
        # What only its own side can reach.
        ("sip:a@192.168.1.7:5060", "192.168.1.7", "192.0.2.7", True),
        ("sip:a@192.168.1.7:5060", "192.0.2.7", "192.0.2.7", True),
        ("sip:a@127.0.0.1:5060", "10.0.0.1", "10.0.0.1", True),
        ("sip:a@0.0.0.0", "10.0.0.1", "10.0.0.1", True),
        ("sip:a@[fe80::1]", "2001:db8::7", "2001:db8::7", True),
        # Translated between networks of one kind.
        ("sip:a@10.0.0.5", "10.0.0.5", "192.168.1.1", True),
        ("sip:a@127.0.0.5:5070", "127.0.0.5", "127.0.0.6", True),
        # Another device, on purpose.
        ("sip:desk@192.0.2.99", "192.0.2.7", "192.0.2.7", False),
        ("sip:desk@10.0.0.9", "10.0.0.7", "10.0.0.7", False),
        ("sip:a@198.51.100.7", "phone.example.com", "192.0.2.7", False),
        # Names.
        ("sip:a@x8s7.invalid;transport=ws", "x8s7.invalid", "192.0.2.7", False),
        ("sip:a@laptop", "laptop", "192.0.2.7", True),
        ("sip:a@laptop.local", "laptop.local", "192.0.2.7", True),
        ("sip:a@phone.example.com", "phone.example.com", "192.0.2.7", False),
        ("sip:a@phone.example.com", "10.0.0.7", "192.0.2.7", True),
    ],
)  # fmt: skip
def test_who_cannot_be_reached_as_it_says_is_behind_a_nat(contact: str, via: str, source: str, natted: bool) -> None:
    assert is_behind_nat(Uri.parse(contact), via, source) is natted
