from __future__ import annotations

import pytest

from sipserver.registrar.binding import ADDED, REFRESHED, REMOVED
from sipserver.registrar.process import NeedBindings, UpdateBindings, date_line
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from support.registrar import AOR, DOMAIN, FLOW, NOW, Registrar, make, refusal

PHONE = "Contact: <sip:alice@192.0.2.7:5062>"
DESK = "Contact: <sip:alice@192.0.2.8:5062>"
DEVICE = '+sip.instance="<urn:uuid:00000000-0000-1000-8000-00000000000A>"'


@pytest.fixture
def registrar() -> Registrar:
    return Registrar()


def contact_line(headers: list[str]) -> str:
    (line,) = [each for each in headers if each.startswith("Contact:")]
    return line


# ---- steps 1 and 5: the domain


@pytest.mark.parametrize("uri", ["sip:elsewhere.test", "sip:192.0.2.9", "sip:192.0.2.1:5070"])
def test_a_request_uri_of_another_domain_is_not_found(uri: str) -> None:
    with pytest.raises(SipError) as refused:
        Registrar().run(make(PHONE, uri=uri))
    assert refused.value.status == 404


@pytest.mark.parametrize("uri", [f"sip:{DOMAIN}.", f"sip:bob@{DOMAIN}:5099", "sip:192.0.2.1", "sips:192.0.2.1:5060"])
def test_our_domain_and_our_own_address_are_accepted_in_the_request_uri(registrar: Registrar, uri: str) -> None:
    registrar.send(PHONE, uri=uri)
    assert registrar.bound() == ["sip:alice@192.0.2.7:5062"]


def test_our_own_ipv6_address_is_accepted_in_the_request_uri(registrar: Registrar) -> None:
    flow = Flow("UDP", "2001:db8::7", 5062, "[2001:db8::1]:5060", False)
    registrar.send(PHONE, uri="sip:[2001:DB8::1]:5060", flow=flow)
    assert registrar.bindings()[0].host == "2001:db8::7"


def test_a_request_uri_that_is_no_sip_uri_is_unsupported(registrar: Registrar) -> None:
    with pytest.raises(SipError) as refused:
        registrar.run(make(PHONE, uri="tel:+15550100"))
    assert refused.value.status == 416


@pytest.mark.parametrize("to", ["<sip:alice@elsewhere.test>", f"<sip:{DOMAIN}>", "<tel:+15550100>", "<http://x/>"])
def test_an_address_that_is_none_of_ours_is_not_found(registrar: Registrar, to: str) -> None:
    with pytest.raises(SipError) as refused:
        registrar.run(make(PHONE, to=to))
    assert refused.value.status == 404
    assert registrar.effects == []


def test_the_address_of_record_is_canonical(registrar: Registrar) -> None:
    registered = registrar.send(PHONE, to=f"<sip:%61lice:x@{DOMAIN.upper()}:5060;transport=tcp?a=b>")
    assert registered.aor == AOR


# ---- step 2: extensions


def test_a_required_extension_that_is_unknown_is_refused_by_name(registrar: Registrar) -> None:
    error = refusal(registrar, PHONE, "Require: path, Sec-Agree", "Require: x-y")
    assert (error.status, error.headers) == (420, ("Unsupported: sec-agree, x-y",))


def test_path_may_be_required(registrar: Registrar) -> None:
    registrar.send(PHONE, "Require: path", "Supported: path")
    assert registrar.bound()


# ---- steps 3 and 4: whose it is


def test_without_credentials_the_realm_of_the_challenge_is_the_domain(registrar: Registrar) -> None:
    error = registrar.challenge(make(PHONE))
    assert error.status == 401
    assert f'realm="{DOMAIN}"' in error.headers[0]
    assert registrar.effects == []


