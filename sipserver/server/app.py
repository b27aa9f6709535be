"""The server put together: stores, machines, sockets, timers, signals. The only place that wires them."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import NoReturn

from sipserver.server.clock import Clock
from sipserver.server.config import Config, ConfigError
from sipserver.server.service import Service
from sipserver.storage.database import StoreError
from sipserver.telemetry.log import Log, configure
from sipserver.transport.base import ListenError

Reload = Callable[[], Config]


def run(config: Config, reload: Reload | None = None) -> int:
    """Serve until SIGTERM or SIGINT, which end the process; returns the exit code where it cannot begin to.

    ``reload`` reads the configuration again on SIGHUP.
    """
    try:
        loop_package = importlib.import_module("uvloop")
    except ImportError:
        # No wheel for this system: asyncio's own loop serves, at a higher cost.
        return asyncio.run(_serve(config, reload))
    code: int = loop_package.run(_serve(config, reload))
    return code


async def _serve(config: Config, reload: Reload | None) -> int:
    loop = asyncio.get_running_loop()
    clock = Clock()
    with ExitStack() as stack:
        try:
            service = Service(config, loop, clock, _log_maker(config, clock))
            stack.callback(service.log.close)
            await service.start()
        except (StoreError, ListenError, OSError) as error:
            sys.stderr.write(f"sipserver: {error}\n")
            return 1
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: _reload(service, reload))
        loop.set_exception_handler(service.on_loop_fault)
        # Everything that a message makes is freed by its reference counts (tests/server/test_garbage.py holds it to
        # that), so the collector finds nothing, at 5 % of the processor time and in pauses. Faults may leave cycles:
        # those are looked for when nobody has to wait (``Service.tick``).
        gc.collect()
        gc.freeze()
        gc.disable()
        service.ready()
        ticker = loop.create_task(_tick(service))
        await stopping.wait()
        ticker.cancel()
        code = await service.stop()
    return _end(code)


def _end(code: int) -> NoReturn:
    """End the process, whose stores and log are closed, as it stands.

    To give its memory back piece by piece takes four seconds for a million bindings, in which nobody serves.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _tick(service: Service) -> None:
    while True:
        await asyncio.sleep(1.0)
        service.tick()


def _log_maker(config: Config, clock: Clock) -> Callable[[Callable[[str], str | None]], Log]:
    def make(party: Callable[[str], str | None]) -> Log:
        redact = party if config.log.addresses == "party" else None
        return configure(config.log.format, config.log.level, 1, redact=redact, clock=clock)

    return make


def _reload(service: Service, reload: Reload | None) -> None:
    try:
        config = reload() if reload is not None else service.config
    except ConfigError as error:
        for problem in error.problems:
            service.log.warning("config.rejected", reason=problem)
        return
    service.reload(config)
