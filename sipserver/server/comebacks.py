"""Devices in a call whose connection broke, and that are back over another.

A browser that loses its connection mostly has a new one a moment later, registers again, and talks on: its media never
came by here. What is sent to it inside the call has to follow it there. Only whoever proved to be the same subscriber
is followed, and only for a contact that this side of the call named.
"""

from __future__ import annotations

from sipserver.proxy.dialog import DialogTable
from sipserver.proxy.record_route import CALLEE, CALLER
from sipserver.registrar.binding import Change
from sipserver.server.liveness import Liveness
from sipserver.server.watch import CallWatch
from sipserver.transport.base import Transports


class Comebacks:
    """Leads requests inside calls to the new connections of contacts."""

    def __init__(self, watch: CallWatch, liveness: Liveness, dialogs: DialogTable, transports: Transports) -> None:
        self._watch = watch
        self._liveness = liveness
        self._dialogs = dialogs
        self._transports = transports

    def registered(self, change: Change) -> None:
        """A REGISTER came over a connection that its contact had not before."""
        binding = change.after
        assert binding is not None, "who registers has a binding"
        keys = self._liveness.calls_of(binding.aor)
        if not keys:
            return
        flow = self._transports.flow_for(binding.transport, binding.host, binding.port, binding.connection)
        party = self._watch.party_of(binding.aor)
        if flow is None or party is None:
            return
        for key in keys:
            call = self._watch.find(key)
            if call is None:
                continue
            for side, talks in ((CALLER, call.caller), (CALLEE, call.callee)):
                if talks == party:
                    self._dialogs.follow(key, side, binding.contact, flow)
