"""Redirections that are followed (RFC 3261 §16.5, §16.7 step 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from sipserver.proxy.effects import BRANCH_FAILED, CallEvent, NeedContacts
from sipserver.proxy.plan import Target
from sipserver.proxy.redirect import follow
from sipserver.sip.effects import Effect
from sipserver.sip.message import Response
from support.proxy import Driver, kinds, plan, replied, request, response, settings, targets

CAROL = "carol@example.test"


class Redirected(Driver):
    """Bob's devices are called, and some of them name others; ``bound`` says where those are."""

    def __init__(self, *devices: Target, bound: Mapping[str, Sequence[Target]] | None = None, **changes: Any) -> None:
        uri = changes.pop("uri", "sip:bob@example.test")
        made = plan(
            list(devices) or targets(1), callee="bob@example.test", uri_text=uri, secure=uri.startswith("sips:")
        )
        super().__init__(request(uri=uri), made, **{"redirects": 5, **changes})
        at_home = {CAROL: [Target("sip:carol@192.0.2.50", aor=CAROL)]}
        self.bound = at_home if bound is None else bound
        self.start()

    def do(self, effects: Sequence[Effect]) -> list[Effect]:
        """The same, with contacts looked up."""
        happened = super().do(effects)
        for effect in list(happened):
            if isinstance(effect, NeedContacts):
                found = [self.bound.get(each.aor or "", ()) for each in effect.contacts]
                happened += self.do(self.context.on_contacts(effect.branch, effect.contacts, found))
        return happened

    def redirect(self, branch: int, *contacts: str, status: int = 302) -> list[Effect]:
        """A device answers 302."""
        return self.answer(branch, status, *(f"Contact: {each}" for each in contacts))

    @property
    def uris(self) -> list[str]:
        """What was sent to, in order."""
        return [self.sent[branch].uri_text for branch in sorted(self.sent)]


def answered(happened: list[Effect]) -> Response:
    return replied(happened)


def test_another_address_of_ours_is_called_where_it_is_registered() -> None:
    driver = Redirected()
    happened = driver.redirect(0, "<sip:carol@example.test>")
    assert kinds(happened)[:2] == [BRANCH_FAILED, "NeedContacts"]
    assert driver.uris[1:] == ["sip:carol@192.0.2.50"]
    assert driver.statuses() == [100]
    (failed,) = [each for each in happened if isinstance(each, CallEvent) and each.kind == BRANCH_FAILED]
    assert (failed.branch, failed.status) == (0, 302)
    assert answered(driver.answer(1, 200)).status == 200


@pytest.mark.parametrize("status", [305, 380])
def test_what_is_not_for_proxies_is_passed_on(status: int) -> None:
    assert answered(Redirected().redirect(0, "<sip:carol@example.test>", status=status)).status == status


def test_policy_may_be_to_pass_all_on() -> None:
    driver = Redirected(redirects=0)
    answer = answered(driver.redirect(0, "<sip:carol@example.test>"))
    assert (answer.status, answer.header("contact")) == (302, "<sip:carol@example.test>")


def test_other_domains_are_called_only_where_subscribers_may_call_them() -> None:
    assert answered(Redirected().redirect(0, "<sip:bob@far.test>")).status == 302
    driver = Redirected(outbound=True)
    driver.redirect(0, "<sip:bob@198.51.100.7>;q=0.5")
    assert driver.uris[1:] == ["sip:bob@198.51.100.7"]


def test_contacts_that_are_not_followed_stay_in_the_answer() -> None:
    driver = Redirected()
    driver.redirect(0, "<sip:carol@example.test>, <tel:+15551234567>", "<sip:bob@far.test>;q=0.1")
    answer = answered(driver.answer(1, 404))
    assert answer.status == 302
    assert answer.values("contact") == ["<tel:+15551234567>", "<sip:bob@far.test>;q=0.1"]


def test_answer_of_whom_it_leads_to_is_the_answer() -> None:
    driver = Redirected()
    driver.redirect(0, "<sip:carol@example.test>")
    assert answered(driver.answer(1, 486)).status == 486


def test_contacts_are_tried_by_their_preference() -> None:
    bound = {
        f"{user}@example.test": [Target(f"sip:{user}@192.0.2.5{number}", aor=f"{user}@example.test")]
        for number, user in enumerate(("carol", "dave", "eve"))
    }
    driver = Redirected(bound=bound)
    driver.redirect(
        0, "<sip:carol@example.test>;q=0.2", "<sip:dave@example.test>;q=0.8", "<sip:eve@example.test>;q=0.8"
    )
    assert driver.uris[1:] == ["sip:dave@192.0.2.51"]
    driver.answer(1, 480)
    assert driver.uris[2:] == ["sip:eve@192.0.2.52"]
    driver.answer(2, 480)
    assert driver.uris[3:] == ["sip:carol@192.0.2.50"]


def test_nobody_is_called_twice() -> None:
    # The address that was called, and one that a redirection led to before.
    assert answered(Redirected().redirect(0, "<sip:bob@example.test>")).status == 302
    driver = Redirected()
    driver.redirect(0, "<sip:carol@example.test>")
    assert answered(driver.redirect(1, "<sip:carol@example.test;x=1>")).status == 302


def test_redirections_of_one_call_are_bounded() -> None:
    bound = {f"u{n}@example.test": [Target(f"sip:u{n}@192.0.2.{n}")] for n in range(1, 20)}
    driver = Redirected(bound=bound, redirects=3)
    happened: list[Effect] = []
    for number in range(1, 5):
        happened = driver.redirect(number - 1, f"<sip:u{number}@example.test>")
    assert answered(happened).status == 302
    assert len(driver.sent) == 4


def test_address_that_is_nowhere_is_unavailable() -> None:
    nowhere: list[Mapping[str, Sequence[Target]]] = [{}, {CAROL: []}]
    for bound in nowhere:
        assert answered(Redirected(bound=bound).redirect(0, "<sip:carol@example.test>")).status == 480


def test_others_go_on_ringing_meanwhile() -> None:
    driver = Redirected(*targets(2))
    driver.answer(1, 180)
    driver.redirect(0, "<sip:carol@example.test>")
    assert driver.uris[2:] == ["sip:carol@192.0.2.50"]
    driver.answer(2, 486)
    assert driver.statuses() == [100, 180]
    assert answered(driver.answer(1, 200)).status == 200


def test_sips_is_not_led_to_anything_weaker() -> None:
    driver = Redirected()
    moved = response(driver.sent[0], 302, "Contact: <sip:carol@example.test>, <sips:dave@example.test>")
    made = plan(callee="bob@example.test", secure=True)
    contacts, left = follow(moved, made, settings(redirects=5), set())
    assert [each.uri_text for each in contacts] == ["sips:dave@example.test"]
    assert left is not None
    assert left.values("contact") == ["<sip:carol@example.test>"]


def test_contact_that_cannot_be_read_is_passed_on() -> None:
    assert answered(Redirected().redirect(0, "<sip:carol@example.test", "<sip:carol@example.test>")).status == 302


def test_who_has_cancelled_is_led_nowhere() -> None:
    driver = Redirected()
    driver.answer(0, 180)
    driver.do(driver.context.on_cancel(None))
    assert answered(driver.redirect(0, "<sip:carol@example.test>")).status == 302
    assert len(driver.sent) == 1
