"""URIs, their equivalence and the address of record."""

from __future__ import annotations

import pytest

from sipserver.sip import grammar
from sipserver.sip.errors import SipError
from sipserver.sip.uri import Uri, aor_uri, canonical_aor, escape_user


def test_every_part_of_a_sip_uri_is_found() -> None:
    uri = Uri.parse("SIPS:alice:s%20t@Example.COM:5071;Transport=TCP;lr?subject=x&priority=urgent")
    assert uri.scheme == "sips"
    assert uri.user == "alice"
    assert uri.password == "s%20t"
    assert uri.host == "example.com"
    assert uri.port == 5071
    assert uri.params == {"transport": "TCP", "lr": None}
    assert uri.headers == "subject=x&priority=urgent"
    assert uri.transport == "tcp"
    assert uri.hostport == "example.com:5071"
    assert uri.is_sip


def test_a_host_alone_is_a_uri() -> None:
    uri = Uri.parse("sip:example.com")
    assert (uri.user, uri.password, uri.port, uri.transport) == (None, None, None, None)
    assert uri.hostport == "example.com"


def test_text_is_kept_as_written() -> None:
    written = "SIP:%61lice@EXAMPLE.com;A=b"
    assert str(Uri.parse(written)) == written
    assert written in repr(Uri.parse(written))


def test_ipv6_host_loses_its_brackets_and_gets_them_back() -> None:
    uri = Uri.parse("sip:alice@[2001:DB8::10]:5070")
    assert (uri.host, uri.port) == ("2001:db8::10", 5070)
    assert uri.hostport == "[2001:db8::10]:5070"


def test_user_may_hold_semicolons_and_question_marks() -> None:
    uri = Uri.parse("sip:alice;day=tuesday?x@atlanta.com;lr")
    assert uri.user == "alice;day=tuesday?x"
    assert uri.params == {"lr": None}


def test_hash_passes_in_a_user_only() -> None:
    assert Uri.parse("sip:*97#@example.com").user == "*97#"
    with pytest.raises(SipError):
        Uri.parse("sip:example.com;a=#")


def test_parameters_lose_needless_escapes() -> None:
    uri = Uri.parse("sip:cal%6Cer@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31")
    assert uri.params == {"lr": None, "name": "value%2541"}
    assert grammar.unescape(uri.params["name"] or "") == "value%41"


def test_an_escaped_line_break_never_becomes_one() -> None:
    uri = Uri.parse("sip:a%0D%0A@example.com;x=%0d%0aRoute:%20evil")
    assert uri.params == {"x": "%0D%0ARoute:%20evil"}
    assert uri.aor() == "a%0D%0A@example.com"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sip",
        "sip:",
        "sip:@example.com",
        "sip:a@b@example.com",
        "sip:a@",
        "sip:a b@example.com",
        "sip:a@example.com ",
        "sip:a@example.com:0",
        "sip:a@example.com:65536",
        "sip:a@example.com:",
        "sip:a@example.com;;lr",
        "sip:a@example.com;",
        "sip:a@example.com;lr;LR",
        "sip:a@example.com;=x",
        "sip:a%4@example.com",
        "sip:a%zz@example.com",
        "sip:a@example.com;x=%",
        "sip:a[b]@example.com",
        "sip:a:b:c@example.com",
        "sip:2001:db8::10",
        "sip:é@example.com",
        "sip:a\r\n@example.com",
        "<sip:a@example.com>",
        "1ab:x",
        "ab\x7f:x",
        "http:a b",
        "tel:",
        "tel:+",
        "tel:+1x",
        "tel:7042",
        "tel:7042;phone-context=-bad-",
        "tel:+15550100;a b",
        "tel:+15550100;x=%g",
    ],
)
def test_broken_uri_is_refused(text: str) -> None:
    with pytest.raises(SipError) as caught:
        Uri.parse(text)
    assert (caught.value.status, caught.value.reason) == (400, "Bad URI")


@pytest.mark.parametrize("text", ["http://www.example.com/?a#b", "isbn:2983792873", "soap.beep://192.0.2.103:3002"])
def test_other_schemes_keep_their_text(text: str) -> None:
    uri = Uri.parse(text)
    assert uri.scheme == text.partition(":")[0]
    assert not uri.is_sip
    assert str(uri) == text
    assert uri.host == ""


def test_address_of_record_of_another_scheme_is_answered_416() -> None:
    with pytest.raises(SipError) as caught:
        Uri.parse("http://example.com").aor()
    assert caught.value.status == 416


def test_tel_number_loses_its_visual_separators() -> None:
    uri = Uri.parse("tel:+1-(555).010-0;ext=2")
    assert uri.user == "+15550100"
    assert uri.params == {"ext": "2"}
    assert uri.aor() == "+15550100"
    assert not uri.is_sip


def test_local_tel_number_belongs_to_its_context() -> None:
    assert Uri.parse("tel:70-42;phone-context=Example.com.").aor() == "7042@example.com"
    assert Uri.parse("tel:7042;phone-context=+1-555").aor() == "7042@+1555"


def test_make_writes_what_parse_reads() -> None:
    uri = Uri.make("sip", "alice", "2001:db8::1", 5070, {"transport": "tcp", "lr": None})
    assert str(uri) == "sip:alice@[2001:db8::1]:5070;transport=tcp;lr"
    assert str(Uri.make("sip", None, "example.com")) == "sip:example.com"


