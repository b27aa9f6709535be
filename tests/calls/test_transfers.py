"""Which call came of which."""

from __future__ import annotations

import pytest

from sipserver.calls import transfers
from sipserver.calls.transfers import Link, Replaces, Transfers, parse_replaces
from sipserver.sip.message import Request
from support.pen import DOMAIN
from support.sip import request, written

T = 1_000_000
CAROL = f"carol@{DOMAIN}"


def refer(refer_to: str = f"<sip:{CAROL}>", *lines: str, number: int = 7) -> Request:
    return request(written(f"REFER sip:bob@{DOMAIN} SIP/2.0", f"Refer-To: {refer_to}", *lines, CSeq=f"{number} REFER"))


def invite(*lines: str, uri: str = f"sip:{CAROL}") -> Request:
    return request(written(f"INVITE {uri} SIP/2.0", *lines))


def referred(*, accepted: bool = True, message: Request | None = None, at: int = T) -> Transfers:
    """Alice's endpoint has sent bob's a REFER to carol inside the call ``first``."""
    made = Transfers()
    made.referred("k", "caller", message or refer(), "first", "p_bob", at)
    if accepted:
        assert made.accepted("k", "caller", 7) == (None, message is not None and "Replaces" in str(message.lines))
    return made


def test_transfer() -> None:
    made = referred()
    assert made.placed(invite(), "second", "p_bob", CAROL, None, T + 500) == Link("first", "second", "transfer")
    assert len(made) == 0


def test_transfer_whose_invite_overtakes_the_answer() -> None:
    made = referred(accepted=False)
    assert made.placed(invite(), "second", "p_bob", CAROL, None, T + 500) is None
    # Another call to the same address has nothing to do with it.
    assert made.placed(invite(), "third", "p_bob", CAROL, None, T + 600) is None
    assert made.accepted("k", "caller", 7) == (Link("first", "second", "transfer"), False)
    assert len(made) == 0


def test_two_that_are_sent_to_one_address_at_once_are_told_apart() -> None:
    made = referred()
    made.referred("l", "callee", refer(), "other", "p_dave", T + 100)
    made.accepted("l", "callee", 7)
    assert made.placed(invite(), "second", "p_bob", CAROL, None, T + 500) == Link("first", "second", "transfer")
    assert made.placed(invite(), "third", "p_dave", CAROL, None, T + 600) == Link("other", "third", "transfer")
    assert len(made) == 0


def test_of_two_that_ask_for_the_same_the_named_one_counts_and_then_the_accepted_one() -> None:
    made = referred(message=refer(f"<sip:{CAROL}>", f"Referred-By: <sip:alice@{DOMAIN}>"))
    by_dave = f"Referred-By: <sip:dave@{DOMAIN}>"
    made.referred("l", "callee", refer(f"<sip:{CAROL}>", by_dave), "other", "p_bob", T + 100)
    assert made.placed(invite(), "second", "p_bob", CAROL, None, T + 500) == Link("first", "second", "transfer")
    assert made.placed(invite(by_dave), "third", "p_bob", CAROL, None, T + 600) is None
    assert made.accepted("l", "callee", 7) == (Link("other", "third", "transfer"), False)
    assert len(made) == 0


def test_refer_that_comes_again_with_its_number_takes_the_place_of_the_first() -> None:
    made = referred(accepted=False)
    made.referred("k", "caller", refer(), "first", "p_bob", T + 100)
    assert len(made) == 1
    made.accepted("k", "caller", 7)
    assert made.placed(invite(), "second", "p_bob", CAROL, None, T + 500) == Link("first", "second", "transfer")
    assert made.placed(invite(), "third", "p_bob", CAROL, None, T + 600) is None


def test_refer_that_is_not_accepted_links_nothing() -> None:
    made = referred(accepted=False)
    made.placed(invite(), "second", "p_bob", CAROL, None, T + 500)
    assert made.accepted("k", "callee", 7) is None
    assert made.accepted("k", "caller", 8) is None


@pytest.mark.parametrize(
    ("caller", "callee", "uri", "after"),
    [
        ("p_eve", CAROL, f"sip:{CAROL}", 500),
        (None, CAROL, f"sip:{CAROL}", 500),
        ("p_bob", f"dave@{DOMAIN}", f"sip:dave@{DOMAIN}", 500),
        ("p_bob", CAROL, f"sip:{CAROL}", transfers.WINDOW_MS + 1),
    ],
)
def test_call_that_the_refer_did_not_ask_for(caller: str | None, callee: str, uri: str, after: int) -> None:
    assert referred().placed(invite(uri=uri), "second", caller, callee, None, T + after) is None


