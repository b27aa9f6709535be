"""A video service that never was: its subscribers, when they call, and what becomes of a call. No store, no clock.

Everything is drawn from one seeded generator, so a seed, a size and a period always give the same service:

* Subscribers live in places with a time zone, a few at sites of their employer; some call far more than others, and
  most calls go to one of a handful of contacts.
* People call in the day, with a hump before noon and one in the evening; on weekends less, and later.
* Devices are products with versions that spread week by week. One version has a fault that refuses calls.
* Calls ring, are answered, declined, given up or fail, with the delays and the responses of each; who did not get
  through often tries again within minutes.
* The server is restarted every month, is killed once, and stays away for an hour and a half.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from random import Random
from statistics import NormalDist
from typing import Final
from zoneinfo import ZoneInfo

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS


@dataclass(slots=True, frozen=True)
class Home:
    """Where subscribers live."""

    country: str
    region: str
    city: str
    zone: str
    share: float
    """Of all subscribers."""
    sites: tuple[str, ...] = ()


HOMES: Final = (
    Home("DE", "DE-BE", "Berlin", "Europe/Berlin", 0.26, ("berlin-mitte", "berlin-tegel")),
    Home("DE", "DE-BY", "Munich", "Europe/Berlin", 0.14, ("munich",)),
    Home("GB", "GB-ENG", "London", "Europe/London", 0.20, ("london",)),
    Home("FR", "FR-IDF", "Paris", "Europe/Paris", 0.12),
    Home("US", "US-NY", "New York", "America/New_York", 0.16, ("new-york",)),
    Home("US", "US-CA", "San Francisco", "America/Los_Angeles", 0.07),
    Home("JP", "JP-13", "Tokyo", "Asia/Tokyo", 0.05),
)


@dataclass(slots=True, frozen=True)
class Product:
    """What subscribers call with; its agent is ``name/version (detail)``."""

    name: str
    versions: tuple[str, ...]
    detail: str
    share: float
    transports: tuple[str, ...]
    video: float
    """How many of its calls offer video."""
    codecs: tuple[str, ...]
    resolutions: tuple[tuple[str | None, int | None], ...]
    encrypted: int
    faulty: str | None = None
    """The version that refuses an eighth of its calls with 488."""


PRODUCTS: Final = (
    Product("Vesta Phone", ("4.0.2", "4.1.0", "4.2.1"), "Android 14", 0.34, ("TLS", "TCP"), 0.86, ("H264", "VP8"),
        (("1280x720", 921_600), ("640x360", 230_400)), 1, "4.1.0"),
    Product("Vesta Desktop", ("4.0.0", "4.1.3"), "Linux", 0.22, ("TLS",), 0.82, ("H264", "VP9"),
        (("1920x1080", 2_073_600), ("1280x720", 921_600)), 1),
    Product("Halo Web", ("2.18.0", "2.19.4", "2.20.0"), "Chromium", 0.24, ("WSS",), 0.90, ("VP8", "VP9"),
        ((None, None), ("1280x720", 921_600)), 1),
    Product("Acme Room System", ("66.84", "66.91"), "", 0.08, ("TCP", "TLS"), 0.97, ("H264",),
        (("1920x1080", 2_073_600), ("3840x2160", 8_294_400)), 1),
    Product("baresip", ("1.0.0", "3.5.1"), "x86_64/linux", 0.12, ("UDP", "TCP"), 0.45, ("VP8", "H264"),
        (("640x480", 307_200),), 0),
)  # fmt: skip

_AGENTS: Final = {
    product.name: [
        f"{product.name}/{version} ({product.detail})" if product.detail else f"{product.name} {version}"
        for version in product.versions
    ]
    for product in PRODUCTS
}
"""By product, the User-Agent of each version."""

_WORKDAY: Final = (
    0.10, 0.05, 0.03, 0.02, 0.03, 0.08, 0.22, 0.55, 1.00, 1.45, 1.60, 1.50,
    1.15, 1.20, 1.40, 1.35, 1.20, 1.10, 1.25, 1.40, 1.30, 0.95, 0.55, 0.25,
)  # fmt: skip
_FREE_DAY: Final = (
    0.18, 0.10, 0.06, 0.03, 0.03, 0.04, 0.08, 0.16, 0.32, 0.55, 0.75, 0.80,
    0.75, 0.72, 0.78, 0.85, 0.92, 1.00, 1.05, 1.08, 1.00, 0.80, 0.52, 0.30,
)  # fmt: skip
_WEEK: Final = (1.05, 1.0, 1.0, 1.02, 0.95, 0.75, 0.85)


@dataclass(slots=True)
class Subscriber:
    """One who has an address; the party id is all that the record knows."""

    party: str
    home: Home
    site: str | None
    product: Product
    phase: float
    """How late it takes new versions, 0 to 1."""
    transport: str
    network: str

    def agent(self, progress: float) -> str:
        """The User-Agent when so much of the period is over."""
        agents = _AGENTS[self.product.name]
        return agents[min(int((progress * 1.3 + 0.7 * (1 - self.phase)) / 2 * len(agents)), len(agents) - 1)]


class Population:
    """The subscribers, by home, and who calls whom."""

    def __init__(self, rng: Random, size: int) -> None:
        self.rng = rng
        """Drawn from for calls, too."""
        self.people: list[Subscriber] = []
        self._first: list[tuple[int, int]] = []
        shares = list(accumulate(home.share for home in HOMES))
        edges = [0, *(max(round(size * share / shares[-1]), index + 1) for index, share in enumerate(shares))]
        edges[-1] = max(size, len(HOMES))
        weights = [product.share for product in PRODUCTS]
        for home, begin, end in zip(HOMES, edges, edges[1:], strict=False):
            self._first.append((begin, max(end - begin, 1)))
            for _ in range(begin, end):
                self.people.append(self._draw(home, rng.choices(PRODUCTS, weights)[0]))

    def _draw(self, home: Home, product: Product) -> Subscriber:
        rng = self.rng
        return Subscriber(
            f"p_{''.join(rng.choices('abcdefghijklmnopqrstuvwxyz234567', k=16))}",
            home,
            rng.choice(home.sites) if home.sites and rng.random() < 0.35 else None,
            product,
            rng.random(),
            rng.choice(product.transports),
            # RFC 2544: addresses for benchmarks, which belong to nobody.
            f"198.{rng.randrange(18, 20)}.{rng.randrange(256)}.0/24",
        )

    def caller(self, home: int) -> int:
        """Somebody who lives there; a tenth of them place most of the calls."""
        first, count = self._first[home]
        return first + int(count * self.rng.random() ** 2.6)

    def callee(self, caller: int) -> int:
        """Whom they call: mostly one of a few contacts, who are mostly near, never themselves."""
        rng, size = self.rng, len(self.people)
        if rng.random() < 0.85:
            contact = int(9 * rng.random() ** 2)
            near = 1 + (caller * 31 + contact * contact * 17) % 61
            other = (caller + near if contact % 3 else caller * 7919 + contact * 104_729 + 1) % size
        else:
            other = int(rng.random() * size)
        return other if other != caller else (caller + 1) % size


@dataclass(slots=True)
class Hour:
    """An hour of the period, with how busy it is and where the calls of it come from."""

    at: int
    """Its beginning, in milliseconds."""
    weight: float
    homes: list[float]
    """Running sums of what each home gives to it."""


def hours(begin: int, end: int) -> Iterator[Hour]:
    """The hours from ``begin`` to ``end`` (milliseconds, whole hours)."""
    zones = {home.zone: ZoneInfo(home.zone) for home in HOMES}
    for at in range(begin, end, HOUR_MS):
        utc = datetime.fromtimestamp(at // 1000, UTC)
        local = {name: utc.astimezone(zone) for name, zone in zones.items()}
        sums = list(accumulate(home.share * _busy(local[home.zone]) for home in HOMES))
        # Growth, and a quieter summer.
        season = 1 + 0.25 * (at - begin) / max(end - begin, 1) - 0.18 * math.sin(math.pi * utc.month / 12) ** 8
        yield Hour(at, sums[-1] * season, sums)


def _busy(local: datetime) -> float:
    day = local.weekday()
    return (_WORKDAY if day < 5 else _FREE_DAY)[local.hour] * _WEEK[day]


def runs(begin: int, end: int) -> list[tuple[int, int, bool]]:
    """When the server ran: from, to, and whether it was killed then. Every 30 days it is away for a moment.

    Once it is away for an hour and a half, so that a report has something to leave empty.
    """
    cut = begin + (end - begin) * 3 // 5 // DAY_MS * DAY_MS + 3 * HOUR_MS
    found: list[tuple[int, int, bool]] = []
    at = begin
    for stop in range(begin + 30 * DAY_MS + 4 * HOUR_MS, end, 30 * DAY_MS):
        if at < cut < stop and cut > begin:
            found.append((at, cut, True))
            at = cut + 3 * HOUR_MS // 2
        if stop > at + HOUR_MS:
            found.append((at, stop, False))
            at = stop + 20_000
    if at < cut < end - 2 * HOUR_MS:
        found.append((at, cut, True))
        at = cut + 3 * HOUR_MS // 2
    found.append((at, end, False))
    return found


OUTCOMES: Final = (
    ("answered", 200, 0.640, True),
    ("cancelled", 487, 0.105, True),
    ("no_answer", 408, 0.080, True),
    ("declined", 603, 0.045, True),
    ("busy", 486, 0.038, False),
    ("offline", 480, 0.062, False),
    ("not_found", 404, 0.010, False),
    ("failed", 503, 0.006, False),
    ("failed", 500, 0.005, False),
    ("forbidden", 403, 0.004, False),
    ("failed", 488, 0.003, False),
    ("failed", 302, 0.002, False),
)
"""What becomes of a call: outcome, status, how often, and whether a device rang."""

_SUMS: Final = list(accumulate(weight for _, _, weight, _ in OUTCOMES))


UNSEEN: Final = ("connection_lost", "session_expired", "registration_lost", "probe_failed")
"""How calls end that nobody was seen to hang up."""


@dataclass(slots=True)
class Call:
    """One call, as the record will have it. Times are milliseconds."""

    id: str
    at: int
    one: Subscriber
    other: Subscriber
    """Who calls, and whom."""
    agent: str
    its_agent: str
    outcome: str
    status: int | None
    tried: bool
    """Whether a device was tried at all."""
    reached: int
    """The first sign of a device, or the refusal."""
    audio: str
    offered_video: int
    ringing: int | None = None
    answered: int | None = None
    confirmed: int | None = None
    over: int = 0
    cause: str = "refused"
    by: str = "callee"
    uncertainty: int | None = None
    video: tuple[str, tuple[str | None, int | None]] | None = None
    """Codec, and resolution with its pixels."""
    video_from: int | None = None
    content_from: int | None = None

    def hang_up(self, at: int) -> None:
        """It is over by then."""
        self.uncertainty, self.over = None, min(self.over, at)
        if self.answered is not None:
            self.cause, self.by = "bye", "caller"
        self._trim()

    def cut_short(self, stopped: int, restarted: int) -> None:
        """The server stopped meanwhile: the last that is known of it is its end, and when that was is uncertain."""
        if self.answered is not None and self.answered < stopped:
            if self.confirmed is not None and self.confirmed >= stopped:
                self.confirmed = None
            self.over = self.confirmed or self.answered
        else:
            self.outcome, self.status, self.answered, self.confirmed = "failed", None, None, None
            if self.ringing is not None and self.ringing >= stopped:
                self.ringing = None
            self.over = self.ringing or self.at
        self.cause, self.by, self.uncertainty = "server_restart", "server", restarted - self.over
        self._trim()

    def _trim(self) -> None:
        # A call that does not last until then never got its video or its content.
        if self.video_from is not None and (self.answered is None or self.video_from > self.over):
            self.video_from = None
        if self.content_from is not None and (self.answered is None or self.content_from > self.over):
            self.content_from = None


QUANTILES: Final = 65_536
"""So many values of a distribution are drawn from: looking one up is a fifth of what drawing it anew costs."""


def lognormal(mu: float, sigma: float) -> tuple[float, ...]:
    """Equally likely values that are distributed so."""
    return tuple(math.exp(mu + sigma * each) for each in _NORMAL)


_NORMAL: Final = tuple(map(NormalDist().inv_cdf, ((each + 0.5) / QUANTILES for each in range(QUANTILES))))
_REACHED_MS: Final = lognormal(5.6, 0.6)
_RINGING_MS: Final = lognormal(9.3, 0.5)
_TAKEN_MS: Final = lognormal(8.6, 0.6)
# Half of them talk less than four minutes, few for hours, hardly anyone for half a day.
_TALK_MS: Final = lognormal(12.4, 1.25)


def draw_call(rng: Random, name: str, at: int, one: Subscriber, other: Subscriber, progress: float) -> Call:
    """What becomes of a call from one to the other when so much of the period is over."""
    random = rng.random
    outcome, status, _, rings = OUTCOMES[bisect(_SUMS, random() * _SUMS[-1])]
    its_agent = other.agent(progress)
    faulty = other.product.faulty
    if faulty and outcome == "answered" and f"/{faulty} " in its_agent and random() < 0.125:
        outcome, status, rings = "failed", 488, False
    tried = outcome not in ("offline", "not_found", "forbidden")
    reached = at + (min(int(_REACHED_MS[int(random() * QUANTILES)]) + 20, 30_000) if tried else 2 + int(random() * 10))
    call = Call(
        name, at, one, other, one.agent(progress), its_agent, outcome, status, tried, reached,
        "opus" if one.product.encrypted else "PCMU", int(random() < one.product.video),
        reached if rings else None,
    )  # fmt: skip
    if outcome == "answered":
        _answered(rng, call)
    else:
        ring = 60_000 if outcome == "no_answer" else min(int(_RINGING_MS[int(random() * QUANTILES)]), 60_000)
        call.over = reached + (ring if rings else 0)
        call.cause = {"cancelled": "cancel", "no_answer": "timeout"}.get(outcome, "refused")
        call.by = {"cancelled": "caller", "no_answer": "server"}.get(outcome, "callee" if tried else "server")
    return call


def _answered(rng: Random, call: Call) -> None:
    random = rng.random
    answered = call.answered = call.reached + min(int(_TAKEN_MS[int(random() * QUANTILES)]), 60_000)
    call.confirmed = answered + 10 + int(random() * 80)
    call.over = call.confirmed + min(int(_TALK_MS[int(random() * QUANTILES)]) + 900, 14 * HOUR_MS)
    call.cause, call.by = "bye", "caller" if random() < 0.5 else "callee"
    luck = random()
    if luck < 0.006:
        call.cause, call.by, call.uncertainty = rng.choice(UNSEEN), "server", rng.randrange(5_000, 900_000)
    elif luck < 0.008:
        call.uncertainty = 32_000
    product = call.other.product
    if call.offered_video and random() < product.video:
        call.video = _video(random, product)
        call.video_from = answered
    elif random() < 0.08:
        # Begun with voice alone; the picture comes later.
        call.video = _video(random, product)
        call.video_from = answered + 5_000 + int(random() * 115_000)
    if random() < 0.05:
        call.content_from = answered + 10_000 + int(random() * 290_000)
    if call.video_from is not None and call.video_from > call.over:
        call.video_from = None
    if call.content_from is not None and call.content_from > call.over:
        call.content_from = None


def _video(random: Callable[[], float], product: Product) -> tuple[str, tuple[str | None, int | None]]:
    """Codec, and resolution with its pixels."""
    codecs, resolutions = product.codecs, product.resolutions
    return codecs[int(random() * len(codecs))], resolutions[int(random() * len(resolutions))]