def test_credentials_register_only_their_own_address(registrar: Registrar) -> None:
    error = refusal(registrar, PHONE, to=f"<sip:bob@{DOMAIN}>")
    assert error.status == 403
    assert not any(isinstance(effect, NeedBindings) for effect in registrar.effects)


# ---- step 6: queries and the star


def test_a_query_lists_what_is_bound_and_changes_nothing(registrar: Registrar) -> None:
    registrar.send(PHONE)
    registrar.now += 100
    registered = registrar.send(cseq=2)
    assert contact_line(registered.headers) == "Contact: <sip:alice@192.0.2.7:5062>;expires=3500"
    assert registered.changes == ()
    assert [effect for effect in registrar.effects if isinstance(effect, NeedBindings)] == [NeedBindings(AOR, False)]
    assert not any(isinstance(effect, UpdateBindings) for effect in registrar.effects)


def test_a_query_for_nothing_has_no_contact(registrar: Registrar) -> None:
    assert registrar.send().headers == [date_line(int(NOW))]


def test_the_star_removes_every_binding(registrar: Registrar) -> None:
    registrar.send(PHONE)
    registrar.send(DESK, call_id="two")
    registered = registrar.send("Contact: *", "Expires: 0", cseq=2)
    assert [change.kind for change in registered.changes] == [REMOVED, REMOVED]
    assert registrar.bound() == []


def test_the_star_with_nothing_bound_succeeds_without_an_update(registrar: Registrar) -> None:
    registrar.send("Contact: *", "Expires: 0")
    assert not any(isinstance(effect, UpdateBindings) for effect in registrar.effects)


def test_the_star_fails_whole_when_one_binding_has_a_higher_cseq(registrar: Registrar) -> None:
    registrar.send(PHONE, call_id="other")
    registrar.send(DESK, cseq=5)
    assert refusal(registrar, "Contact: *", "Expires: 0", cseq=5).status == 500


@pytest.mark.parametrize(
    "lines",
    [
        ("Contact: *",),
        ("Contact: *", "Expires: 1"),
        ("Contact: *", "Expires: x"),
        ("Contact: *;expires=0", "Expires: 0"),
        ("Contact: *, <sip:alice@192.0.2.7>", "Expires: 0"),
        ("Contact: <sip:alice@192.0.2.7>", "Contact: *", "Expires: 0"),
        ("Contact: *", "Contact: *", "Expires: 0"),
    ],
)
def test_the_star_stands_alone_and_with_expires_zero(registrar: Registrar, lines: tuple[str, ...]) -> None:
    registrar.send(DESK, call_id="other")
    assert refusal(registrar, *lines).status == 400


# ---- step 7: intervals


@pytest.mark.parametrize(
    ("lines", "granted"),
    [
        ((f"{PHONE};expires=120", "Expires: 600"), 120),
        ((PHONE, "Expires: 600"), 600),
        ((PHONE,), 1800),
        ((PHONE, "Expires: 99999999999999999999"), 3600),
        ((f"{PHONE};expires=4294967296",), 3600),
        ((f"{PHONE};expires=soon",), 3600),
        ((PHONE, "Expires: -5"), 3600),
    ],
)
def test_the_interval_is_the_contacts_else_the_headers_else_the_default(lines: tuple[str, ...], granted: int) -> None:
    registrar = Registrar(default_expires=1800)
    registered = registrar.send(*lines)
    assert contact_line(registered.headers).endswith(f";expires={granted}")
    assert registrar.bindings()[0].expires_at == NOW + granted


def test_too_brief_an_interval_is_refused_with_the_minimum(registrar: Registrar) -> None:
    error = refusal(registrar, PHONE, "Expires: 59")
    assert (error.status, error.headers) == (423, ("Min-Expires: 60",))


def test_one_contact_too_brief_refuses_all(registrar: Registrar) -> None:
    assert refusal(registrar, f"{PHONE}, <sip:alice@192.0.2.8>;expires=5").status == 423


