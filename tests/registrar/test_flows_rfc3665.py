"""The registrations of RFC 3665 §2, with messages of our own."""

from __future__ import annotations

from sipserver.sip.digest import WRONG, AuthenticationRequired
from support.registrar import Registrar, make, refusal

HOME = "Contact: <sip:alice@home.example.test>"
MAIL = "Contact: <sip:alice@office.example.test>"


def contacts(headers: list[str]) -> list[str]:
    return [line for line in headers if line.startswith("Contact:")]


def test_2_1_a_new_registration_is_challenged_and_then_bound() -> None:
    registrar = Registrar()
    challenge = registrar.challenge(make(HOME))
    assert challenge.status == 401
    assert registrar.bound() == []
    registered = registrar.send(HOME, cseq=2)
    assert contacts(registered.headers) == ["Contact: <sip:alice@home.example.test>;expires=3600"]


def test_2_2_an_update_adds_to_the_list() -> None:
    registrar = Registrar()
    registrar.send(HOME)
    registered = registrar.send(MAIL, cseq=2)
    assert contacts(registered.headers) == [
        "Contact: <sip:alice@office.example.test>;expires=3600, <sip:alice@home.example.test>;expires=3600"
    ]


def test_2_3_a_request_without_contact_lists_them() -> None:
    registrar = Registrar()
    registrar.send(HOME)
    registrar.send(MAIL, cseq=2)
    assert contacts(registrar.send(cseq=3).headers)[0].count("expires=") == 2


def test_2_4_a_cancellation_leaves_nothing() -> None:
    registrar = Registrar()
    registrar.send(HOME)
    registrar.send(MAIL, cseq=2)
    assert contacts(registrar.send("Contact: *", "Expires: 0", cseq=3).headers) == []
    assert registrar.bound() == []


def test_2_5_a_wrong_password_is_challenged_again() -> None:
    registrar = Registrar(password_known="another")
    error = refusal(registrar, HOME, cseq=2)
    assert isinstance(error, AuthenticationRequired)
    assert (error.status, error.cause) == (401, WRONG)
    assert error.headers[0].startswith("WWW-Authenticate: Digest ")
