"""Random REGISTERs against RFC 3261 §10.3 written down as plainly as possible."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from sipserver.sip.errors import SipError
from support.registrar import NOW, Registrar

URIS = [f"sip:alice@192.0.2.{number}" for number in range(1, 5)]
MAX = 3


@dataclass
class Asked:
    """One REGISTER."""

    contacts: list[tuple[str, int]]
    """URIs and their expiry; an empty list asks for the star."""
    call_id: str
    cseq: int
    later: int
    """Seconds after the one before."""


@dataclass
class Bound:
    call_id: str
    cseq: int
    expires_at: float


class Model:
    """The location service as the RFC tells it."""

    def __init__(self) -> None:
        self.bound: dict[str, Bound] = {}
        self.now = NOW

    def send(self, asked: Asked) -> int:
        """The status; nothing but a 200 changes anything."""
        self.now += asked.later
        self.bound = {uri: each for uri, each in self.bound.items() if each.expires_at > self.now}
        touched = [uri for uri, _ in asked.contacts] or list(self.bound)
        if any(0 < expires < 60 for _, expires in asked.contacts):
            return 423
        for position, uri in enumerate(touched):
            if uri in touched[:position]:
                return 400
            old = self.bound.get(uri)
            if old is not None and old.call_id == asked.call_id and asked.cseq <= old.cseq:
                return 500
        after = {uri: each for uri, each in self.bound.items() if uri not in touched}
        for uri, expires in asked.contacts:
            if expires:
                after[uri] = Bound(asked.call_id, asked.cseq, self.now + min(expires, 3600))
        if len(after) > max(MAX, len(self.bound)):
            return 403
        self.bound = after
        return 200


ASKED = st.builds(
    Asked,
    st.lists(st.tuples(st.sampled_from(URIS), st.sampled_from([0, 30, 60, 100, 3600, 9999])), max_size=4),
    st.sampled_from(["one", "two"]),
    st.integers(1, 6),
    st.sampled_from([0, 1, 59, 60, 100]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ASKED, max_size=12))
def test_the_bindings_are_what_the_rfc_says(sequence: list[Asked]) -> None:
    registrar, model = Registrar(max_contacts=MAX), Model()
    for asked in sequence:
        expected = model.send(asked)
        registrar.now = model.now
        lines = [f"Contact: <{uri}>;expires={expires}" for uri, expires in asked.contacts]
        try:
            registrar.send(*lines or ("Contact: *", "Expires: 0"), call_id=asked.call_id, cseq=asked.cseq)
            status = 200
        except SipError as error:
            status = error.status
        assert status == expected
        assert {each.contact: (each.call_id, each.cseq, each.expires_at) for each in registrar.bindings()} == {
            uri: (each.call_id, each.cseq, each.expires_at) for uri, each in model.bound.items()
        }
        registrar.location.expire(registrar.now)
        assert registrar.location.count == len(model.bound)