def test_an_hour_is_never_too_brief() -> None:
    registrar = Registrar(min_expires=7200, max_expires=86400)
    registered = registrar.send(f"{PHONE};expires=3600")
    assert contact_line(registered.headers).endswith(";expires=3600")


def test_expires_zero_removes_one_contact(registrar: Registrar) -> None:
    registrar.send(PHONE)
    registrar.send(DESK, cseq=2)
    registered = registrar.send(f"{PHONE};expires=0", cseq=3)
    assert [change.kind for change in registered.changes] == [REMOVED]
    assert registrar.bound() == ["sip:alice@192.0.2.8:5062"]
    assert contact_line(registered.headers) == "Contact: <sip:alice@192.0.2.8:5062>;expires=3600"


def test_removing_what_is_not_bound_succeeds_without_an_update(registrar: Registrar) -> None:
    registrar.send(PHONE, "Expires: 0")
    assert not any(isinstance(effect, UpdateBindings) for effect in registrar.effects)


# ---- step 7: bindings


def test_several_contacts_are_bound_with_their_preference(registrar: Registrar) -> None:
    registrar.send('Contact: "A" <sip:alice@192.0.2.7>;q=0.25, sip:alice@192.0.2.8;q=1.0', "m: <sip:alice@192.0.2.9>")
    assert {each.contact: each.q for each in registrar.bindings()} == {
        "sip:alice@192.0.2.7": 250, "sip:alice@192.0.2.8": 1000, "sip:alice@192.0.2.9": 1000,
    }  # fmt: skip


def test_an_equivalent_uri_refreshes_the_binding(registrar: Registrar) -> None:
    registrar.send("Contact: <sip:%61lice@Host.Example.Test;transport=tcp>")
    registered = registrar.send("Contact: <sip:alice@host.example.test;Transport=TCP>", cseq=2)
    assert [change.kind for change in registered.changes] == [REFRESHED]
    assert registrar.bound() == ["sip:alice@host.example.test;Transport=TCP"]


def test_of_two_contacts_that_equal_one_binding_the_first_takes_its_place(registrar: Registrar) -> None:
    registrar.send("Contact: <sip:alice@192.0.2.7>")
    registered = registrar.send("Contact: <sip:alice@192.0.2.7;line=1>, <sip:alice@192.0.2.7;line=2>", cseq=2)
    assert [change.kind for change in registered.changes] == [REFRESHED, ADDED]
    assert len(registrar.bound()) == 2


@pytest.mark.parametrize("cseq", [4, 5])
def test_a_cseq_that_is_not_higher_refuses_the_whole_request(registrar: Registrar, cseq: int) -> None:
    registrar.send(PHONE, cseq=5)
    assert refusal(registrar, f"{DESK}, <sip:alice@192.0.2.7:5062>", cseq=cseq).status == 500
    assert refusal(registrar, PHONE, "Expires: 0", cseq=cseq).status == 500


def test_another_call_id_may_touch_a_binding_with_any_cseq(registrar: Registrar) -> None:
    registrar.send(PHONE, cseq=5)
    registrar.send(PHONE, cseq=1, call_id="two")
    (binding,) = registrar.bindings()
    assert (binding.call_id, binding.cseq) == ("two", 1)


def test_the_cseq_counts_for_each_binding_alone(registrar: Registrar) -> None:
    registrar.send(PHONE, cseq=5)
    registrar.send(DESK, cseq=1)
    assert len(registrar.bound()) == 2


def test_one_contact_named_twice_is_refused(registrar: Registrar) -> None:
    assert refusal(registrar, PHONE, PHONE).status == 400


def test_more_contacts_than_allowed_are_refused() -> None:
    registrar = Registrar(max_contacts=2)
    registrar.send(PHONE)
    registrar.send(DESK, cseq=2)
    error = refusal(registrar, "Contact: <sip:alice@192.0.2.9>", cseq=3)
    assert (error.status, error.reason) == (403, "Too many contacts")
    registrar.send("Contact: <sip:alice@192.0.2.9>, <sip:alice@192.0.2.7:5062>;expires=0", cseq=4)
    assert len(registrar.bound()) == 2


