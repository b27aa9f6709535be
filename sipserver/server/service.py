"""A running server: its stores, its machines and its sockets, from start to stop."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any, Final

from sipserver.accounts.credentials import CredentialCache, Keyring
from sipserver.accounts.parties import STATEMENTS as PARTY_STATEMENTS
from sipserver.accounts.parties import Parties
from sipserver.accounts.schema import FILE as ACCOUNTS_FILE
from sipserver.accounts.schema import open_accounts, open_keyring
from sipserver.calls import faults, recovery
from sipserver.calls import schema as calls_schema
from sipserver.calls.activity import STATEMENTS as ACTIVITY_STATEMENTS
from sipserver.calls.activity import ActivityRecords
from sipserver.calls.quality import STATEMENTS as QUALITY_STATEMENTS
from sipserver.calls.quality import QualityRecords
from sipserver.calls.recorder import CALL_ROW, Recorder
from sipserver.calls.recorder import STATEMENTS as CALL_STATEMENTS
from sipserver.location.sqlite import SqliteLocation
from sipserver.proxy.dialog import DialogTable
from sipserver.proxy.media_relay import NEVER
from sipserver.proxy.overload import Overload
from sipserver.proxy.record_route import Minter
from sipserver.registrar.binding import Binding
from sipserver.server import settings
from sipserver.server.certificates import Certificates
from sipserver.server.clock import Clock
from sipserver.server.comebacks import Comebacks
from sipserver.server.config import Config
from sipserver.server.context import Context
from sipserver.server.dead_targets import DEAD, DeadTargets
from sipserver.server.devices import Devices
from sipserver.server.driver import Driver
from sipserver.server.flows import FlowFinder
from sipserver.server.gate import CommitGate
from sipserver.server.handover import Handover
from sipserver.server.keeping import FlowKeeper
from sipserver.server.ledger import Ledger
from sipserver.server.liveness import Liveness
from sipserver.server.measures import Measured, publish
from sipserver.server.media import Media, media_of
from sipserver.server.portions import Portions
from sipserver.server.pressure import Pressure
from sipserver.server.proxying import Proxying
from sipserver.server.pulse import Pulse
from sipserver.server.quality import Collector
from sipserver.server.registrations import Registrations
from sipserver.server.timers import TimerQueue
from sipserver.server.tokens import Tokens
from sipserver.server.transactions import TransactionLayer
from sipserver.server.watch import CallWatch
from sipserver.server.whereabouts import Whereabouts
from sipserver.sip.gruu import GruuMinter
from sipserver.sip.locate import Place
from sipserver.storage.database import StoreError
from sipserver.storage.migrations import open_store
from sipserver.storage.writer import Writer
from sipserver.telemetry.log import Log
from sipserver.telemetry.metrics import Metrics
from sipserver.transport.base import ListenAddress, ListenError, Transports
from sipserver.transport.contract import hostport
from sipserver.transport.resolver import Resolver

CALLS_FILE: Final = "calls.db"
LOCATION_FILE: Final = "location.db"
ALL_STATEMENTS: Final = (*CALL_STATEMENTS, *QUALITY_STATEMENTS, *ACTIVITY_STATEMENTS)
"""Of the writer of ``calls.db``."""
CALLS_MODE: Final = 0o640
"""Analysts of the server's group may read what happened; who people are is for the server alone."""

COLLECT_EVERY = 600
"""Seconds between two looks for garbage that reference counts left over; only while nothing is in flight."""
COLLECT_BELOW: Final = 10_000
"""Bindings with which it is not done any more: each is looked at, a microsecond apiece."""
ROWS_AHEAD: Final = 10_000
"""Rows that wait for the disk with which nothing is done that makes many more."""

LogMaker = Callable[[Callable[[str], str | None]], Log]


