"""Bindings in memory: a dictionary by address, and sets of bindings for each second in which some expire.

A refresh moves a binding from one set to another, so its cost depends neither on how many bindings there are nor
on how often each was refreshed, and nothing of the old one is left behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import Final

from sipserver.location.base import EXPIRED_AT_ONCE, MAX_LINE
from sipserver.location.spread import Spread
from sipserver.registrar.binding import Binding, Change, apply_changes
from sipserver.sip.errors import SipError

Resume = Callable[[], None]

LARGEST_SET: Final = 8_192
"""Bindings in one set: one of very many is copied whole when it grows, and everything waits."""


class MemoryLocation:
    """A ``Location`` that forgets everything with the process."""

    def __init__(self) -> None:
        self.count = 0
        """Bindings that are kept; some may have expired a moment ago."""
        self._bindings: Spread[str, tuple[Binding, ...]] = Spread()
        self._due: dict[int, list[set[Binding]]] = {}
        """Bindings by the first whole second at which they have expired; in more than one set where these are many."""
        self._swept = 0
        """Every binding due by then has been taken out."""
        self.is_behind = False
        """Whether the last ``expire`` was cut short by its limit, so that it is to be called again soon."""
        self._held: dict[str, deque[Resume] | None] = {}
        """The addresses that are held, with who waits for them."""

    def get(self, aor: str, now: float) -> tuple[Binding, ...]:
        """See ``Location.get``."""
        found = self._bindings.part(aor).get(aor, ())
        for binding in found:
            if binding.expires_at <= now:
                return tuple([each for each in found if each.expires_at > now])
        return found

    def acquire(self, aor: str, resume: Resume) -> bool:
        """See ``Location.acquire``."""
        if aor not in self._held:
            self._held[aor] = None
            return True
        line = self._held[aor]
        if line is None:
            line = self._held[aor] = deque()
        if len(line) >= MAX_LINE:
            raise SipError(503, "Too many registrations at once", ("Retry-After: 1",))
        line.append(resume)
        return False

    def release(self, aor: str) -> None:
        """See ``Location.release``."""
        assert aor in self._held, "release without acquire"
        line = self._held[aor]
        if line:
            line.popleft()()
        else:
            del self._held[aor]

    def replace(self, aor: str, changes: Sequence[Change], done: Callable[[bool], None]) -> None:
        """See ``Location.replace``."""
        self._apply(aor, changes)
        done(True)

    def expire(self, now: float, limit: int = EXPIRED_AT_ONCE) -> list[Binding]:
        """See ``Location.expire``."""
        second = int(now)
        # The clock was set back: what was registered since may be due in a second that was swept before.
        self._swept = min(self._swept, second)
        gone: list[Binding] = []
        finished = True
        for due in self._seconds_until(second):
            if len(gone) >= limit:
                finished = False
                break
            held = self._sweep(self._due[due], gone, limit)
            for binding in held:
                self._add(self._due[due], binding)
            if self._due[due]:
                finished = False
            else:
                del self._due[due]
            if finished:
                self._swept = due
        if finished:
            self._swept = second
        self.is_behind = len(gone) >= limit
        return gone

    def addresses(self) -> list[str]:
        """See ``Location.addresses``."""
        return list(self._bindings)

    def __iter__(self) -> Iterator[Binding]:
        """Every binding in memory; nothing may change meanwhile."""
        for found in self._bindings.values():
            yield from found

    def flush(self) -> None:
        """See ``Location.flush``: there is nothing to hand over."""

    def close(self) -> int:
        """See ``Location.close``: there is nothing to finish."""
        return 0

    def _seconds_until(self, second: int) -> list[int]:
        """The seconds with bindings to look at, in order: by counting, or by sorting after a long pause."""
        due = self._due
        if second - self._swept > len(due):
            return sorted([each for each in due if each <= second])
        return [each for each in range(self._swept, second + 1) if each in due]

    def _sweep(self, sets: list[set[Binding]], gone: list[Binding], limit: int) -> list[Binding]:
        """Move bindings from the sets to ``gone`` up to the limit; those taken out whose address is held."""
        held = []
        while sets and len(gone) < limit:
            if not sets[-1]:
                sets.pop()
                continue
            binding = sets[-1].pop()
            if binding.aor in self._held:
                held.append(binding)
            else:
                self._take_out(binding)
                gone.append(binding)
        return held

    def _take_out(self, binding: Binding) -> None:
        bindings = self._bindings.part(binding.aor)
        rest = tuple([each for each in bindings[binding.aor] if each is not binding])
        if rest:
            bindings[binding.aor] = rest
        else:
            del bindings[binding.aor]
        self.count -= 1

    def _apply(self, aor: str, changes: Sequence[Change]) -> None:
        bindings = self._bindings.part(aor)
        before = bindings.get(aor, ())
        after = apply_changes(before, changes)
        for change in changes:
            if change.before is not None:
                for some in self._due.get(ceil(change.before.expires_at), ()):
                    some.discard(change.before)
            if change.after is not None:
                self._schedule(change.after)
        if after:
            bindings[aor] = after
        else:
            bindings.pop(aor, None)
        self.count += len(after) - len(before)

    def _schedule(self, binding: Binding) -> None:
        due = ceil(binding.expires_at)
        if due <= self._swept:
            # The disk was slow, or it was read late.
            self._swept = due - 1
        sets = self._due.get(due)
        if sets is None:
            self._due[due] = [{binding}]
        else:
            self._add(sets, binding)

    @staticmethod
    def _add(sets: list[set[Binding]], binding: Binding) -> None:
        if sets and len(sets[-1]) < LARGEST_SET:
            sets[-1].add(binding)
        else:
            sets.append({binding})

    def _put_in(self, found: list[Binding]) -> None:
        """Keep the bindings of an address that had none, the latest registered first; they count already."""
        aor = found[0].aor
        self._bindings.part(aor)[aor] = tuple(found)
        for binding in found:
            self._schedule(binding)