def test_contacts_above_a_lowered_bound_may_be_refreshed_and_removed() -> None:
    registrar = Registrar(max_contacts=3)
    registrar.send(f"{PHONE}, <sip:alice@192.0.2.8>, <sip:alice@192.0.2.9>")
    registrar.settings.max_contacts = 1
    registrar.send(PHONE, cseq=2)
    registrar.send(PHONE, "Expires: 0", cseq=3)
    assert len(registrar.bound()) == 2


def test_a_request_with_absurdly_many_contacts_is_refused_unread() -> None:
    registrar = Registrar(max_contacts=1)
    assert refusal(registrar, "Contact: " + ", ".join(["<sip:a@b>;expires=0"] * 3)).status == 403


def test_what_the_answer_could_not_hold_is_refused() -> None:
    registrar = Registrar(max_contacts=100)
    for number in range(38):
        registrar.send(f"Contact: <sip:{'x' * 840}{number:02}@192.0.2.7>", cseq=number + 1)
    assert refusal(registrar, f"Contact: <sip:{'x' * 840}38@192.0.2.7>", cseq=50).reason == "Contacts too long"


def test_where_it_came_from_is_kept(registrar: Registrar) -> None:
    flow = Flow("TCP", "192.0.2.7", 40_000, "192.0.2.1:5060", True, connection=17)
    registrar.send(PHONE, "User-Agent: Phone ü/1", flow=flow)
    (binding,) = registrar.bindings()
    assert (binding.transport, binding.host, binding.port, binding.connection) == ("TCP", "192.0.2.7", 40_000, 17)
    assert (binding.user_agent, binding.registered_at) == ("Phone ü/1", NOW)


# ---- devices


def test_a_device_replaces_its_old_contact(registrar: Registrar) -> None:
    registrar.send(f"{PHONE};{DEVICE};reg-id=1")
    registered = registrar.send(f"{DESK};{DEVICE.lower()};reg-id=1", call_id="two")
    assert [change.kind for change in registered.changes] == [REFRESHED]
    assert registrar.bound() == ["sip:alice@192.0.2.8:5062"]


def test_a_device_without_reg_id_replaces_its_old_contact(registrar: Registrar) -> None:
    registrar.send(f"{PHONE};{DEVICE}")
    registrar.send(f"{DESK};{DEVICE}", cseq=2)
    assert registrar.bound() == ["sip:alice@192.0.2.8:5062"]


def test_a_device_may_be_named_by_any_urn(registrar: Registrar) -> None:
    registrar.send(f'{PHONE};+sip.instance="<urn:imei:1-A>"')
    registrar.send(f'{DESK};+sip.instance="<urn:imei:1-A>"', cseq=2)
    assert [each.instance for each in registrar.bindings()] == ["<urn:imei:1-A>"]


def test_flows_of_one_device_are_bound_beside_each_other_with_the_same_uri(registrar: Registrar) -> None:
    registrar.send(f"{PHONE};{DEVICE};reg-id=1")
    registrar.send(f"{PHONE};{DEVICE};reg-id=2", call_id="two")
    assert sorted(each.key[:2] for each in registrar.bindings()) == ["+1", "+2"]


def test_a_device_takes_the_place_of_an_equal_uri_without_one(registrar: Registrar) -> None:
    registrar.send(PHONE)
    registrar.send(f"{PHONE};{DEVICE};reg-id=1", cseq=2)
    (binding,) = registrar.bindings()
    assert binding.reg_id == 1