class Service:
    """Everything that lives as long as the server. Raises StoreError where a store cannot be opened."""

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        make_log: LogMaker,
        transports: Transports | None = None,
    ) -> None:
        self.config = config
        self._loop = loop
        self._clock = clock
        self._ticks = 0
        data_dir = config.data_dir
        check_folder(data_dir)
        keyring = self._open_accounts(data_dir)
        self.log = make_log(self.parties.party)
        self._batch_end = Handover(loop, self.log)
        self.recovered = self._recover(data_dir / CALLS_FILE)
        self.calls_writer = self._writer(
            data_dir / CALLS_FILE, ALL_STATEMENTS, interval_ms=config.storage.call_commit_interval_ms, mode=CALLS_MODE
        )
        self.location = self._open_location(data_dir / LOCATION_FILE)
        tokens = Tokens()
        self.recorder = Recorder(
            self.calls_writer,
            node=config.node,
            call_id_key=keyring.derive("call-id"),
            random=tokens.bytes10,
            network=settings.network_prefix(config),
            max_open_calls=config.limits.calls,
        )
        self._keep_quality_and_activity(keyring, tokens)
        self.certificates = Certificates(config, clock, self.log)
        self.transports = transports or Transports()
        self.timers = TimerQueue(loop.time, loop.call_at, self._batch_end)
        self.transactions = TransactionLayer(
            self.transports, self.timers, settings.timers(config), config.limits.transactions
        )
        self.context = Context(
            self.transports, self.transactions, self.recorder, self.log, settings.limits(config), clock, tokens,
            config.server.agent,
        )  # fmt: skip
        self.context.challenges.patience = 64 * config.timers.t1
        self.context.challenges_inside.patience = 8 * config.timers.t1
        self.gate = CommitGate(self.calls_writer, self.timers)
        self.overload = Overload(settings.overload(config))
        self.pulse = Pulse(loop.time)
        self.pressure = Pressure(self.overload, loop, self.transports.take_waited, process_time, self.pulse, self.log)
        self._batch_end.use(self.location, self.gate, self.pressure)
        self.portions = Portions(loop.time, self._later, self._batch_end, self._on_step_fault)
        self.metrics = Metrics()
        self.ledger = Ledger(self.recorder, self.calls_writer, data_dir / CALLS_FILE, self._calls_before, self.log)
        self._wire(keyring)
        writers = {"calls": self.calls_writer, "accounts": self.parties_writer, "location": self.location.writer}
        publish(
            Measured(
                self.metrics, self.driver, self.context, self.registrations, self.proxying, self.recorder, self.gate,
                self.location, self.timers, self.ledger, self.resolver, self.dead_targets, self.certificates,
                self.overload, self.pressure, self.pulse, writers,
            )
        )  # fmt: skip

    def _keep_quality_and_activity(self, keyring: Keyring, tokens: Tokens) -> None:
        """What stands in ``calls.db`` beside calls."""
        writer, network = self.calls_writer, self.recorder.network
        self.quality = QualityRecords(
            writer, len(CALL_STATEMENTS), node=self.config.node, call_id_hash=self.recorder.hash_call_id,
            digest_key=keyring.derive("quality-report"), random=tokens.bytes10, network=network,
        )  # fmt: skip
        first = len(CALL_STATEMENTS) + len(QUALITY_STATEMENTS)
        self.activity = ActivityRecords(writer, first, key=keyring.derive("device"), network=network)

    def _wire(self, keyring: Keyring) -> None:
        """The registrar's and the proxy's side, and the driver over both."""
        config, clock = self.config, self._clock
        self.authenticators = authenticators = settings.authenticators(config, keyring.derive("nonce"), clock())
        self.whereabouts = Whereabouts(config, clock, self.log, self.recorder)
        locator = self.whereabouts.locator
        domain = config.server.domains[0]
        gruus = GruuMinter(keyring.derive("gruu"))
        keeper = FlowKeeper(self.context, settings.keeping(config), self.location, self._later, domain)
        self.registrations = Registrations(
            self.context, settings.registrar(config), authenticators, self.credentials, self.location, self.parties,
            self.activity, gruus, keeper, locator,
        )  # fmt: skip
        self.watch = CallWatch(
            self.recorder,
            self.quality,
            self.parties,
            self.credentials.exists,
            self.log,
            clock,
            locator,
            self._cut_short,
        )
        self.dialogs = DialogTable()
        # The resolver calls back through the driver's batch end, which exists only below.
        self.driver = Driver(self.context, self.registrations, self._batch_end, self.overload)
        self.nameservers = settings.nameservers(config)
        self.resolver = Resolver(
            self.driver, settings.resolver(config), self.nameservers.ask, self.transports.usable,
            self.context.tokens.fraction,
        )  # fmt: skip
        self.dead_targets = DeadTargets(config.proxy.dead_for, self._note_target)
        finder = FlowFinder(self.transports, self.resolver, self.dialogs, self.dead_targets, self._loop.time)
        self.liveness = Liveness(
            self.context, settings.liveness(config), self.watch, finder, self.location, self.context.tokens.fraction
        )
        self.registrations.on_lost = self.liveness.binding_lost
        comebacks = Comebacks(self.watch, self.liveness, self.dialogs, self.transports)
        self.registrations.on_reconnected = comebacks.registered
        self.proxying = Proxying(
            self.context,
            settings.proxy(config, self.transports.is_us),
            authenticators,
            Minter(keyring.derive("record-route")),
            self.credentials,
            self.location,
            self.watch,
            self.gate,
            self.dialogs,
            self.timers,
            Collector(self.context, self.calls_writer, self.timers, self.quality, self.watch.party),
            self.liveness,
            devices=Devices(gruus, self.parties, self.location, self._clock),
        )
        self.media = self.proxying.media = self._media()
        self.driver.use_proxy(self.proxying)
        self.transactions.on_ack = self.driver.on_ack
        self.transactions.on_server_failed = self.proxying.on_undelivered

    def _media(self) -> Media | None:
        """What relays media; None where no call needs a relay, or none is there."""
        config = self.config
        if not config.media_relays or config.media.policy == NEVER:
            return None
        return media_of(
            self.context, self.watch, self.quality, self.timers, settings.media(config), config.media_relays,
            config.media.timeout_ms / 1000,
        )  # fmt: skip

    async def start(self) -> None:
        """Open the sockets. Raises ListenError with a sentence for the operator."""
        await self.whereabouts.start()
        await self.certificates.start()
        listeners = [
            replace(ListenAddress.parse(each.address), name=each.name.lower()) for each in self.config.listeners
        ]
        await self.transports.start(listeners, self.driver, settings.transports(self.config), self.certificates)
        if self.transports.tcp is not None:
            self.transports.tcp.on_dropped = self.context.note_dropped
        self.transports.websockets.on_refused = self.context.note_handshake
        self.transports.bound.on_change = self.context.note_address
        if self.media is not None:
            self.media.start(self._loop, self.driver.on_batch_end)
        address = self.config.metrics_address
        if address is not None:
            try:
                self.metrics.serve(*address)
            except OSError as error:
                raise ListenError(f"Cannot serve metrics on {self.config.metrics.listen}: {error.strerror}.") from error

    def ready(self) -> None:
        """Tell the operator that requests are answered."""
        self.registrations.keeper.start()
        self.location.on_loaded = self.registrations.keeper.loaded
        if self.location.is_loading:
            self.portions.go_on(self.location.load)
        self.recorder.started(self._now_ms(), self._calls_before)
        if self.recovered:
            self.log.warning("calls.recovered", calls=self.recovered, end_cause=recovery.SERVER_RESTART)
        self.log.info(
            "server.ready", listen=self.transports.listening, domains=list(self.config.server.domains),
            data_dir=str(self.config.data_dir), bindings=self.location.count,
        )  # fmt: skip
        self._batch_end()

    def tick(self) -> None:
        """Once a second: what time brings, and what other processes changed."""
        try:
            self._tick()
        except Exception as fault:
            # The next second comes all the same.
            self.driver.note_fault(fault)
        self._batch_end()

    def _on_step_fault(self, fault: BaseException) -> None:
        self.driver.note_fault(fault)

    def on_loop_fault(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback of the loop failed (``loop.set_exception_handler``): a timer, a commit, a socket of ours."""
        fault = context.get("exception")
        self.driver.note_fault(fault if fault is not None else RuntimeError(str(context.get("message"))))
        self.log.flush()

    def _tick(self) -> None:
        step = self._clock.correct()
        if step:
            self._clock_stepped(step)
        if self.credentials.refresh():
            self.log.debug("accounts.changed")
        self.parties.refresh()
        self.registrations.tick()
        self._in_portions()
        if self.media is not None:
            self.media.tick()
        self.location.poll_removals()
        self.whereabouts.tick()
        self.certificates.tick()
        self._ticks += 1
        if self._ticks % 5 == 0:
            self.recorder.alive(self._now_ms())
            self.recorder.forget_places(self._now_ms())
            self.activity.flush()
            self.ledger.look(self._now_ms())
            self.dead_targets.expire(self._loop.time())
        if self._ticks % COLLECT_EVERY == 0 and self._is_idle():
            gc.collect()

    def _is_idle(self) -> bool:
        """Whether nobody would wait for a look at everything in memory."""
        is_small = self.location.count < COLLECT_BELOW
        return is_small and not self.recorder.open and not self.transactions.servers and not len(self.portions)

    def _in_portions(self) -> None:
        """What may be very much in one second: the first portion now, and the rest soon."""
        self.liveness.tick()
        for step in (
            self._expire_bindings, self._forget_orphans, self._expire_challenges, self.watch.note_steps,
            self.liveness.look, self.location.load,
        ):  # fmt: skip
            if step not in self.portions and step():
                self.portions.go_on(step)

    def _expire_bindings(self) -> bool:
        return not self._is_ahead() and self.registrations.expire()

    def _forget_orphans(self) -> bool:
        return not self._is_ahead() and self.location.forget_orphans(self.registrations.note_orphans)

    def _is_ahead(self) -> bool:
        """Whether the stores are to catch up before rows are made by the thousand: until the next second at least."""
        return self.calls_writer.pending > ROWS_AHEAD or self.location.pending > ROWS_AHEAD

    def _expire_challenges(self) -> bool:
        now, context = self._clock(), self.context
        return context.challenges.expire(now) or context.challenges_inside.expire(now)

    def _clock_stepped(self, seconds: float) -> None:
        """The machine's clock was set: what began before goes on with the time as it was."""
        self.log.warning("clock.stepped", seconds=round(seconds, 3))
        self.watch.clock_stepped(seconds)
        self.context.shift += round(seconds * 1000)
        # Listeners may share theirs.
        for authenticator in set(self.authenticators):
            authenticator.shift += seconds
        if seconds > 0:
            # Many registrations expire now that their endpoints are about to refresh in good time.
            self.liveness.distrust_expiries(self.config.registrar.max_expires)

    def reload(self, config: Config) -> None:
        """SIGHUP: what can change while the server runs (registrar, proxy, limits on messages, domains)."""
        self.config = config
        self.registrations.settings = settings.registrar(config)
        self.registrations.keeper.use(settings.keeping(config))
        named = self.proxying.settings.named
        self.proxying.settings = settings.proxy(config, self.transports.is_us)
        self.proxying.settings.named.go_on_from(named)
        self.liveness.settings = settings.liveness(config)
        self.nameservers = settings.nameservers(config)
        self.resolver.settings, self.resolver.ask = settings.resolver(config), self.nameservers.ask
        self.resolver.forget()
        self.dead_targets.lifetime = config.proxy.dead_for
        if self.media is not None:
            self.media.machine.settings = settings.media(config)
        self.driver.limits = settings.limits(config)
        self.pressure.use(settings.overload(config))
        self.transports.reload(settings.transports(config))
        self.whereabouts.reload(config)
        self.certificates.reload(config)
        self.log.set_level(config.log.level)
        self.log.info("config.reloaded", domains=list(config.server.domains))
        self.log.flush()

    async def stop(self) -> int:
        """Finish what is in flight, close the stores; the exit code."""
        self.log.info("server.stopping", calls=self.recorder.open)
        self.driver.stopping = True
        # What is very much is gone on with by the next run; and it would use what is closed below.
        self.portions.stop()
        deadline = self._loop.time() + self.config.server.shutdown_wait
        while self._busy() and self._loop.time() < deadline:
            self.calls_writer.flush()
            self._batch_end()
            await asyncio.sleep(0.02)
        # Sign-ins that wait for a place are written without.
        await self.whereabouts.close()
        await self.certificates.close()
        self.activity.flush(stopping=True)
        self.recorder.stopped(self._now_ms())
        self._batch_end()
        if self.media is not None:
            self.media.close()
        await self.resolver.close()
        await self.transports.close()
        self.timers.close()
        # Readers first: whoever closes a file last checkpoints it, and a reader cannot. And by this thread, which uses
        # them.
        for close in (self.credentials.close, self.ledger.close, self.parties.close, self.location.stop_reading):
            close()
        lost = await asyncio.to_thread(self._close_writers)
        self.metrics.close()
        if lost:
            self.log.error("server.stopped", rows_lost=lost)
            return 1
        self.log.info("server.stopped")
        return 0

    def _busy(self) -> bool:
        return bool(self.calls_writer.pending or self.location.pending)

    def _close_writers(self) -> int:
        return self.calls_writer.close() + self.parties_writer.close() + self.location.close()

    def _later(self, after: float, call: Callable[[], None]) -> None:
        """Call back after so many seconds."""
        self._loop.call_at(self._loop.time() + after, call)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _open_accounts(self, data_dir: Path) -> Keyring:
        connection = open_accounts(data_dir)
        try:
            keyring = open_keyring(data_dir, connection, os.environ)
        finally:
            connection.close()
        path = data_dir / ACCOUNTS_FILE
        self.parties_writer = self._writer(path, PARTY_STATEMENTS, interval_ms=self.config.storage.commit_interval_ms)
        self.credentials = CredentialCache(path, keyring)
        self.parties = Parties(path, self.parties_writer)
        return keyring

    def _open_location(self, path: Path) -> SqliteLocation:
        storage = self.config.storage
        return SqliteLocation(
            path,
            now=self._clock(),
            call_soon=self._call_from_writer,
            max_rows=storage.queue_rows,
            interval=storage.commit_interval_ms / 1000,
            synchronous=storage.synchronous,
            on_state=partial(self._on_store_state, path.name),
            on_poison=partial(self._on_poison, path.name),
            on_removed=self._on_removed,
        )

    def _call_from_writer(self, call: Callable[[], None]) -> None:
        """Bring a call to the loop's thread."""
        self._loop.call_soon_threadsafe(partial(self._send_together, call))

    def _send_together(self, call: Callable[[], None]) -> None:
        """A commit releases the answers to all whose rows were in it."""
        self.transports.hold()
        try:
            call()
        finally:
            self.transports.release()

    def _recover(self, path: Path) -> int:
        """Bring ``calls.db`` up to date and close what the last run left open."""
        connection = open_store(path, calls_schema.MIGRATIONS, mode=CALLS_MODE)
        try:
            self._calls_before = recovery.last_call(connection)
            recovered = recovery.recover(connection, self._now_ms())
            self._cut_short = recovery.cut_short(connection)
            return recovered
        finally:
            connection.close()

    def _writer(self, path: Path, statements: tuple[str, ...], *, interval_ms: float, mode: int = 0o600) -> Writer:
        storage = self.config.storage
        return Writer(
            path,
            statements,
            call_soon=self._call_from_writer,
            keep_failed=True,
            max_rows=storage.queue_rows,
            interval=interval_ms / 1000,
            on_state=partial(self._on_store_state, path.name),
            on_poison=partial(self._on_poison, path.name),
            synchronous=storage.synchronous,
            mode=mode,
        )

    def _on_store_state(self, store: str, working: bool, sentence: str) -> None:
        if working:
            self.log.info("store.recovered", store=store, reason=sentence)
        else:
            self.log.error("store.failing", store=store, reason=sentence)
            # Where it is this very store that fails, the row waits until it is back.
            self._note_store(f"{store} is failing")
        self.log.flush()

    def _on_removed(self, bindings: Sequence[Binding]) -> None:
        self.registrations.note_removed(bindings)

    def _on_poison(self, store: str, statement: int, _row: tuple[object, ...], sentence: str) -> None:
        self.log.error("store.row_refused", store=store, statement=statement, reason=sentence)
        if store == CALLS_FILE and statement == CALL_ROW:
            self.recorder.set_aside += 1
        self._note_store(f"{store}: a row was refused")
        self.log.flush()

    def _note_target(self, event: str, place: Place, seconds: float) -> None:
        transport, host, port = place
        target = f"{transport} {hostport(host, port)}"
        if event == DEAD:
            self.log.warning(event, target=target, seconds=seconds)
        else:
            self.log.info(event, target=target)

    def _note_store(self, detail: str) -> None:
        self.recorder.error(at=self._now_ms(), kind=faults.STORE, detail=detail)


def check_folder(path: Path) -> None:
    """The folder of the stores exists and can be written. Raises StoreError with a sentence."""
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be made: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise StoreError(f"{path} cannot be written: give this user the right to, or choose another data_dir")
