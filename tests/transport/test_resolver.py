"""Names to places: what is remembered, for how long, and how much at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sipserver.sip.locate import Place, Question, Records, Usable
from sipserver.sip.uri import Uri
from sipserver.transport.nameservers import Answer, NoAnswer
from sipserver.transport.resolver import NUMERIC_NAMES, Resolver, ResolverSettings
from support.transport import PATIENCE, Recorder

USABLE: Usable = frozenset((("UDP", 4), ("TCP", 4), ("UDP", 6), ("TCP", 6)))


class Names:
    """Name servers for tests: addresses from a dictionary, or when they are told to."""

    def __init__(self, known: dict[str, list[str]] | None = None, ttl: int = 300) -> None:
        self.known = known or {}
        self.ttl = ttl
        self.asked: list[Question] = []
        self.held: asyncio.Event | None = None
        self.broken = False

    async def ask(self, question: Question) -> Answer:
        """The answer, or a failure."""
        self.asked.append(question)
        if self.held is not None:
            await self.held.wait()
        if self.broken:
            raise NoAnswer(question[0])
        name, kind = question
        found = self.known.get(name, []) if kind in ("A", "AAAA") else []
        return Answer(Records(addresses=[each for each in found if (":" in each) == (kind == "AAAA")]), self.ttl)


class Answers:
    """Collects what is called back."""

    def __init__(self) -> None:
        self.found: list[list[Place] | None] = []
        self._called = asyncio.Event()

    def __call__(self, targets: list[Place] | None) -> None:
        self.found.append(targets)
        self._called.set()

    async def until(self, count: int) -> None:
        """Wait for so many."""
        async with asyncio.timeout(PATIENCE):
            while len(self.found) < count:
                self._called.clear()
                await self._called.wait()


def resolver(service: Names, hosts: Path = Path("/nowhere"), **changes: float) -> Resolver:
    settings = ResolverSettings()
    for name, value in changes.items():
        setattr(settings, name, value)
    return Resolver(Recorder(), settings, service.ask, lambda: USABLE, lambda: 0.0, hosts)


def at_once(uri: str) -> list[Place] | None:
    """The answer for what needs no look-up."""
    names, answers = Names(), Answers()
    resolver(names).resolve(Uri.parse(uri), answers)
    assert names.asked == []
    (found,) = answers.found
    return found


@pytest.mark.parametrize(
    ("uri", "targets"),
    [
        ("sip:alice@192.0.2.1", [("UDP", "192.0.2.1", 5060)]),
        ("sip:alice@192.0.2.1:5070;transport=TCP", [("TCP", "192.0.2.1", 5070)]),
        ("sip:[2001:DB8:0::1];transport=udp", [("UDP", "2001:db8::1", 5060)]),
        ("sip:alice@192.0.2.1;maddr=203.0.113.9", [("UDP", "192.0.2.1", 5060)]),
        ("sip:localhost:5080", [("UDP", "::1", 5080), ("UDP", "127.0.0.1", 5080)]),
        ("sip:192.0.2.1;transport=tls", None),
        ("sip:192.0.2.1;transport=ws", None),
        ("sips:alice@192.0.2.1", None),
        ("tel:+15551234567", None),
    ],
)
async def test_what_needs_no_look_up_is_answered_at_once(uri: str, targets: list[Place] | None) -> None:
    assert at_once(uri) == targets


async def test_an_address_in_figures_is_the_same_each_time_however_many_there_are() -> None:
    each = resolver(Names())
    texts = [f"sip:alice@192.0.2.1:{port}" for port in range(1, NUMERIC_NAMES + 10)] + ["sip:192.0.2.1;x=" + "y" * 300]
    for text in [*texts, *texts]:
        answers = Answers()
        each.resolve(Uri.parse(text), answers)
        assert answers.found == [[("UDP", "192.0.2.1", Uri.parse(text).port or 5060)]]


async def test_a_name_is_looked_up_once_and_remembered() -> None:
    names, answers = Names({"pbx.test": ["192.0.2.1", "2001:db8::1"]}), Answers()
    looking = resolver(names)
    for _ in range(2):
        looking.resolve(Uri.parse("sip:a@pbx.test:5060"), answers)
    await answers.until(2)
    looking.resolve(Uri.parse("sip:b@pbx.test:5070;transport=tcp"), answers)
    both = [("UDP", "2001:db8::1", 5060), ("UDP", "192.0.2.1", 5060)]
    assert answers.found == [both, both, [("TCP", "2001:db8::1", 5070), ("TCP", "192.0.2.1", 5070)]]
    assert names.asked == [("pbx.test", "AAAA"), ("pbx.test", "A")]
    assert (looking.lookups, looking.failed) == (2, 0)


async def test_a_domain_is_asked_for_its_services_first() -> None:
    names, answers = Names({"far.test": ["192.0.2.1"]}), Answers()
    resolver(names).resolve(Uri.parse("sip:a@far.test"), answers)
    await answers.until(1)
    assert names.asked == [
        ("far.test", "NAPTR"), ("_sip._udp.far.test", "SRV"), ("_sip._tcp.far.test", "SRV"), ("far.test", "AAAA"),
        ("far.test", "A"),
    ]  # fmt: skip
    assert answers.found == [[("UDP", "192.0.2.1", 5060)]]


async def test_a_name_without_address_is_an_empty_answer_and_remembered() -> None:
    names, answers = Names(), Answers()
    looking = resolver(names)
    for _ in range(2):
        looking.resolve(Uri.parse("sip:a@gone.test:5060"), answers)
        await answers.until(1)
    assert answers.found == [[], []]
    assert (len(names.asked), looking.failed) == (2, 0)


async def test_a_failure_is_an_empty_answer_counted_and_forgotten_soon() -> None:
    names, answers = Names(), Answers()
    names.broken = True
    looking = resolver(names, keep_failure=0.0)
    for count in (1, 2):
        looking.resolve(Uri.parse("sip:a@gone.test:5060"), answers)
        await answers.until(count)
    assert answers.found == [[], []]
    assert (len(names.asked), looking.failed) == (4, 4)


@pytest.mark.parametrize(
    ("ttl", "changes", "questions"),
    [
        (300, {}, 1), (0, {"ttl_min": 0.0}, 2), (0, {"ttl_min": 5.0}, 1), (300, {"ttl_max": 0.0, "ttl_min": 0.0}, 2),
    ],
)  # fmt: skip
async def test_records_are_remembered_as_long_as_they_say_within_bounds(
    ttl: int, changes: dict[str, float], questions: int
) -> None:
    names, answers = Names({"pbx.test": ["192.0.2.1", "2001:db8::1"]}, ttl), Answers()
    looking = resolver(names, Path("/nowhere"), **changes)
    for count in (1, 2):
        looking.resolve(Uri.parse("sip:a@pbx.test:5060"), answers)
        await answers.until(count)
    assert len(names.asked) == 2 * questions


async def test_that_there_is_nothing_is_remembered_within_a_bound_of_its_own() -> None:
    names, answers = Names(), Answers()
    looking = resolver(names, negative_max=0.0, ttl_min=0.0)
    for count in (1, 2):
        looking.resolve(Uri.parse("sip:a@gone.test:5060"), answers)
        await answers.until(count)
    assert len(names.asked) == 4


async def test_other_name_servers_are_asked_anew() -> None:
    names, answers = Names({"pbx.test": ["192.0.2.1"]}), Answers()
    looking = resolver(names)
    for count in (1, 2):
        looking.resolve(Uri.parse("sip:a@pbx.test:5060"), answers)
        await answers.until(count)
        looking.forget()
    assert len(names.asked) == 4


async def test_questions_at_once_are_bounded() -> None:
    names, answers = Names({"slow.test": ["192.0.2.1"]}), Answers()
    names.held = asyncio.Event()
    looking = resolver(names, at_once=2)
    looking.resolve(Uri.parse("sip:a@slow.test:5060"), answers)
    looking.resolve(Uri.parse("sip:a@other.test:5060"), answers)
    assert (answers.found, looking.refused) == ([[]], 2)
    names.held.set()
    await answers.until(2)
    # That it was refused is not remembered.
    looking.resolve(Uri.parse("sip:a@other.test:5060"), answers)
    await answers.until(3)
    assert looking.refused == 2


async def test_those_who_wait_are_bounded() -> None:
    names, answers = Names(), Answers()
    looking = resolver(names, waiters=2)
    for _ in range(2):
        looking.resolve(Uri.parse("sip:a@gone.test:5060"), answers)
    assert (answers.found, looking.refused) == ([[]], 2)
    await answers.until(2)


async def test_answers_remembered_are_bounded() -> None:
    names, answers = Names(), Answers()
    looking = resolver(names, questions=3)
    for number in range(10):
        looking.resolve(Uri.parse(f"sip:a@host{number}.test:5060"), answers)
        await answers.until(number + 1)
        assert len(looking._known) <= 3


async def test_close_gives_up_what_is_being_looked_up() -> None:
    names, answers = Names(), Answers()
    names.held = asyncio.Event()
    looking = resolver(names)
    looking.resolve(Uri.parse("sip:a@slow.test"), answers)
    await asyncio.sleep(0)
    await looking.close()
    assert answers.found == []


async def test_names_of_the_hosts_file_are_not_asked_for(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.7 pbx.test pbx\n2001:db8::7 pbx\n")
    names, answers = Names(), Answers()
    looking = resolver(names, hosts)
    for uri in ("sip:a@PBX.test", "sip:a@pbx:5070;transport=tcp"):
        looking.resolve(Uri.parse(uri), answers)
    assert answers.found == [
        [("UDP", "192.0.2.7", 5060)], [("TCP", "2001:db8::7", 5070), ("TCP", "192.0.2.7", 5070)],
    ]  # fmt: skip
    assert names.asked == []


@pytest.mark.parametrize("name", ["a8f2.invalid", "xyz.onion"])
async def test_names_that_are_in_no_dns_are_not_asked_for(name: str) -> None:
    names, answers = Names(), Answers()
    resolver(names).resolve(Uri.parse(f"sip:{name}"), answers)
    assert (answers.found, names.asked) == ([[]], [])
