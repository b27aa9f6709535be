"""The proxied call flows of RFC 3665 §3, as this one proxy between alice and bob sees them."""

from __future__ import annotations

import pytest

from sipserver.proxy.effects import CallEvent, CancelBranch
from sipserver.proxy.forward import stateless
from sipserver.proxy.plan import Target
from sipserver.proxy.record_route import CALLEE, CALLER
from sipserver.sip.build import OutgoingRequest
from sipserver.sip.effects import TIMED_OUT
from sipserver.sip.errors import SipError
from sipserver.sip.message import Request, Response, parse
from support.proxy import KEY, MINTER, Driver, World, flow, request, response, signed

BOB = Target("sip:bob@192.0.2.20:5060")
SDP = b"v=0\r\no=alice 1 1 IN IP4 192.0.2.1\r\ns=-\r\n"


class Call:
    """alice's INVITE on its way to bob's only device."""

    def __init__(self) -> None:
        self.world = World(bob=[BOB])
        message = signed(request("INVITE", "sip:bob@example.test", "Content-Type: application/sdp", body=SDP))
        self.driver = Driver(message, self.world.admit(message))
        self.driver.start()

    @property
    def sent(self) -> OutgoingRequest:
        """The INVITE as bob gets it."""
        return self.driver.sent[0]

    @property
    def events(self) -> list[str]:
        """The events so far."""
        return [effect.kind for effect in self.driver.log if isinstance(effect, CallEvent)]

    def route(self, answer: Response | None = None) -> str:
        """The route set that both sides have: one Record-Route."""
        line = next(line for line in self.sent.lines if line.startswith("Record-Route"))
        if answer is not None:
            assert line in answer.lines
        return line.removeprefix("Record-")

    def from_alice(self, method: str) -> Request:
        """A request of alice inside the dialog."""
        return request(method, "sip:bob@192.0.2.20:5060", self.route(), to="<sip:bob@example.test>;tag=to1", cseq=2)

    def from_bob(self, method: str) -> Request:
        """A request of bob inside the dialog."""
        return request(
            method, "sip:alice@192.0.2.1:5070", self.route(), from_="<sip:bob@example.test>;tag=to1",
            to="<sip:alice@example.test>;tag=from1", via="SIP/2.0/UDP 192.0.2.20:5060;branch=z9hG4bKbob",
        )  # fmt: skip


def test_session_establishment_through_the_proxy() -> None:
    """RFC 3665 §3.2: INVITE, 100, 180, 200, ACK, BYE, 200."""
    call = Call()
    driver = call.driver
    assert b"Proxy-Authorization" not in call.sent.data
    assert call.sent.data.endswith(SDP)
    driver.answer(0, 180)
    driver.answer(0, 200, "Contact: <sip:bob@192.0.2.20:5060>", body=SDP)
    assert driver.statuses() == [100, 180, 200]
    assert call.events == ["tried", "rang", "answered"]

    ack = call.from_alice("ACK")
    plan = call.world.admit(ack)
    assert plan.dialog is not None
    assert plan.dialog[1] == CALLER
    forwarded = stateless(ack, plan, flow(), flow("192.0.2.20"), "ack1")
    assert forwarded.uri_text == "sip:bob@192.0.2.20:5060"
    assert not [line for line in forwarded.lines if line.startswith("Route")]

    bye = call.from_bob("BYE")
    plan = call.world.admit(bye)
    assert plan.dialog is not None
    assert plan.dialog == (KEY, CALLEE)
    ending = Driver(bye, plan)
    ending.start()
    assert ending.sent[0].uri_text == "sip:alice@192.0.2.1:5070"
    ending.answer(0, 200)
    assert [effect.kind for effect in ending.log if isinstance(effect, CallEvent)] == ["ended"]
    assert ending.statuses() == [200]


def test_call_without_credentials_is_challenged_and_then_goes_through() -> None:
    """RFC 3665 §3.2, F1 to F4: the first INVITE is answered 407, the second one has credentials."""
    world = World(bob=[BOB])
    with pytest.raises(SipError) as caught:
        world.admit(request())
    assert caught.value.status == 407
    assert world.admit(signed(request(cseq=2))).groups == [[BOB]]


def test_cancelled_call() -> None:
    """RFC 3665 §3.8: CANCEL while it rings; 487 from bob goes to alice."""
    call = Call()
    call.driver.answer(0, 180)
    happened = call.driver.do(call.driver.context.on_cancel(request("CANCEL")))
    cancel = next(effect for effect in happened if isinstance(effect, CancelBranch))
    assert cancel.request.uri_text == call.sent.uri_text
    assert cancel.request.lines[0] == call.sent.lines[0]
    call.driver.answer(0, 487)
    assert call.driver.statuses() == [100, 180, 487]
    assert call.events == ["tried", "rang", "cancelled", "branch_failed", "failed"]


def test_busy_call() -> None:
    """RFC 3665 §3.9: bob is busy."""
    call = Call()
    call.driver.answer(0, 100)
    call.driver.answer(0, 486)
    assert call.driver.statuses() == [100, 486]
    assert call.events == ["tried", "branch_failed", "failed"]


def test_call_that_no_device_responds_to() -> None:
    """RFC 3665 §3.10: bob's device is silent; alice gets 408 of the proxy."""
    call = Call()
    call.driver.do(call.driver.context.on_failed(0, TIMED_OUT))
    assert call.driver.statuses() == [100, 408]
    assert call.events == ["tried", "branch_failed", "failed"]


def test_call_to_a_device_that_is_temporarily_unavailable() -> None:
    """RFC 3665 §3.11: bob's device says 480 after it rang."""
    call = Call()
    call.driver.answer(0, 180)
    call.driver.answer(0, 480)
    assert call.driver.statuses() == [100, 180, 480]


def test_change_of_a_call_by_the_callee() -> None:
    """RFC 3665 §3.7 in its proxied form: a re-INVITE of bob, with the route of the dialog."""
    call = Call()
    call.driver.answer(0, 200, "Contact: <sip:bob@192.0.2.20:5060>")
    change = call.from_bob("INVITE")
    driver = Driver(change, call.world.admit(change))
    driver.start()
    answer = parse(response(driver.sent[0], 200).to_bytes())
    assert isinstance(answer, Response)
    token = MINTER.token(KEY, "call-1", "from1")
    assert f"vc={token}" in (answer.header("record-route") or "")
    driver.answer(0, 200)
    assert [effect.kind for effect in driver.log if isinstance(effect, CallEvent)] == ["changed"]
