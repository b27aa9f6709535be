"""Who is meant by an address of ours: aliases, and rules for what people dial (RFC 3966, RFC 3261 §19.1.6).

Rules for numbers come first. They are gone through once, in order: each that fits rewrites the number, and the first
that makes an address of it ends the pass. So no rule is applied twice, and none can loop. What comes out is looked up
among the aliases; an alias may name others, ``MAX_DEPTH`` deep, and each address is taken once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MAX_NUMBER: Final = 32
"""Characters of what is dialled; rules do not look at more (E.164: 15 digits)."""
MAX_DEPTH: Final = 8
"""Aliases of aliases."""
MAX_ADDRESSES: Final = 30
"""Addresses that one may stand for."""

_SEPARATORS: Final = str.maketrans("", "", "-.() ")
_NUMBER: Final = re.compile(r"\+?[0-9*#]+\Z")
# One character, with how often; a group holds such, but no group, and is not repeated.
_ATOM: Final = r"(?:\\[d+*#]|[0-9#.]|\[[0-9#*+-]{1,20}\])(?:[?*+]|\{[0-9]{1,2}(?:,[0-9]{0,2})?\})?"
_PATTERN: Final = re.compile(rf"(?:{_ATOM}|\((?:{_ATOM})+\)(?![?*+{{]))+\Z")
_REPEATS: Final = re.compile(r"(?<!\\)[*+?}]")
_MAX_PATTERN: Final = 100
_MAX_REPEATS: Final = 3


@dataclass(slots=True, eq=False)
class NumberRule:
    """One rule for what is dialled."""

    to: str
    """What stands in the place of it: of the prefix, or of the whole number where there is a ``pattern``."""
    prefix: str = ""
    pattern: re.Pattern[str] | None = None
    context: str = ""
    """The phone-context that local numbers have to have (RFC 3966 §5.1.5); empty for global numbers and for users."""

    def apply(self, number: str) -> str | None:
        """What this number is after the rule; None where the rule does not fit."""
        if self.pattern is None:
            return self.to + number[len(self.prefix) :] if number.startswith(self.prefix) else None
        match = self.pattern.fullmatch(number)
        return match.expand(self.to) if match is not None else None


class DialPlan:
    """The aliases and rules of a configuration."""

    __slots__ = ("_aliases", "_identities", "_rules")

    def __init__(self, aliases: Mapping[str, Sequence[str]] | None = None, rules: Sequence[NumberRule] = ()) -> None:
        """``aliases``: addresses of record, and those that each stands for."""
        self._aliases = {alias: tuple(stands_for) for alias, stands_for in (aliases or {}).items()}
        self._rules = tuple(rules)
        self._identities: dict[str, list[str]] = {}
        for alias, stands_for in self._aliases.items():
            if len(stands_for) == 1:
                self._identities.setdefault(stands_for[0], []).append(alias)

    def __bool__(self) -> bool:
        return bool(self._aliases or self._rules)

    def meant(self, aor: str) -> list[tuple[str, bool]]:
        """The addresses that this address of ours stands for, itself where no more is said.

        With each: whether an alias led there, which is the operator's own word, or only what was dialled.
        """
        aor = self._dialled(aor)
        found: list[tuple[str, bool]] = []
        seen = {aor}
        waiting = [(aor, 0)]
        while waiting and len(found) < MAX_ADDRESSES:
            each, depth = waiting.pop(0)
            stands_for = self._aliases.get(each) if depth < MAX_DEPTH else None
            if stands_for is None and not depth and each.startswith("+"):
                # A global number is the same in each of our domains.
                stands_for = self._aliases.get(each.partition("@")[0])
            if stands_for is None:
                found.append((each, depth > 0))
                continue
            for other in stands_for:
                if other not in seen:
                    seen.add(other)
                    waiting.append((other, depth + 1))
        return found

    def identities(self, aor: str) -> Sequence[str]:
        """The aliases that mean this address alone, and so are its own as well."""
        return self._identities.get(aor, ())

    def _dialled(self, aor: str) -> str:
        """What the rules make of an address: another number of the same domain, or any address."""
        if not self._rules:
            return aor
        number, at, domain = aor.partition("@")
        number = number.translate(_SEPARATORS)
        if len(number) > MAX_NUMBER or not _NUMBER.match(number):
            return aor
        context = domain if domain.startswith("+") else ""
        dialled = number
        for rule in self._rules:
            if rule.context != context:
                continue
            made = rule.apply(dialled)
            if made is None:
                continue
            if "@" in made:
                return made
            # A local number that was made global needs its context no more.
            dialled, context = made[:MAX_NUMBER], "" if made.startswith("+") else context
        if dialled == number:
            return aor
        is_whole = not at or (domain.startswith("+") and dialled.startswith("+"))
        return dialled if is_whole else f"{dialled}@{domain}"


def number_of(aor: str) -> str | None:
    """The number in an address of record: of ``+15550100`` or ``15550100@example.test``; None where it is a name."""
    user = aor.partition("@")[0].translate(_SEPARATORS)
    return user if len(user) <= MAX_NUMBER and _NUMBER.match(user) else None


def compile_pattern(text: str) -> re.Pattern[str] | None:
    """The pattern for the whole of a number; None for one that is not allowed, since matching it may take long.

    Allowed are at most 100 characters: digits, ``#``, ``\\+``, ``\\*``, ``\\d``, ``.`` and ``[...]``, each with ``?``,
    ``*``, ``+`` or ``{m,n}`` behind it, three of these in all; and groups that hold no group and are not repeated.
    """
    if len(text) > _MAX_PATTERN or not _PATTERN.match(text) or len(_REPEATS.findall(text)) > _MAX_REPEATS:
        return None
    try:
        return re.compile(text)
    except re.error:
        return None


def fits(pattern: re.Pattern[str], to: str) -> bool:
    """Whether this replacement names only groups that the pattern has."""
    # The pattern itself says it best: it is asked with an empty text that matches the same groups.
    groups = re.compile("".join("()" for _ in range(pattern.groups)))
    match = groups.match("")
    assert match is not None, "empty groups match"
    try:
        match.expand(to)
    except (re.error, IndexError):
        return False
    return True
