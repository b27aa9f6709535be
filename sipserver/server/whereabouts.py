"""What the locator asks, as long as the server lives: the database and the kernel, started, changed and closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from sipserver.calls import faults, observe
from sipserver.calls.places import NONE
from sipserver.calls.recorder import Recorder
from sipserver.server import settings
from sipserver.server.config import Config
from sipserver.server.geodatabase import GeoDatabase
from sipserver.server.locating import Locator, Settings
from sipserver.sip.errors import SipError
from sipserver.sip.message import Message, Response
from sipserver.telemetry.log import Log
from sipserver.transport.links import LinkFinder


class Whereabouts:
    """The locator with its sources."""

    def __init__(self, config: Config, wall_clock: Callable[[], float], log: Log, recorder: Recorder) -> None:
        self._config = config
        self._settings = settings.location(config)
        self.locator = Locator(self._settings, wall_clock, note=self._unreadable)
        self._clock = wall_clock
        self._recorder = recorder
        self._log = log
        self._database: GeoDatabase | None = None
        self._links: LinkFinder | None = None
        self._change: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Read the database and start to ask the kernel, as far as configured. Whatever is missing is told only."""
        path, with_links = _wanted(self._config, self._settings)
        if path is not None:
            self._database = GeoDatabase(path, self.locator.forget, self._tell)
            await self._database.start()
        if with_links:
            self._links = LinkFinder(self.locator.forget)
            await self._links.start()
        self.locator.use(self._settings, self._database, self._links)

    def tick(self) -> None:
        """Once a second."""
        if self._database is not None:
            self._database.poll()
        if self._links is not None:
            self._links.tick()

    def reload(self, config: Config) -> None:
        """Another configuration holds: its precision and sites from now on, other sources some moments later."""
        found = settings.location(config)
        if (config.location, found.peers) == (self._config.location, self._settings.peers):
            return
        before = _wanted(self._config, self._settings)
        self._config, self._settings = config, found
        self.locator.use(self._settings, self._database, self._links)
        if _wanted(config, self._settings) != before:
            self._change = asyncio.ensure_future(self._change_sources(self._change))

    async def close(self) -> None:
        """End everything that was started."""
        if self._change is not None:
            await asyncio.wait((self._change,))
        await self._stop()

    async def _change_sources(self, before: asyncio.Future[None] | None) -> None:
        if before is not None:
            await asyncio.wait((before,))
        self.locator.use(self._settings, None, None)
        await self._stop()
        await self.start()

    async def _stop(self) -> None:
        database, self._database = self._database, None
        links, self._links = self._links, None
        if links is not None:
            await links.close()
        if database is not None:
            await database.close()

    def _unreadable(self, message: Message, source: str, error: SipError) -> None:
        """A location that cannot be read stops nothing, and is an error on record."""
        status, answered_by = None, faults.SERVER
        if isinstance(message, Response):
            status, answered_by = message.status, faults.PEER
        self._recorder.error(
            at=int(self._clock() * 1000), kind=faults.LOCATION, method=message.cseq[1], status=status,
            agent=observe.agent(message), detail=error.reason, source=source, answered_by=answered_by,
        )  # fmt: skip

    def _tell(self, event: str, sentence: str) -> None:
        if event == "location.database_failing":
            self._log.warning(event, reason=sentence)
        else:
            self._log.info(event, database=sentence)
        self._log.flush()


def _wanted(config: Config, given: Settings) -> tuple[Path | None, bool]:
    """The database and whether the kernel is to be asked."""
    if given.precision == NONE:
        return None, False
    return config.location_database, given.sites.has_links
