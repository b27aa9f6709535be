"""What holds for all four machines, whatever happens to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.sip.effects import Effect, Send, SetTimer, Terminated
from sipserver.sip.transaction import client, invite_client, invite_server, server
from sipserver.sip.transaction.client import Client
from sipserver.sip.transaction.invite_client import TIMER_CANCEL, InviteClient
from sipserver.sip.transaction.invite_server import InviteServer
from sipserver.sip.transaction.server import Server
from support.transactions import TIMERS, outgoing, request, response

Machine = Client | InviteClient | InviteServer | Server
Event = tuple[str, Any]

LETTERS = [*"ABCDEFGHIJKLM", TIMER_CANCEL]

OWN: list[tuple[str, dict[int, str], type[Machine]]] = [
    ("invite client", {
        invite_client.CALLING: "AB", invite_client.PROCEEDING: "", invite_client.ACCEPTED: "M",
        invite_client.COMPLETED: "D", invite_client.TERMINATED: "",
    }, InviteClient),
    ("client", {
        client.TRYING: "EF", client.PROCEEDING: "EF", client.COMPLETED: "K", client.TERMINATED: "",
    }, Client),
    ("invite server", {
        invite_server.PROCEEDING: "", invite_server.ACCEPTED: "L", invite_server.COMPLETED: "GH",
        invite_server.CONFIRMED: "I", invite_server.TERMINATED: "",
    }, InviteServer),
    ("server", {
        server.TRYING: "", server.PROCEEDING: "", server.COMPLETED: "J", server.TERMINATED: "",
    }, Server),
]  # fmt: skip
"""The timers that mean something in each state."""

INTO: dict[type[Machine], dict[int, list[Event]]] = {
    InviteClient: {
        invite_client.CALLING: [],
        invite_client.PROCEEDING: [("response", 180)],
        invite_client.ACCEPTED: [("response", 200)],
        invite_client.COMPLETED: [("response", 486)],
        invite_client.TERMINATED: [("timer", "B")],
    },
    Client: {
        client.TRYING: [],
        client.PROCEEDING: [("response", 100)],
        client.COMPLETED: [("response", 200)],
        client.TERMINATED: [("timer", "F")],
    },
    InviteServer: {
        invite_server.PROCEEDING: [],
        invite_server.ACCEPTED: [("respond", 200)],
        invite_server.COMPLETED: [("respond", 486)],
        invite_server.CONFIRMED: [("respond", 486), ("request", "ACK")],
        invite_server.TERMINATED: [("respond", 200), ("timer", "L")],
    },
    Server: {
        server.TRYING: [],
        server.PROCEEDING: [("respond", 100)],
        server.COMPLETED: [("respond", 200)],
        server.TERMINATED: [("respond", 200), ("timer", "J")],
    },
}
"""The events that lead into each state."""

FOREIGN = [
    pytest.param(kind, state, timer, id=f"{label} {state} {timer}")
    for label, states, kind in OWN
    for state, own in states.items()
    for timer in LETTERS
    # TIMER_CANCEL is PROCEEDING's in the INVITE client; its own tests show it.
    if timer not in list(own) and not (kind is InviteClient and timer == TIMER_CANCEL)
]


def make(kind: type[Machine], *, reliable: bool) -> tuple[Machine, Sequence[Effect]]:
    if kind is InviteClient:
        caller = InviteClient(outgoing(), reliable, TIMERS)
        return caller, caller.start()
    if kind is Client:
        asker = Client(outgoing("OPTIONS"), reliable, TIMERS)
        return asker, asker.start()
    return (InviteServer(reliable, TIMERS) if kind is InviteServer else Server(reliable, TIMERS)), ()


def feed(machine: Machine, event: Event) -> Sequence[Effect]:
    """Give an event to a machine; one that its kind does not know changes nothing."""
    what, value = event
    if what == "timer":
        return machine.on_timer(value)
    if what == "error":
        return machine.on_transport_error()
    handlers: dict[str, Callable[[], Sequence[Effect]]] = {}
    if isinstance(machine, InviteClient | Client):
        handlers["response"] = lambda: machine.on_response(response(value))
        if isinstance(machine, InviteClient):
            handlers["cancel"] = machine.on_cancel
    else:
        handlers["respond"] = lambda: machine.respond(value, b"%d" % value)
        handlers["request"] = lambda: machine.on_request(request(value))
    return handlers[what]() if what in handlers else ()


@pytest.mark.parametrize(("kind", "state", "timer"), FOREIGN)
def test_timer_in_a_foreign_state_is_ignored(kind: type[Machine], state: int, timer: str) -> None:
    machine, _ = make(kind, reliable=False)
    for event in INTO[kind][state]:
        feed(machine, event)
    assert machine.state == state
    assert list(machine.on_timer(timer)) == []
    assert machine.state == state


STATUS = st.sampled_from([100, 180, 183, 200, 202, 302, 401, 408, 486, 503, 603, 699])
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("timer"), st.sampled_from(LETTERS)),
        st.tuples(st.just("error"), st.none()),
        st.tuples(st.just("cancel"), st.none()),
        st.tuples(st.just("response"), STATUS),
        st.tuples(st.just("respond"), STATUS),
        st.tuples(st.just("request"), st.sampled_from(["INVITE", "ACK"])),
    ),
    max_size=30,
)
KINDS = st.sampled_from([Client, InviteClient, InviteServer, Server])


@given(KINDS, st.booleans(), EVENTS)
def test_no_sequence_of_events_raises_or_revives_a_machine(
    kind: type[Machine], reliable: bool, events: list[Event]
) -> None:
    machine, effects = make(kind, reliable=reliable)
    over = False
    if reliable:
        # Timers that are only ever set on unreliable transports.
        events = [event for event in events if event not in (("timer", "A"), ("timer", "E"), ("timer", "G"))]
    for event in [None, *events]:
        if event is not None:
            effects = feed(machine, event)
        if over:
            assert list(effects) == []
            continue
        over = Terminated() in effects
        assert not over or list(effects).count(Terminated()) == 1
        # One Send, and last: see the package.
        sends = [position for position, effect in enumerate(effects) if isinstance(effect, Send)]
        assert sends in ([], [len(effects) - 1])
        if reliable:
            assert not {e.timer for e in effects if isinstance(e, SetTimer)} & set("ADEGIJK")
    if over:
        assert not getattr(machine, "_last", b"")
        assert getattr(machine, "_request", None) is None
        assert not getattr(machine, "_ack", b"")


@given(KINDS, EVENTS)
def test_timers_that_fall_due_as_set_end_what_has_its_final_answer(kind: type[Machine], events: list[Event]) -> None:
    """However it came to where it is: once a final response is there, its timers alone end the machine."""
    machine, effects = make(kind, reliable=False)
    pending: list[tuple[float, str]] = []

    def note(now: float, effects: Sequence[Effect]) -> None:
        pending.extend((now + e.after, e.timer) for e in effects if isinstance(e, SetTimer))
        # No chain is ever doubled: one A, E or G at a time.
        for letter in "AEG":
            assert [timer for _, timer in pending].count(letter) <= 1

    note(0.0, effects)
    for event in [*events, ("response", 486), ("respond", 486)]:
        if event[0] != "timer":
            note(0.0, feed(machine, event))
    while pending:
        pending.sort()
        assert len(pending) < 100
        now, timer = pending.pop(0)
        note(now, machine.on_timer(timer))
    assert list(machine.on_transport_error()) == []
