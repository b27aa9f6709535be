"""Compares what is on record with what was planned and with what passed on the wire, and explains each difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from support.generator.compare import CallCheck
from support.generator.dialog import Played
from support.generator.record import Report, Scene, Store
from support.generator.story import Story, tell
from support.generator.wire import Seen
from support.generator.world import World
from support.server import Row


class Checker:
    """Looks at every call of a world that has been played."""

    def __init__(self, world: World, store: Store) -> None:
        self._world = world
        self._store = store
        self._scene = Scene(store, world)
        self.report = self._scene.report

    def check(self) -> Report:
        """Compare everything."""
        report, store, world = self.report, self._store, self._world
        placed = 0
        for played in world.played.values():
            seen = world.network.wire.calls[played.call_id]
            stories = tell(seen, f"c{played.plan.number}")
            placed += len(stories)
            report.scenarios[played.plan.scenario] += 1
            self._check_plan(played, stories, seen)
        report.calls, report.rows = placed, store.count
        if placed != store.count and not world.outages:
            report.mismatches.append(f"{store.count} rows of calls, {placed} calls on the wire")
        self._check_errors()
        return report

    def _check_plan(self, played: Played, stories: list[Story], seen: Sequence[Seen]) -> None:
        rows = list(self._store.rows_of(played))
        before = len(self.report.mismatches)
        expected = len(stories)
        # What reached the server right before it was killed may have left no row.
        doubtful = [story for story in stories if self._scene.doubtful(story, story.started)]
        if not expected - len(doubtful) <= len(rows) <= expected:
            self._scene.wrong(played, f"has {len(rows)} rows, and {expected} INVITEs were let in")
        elif len(rows) < expected:
            gone = doubtful[: expected - len(rows)]
            stories = [story for story in stories if story not in gone]
        if len(rows) == len(stories):
            for row, story in zip(rows, stories, strict=True):
                CallCheck(self._scene, played, story, row, seen).check()
        undisturbed = not any(self._near_an_outage(story) for story in stories)
        if undisturbed and not self._world.outages and not played.done:
            self._scene.wrong(played, f"was not played to its end: {played.trouble or 'it hangs'}")
        if not stories and not self._world.outages:
            self._scene.wrong(played, "never reached the server")
        self._check_links(played)
        if len(self.report.mismatches) > before:
            wire = "\n".join(f"        {each}" for each in seen)
            shown = "\n".join(f"        {row}" for row in rows)
            name = f"call {played.plan.number} ({played.plan.scenario})"
            self.report.details.append(f"{name}\n    on the wire:\n{wire}\n    on record:\n{shown}")

    def _near_an_outage(self, story: Story) -> bool:
        return story.run in self._scene.outages

    # ------------------------------------------------------------------ across calls

    def _check_links(self, played: Played) -> None:
        """Where the store links calls: those that a REFER or a Replaces made belong together."""
        links, plan = self._store.links, played.plan
        if plan.link not in ("transfer", "attended") or not played.done:
            return
        if not self._seen_together(played, self._world.played[plan.rides]):
            return
        mine = {row["id"] for row in self._store.rows_of(played)}
        theirs = {row["id"] for row in self._store.rows_of(self._world.played[plan.rides])}
        if mine and theirs and not any(mine & set(_texts(row)) and theirs & set(_texts(row)) for row in links):
            self._scene.wrong(played, f"is not linked to call {plan.rides}, which it was transferred from")
            wire = "\n".join(f"        {each}" for each in self._world.network.wire.calls[self._of(plan.rides)])
            self.report.details.append(f"call {plan.rides}, which call {plan.number} came from\n{wire}")

    def _seen_together(self, played: Played, origin: Played) -> bool:
        """Whether one run of the server saw both calls begin, and the REFER between them accepted."""
        wire = self._world.network.wire.calls
        before = wire[origin.call_id]
        refers = {each.run: each.at for each in before if each.method == "REFER" and each.status == 202}
        first = {story.run for story in tell(before, f"c{origin.plan.number}")}
        return any(
            story.run in first and story.run in refers and not self._scene.doubtful(story, story.started)
            for story in tell(wire[played.call_id], f"c{played.plan.number}")
        )

    def _of(self, number: int) -> str:
        return self._world.played[number].call_id

    def _check_errors(self) -> None:
        """Every forged request is counted; what stood in memory alone when the server was killed may be lost."""
        sent: Counter[str] = Counter()
        for played in self._world.played.values():
            seen = {each.branch for each in self._world.network.wire.calls[played.call_id] if each.link == "attacker"}
            for method, branch in played.forged:
                sent[method] += branch in seen
        killed = any(each.signal == "KILL" for each in self._world.outages)
        for method, status in (("BYE", 403), ("CANCEL", 481)):
            found = [row for row in self._store.errors if row["method"] == method and row["status"] == status]
            count = sum(row["count"] for row in found)
            if sent[method] and (count < 1 if killed else count < sent[method]):
                self.report.mismatches.append(f"errors count {count} refused {method}s, and {sent[method]} were forged")


def _texts(row: Row) -> list[str]:
    return [value for value in row.values() if isinstance(value, str)]
