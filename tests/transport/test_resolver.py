"""Names to addresses."""

from __future__ import annotations

import asyncio

import pytest

from sipserver.sip.uri import Uri
from sipserver.transport.resolver import NUMERIC_NAMES, Resolver, ResolverSettings, Target, system_addresses
from support.transport import PATIENCE, Recorder


class Names:
    """A name service for tests: answers from a dictionary, or when it is told to."""

    def __init__(self, **known: list[str]) -> None:
        self.known = known
        self.asked: list[str] = []
        self.held: asyncio.Event | None = None

    async def look_up(self, host: str) -> list[str]:
        self.asked.append(host)
        if self.held is not None:
            await self.held.wait()
        if host not in self.known:
            raise OSError("no such name")
        return self.known[host]


class Answers:
    """Collects what is called back."""

    def __init__(self) -> None:
        self.found: list[list[Target] | None] = []
        self._called = asyncio.Event()

    def __call__(self, targets: list[Target] | None) -> None:
        self.found.append(targets)
        self._called.set()

    async def until(self, count: int) -> None:
        """Wait for so many."""
        async with asyncio.timeout(PATIENCE):
            while len(self.found) < count:
                self._called.clear()
                await self._called.wait()


def resolver(service: Names, **changes: float) -> Resolver:
    settings = ResolverSettings()
    for name, value in changes.items():
        setattr(settings, name, value)
    return Resolver(Recorder(), settings, service.look_up)


def at_once(uri: str) -> list[Target] | None:
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
        ("sip:localhost:5080", [("UDP", "127.0.0.1", 5080), ("UDP", "::1", 5080)]),
        ("sip:192.0.2.1;transport=tls", None),
        ("sip:192.0.2.1;transport=ws", None),
        ("sips:alice@192.0.2.1", None),
        ("tel:+15551234567", None),
    ],
)
async def test_what_needs_no_look_up_is_answered_at_once(uri: str, targets: list[Target] | None) -> None:
    assert at_once(uri) == targets


async def test_an_address_in_figures_is_the_same_each_time_however_many_there_are() -> None:
    each = resolver(Names())
    texts = [f"sip:alice@192.0.2.1:{port}" for port in range(1, NUMERIC_NAMES + 10)] + ["sip:192.0.2.1;x=" + "y" * 300]
    for text in [*texts, *texts]:
        answers = Answers()
        each.resolve(Uri.parse(text), answers)
        assert answers.found == [[("UDP", "192.0.2.1", Uri.parse(text).port or 5060)]]


async def test_a_name_is_looked_up_once_and_remembered() -> None:
    names, answers = Names(**{"pbx.test": ["192.0.2.1", "2001:db8::1"]}), Answers()
    looking = resolver(names)
    for _ in range(2):
        looking.resolve(Uri.parse("sip:a@pbx.test"), answers)
    await answers.until(2)
    looking.resolve(Uri.parse("sip:b@pbx.test:5070;transport=tcp"), answers)
    assert answers.found == [
        [("UDP", "192.0.2.1", 5060), ("UDP", "2001:db8::1", 5060)],
        [("UDP", "192.0.2.1", 5060), ("UDP", "2001:db8::1", 5060)],
        [("TCP", "192.0.2.1", 5070), ("TCP", "2001:db8::1", 5070)],
    ]
    assert names.asked == ["pbx.test"]
    assert (looking.lookups, looking.failed) == (1, 0)


async def test_a_name_without_address_is_an_empty_answer_and_remembered() -> None:
    names, answers = Names(), Answers()
    looking = resolver(names)
    looking.resolve(Uri.parse("sip:a@gone.test"), answers)
    await answers.until(1)
    looking.resolve(Uri.parse("sip:a@gone.test"), answers)
    assert answers.found == [[], []]
    assert (names.asked, looking.failed) == (["gone.test"], 1)


async def test_answers_are_forgotten_after_their_time() -> None:
    names, answers = Names(**{"pbx.test": ["192.0.2.1"]}), Answers()
    looking = resolver(names, keep=0.0)
    for count in (1, 2):
        looking.resolve(Uri.parse("sip:a@pbx.test"), answers)
        await answers.until(count)
    assert names.asked == ["pbx.test", "pbx.test"]


async def test_a_look_up_that_takes_too_long_is_an_empty_answer_and_still_counts() -> None:
    names, answers = Names(**{"slow.test": ["192.0.2.1"]}), Answers()
    names.held = asyncio.Event()
    looking = resolver(names, timeout=0.02, at_once=1)
    looking.resolve(Uri.parse("sip:a@slow.test"), answers)
    await answers.until(1)
    looking.resolve(Uri.parse("sip:a@other.test"), answers)
    assert answers.found == [[], []]
    assert looking.refused == 1
    names.held.set()
    await asyncio.wait(looking._busy, timeout=PATIENCE)
    looking.resolve(Uri.parse("sip:a@other.test"), answers)
    await answers.until(3)


async def test_those_who_wait_are_bounded() -> None:
    names, answers = Names(), Answers()
    looking = resolver(names, waiters=1)
    for _ in range(2):
        looking.resolve(Uri.parse("sip:a@gone.test"), answers)
    assert (answers.found, looking.refused) == ([[]], 1)
    await answers.until(2)


async def test_names_remembered_are_bounded() -> None:
    names, answers = Names(), Answers()
    looking = resolver(names, names=3)
    for number in range(10):
        looking.resolve(Uri.parse(f"sip:a@host{number}.test"), answers)
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
    names.held.set()
    await asyncio.wait(looking._busy, timeout=PATIENCE)


async def test_the_system_knows_localhost() -> None:
    assert "127.0.0.1" in await system_addresses("localhost")


@pytest.mark.parametrize("name", ["a" * 70 + ".test", "no-such-host.invalid"])
async def test_a_name_that_cannot_be_is_an_empty_answer(name: str) -> None:
    answers = Answers()
    Resolver(Recorder(), ResolverSettings()).resolve(Uri.parse(f"sip:{name}"), answers)
    await answers.until(1)
    assert answers.found == [[]]