def test_a_contact_that_matches_by_device_and_by_uri_replaces_both(registrar: Registrar) -> None:
    registrar.send(f"{PHONE};{DEVICE};reg-id=1")
    registrar.send(DESK, call_id="two")
    registered = registrar.send(f"{DESK};{DEVICE};reg-id=1", cseq=2)
    assert sorted(change.kind for change in registered.changes) == [REFRESHED, REMOVED]
    assert len(registrar.bound()) == 1


def test_a_removal_without_device_removes_a_device_by_its_uri(registrar: Registrar) -> None:
    registrar.send(f"{PHONE};{DEVICE};reg-id=1")
    registrar.send(PHONE, "Expires: 0", cseq=2)
    assert registrar.bound() == []


def test_a_reg_id_without_a_device_is_ignored(registrar: Registrar) -> None:
    registrar.send(f"{PHONE};reg-id=1")
    assert registrar.bindings()[0].reg_id is None


@pytest.mark.parametrize("reg_id", ["0", "x", "2147483648", "99999999999", "-1"])
def test_a_broken_reg_id_is_refused(registrar: Registrar, reg_id: str) -> None:
    assert refusal(registrar, f"{PHONE};{DEVICE};reg-id={reg_id}").status == 400


def test_a_flow_is_registered_alone_but_old_contacts_may_go_with_it(registrar: Registrar) -> None:
    assert refusal(registrar, f"{PHONE};{DEVICE};reg-id=1", DESK).status == 400
    registrar.send(DESK)
    registrar.send(f"{PHONE};{DEVICE};reg-id=1", f"{DESK};expires=0", cseq=2)
    assert registrar.bound() == ["sip:alice@192.0.2.7:5062"]


# ---- Path


def test_the_path_is_stored_in_order_and_returned(registrar: Registrar) -> None:
    paths = ("Path: <sip:p1.example.test;lr>,<sip:p2.example.test;lr>", 'Path: "p 3" <sip:p3.example.test;lr>;x=y')
    registered = registrar.send(PHONE, *paths, "Supported: 100rel, Path")
    assert registrar.bindings()[0].path == (
        "<sip:p1.example.test;lr>", "<sip:p2.example.test;lr>", '"p 3" <sip:p3.example.test;lr>;x=y',
    )  # fmt: skip
    assert registered.headers[1] == (
        'Path: <sip:p1.example.test;lr>, <sip:p2.example.test;lr>, "p 3" <sip:p3.example.test;lr>;x=y'
    )


def test_a_path_that_the_endpoint_does_not_support_is_refused(registrar: Registrar) -> None:
    error = refusal(registrar, PHONE, "Path: <sip:p1.example.test;lr>")
    assert (error.status, error.headers) == (420, ("Unsupported: path",))


@pytest.mark.parametrize("path", ["<tel:+15550100>", "nonsense", "<sip:@>", "<sip:p1;lr>;x=\x01"])
def test_a_broken_path_is_refused(registrar: Registrar, path: str) -> None:
    assert refusal(registrar, PHONE, f"Path: {path}", "Supported: path").status == 400


# ---- what may be stored


@pytest.mark.parametrize(
    "contact",
    [
        "", "nonsense", "<sip:>", "<tel:+15550100>", "<mailto:alice@example.test>", "<sip:a@b>;q=2", "<sip:a@b>;q",
        "<sip:a@b>;x=\x07", "<sip:a\x01@b>", f"<sip:{'a' * 1020}@b>", f"<sip:a@b>;x={'y' * 1020}",
    ],
)  # fmt: skip
def test_a_contact_that_cannot_be_stored_is_refused(registrar: Registrar, contact: str) -> None:
    assert refusal(registrar, f"Contact: {contact}").status == 400


def test_a_long_or_unprintable_call_id_is_refused(registrar: Registrar) -> None:
    assert refusal(registrar, PHONE, call_id="x" * 1020).status == 400
    assert refusal(registrar, PHONE, call_id="x\x1b").status == 400


def test_a_user_agent_is_cut(registrar: Registrar) -> None:
    registrar.send(PHONE, f"User-Agent: {'ü' * 1000}")
    assert registrar.bindings()[0].user_agent == "ü" * 128