def test_target_may_be_known_by_the_request_uri_only() -> None:
    made = referred(message=refer("<sip:carol@192.0.2.9:5070>"))
    found = made.placed(invite(uri="sip:carol@192.0.2.9:5070"), "second", "p_bob", CAROL, None, T)
    assert found == Link("first", "second", "transfer")


def test_stranger_is_known_by_referred_by() -> None:
    made = referred(message=refer(f"<sip:{CAROL}>", f"Referred-By: <sip:alice@{DOMAIN}>"))
    assert made.placed(invite(f"Referred-By: <sip:eve@{DOMAIN}>"), "second", None, CAROL, None, T) is None
    assert made.placed(invite("Referred-By: nonsense"), "second", None, CAROL, None, T) is None
    found = made.placed(invite(f"Referred-By: <sip:alice@{DOMAIN}>"), "second", None, CAROL, None, T)
    assert found == Link("first", "second", "transfer")


def test_attended_transfer() -> None:
    made = referred(message=refer("<sip:carol@192.0.2.9?Replaces=other%40host%3Bto-tag%3D1%3Bfrom-tag%3D2>"))
    assert made.placed(invite(), "second", "p_bob", CAROL, None, T) is None
    found = made.placed(invite(), "second", "p_bob", CAROL, Replaces("other@host", "1", "2"), T)
    assert found == Link("first", "second", "attended_transfer")


@pytest.mark.parametrize(
    "refer_to", ["", "nonsense", "<mailto:a@b>", f"<sip:{CAROL};method=BYE>", "<sip:a@b?Replaces=x", "<sip:%zz@b>"]
)
def test_refer_to_that_asks_for_no_call(refer_to: str) -> None:
    made = Transfers()
    made.referred("k", "caller", refer(refer_to), "first", "p_bob", T)
    assert len(made) == 0


def test_request_uri_without_an_address_is_no_target() -> None:
    assert referred().placed(invite(uri="urn:x:y"), "second", "p_bob", None, None, T) is None


def test_memory_is_bounded_in_number_and_time() -> None:
    made = Transfers()
    for number in range(transfers.MAX_WAITING + 10):
        made.referred("k", "caller", refer(f"<sip:{number}@{DOMAIN}>", number=number + 1), "first", "p_bob", T)
    assert len(made) == transfers.MAX_WAITING
    made.referred("k", "caller", refer(number=9_999), "first", "p_bob", T + transfers.WINDOW_MS + 1)
    assert len(made) == 1
    for number in range(transfers.MAX_WAITING + 10):
        made.may_replace(f"new{number}", "old")
    assert len(made) == 1 + transfers.MAX_WAITING


def test_two_refers_to_one_target_the_later_counts() -> None:
    made = referred()
    made.referred("k2", "callee", refer(number=8), "other", "p_bob", T + 100)
    made.accepted("k2", "callee", 8)
    assert made.placed(invite(), "second", "p_bob", CAROL, None, T + 200) == Link("other", "second", "transfer")
    assert len(made) == 1


def test_call_that_replaces_another_one_does_so_when_it_is_answered() -> None:
    made = Transfers()
    made.may_replace("new", "old")
    assert made.waits
    assert made.answered("new") == Link("old", "new", "replaced")
    assert made.answered("new") is None


def test_call_that_was_not_answered_has_replaced_nothing() -> None:
    made = Transfers()
    made.may_replace("new", "old")
    made.over("new")
    assert made.answered("new") is None
    assert len(made) == 0


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a@b;to-tag=1;from-tag=2", Replaces("a@b", "1", "2")),
        ("a@b ; from-tag=2;early-only;to-tag=1", Replaces("a@b", "1", "2")),
        ("a@b", None),
        ("a@b;to-tag=1", None),
        (";to-tag=1;from-tag=2", None),
        ("a@b;to-tag=1;to-tag=2;from-tag=3", None),
    ],
)
def test_replaces(value: str, found: Replaces | None) -> None:
    assert parse_replaces(value) == found


def test_other_headers_of_a_refer_to_say_nothing() -> None:
    made = referred(accepted=False, message=refer(f"<sip:{CAROL}?Subject=x&accept-contact=y>"))
    made.placed(invite(), "second", "p_bob", CAROL, None, T)
    assert made.accepted("k", "caller", 7) == (Link("first", "second", "transfer"), False)
