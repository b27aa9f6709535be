"""Answers of name servers that were tampered with: read as far as they make sense, or refused, and nothing else.

The one permitted exception is dnspython's own, which includes that a message is no message (ValueError for values out
of range).
"""

from __future__ import annotations

import random

import dns.exception
import dns.message

from sipserver.transport.contract import is_unicast
from sipserver.transport.nameservers import MAX_RECORDS, read_answer
from support.names import NameServer, sip_zone

ZONE = {
    **sip_zone("far.test", ("a.far.test", 5060), ("b.far.test", 5061)), ("a.far.test", "AAAA"): ["2001:db8::1"],
    ("c.test", "CNAME"): ["a.far.test."],
}  # fmt: skip
QUESTIONS = (
    ("far.test", "NAPTR"), ("_sip._udp.far.test", "SRV"), ("a.far.test", "A"), ("c.test", "AAAA"), ("none.test", "A"),
)  # fmt: skip


def tampered(data: bytes, source: random.Random) -> bytes:
    """The same bytes but for some; the number of the message stays."""
    found = bytearray(data)
    for _ in range(source.randint(1, 6)):
        at = source.randrange(2, len(found))
        kind = source.random()
        if kind < 0.6:
            found[at] = source.choice((0, 1, 192, 255, source.randrange(256)))
        elif kind < 0.8 and len(found) > 20:
            del found[at : at + source.randint(1, 4)]
        else:
            found[at:at] = source.randbytes(source.randint(1, 8))
    return bytes(found)


def test_tampered_answers_are_read_or_refused() -> None:
    server, source, read = NameServer(ZONE), random.Random(3263), 0
    answers = []
    for name, kind in QUESTIONS:
        query = dns.message.make_query(name, kind, use_edns=0)
        answers.append((query, kind, server.answer(query.to_wire(), "udp").to_wire()))
    for _ in range(1_500):
        query, kind, wire = source.choice(answers)
        try:
            message = dns.message.from_wire(tampered(wire, source), ignore_trailing=True, raise_on_truncation=False)
            if not query.is_response(message):
                continue
            answer = read_answer(message, kind)
        except (dns.exception.DNSException, ValueError):
            continue
        read += 1
        if answer is not None:
            records = answer.records
            assert max(len(records.naptr), len(records.srv), len(records.addresses)) <= MAX_RECORDS
            assert all(map(is_unicast, records.addresses))
    assert read > 50