@pytest.mark.parametrize(
    ("contact", "params"),
    [
        ("<sip:a@b>;expires=60;q=0.5", ";q=0.5"),
        ('<sip:a@b> ; Expires = 60 ; methods="A, B"', ';methods="A, B"'),
        ('"<sip:a@b>;x=1" <sip:a@b>;y="a;expires=3"', ';y="a;expires=3"'),
        ("Alice <sip:a@b>;flag", ";flag"),
        ('"Al\\"ice"<sip:a@b>;flag;expires=60', ";flag"),
        ("sip:a@b;flag=1;expires=60", ";flag=1"),
        ("sip:a@b", ""),
        ("<sip:a@b>;x=\xc3\xbc\t", ";x=\xc3\xbc"),
    ],
)
def test_contact_parameters_come_back_as_written(registrar: Registrar, contact: str, params: str) -> None:
    registered = registrar.send("Contact: " + contact.encode("latin-1").decode("utf-8"))
    assert contact_line(registered.headers).startswith(f"Contact: <sip:a@b>{params};expires=")


# ---- commit and answer


def test_a_store_that_fails_is_told_and_changes_nothing() -> None:
    registrar = Registrar(store_works=False)
    error = refusal(registrar, PHONE)
    assert (error.status, error.headers) == (503, ("Retry-After: 5",))


def test_the_answer_names_every_binding_in_one_line_with_a_date(registrar: Registrar) -> None:
    registrar.send(PHONE)
    registrar.now += 1800.4
    registered = registrar.send(f"{DESK};q=0.5", cseq=2)
    assert registered.headers == [
        "Contact: <sip:alice@192.0.2.8:5062>;q=0.5;expires=3600, <sip:alice@192.0.2.7:5062>;expires=1800",
        date_line(int(registrar.now)),
    ]
    assert [change.kind for change in registered.changes] == [ADDED]


def test_a_binding_about_to_end_is_not_listed_as_gone(registrar: Registrar) -> None:
    registrar.send(PHONE, "Expires: 60")
    registrar.now += 59.9
    assert contact_line(registrar.send(cseq=2).headers).endswith(";expires=1")


def test_the_date_is_english_and_gmt() -> None:
    assert date_line(1_289_674_202) == "Date: Sat, 13 Nov 2010 18:50:02 GMT"
    assert date_line(0) == "Date: Thu, 01 Jan 1970 00:00:00 GMT"


def test_an_update_holds_the_address(registrar: Registrar) -> None:
    registrar.send(PHONE, flow=FLOW)
    needs = [effect for effect in registrar.effects if isinstance(effect, NeedBindings)]
    assert needs == [NeedBindings(AOR, update=True)]


# ---- SIPS


@pytest.mark.parametrize("transport", ["UDP", "TCP", "WS"])
def test_sips_contact_is_registered_over_tls_only(registrar: Registrar, transport: str) -> None:
    weak = Flow(transport, "192.0.2.7", 5062, "192.0.2.1:5060", transport != "UDP", connection=1)
    error = refusal(registrar, "Contact: <SIPS:alice@192.0.2.7:5062>", flow=weak)
    assert (error.status, error.reason) == (403, "SIPS Contact Needs TLS")


@pytest.mark.parametrize("transport", ["TLS", "WSS"])
def test_sips_contact_that_came_over_tls_is_bound(registrar: Registrar, transport: str) -> None:
    flow = Flow(transport, "192.0.2.7", 40_000, "192.0.2.1:5061", True, connection=1)
    registrar.send("Contact: <sips:alice@192.0.2.7:5062>", uri=f"sips:{DOMAIN}", to=f"<sips:{AOR}>", flow=flow)
    (binding,) = registrar.bindings()
    assert (binding.contact, binding.transport) == ("sips:alice@192.0.2.7:5062", transport)
