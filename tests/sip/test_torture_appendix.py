"""RFC 4475's own messages, bit by bit, where the RFC lies beside the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from sipserver.sip import names
from sipserver.sip.errors import SipError
from sipserver.sip.message import Request, parse
from sipserver.sip.validate import check_request, check_response
from support.torture import appendix_messages

RFC = Path(__file__).resolve().parents[2] / "../shared/rfc/rfc4475.txt"

VALID = (
    "badbranch", "baddate", "bcast", "bext01", "cparam01", "cparam02", "dblreq", "esc01", "esc02", "escnull", "intmeth",
    "inv2543", "invut", "longreq", "lwsdisp", "mpart01", "noreason", "novelsc", "regaut01", "regescrt", "sdp01",
    "semiuri", "transports", "unkscm", "unksm2", "unreason", "wsinv", "zeromf",
)  # fmt: skip
INVALID = {
    "badaspec": 400, "baddn": 400, "badinv01": 400, "badvers": 505, "bigcode": 400, "clerr": 400, "escruri": 400,
    "insuf": 400, "ltgtruri": 400, "lwsruri": 400, "lwsstart": 400, "mcl01": 400, "mismatch01": 400,
    "mismatch02": 400, "multi01": 400, "ncl": 400, "quotbal": 400, "scalar02": 400, "scalarlg": 400, "test": 400,
    "trws": 400,
}  # fmt: skip
CONTACT_IS_INVALID = ("regbadct",)
"""Valid to a proxy, refused by the registrar that reads its Contact."""


@pytest.fixture(scope="module")
def messages() -> dict[str, bytes]:
    if not RFC.is_file():
        pytest.skip("the text of RFC 4475 does not lie beside the repository")
    return appendix_messages(RFC)


def check(data: bytes) -> None:
    message = parse(data)
    if isinstance(message, Request):
        check_request(message)
    else:
        check_response(message)


def test_every_message_is_looked_at(messages: dict[str, bytes]) -> None:
    assert sorted(messages) == sorted((*VALID, *INVALID, *CONTACT_IS_INVALID))


@pytest.mark.parametrize("name", VALID)
def test_valid_message_is_accepted(messages: dict[str, bytes], name: str) -> None:
    check(messages[name])


@pytest.mark.parametrize("name", VALID)
def test_valid_message_leaves_as_it_came(messages: dict[str, bytes], name: str) -> None:
    assert parse(messages[name]).to_bytes() == messages[name]


@pytest.mark.parametrize("name", INVALID)
def test_invalid_message_is_refused(messages: dict[str, bytes], name: str) -> None:
    with pytest.raises(SipError) as caught:
        check(messages[name])
    assert caught.value.status == INVALID[name]


@pytest.mark.parametrize("name", CONTACT_IS_INVALID)
def test_invalid_contact_is_refused_by_who_reads_it(messages: dict[str, bytes], name: str) -> None:
    check(messages[name])
    with pytest.raises(SipError) as caught:
        parse(messages[name]).addresses(names.CONTACT)
    assert caught.value.status == 400
