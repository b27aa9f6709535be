"""Finding the flow that a request goes out on: a connection that is known to lead there, or an address to try.

What may not be had at once (a name to look up, a connection to open) is called back later.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sipserver.proxy.dialog import DialogTable
from sipserver.proxy.plan import Target
from sipserver.sip.flow import Flow
from sipserver.sip.uri import Uri
from sipserver.transport.base import Transports
from sipserver.transport.resolver import Resolver
from sipserver.transport.resolver import Target as Address

Found = Callable[[Flow | None], None]


class FlowFinder:
    """Answers the proxy's question where a request goes."""

    def __init__(self, transports: Transports, resolver: Resolver, dialogs: DialogTable) -> None:
        self._transports = transports
        self._resolver = resolver
        self._dialogs = dialogs

    def at_once(
        self, uri: Uri, target: Target | None, dialog: tuple[str, str] | None, *, reliable: bool
    ) -> Flow | None:
        """The flow to this next hop where nothing has to be waited for, which is nearly always; else ask ``find``."""
        flow = self._known_connection(uri, target, dialog)
        if flow is not None or reliable:
            return flow
        address = self._resolver.numeric(uri)
        if address is None or address[0] != "UDP":
            return None
        return self._transports.flow_for("UDP", address[1], address[2])

    def find(
        self, uri: Uri, target: Target | None, dialog: tuple[str, str] | None, *, reliable: bool, found: Found
    ) -> None:
        """Call ``found`` with a flow to this next hop, or with None where there is none; at once where that is known.

        ``dialog`` is the call's key and the side to be reached. ``reliable`` asks for a stream instead of UDP.
        """
        flow = self._known_connection(uri, target, dialog)
        if flow is not None:
            found(flow)
            return
        self._resolver.resolve(uri, partial(self._try_addresses, reliable, found))

    def _known_connection(self, uri: Uri, target: Target | None, dialog: tuple[str, str] | None) -> Flow | None:
        """The connection over which this contact registered, or this side of the dialog talks, while it lives."""
        if target is not None and target.connection and not target.path:
            return self._alive(target.transport, target.host, target.port, target.connection)
        if dialog is not None:
            flow = self._dialogs.flow_for(*dialog, uri.raw)
            if flow is not None and flow.connection:
                return self._alive(flow.transport, flow.host, flow.port, flow.connection)
        return None

    def _alive(self, transport: str, host: str, port: int, connection: int) -> Flow | None:
        flow = self._transports.flow_for(transport, host, port, connection)
        return flow if flow is not None and flow.connection == connection else None

    def _try_addresses(self, reliable: bool, found: Found, addresses: list[Address] | None) -> None:
        """Take the first address that can be reached."""
        if not addresses:
            found(None)
            return
        (transport, host, port), *rest = addresses
        if transport == "UDP" and not reliable:
            flow = self._transports.flow_for("UDP", host, port)
            if flow is not None:
                found(flow)
            else:
                self._try_addresses(reliable, found, rest)
            return
        self._transports.connect(host, port, partial(self._connected, reliable, found, rest))

    def _connected(self, reliable: bool, found: Found, rest: list[Address], flow: Flow | None) -> None:
        if flow is not None:
            found(flow)
        else:
            self._try_addresses(reliable, found, rest)
