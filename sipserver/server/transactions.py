"""The transactions in being: which machine a message belongs to, and what its effects do.

The machines of ``sip.transaction`` decide; here their effects meet the sockets and the timers. A
transaction user (registrar, proxy) sees responses and failures, never a retransmission.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sipserver.server.timers import TimerQueue
from sipserver.sip.build import OutgoingRequest
from sipserver.sip.effects import Deliver, Effect, Failed, Send, SetTimer, Terminated
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request, Response
from sipserver.sip.timers import Timers
from sipserver.sip.transaction import keys
from sipserver.sip.transaction.client import Client
from sipserver.sip.transaction.invite_client import InviteClient
from sipserver.sip.transaction.invite_server import InviteServer
from sipserver.sip.transaction.server import Server


class ClientUser(Protocol):
    """Who sent a request and wants to know what became of it."""

    def on_response(self, branch: int, response: Response) -> None:
        """A response that is no retransmission, but for every 2xx to an INVITE."""

    def on_failed(self, branch: int, cause: str) -> None:
        """No final response will come: TIMED_OUT or UNREACHABLE."""


class ServerUser(Protocol):
    """Who answers a request and wants to know when the answer did not arrive."""

    def on_server_failed(self, cause: str) -> None:
        """The final response was never acknowledged (TIMED_OUT) or could not be sent (UNREACHABLE)."""

    def on_server_cancel(self, cancel: Request) -> None:
        """A CANCEL for this request arrived."""


class Sender(Protocol):
    """The part of the transports that is needed here."""

    def send(self, flow: Flow, data: bytes) -> bool:
        """Put the bytes on the flow; False where that is known to be impossible."""


class ServerTransaction:
    """A request being answered (RFC 3261 §17.2)."""

    __slots__ = ("flow", "key", "layer", "machine", "user")

    def __init__(self, layer: TransactionLayer, key: keys.Key, flow: Flow, machine: InviteServer | Server) -> None:
        self.layer = layer
        self.key = key
        self.flow = flow
        """Where the answers go."""
        self.machine = machine
        self.user: ServerUser | None = None

    def respond(self, status: int, data: bytes) -> None:
        """Send a response through the machine, which repeats it as the RFC asks."""
        self.layer.run_server(self, self.machine.respond(status, data))

    def on_timer(self, timer: str) -> None:
        """A timer that the machine set is due."""
        self.layer.run_server(self, self.machine.on_timer(timer))


class ClientTransaction:
    """A request that was sent (RFC 3261 §17.1)."""

    __slots__ = ("branch", "flow", "key", "layer", "machine", "user")

    def __init__(
        self,
        layer: TransactionLayer,
        key: keys.Key,
        flow: Flow,
        machine: InviteClient | Client,
        user: ClientUser | None,
        branch: int,
    ) -> None:
        self.layer = layer
        self.key = key
        self.flow = flow
        self.machine = machine
        self.user = user
        self.branch = branch
        """What the user calls this branch."""

    def on_timer(self, timer: str) -> None:
        """A timer that the machine set is due."""
        self.layer.run_client(self, self.machine.on_timer(timer))


def _ignore(_ack: Request, _flow: Flow) -> None:
    """Nobody wants ACKs yet."""


def _ignore_failure(_transaction: ServerTransaction, _cause: str) -> None:
    """Nobody wants failures yet."""


class TransactionLayer:
    """Both tables of transactions, bounded."""

    def __init__(
        self,
        sender: Sender,
        timer_queue: TimerQueue,
        timers: Timers,
        max_servers: int,
    ) -> None:
        self._sender = sender
        self._queue = timer_queue
        self._timers = timers
        self._servers: dict[keys.Key, ServerTransaction] = {}
        self._clients: dict[keys.Key, ClientTransaction] = {}
        self._over_connection: dict[int, set[ClientTransaction]] = {}
        self.max_servers = max_servers
        """Server transactions at most; a request beyond them is answered 503 without one."""
        self.on_ack: Callable[[Request, Flow], None] = _ignore
        """Where an ACK goes that found an INVITE's transaction and does not belong to it: that of a 2xx."""
        self.on_server_failed: Callable[[ServerTransaction, str], None] = _ignore_failure
        """Who hears of an answer that did not arrive, where the transaction has no user."""

    @property
    def servers(self) -> int:
        """Server transactions in being."""
        return len(self._servers)

    @property
    def clients(self) -> int:
        """Client transactions in being."""
        return len(self._clients)

    @property
    def full(self) -> bool:
        """Whether new requests have to be turned away."""
        return len(self._servers) >= self.max_servers

    def find_server(self, key: keys.Key) -> ServerTransaction | None:
        """The transaction of this key (``keys.server_key``), if there is one."""
        return self._servers.get(key)

    def receive_again(self, transaction: ServerTransaction, request: Request) -> None:
        """A retransmission, or the ACK, of a request that has a transaction."""
        self.run_server(transaction, transaction.machine.on_request(request))

    def serve(self, key: keys.Key, request: Request, flow: Flow) -> ServerTransaction:
        """A new server transaction for this request; its answers go to ``flow``."""
        reliable, timers = flow.reliable, self._timers
        machine = InviteServer(reliable, timers) if request.method == "INVITE" else Server(reliable, timers)
        transaction = ServerTransaction(self, key, flow, machine)
        self._servers[key] = transaction
        return transaction

    def request(self, request: OutgoingRequest, flow: Flow, user: ClientUser | None, branch: int = 0) -> None:
        """Send a request with a client transaction of its own; ``user`` hears what becomes of it."""
        if request.method == "CANCEL":
            self._bound_cancelled(request.branch)
        key, reliable, timers = keys.client_key(request.branch, request.method), flow.reliable, self._timers
        is_invite = request.method == "INVITE"
        machine = InviteClient(request, reliable, timers) if is_invite else Client(request, reliable, timers)
        transaction = ClientTransaction(self, key, flow, machine, user, branch)
        self._clients[key] = transaction
        if flow.connection:
            self._over_connection.setdefault(flow.connection, set()).add(transaction)
        self.run_client(transaction, transaction.machine.start())

    def abandon(self, request: OutgoingRequest) -> None:
        """Send this request no more; whatever comes in answer is still delivered."""
        transaction = self._clients.get(keys.client_key(request.branch, request.method))
        if transaction is not None:
            transaction.machine.on_abandoned()

    def _bound_cancelled(self, branch: str) -> None:
        """RFC 3261 §9.1: an INVITE that was cancelled is waited for no longer than 64*T1."""
        invite = self._clients.get(keys.client_key(branch, "INVITE"))
        if invite is not None and isinstance(invite.machine, InviteClient):
            self.run_client(invite, invite.machine.on_cancel())

    def receive_response(self, response: Response) -> bool:
        """Give a response to its transaction; False where there is none (RFC 6026 §7.3: it is dropped)."""
        transaction = self._clients.get(keys.client_key(response.top_via.branch or "", response.cseq[1]))
        if transaction is None:
            return False
        self.run_client(transaction, transaction.machine.on_response(response))
        return True

    def run_server(self, transaction: ServerTransaction, effects: tuple[Effect, ...]) -> None:
        """Carry out what a server machine asked for."""
        for effect in effects:
            if isinstance(effect, Send):
                if not self._sender.send(transaction.flow, effect.data):
                    self.run_server(transaction, transaction.machine.on_transport_error())
                    return
            elif isinstance(effect, SetTimer):
                self._queue.add(effect.after, transaction, effect.timer)
            elif isinstance(effect, Terminated):
                self._servers.pop(transaction.key, None)
                transaction.user = None
            elif isinstance(effect, Failed):
                if transaction.user is not None:
                    transaction.user.on_server_failed(effect.cause)
                else:
                    self.on_server_failed(transaction, effect.cause)
            elif isinstance(effect, Deliver) and isinstance(effect.message, Request):
                self.on_ack(effect.message, transaction.flow)

    def run_client(self, transaction: ClientTransaction, effects: tuple[Effect, ...]) -> None:
        """Carry out what a client machine asked for."""
        user = transaction.user
        for effect in effects:
            if isinstance(effect, Send):
                if not self._sender.send(transaction.flow, effect.data):
                    self.run_client(transaction, transaction.machine.on_transport_error())
                    return
            elif isinstance(effect, SetTimer):
                self._queue.add(effect.after, transaction, effect.timer)
            elif isinstance(effect, Deliver):
                if user is not None and isinstance(effect.message, Response):
                    user.on_response(transaction.branch, effect.message)
            elif isinstance(effect, Failed):
                if user is not None:
                    user.on_failed(transaction.branch, effect.cause)
            elif isinstance(effect, Terminated):
                self._forget_client(transaction)

    def undelivered(self, message: Request | Response) -> None:
        """This message of one of the transactions could not be delivered, as turned out after it was sent."""
        if isinstance(message, Response):
            key = keys.answered_key(message)
            server = self._servers.get(key) if key is not None else None
            if server is not None:
                self.run_server(server, server.machine.on_transport_error())
            return
        # The ACK of a refusal is its INVITE's (RFC 3261 §17.1.1.3).
        method = "INVITE" if message.method == "ACK" else message.method
        client = self._clients.get(keys.client_key(message.top_via.branch or "", method))
        if client is not None:
            self.run_client(client, client.machine.on_transport_error())

    def flow_lost(self, flow: Flow) -> None:
        """The connection of this flow is gone: what waits for it fails now (RFC 3261 §17.1.4)."""
        for transaction in self._over_connection.pop(flow.connection, set()):
            self.run_client(transaction, transaction.machine.on_transport_error())

    def _forget_client(self, transaction: ClientTransaction) -> None:
        self._clients.pop(transaction.key, None)
        transaction.user = None
        connection = transaction.flow.connection
        if connection:
            others = self._over_connection.get(connection)
            if others is not None:
                others.discard(transaction)
                if not others:
                    del self._over_connection[connection]