@pytest.mark.parametrize(
    ("uri", "aor"),
    [
        ("sip:alice@Example.COM", "alice@example.com"),
        ("sips:Alice:pw@example.com.:5061;user=phone?a=b", "Alice@example.com"),
        ("sip:%61lice@example.com", "alice@example.com"),
        ("sip:example.com.", "example.com"),
        ("sip:null-%00-null@example.com", "null-%00-null@example.com"),
        ("sip:sips%3auser%40example.com@example.net", "sips%3Auser%40example.com@example.net"),
        ("sip:I%20have@example.net", "I%20have@example.net"),
        ("sip:%C3%A9@example.com", "é@example.com"),
        ("sip:%ff%e9@example.com", "%FF%E9@example.com"),
        ("sip:a%E2%80%AEb@example.com", "a%E2%80%AEb@example.com"),
        ("sip:alice@[2001:DB8::0:1]:5060", "alice@[2001:db8::1]"),
        ("sip:a%3Cb@example.com", "a<b@example.com"),
        ("sip:user;par=u%40example.net@example.com", "user;par=u%40example.net@example.com"),
    ],
)
def test_address_of_record_is_canonical(uri: str, aor: str) -> None:
    assert Uri.parse(uri).aor() == aor
    assert canonical_aor(uri) == aor
    assert canonical_aor(aor) == aor
    assert canonical_aor(aor_uri(aor)) == aor


def test_two_users_never_share_an_address_of_record() -> None:
    users = ["a%40b", "a%2540b", "a%253Ab", "a%3Ab", "a%25b", "a%2525b", "a%20b", "a%2520b", "ab"]
    assert len({Uri.parse(f"sip:{user}@example.com").aor() for user in users}) == len(users)


@pytest.mark.parametrize(
    ("text", "aor"),
    [
        (" alice@Example.COM. ", "alice@example.com"),
        ("é@example.com", "é@example.com"),
        ("SIP:alice@example.com;x=y", "alice@example.com"),
        ("tel:+1-555-0100", "+15550100"),
        ("+1-555-0100", "+15550100"),
        ("7042@+1555", "7042@+1555"),
        ("example.com", "example.com"),
        ("alice@[::1]", "alice@[::1]"),
        ("%61lice@example.com", "alice@example.com"),
    ],
)
def test_people_may_write_an_address_in_many_ways(text: str, aor: str) -> None:
    assert canonical_aor(text) == aor
    assert canonical_aor(aor_uri(aor)) == aor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@example.com",
        "a@b@example.com",
        "a:b@example.com",
        "a b@example.com",
        "a\0@example.com",
        "alice@",
        "alice@exa mple.com",
        "alice@exämple.com",
        "alice@example.com:5060",
        "%zz@example.com",
        "sip:",
        "tel:12",
        "http://example.com",
        "7042",
        "\ud800@example.com",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(SipError) as caught:
        canonical_aor(text)
    assert (caught.value.status, caught.value.reason) == (400, "Bad address")


def test_escape_user_keeps_escapes_and_escapes_the_rest() -> None:
    assert escape_user("a%40b<é>#") == "a%40b%3C%C3%A9%3E%23"


EQUIVALENT = [
    ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
    ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
    ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5"),
    (
        "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
        "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
    ),
    (
        "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
        "sip:alice@atlanta.com?priority=urgent&Subject=project%20x",
    ),
    ("sip:a@[2001:db8::0:1]", "sip:a@[2001:DB8::1]"),
    ("sip:a:%70w@example.com", "sip:a:pw@example.com"),
    ("sip:a@example.com;lr", "sip:a@example.com;lr"),
    ("tel:+1-555-0100", "tel:+15550100"),
    ("tel:+15550100;ext=2", "tel:+1-5550100;EXT=2"),
    ("isbn:1", "isbn:1"),
]
DIFFERENT = [
    ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
    ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
    ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
    ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
    ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
    ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
    ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
    ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security"),
    ("sip:carol@chicago.com;security", "sip:carol@chicago.com;security=on"),
    ("sip:a@example.com", "sips:a@example.com"),
    ("sip:a@example.com", "sip:a:pw@example.com"),
    ("sip:a@example.com", "sip:example.com"),
    ("sip:a%3Bb@example.com", "sip:a;b@example.com"),
    ("tel:+15550100", "tel:+15550100;ext=2"),
    ("tel:+15550100", "tel:+15550101"),
    ("isbn:1", "isbn:2"),
    *((f"sip:a@example.com;{name}=x", "sip:a@example.com") for name in ("transport", "user", "ttl", "method", "maddr")),
]


@pytest.mark.parametrize(("one", "two"), EQUIVALENT)
def test_uris_are_equivalent(one: str, two: str) -> None:
    assert Uri.parse(one).equivalent(Uri.parse(two))
    assert Uri.parse(two).equivalent(Uri.parse(one))


@pytest.mark.parametrize(("one", "two"), DIFFERENT)
def test_uris_are_different(one: str, two: str) -> None:
    assert not Uri.parse(one).equivalent(Uri.parse(two))
    assert not Uri.parse(two).equivalent(Uri.parse(one))


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("sip:example.test", 5060), ("sip:example.test;transport=tcp", 5060), ("sip:example.test;transport=TLS", 5061),
        ("sips:example.test", 5061), ("sips:example.test;transport=tcp", 5061), ("sips:example.test:7", 7),
        ("sip:x.invalid;transport=ws", 80), ("sip:x.invalid;transport=wss", 443), ("sips:x.invalid;transport=ws", 443),
    ],
)  # fmt: skip
def test_the_port_that_is_meant_where_none_is_written(text: str, port: int) -> None:
    assert Uri.parse(text).effective_port == port
