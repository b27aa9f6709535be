"""Digest: the RFCs' own numbers, the server's side of it, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.sip import digest
from sipserver.sip.digest import (
    MALFORMED,
    MISSING,
    REPLAYED,
    STALE,
    WRONG,
    AuthenticationRequired,
    Authenticator,
    Credentials,
    ha1,
    response,
)
from sipserver.sip.effects import NeedCredentials
from sipserver.sip.errors import SipError
from sipserver.sip.message import Request, parse

REALM = "example.test"
URI = "sip:example.test"
NOW = 1_800_000_000.0
SECRET = b"thirty-two bytes of a secret key"
PASSWORD = "open sesame"


def authenticator(**options: Any) -> Authenticator:
    return Authenticator(SECRET, **options)


def request(*headers: str, method: str = "REGISTER", uri: str = URI, body: bytes = b"") -> Request:
    lines = [
        f"{method} {uri} SIP/2.0", "Via: SIP/2.0/UDP client.test;branch=z9hG4bKa",
        "From: <sip:alice@example.test>;tag=1",
        "To: <sip:alice@example.test>", "Call-ID: 1", f"CSeq: 1 {method}", *headers,
    ]  # fmt: skip
    message = parse("\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + body)
    assert isinstance(message, Request)
    return message


def nonce_in(challenge: str) -> str:
    return challenge.split('nonce="')[1].split('"', maxsplit=1)[0]


def new_nonce(server: Authenticator, now: float = NOW, realm: str = REALM) -> str:
    return nonce_in(server.challenge_headers(realm, now, proxy=False)[0])


def authorization(
    nonce: str,
    *,
    username: str = "alice",
    password: str = PASSWORD,
    algorithm: str = "MD5",
    qop: str | None = "auth",
    nc: str = "00000001",
    method: str = "REGISTER",
    uri: str = URI,
    realm: str = REALM,
    body: bytes = b"",
    proxy: bool = False,
) -> str:
    """The header line of an endpoint that does it right."""
    secret = ha1(username, realm, password, algorithm)
    value = response(secret, nonce, method, uri, algorithm, qop=qop, nc=nc, cnonce="c0ffee", body=body)
    line = (
        f'{"Proxy-" if proxy else ""}Authorization: Digest username="{username}", realm="{realm}", nonce="{nonce}", '
        f'uri="{uri}", response="{value}", algorithm={algorithm}'
    )
    return line if qop is None else f'{line}, qop={qop}, nc={nc}, cnonce="c0ffee"'


def run(
    server: Authenticator,
    message: Request,
    *,
    now: float = NOW,
    proxy: bool = False,
    asked: list[NeedCredentials] | None = None,
) -> str:
    """Authenticate against a store that knows alice alone."""
    steps = server.authenticate(message, REALM, now, proxy=proxy)
    try:
        need = next(steps)
        if asked is not None:
            asked.append(need)
        known = None
        if need.username == "alice":
            known = Credentials("alice@example.test", ha1("alice", need.realm, PASSWORD, need.algorithm))
        steps.send(known)
    except StopIteration as stop:
        return str(stop.value)
    raise AssertionError("asked twice")


def refused(server: Authenticator, message: Request, **options: Any) -> AuthenticationRequired:
    with pytest.raises(AuthenticationRequired) as caught:
        run(server, message, **options)
    return caught.value


# --- the numbers of the RFCs ---


def test_rfc_2617_section_3_5() -> None:
    secret = ha1("Mufasa", "testrealm@host.com", "Circle Of Life", "MD5")
    found = response(
        secret, "dcd98b7102dd2f0e8b11d0f600bfb0c093", "GET", "/dir/index.html", qop="auth", nc="00000001",
        cnonce="0a4f113b",
    )  # fmt: skip
    assert found == "6629fae49393a05397450978507c4ef1"


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_rfc_7616_section_3_9_1(algorithm: str, expected: str) -> None:
    found = response(
        ha1("Mufasa", "http-auth@example.org", "Circle of Life", algorithm),
        "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", "GET", "/dir/index.html", algorithm,
        qop="auth", nc="00000001", cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    )  # fmt: skip
    assert found == expected


def test_rfc_7616_section_3_9_2_with_the_number_its_erratum_gives() -> None:
    # The RFC prints ae66e67d..., which is SHA-512 cut to half; erratum 4897 has what SHA-512/256 gives.
    found = response(
        ha1("J\u00e4s\u00f8n Doe", "api@example.org", "Secret, or not?", "SHA-512-256"),
        "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", "GET", "/doe.json", "SHA-512-256",
        qop="auth", nc="00000001", cnonce="NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v",
    )  # fmt: skip
    assert found == "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"


def test_rfc_2069_section_2_4_with_the_number_its_erratum_gives() -> None:
    # The RFC prints e966c932..., which its errata replace by this one.
    secret = ha1("Mufasa", "testrealm@host.com", "CircleOfLife", "MD5")
    found = response(secret, "dcd98b7102dd2f0e8b11d0f600bfb0c093", "GET", "/dir/index.html")
    assert found == "1949323746fe6a43ef61f9606e7febea"


def test_auth_int_hashes_the_body() -> None:
    def of(body: bytes, qop: str = "auth-int") -> str:
        return response("a" * 32, "n", "INVITE", "sip:b@c", qop=qop, nc="00000001", cnonce="c", body=body)

    assert of(b"one") != of(b"two")
    assert of(b"one", "auth") == of(b"two", "auth")


# --- challenges ---


def test_challenge_is_one_md5_line_with_quoted_qop() -> None:
    (line,) = authenticator().challenge_headers(REALM, NOW, proxy=False)
    nonce = nonce_in(line)
    assert line == f'WWW-Authenticate: Digest realm="example.test", nonce="{nonce}", algorithm=MD5, qop="auth"'
    assert set(nonce) <= set("0123456789abcdef")
    assert len(nonce) == 44


def test_challenge_of_a_proxy_and_staleness_are_said() -> None:
    (line,) = authenticator().challenge_headers(REALM, NOW, proxy=True, stale=True)
    assert line.startswith("Proxy-Authenticate: Digest ")
    assert line.endswith(', qop="auth", stale=true')


def test_strongest_algorithm_comes_first_whatever_the_order_given() -> None:
    lines = authenticator(algorithms=("MD5", "SHA-512-256", "SHA-256")).challenge_headers(REALM, NOW, proxy=False)
    assert [line.split("algorithm=")[1].split(",")[0] for line in lines] == ["SHA-512-256", "SHA-256", "MD5"]
    assert len({nonce_in(line) for line in lines}) == 1


def test_legacy_challenge_offers_no_qop() -> None:
    (line,) = authenticator(offer_qop=False).challenge_headers(REALM, NOW, proxy=False)
    assert line.endswith(", algorithm=MD5")


def test_nonces_differ_within_a_millisecond() -> None:
    server = authenticator()
    assert len({new_nonce(server) for _ in range(100)}) == 100


def test_realm_is_quoted() -> None:
    (line,) = authenticator().challenge_headers('a"b\\c', NOW, proxy=False)
    assert 'realm="a\\"b\\\\c"' in line


def test_unknown_algorithms_are_our_own_fault() -> None:
    for algorithms in ((), ("MD4",)):
        with pytest.raises(AssertionError):
            Authenticator(SECRET, algorithms)


# --- accepted ---


@pytest.mark.parametrize("algorithm", digest.ALGORITHMS)
@pytest.mark.parametrize("qop", ["auth", "auth-int", None])
def test_right_credentials_give_the_address_of_record(algorithm: str, qop: str | None) -> None:
    server = authenticator(algorithms=(algorithm,))
    line = authorization(new_nonce(server), algorithm=algorithm, qop=qop, body=b"v=0")
    asked: list[NeedCredentials] = []
    assert run(server, request(line, body=b"v=0"), asked=asked) == "alice@example.test"
    assert asked == [NeedCredentials("alice", REALM, algorithm)]


def test_proxy_credentials_are_read_from_their_own_header() -> None:
    server = authenticator()
    line = authorization(new_nonce(server), proxy=True)
    assert run(server, request(line), proxy=True) == "alice@example.test"
    assert refused(server, request(line)).cause == MISSING


def test_hexadecimal_digits_and_algorithm_in_capitals_are_taken() -> None:
    server = authenticator()
    line = authorization(new_nonce(server))
    before, _, rest = line.partition('response="')
    line = before + 'response="' + rest[:32].upper() + rest[32:].replace("algorithm=MD5", 'ALGORITHM="md5"')
    assert run(server, request(line)) == "alice@example.test"


def test_scheme_and_spacing_are_taken_as_written() -> None:
    server = authenticator()
    line = (
        authorization(new_nonce(server))
        .replace("Digest ", "dIGEST\t ")
        .replace(", ", " ,\r\n  ")
        .replace("=", " = ", 3)
    )
    assert run(server, request(line)) == "alice@example.test"


def test_algorithm_is_md5_where_none_is_named() -> None:
    server = authenticator()
    assert run(server, request(authorization(new_nonce(server)).replace(", algorithm=MD5", ""))) == "alice@example.test"


def test_a_username_in_utf_8_is_asked_for_as_people_read_it() -> None:
    server = authenticator()
    asked: list[NeedCredentials] = []
    refused(server, request(authorization(new_nonce(server), username="J\u00e4s\u00f8n")), asked=asked)
    assert asked[0].username == "J\u00e4s\u00f8n"


def test_credentials_for_another_realm_are_passed_over() -> None:
    server = authenticator()
    other = authorization("n", realm="elsewhere.test")
    ours = authorization(new_nonce(server))
    assert run(server, request(other, ours)) == "alice@example.test"
    assert refused(server, request(other)).cause == MISSING


def test_of_several_credentials_the_strongest_algorithm_counts() -> None:
    server = authenticator(algorithms=("MD5", "SHA-256"))
    nonce = new_nonce(server)
    asked: list[NeedCredentials] = []
    lines = [authorization(nonce, algorithm=each) for each in ("MD5", "SHA-256", "MD5")]
    assert run(server, request(*lines), asked=asked) == "alice@example.test"
    assert asked[0].algorithm == "SHA-256"


def test_a_nonce_serves_many_requests_by_its_count() -> None:
    server = authenticator()
    nonce = new_nonce(server)
    for count in range(1, 200):
        assert run(server, request(authorization(nonce, nc=f"{count:08x}"))) == "alice@example.test"


def test_digest_uri_may_differ_from_the_request_uri() -> None:
    server = authenticator()
    line = authorization(new_nonce(server), uri="sip:127.0.0.1:5060")
    assert run(server, request(line)) == "alice@example.test"


def test_digest_uri_is_checked_where_that_is_asked_for() -> None:
    server = authenticator(check_uri=True)
    assert run(server, request(authorization(new_nonce(server)))) == "alice@example.test"
    assert run(server, request(authorization(new_nonce(server), uri="sip:EXAMPLE.test"))) == "alice@example.test"
    for uri in ("sip:127.0.0.1:5060", "nonsense"):
        with pytest.raises(SipError) as caught:
            run(server, request(authorization(new_nonce(server), uri=uri)))
        assert caught.value.status == 400


# --- refused ---


def test_no_credentials_are_challenged() -> None:
    server = authenticator()
    error = refused(server, request())
    assert (error.status, error.reason, error.cause, error.username) == (401, "Unauthorized", MISSING, None)
    assert error.headers[0].startswith("WWW-Authenticate: Digest ")
    assert "stale" not in error.headers[0]
    error = refused(server, request(), proxy=True)
    assert (error.status, error.reason) == (407, "Proxy Authentication Required")
    assert error.headers[0].startswith("Proxy-Authenticate: Digest ")


def test_other_schemes_count_as_no_credentials() -> None:
    assert refused(authenticator(), request("Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWU=")).cause == MISSING


def test_wrong_password_and_unknown_user_look_the_same() -> None:
    server = authenticator()
    wrong = refused(server, request(authorization(new_nonce(server), password="guess")))
    unknown = refused(server, request(authorization(new_nonce(server), username="mallory")))
    for error in (wrong, unknown):
        assert (error.status, error.reason, error.cause) == (401, "Unauthorized", WRONG)
        assert "stale" not in error.headers[0]
    assert (wrong.username, unknown.username) == ("alice", "mallory")


def test_an_unknown_user_is_refused_even_with_the_stand_in_ha1() -> None:
    server = authenticator()
    nonce = new_nonce(server)
    value = response(server._nobody["MD5"], nonce, "REGISTER", URI)
    line = (
        f'Authorization: Digest username="mallory", realm="{REALM}", nonce="{nonce}", uri="{URI}", response="{value}"'
    )
    assert refused(server, request(line)).cause == WRONG


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("c0ffee", "c0ffef"),
        ("nc=00000001", "nc=00000002"),
        ("qop=auth", "qop=auth-int"),
        ("sip:example.test", "sip:example.tesT"),
    ],
)
def test_whatever_is_hashed_cannot_be_changed(old: str, new: str) -> None:
    server = authenticator()
    line = authorization(new_nonce(server))
    assert refused(server, request(line.replace(old, new))).cause == WRONG


def test_credentials_of_another_method_are_wrong() -> None:
    server = authenticator()
    assert refused(server, request(authorization(new_nonce(server)), method="INVITE")).cause == WRONG


def test_a_changed_body_breaks_auth_int() -> None:
    server = authenticator()
    line = authorization(new_nonce(server), qop="auth-int", body=b"one")
    assert refused(server, request(line, body=b"two")).cause == WRONG


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (', qop=auth, nc=00000001, cnonce="c0ffee"', ", qop=auth"),
        (', cnonce="c0ffee"', ""),
        ('cnonce="c0ffee"', 'cnonce=""'),
        ("nc=00000001", "nc=000000001"),
        ("nc=00000001", "nc=0x000001"),
        ("nc=00000001", "nc=-1"),
        ("nc=00000001", "nc=00_1"),
        ("qop=auth", "qop=auth-conf"),
        ("algorithm=MD5", "algorithm=MD5-sess"),
        ("algorithm=MD5", "algorithm=SHA-256"),
        ("algorithm=MD5", "algorithm=MD5, algorithm=MD5"),
        ('username="alice"', 'username=""'),
        ('username="alice"', 'username="' + "a" * 257 + '"'),
        ('username="alice", ', ""),
        ("uri=", "url="),
        ("response=", "answer="),
        ("nonce=", "once="),
        ('realm="example.test"', 'realm="example.test'),
        ('realm="example.test", ', 'realm="example.test" '),
    ],
)
def test_incomplete_or_unreadable_credentials_are_malformed(old: str, new: str) -> None:
    server = authenticator()
    error = refused(server, request(authorization(new_nonce(server)).replace(old, new)))
    assert (error.cause, error.username) == (MALFORMED, None)
    assert "stale" not in error.headers[0]


def test_a_response_that_is_no_hexadecimal_number_is_wrong() -> None:
    server = authenticator()
    before, _, rest = authorization(new_nonce(server)).partition('response="')
    assert refused(server, request(before + 'response="\u00fc\u20ac' + rest[32:])).cause == WRONG


# --- nonces ---


def test_expired_nonce_is_stale_only_with_the_right_digest() -> None:
    server = authenticator(nonce_lifetime=60)
    nonce = new_nonce(server)
    assert run(server, request(authorization(nonce)), now=NOW + 60) == "alice@example.test"
    error = refused(server, request(authorization(nonce, nc="00000002")), now=NOW + 60.01)
    assert error.cause == STALE
    assert error.headers[0].endswith(", stale=true")
    assert nonce_in(error.headers[0]) != nonce
    assert refused(server, request(authorization(nonce, password="guess")), now=NOW + 61).cause == WRONG


@pytest.mark.parametrize("forged", ["", "abc", "0" * 44, "\u00fc" * 44, "f" * 20, "x" * 1000])
def test_nonce_that_is_not_ours_is_stale(forged: str) -> None:
    message = request(authorization(forged, nc="00000001"))
    # Through the wire the forged nonce is Latin-1, and so is what an endpoint would have hashed.
    if not forged.isascii():
        wire = forged.encode().decode("latin-1")
        message = request(authorization(wire).encode("latin-1").decode("utf-8"))
    assert refused(authenticator(), message).cause == STALE


def test_every_character_of_a_nonce_is_signed() -> None:
    server = authenticator()
    nonce = new_nonce(server)
    for position, digit in enumerate(nonce):
        changed = nonce[:position] + ("0" if digit != "0" else "1") + nonce[position + 1 :]
        assert refused(server, request(authorization(changed))).cause == STALE
    assert refused(server, request(authorization(nonce.upper()))).cause == STALE
    assert refused(server, request(authorization(nonce + "0"))).cause == STALE


def test_a_nonce_is_good_and_a_forged_one_is_not_whether_its_signature_is_remembered_or_made_again() -> None:
    server = authenticator()
    nonces = [new_nonce(server) for _ in range(3_000)]
    # Of the first the signature is forgotten by now.
    for nonce in (nonces[0], nonces[-1]):
        forged = nonce[:-1] + ("0" if nonce[-1] != "0" else "1")
        assert refused(server, request(authorization(forged))).cause == STALE
        assert run(server, request(authorization(nonce)))
    forged = nonces[-2][:-1] + ("0" if nonces[-2][-1] != "0" else "1")
    assert refused(server, request(authorization(forged))).cause == STALE


def test_nonce_of_another_realm_secret_or_setting_is_stale() -> None:
    server = authenticator()
    for nonce in (
        new_nonce(server, realm="elsewhere.test"),
        new_nonce(Authenticator(b"another secret")),
        new_nonce(authenticator(offer_qop=False)),
        new_nonce(authenticator(algorithms=("SHA-256", "MD5"))),
    ):
        assert refused(server, request(authorization(nonce))).cause == STALE


def test_the_order_of_algorithms_is_a_setting_too() -> None:
    nonce = new_nonce(authenticator(algorithms=("SHA-256", "MD5")))
    server = authenticator(algorithms=("MD5", "SHA-256"))
    assert refused(server, request(authorization(nonce))).cause == STALE


def test_nonce_of_the_future_is_stale() -> None:
    server = authenticator()
    nonce = new_nonce(server, NOW + 1)
    assert refused(server, request(authorization(nonce)), now=NOW).cause == STALE


def test_nonce_survives_in_another_instance_but_not_a_restart() -> None:
    nonce = new_nonce(authenticator())
    assert run(authenticator(not_before=NOW), request(authorization(nonce))) == "alice@example.test"
    assert refused(authenticator(not_before=NOW + 0.001), request(authorization(nonce)), now=NOW + 1).cause == STALE


# --- replay ---


def test_a_nonce_count_is_used_once() -> None:
    server = authenticator()
    line = authorization(new_nonce(server))
    run(server, request(line))
    error = refused(server, request(line))
    assert error.cause == REPLAYED
    assert error.headers[0].endswith(", stale=true")


def test_rfc_2069_credentials_use_the_nonce_up() -> None:
    server = authenticator(offer_qop=False)
    nonce = new_nonce(server)
    run(server, request(authorization(nonce, qop=None)))
    assert refused(server, request(authorization(nonce, qop=None))).cause == REPLAYED
    assert refused(server, request(authorization(nonce, nc="ffffffff"))).cause == REPLAYED


def test_rfc_2069_credentials_are_refused_on_a_nonce_that_was_counted() -> None:
    server = authenticator()
    nonce = new_nonce(server)
    run(server, request(authorization(nonce)))
    assert refused(server, request(authorization(nonce, qop=None))).cause == REPLAYED


def test_wrong_password_uses_nothing_up() -> None:
    server = authenticator()
    nonce = new_nonce(server)
    refused(server, request(authorization(nonce, password="guess")))
    assert run(server, request(authorization(nonce))) == "alice@example.test"


def test_counts_may_arrive_out_of_order_within_the_window() -> None:
    server = authenticator()
    nonce = new_nonce(server)
    for count in (70, 7, 69, 8, 133):
        assert run(server, request(authorization(nonce, nc=f"{count:08x}"))) == "alice@example.test"
    for count in (70, 7, 69, 8, 6, 69, 133):
        assert refused(server, request(authorization(nonce, nc=f"{count:08x}"))).cause == REPLAYED


def test_a_leap_of_the_count_costs_nothing() -> None:
    server = authenticator()
    nonce = new_nonce(server)
    run(server, request(authorization(nonce)))
    run(server, request(authorization(nonce, nc="ffffffff")))
    run(server, request(authorization(nonce, nc="fffffffe")))
    assert refused(server, request(authorization(nonce, nc="00000002"))).cause == REPLAYED


@given(st.lists(st.one_of(st.integers(0, 150), st.integers(0, 2**32 - 1)), max_size=60))
def test_no_count_is_ever_accepted_twice(counts: list[int]) -> None:
    used = digest._UsedNonces(10, 1000, 0)
    accepted: list[int] = []
    for count in counts:
        if used.spend(1 << 32, count, 1) == "":
            accepted.append(count)
        else:
            assert count in accepted or count <= max(accepted) - 64
    assert len(set(accepted)) == len(accepted)


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3), st.integers(0, 8)), max_size=80))
def test_what_was_forgotten_is_stale_and_memory_is_bounded(bound: int, uses: list[tuple[int, int, int]]) -> None:
    used = digest._UsedNonces(bound, 20, 0)
    accepted = set()
    now = 40
    for issued, count, elapsed in uses:
        now += elapsed
        if now - issued <= 20 and used.spend(issued << 32, count, now) == "":
            assert (issued, count) not in accepted
            accepted.add((issued, count))
        assert len(used._entries) <= bound


def test_a_full_table_keeps_the_newest_and_makes_the_oldest_stale() -> None:
    server = authenticator(max_nonces=2)
    nonces = [new_nonce(server, NOW + i) for i in range(4)]
    for nonce in nonces[:3]:
        run(server, request(authorization(nonce)), now=NOW + 5)
    # The first was forgotten for the third; the second and third are remembered, the fourth is new.
    assert refused(server, request(authorization(nonces[0], nc="00000002")), now=NOW + 5).cause == STALE
    assert run(server, request(authorization(nonces[1], nc="00000002")), now=NOW + 5) == "alice@example.test"
    assert run(server, request(authorization(nonces[3])), now=NOW + 5) == "alice@example.test"


def test_expired_entries_make_room() -> None:
    server = authenticator(nonce_lifetime=10)
    for i in range(50):
        run(server, request(authorization(new_nonce(server, NOW + i))), now=NOW + i)
    assert len(server._used._entries) <= 12


def test_no_request_pays_for_more_than_two_expired_entries() -> None:
    server = authenticator(nonce_lifetime=10)
    for _ in range(5):
        run(server, request(authorization(new_nonce(server))))
    run(server, request(authorization(new_nonce(server, NOW + 20))), now=NOW + 20)
    assert len(server._used._entries) == 4


@given(st.dictionaries(st.sampled_from(["username", "nonce", "uri", "response", "nc", "qop", "cnonce", "algorithm"]),
                       st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=30)))  # fmt: skip
def test_no_credentials_raise_anything_but_a_refusal(params: dict[str, str]) -> None:
    quoted = "".join(f', {name}="{value}"' for name, value in params.items())
    message = request()
    message.lines.append(f'Authorization: Digest realm="{REALM}"{quoted}')
    message.names.append("authorization")
    assert refused(authenticator(), message).status == 401


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_clock_that_is_set_makes_no_nonce_older_or_younger(step: float) -> None:
    server = authenticator(not_before=NOW, nonce_lifetime=60.0)
    before = new_nonce(server, NOW + 10)
    server.shift += step
    after = new_nonce(server, NOW + 20 + step)
    for nonce in (before, after):
        assert run(server, request(authorization(nonce)), now=NOW + 30 + step) == "alice@example.test"
        late = request(authorization(nonce, nc="00000002"))
        assert refused(server, late, now=NOW + 100 + step).cause == STALE
