"""What is measured, by name: each is a plain integer that somebody counts anyway, read when Prometheus asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sipserver.calls.recorder import Recorder
from sipserver.location.sqlite import SqliteLocation
from sipserver.proxy.overload import Overload
from sipserver.server.certificates import Certificates
from sipserver.server.context import Context
from sipserver.server.dead_targets import DeadTargets
from sipserver.server.driver import Driver
from sipserver.server.gate import CommitGate
from sipserver.server.ledger import Ledger
from sipserver.server.pressure import Pressure
from sipserver.server.proxying import Proxying
from sipserver.server.pulse import Pulse
from sipserver.server.registrations import Registrations
from sipserver.server.timers import TimerQueue
from sipserver.storage.writer import Writer
from sipserver.telemetry.metrics import Metrics
from sipserver.transport.resolver import Resolver


@dataclass(slots=True)
class Measured:
    """Whose counts are published."""

    metrics: Metrics
    driver: Driver
    context: Context
    registrations: Registrations
    proxying: Proxying
    recorder: Recorder
    gate: CommitGate
    location: SqliteLocation
    timers: TimerQueue
    ledger: Ledger
    resolver: Resolver
    dead_targets: DeadTargets
    certificates: Certificates
    overload: Overload
    pressure: Pressure
    pulse: Pulse
    writers: Mapping[str, Writer]
    """By the name of their store."""


def publish(it: Measured) -> None:
    """Register every metric of this server."""
    _messages(it)
    _calls_and_registrations(it)
    _stores(it)
    _sockets(it)
    _names(it)
    _tls(it)
    _media(it)


def _messages(it: Measured) -> None:
    add = it.metrics.register
    driver, transactions = it.driver, it.context.transactions
    add("requests", "Requests that could be read", lambda: driver.requests)
    add("responses", "Responses that could be read", lambda: driver.responses)
    add("malformed", "Messages that could not be read", lambda: driver.malformed)
    add("stray", "Responses and ACKs that belong to nothing", lambda: driver.stray)
    add("overloaded", "Requests answered 503 at a bound, or since work waits", lambda: driver.overloaded)
    overload = it.overload
    add("overload", "1 while new requests are refused since work waits", lambda: int(overload.shedding), "gauge")
    add("overloads", "Times that this began", lambda: it.pressure.times)
    add("waiting_ms", "Milliseconds that work waits", lambda: round(overload.delay * 1000), "gauge")
    add(
        "loop_late_ms",
        "Milliseconds that the loop was late at most, in the last half minute at least",
        lambda: round(it.pulse.longest * 1000, 1),
        "gauge",
    )
    add("faults", "Faults of this program", lambda: driver.faults)
    add("server_transactions", "Requests being answered", lambda: transactions.servers, "gauge")
    add("client_transactions", "Requests sent and not done with", lambda: transactions.clients, "gauge")
    add("timers", "Timers that are set", lambda: len(it.timers), "gauge")
    add("log_suppressed", "Log lines about refused messages not written", lambda: it.context.log_suppressed)
    add("log_dropped", "Log lines lost because nobody read them", lambda: it.context.log.dropped)


def _calls_and_registrations(it: Measured) -> None:
    add = it.metrics.register
    recorder, registrations, liveness = it.recorder, it.registrations, it.proxying.liveness
    add("calls_placed", "Calls placed", lambda: recorder.placed)
    add("calls_closed", "Calls whose end is recorded", lambda: recorder.closed)
    add("calls_lost", "Calls that could not be recorded", lambda: recorder.lost)
    add("calls_open", "Calls going on", lambda: recorder.open, "gauge")
    ledger = it.ledger
    add("calls_stored", "Rows of calls committed since the start", lambda: ledger.stored)
    add("calls_waiting", "Rows of calls not yet committed", lambda: ledger.waiting, "gauge")
    add("calls_set_aside", "Rows of calls that cannot be written at all", lambda: ledger.set_aside)
    add("calls_unaccounted", "Calls missing from placed = closed + open + waiting", lambda: ledger.unaccounted, "gauge")
    add("errors", "Errors noted, of every kind", lambda: recorder.errors)
    add("challenges_unanswered", "Challenges that nobody answered", lambda: it.context.challenges.unanswered)
    add("challenges_unwatched", "Challenges too many to be watched", lambda: it.context.challenges.unwatched)
    add("calls_presumed_ended", "Calls closed for want of evidence", lambda: dict(liveness.closed), label="cause")
    add("call_probes", "Questions whether a side is still in its call", lambda: liveness.asked)
    add("answers_late", "Answers that did not wait for their row any longer", lambda: it.gate.released_late)
    add("registrations_accepted", "REGISTERs answered 200", lambda: registrations.accepted)
    add("registrations_refused", "REGISTERs refused after they could be read", lambda: registrations.refused)
    add("registrations_refreshed", "Registrations that only lasted longer", lambda: registrations.activity.refreshes)
    add("refreshes_lost", "Counts of refreshes given up", lambda: registrations.activity.lost)
    add("quality_accepted", "Requests with quality reports answered 200", lambda: it.proxying.collector.accepted)
    add("quality_refused", "Requests with quality reports not taken", lambda: it.proxying.collector.refused)
    add("bindings", "Contacts of all addresses", lambda: it.location.count, "gauge")
    add("bindings_unread", "1 while some are still read from the disk", lambda: int(it.location.is_loading), "gauge")
    keeper = registrations.keeper
    add("bindings_lost", "Contacts out of use since their flow failed", lambda: dict(keeper.lost), label="cause")
    add("bindings_kept", "Contacts behind NATs that are pinged", lambda: keeper.kept, "gauge")
    add("pings", "Pings sent to contacts behind NATs", lambda: keeper.pings)
    add("pings_answered", "Pings that were answered", lambda: keeper.answered)
    add("pings_unanswered", "Pings that were not", lambda: keeper.unanswered)
    add("answers_failed", "Answers not sent or never acknowledged", lambda: it.proxying.unanswered)
    add("proxied", "Requests that went on to a target", lambda: it.proxying.forwarded)
    add("rate_refused", "Requests refused since their sender or target has had its share", lambda: it.proxying.too_many)

    def of_peers(attribute: str) -> Callable[[], dict[str, int]]:
        return lambda: {name: getattr(peer, attribute) for name, peer in it.proxying.settings.named.peers.items()}

    add("peer_received", "Requests outside of dialogs from named peers", of_peers("received"), label="peer")
    add("peer_sent", "Requests outside of dialogs to named peers", of_peers("sent"), label="peer")


def _media(it: Measured) -> None:
    media = it.proxying.media
    if media is None:
        return
    add = it.metrics.register
    machine, relays = media.machine, media.relays
    add("media_sessions", "Sessions at media relays", lambda: machine.legs, "gauge")
    add("media_sessions_refused", "Sessions not opened since there were too many", lambda: machine.refused)
    add("media_commands", "Commands to media relays", lambda: relays.asked)
    add("media_timeouts", "Commands that a media relay did not answer in time", lambda: relays.timed_out)
    add("media_failures", "Descriptions that needed a media relay and found none", lambda: media.failures)
    add("media_dropped", "Messages dropped since too many of their call waited", lambda: media.dropped)
    add("media_relay_up", "1 while the media relay answers", lambda: relays.states, "gauge", "relay")


def _stores(it: Measured) -> None:
    writers = it.writers

    def of_each(attribute: str) -> Callable[[], dict[str, int]]:
        return lambda: {store: int(getattr(writer, attribute)) for store, writer in writers.items()}

    add = it.metrics.register
    add("store_rows_written", "Rows committed", of_each("rows_written"), label="store")
    add("store_commits", "Transactions committed", of_each("commits"), label="store")
    add("store_commits_failed", "Transactions that the store refused", of_each("failed_commits"), label="store")
    add("store_rows_refused", "Rows not taken because the queue was full", of_each("refused"), label="store")
    add("store_rows_set_aside", "Rows that cannot be written at all", of_each("poisoned"), label="store")
    add("store_rows_waiting", "Rows not yet committed", of_each("pending"), "gauge", "store")
    add("store_failing", "1 while the store refuses rows", of_each("failing"), "gauge", "store")


def _sockets(it: Measured) -> None:
    add = it.metrics.register
    transports = it.context.transports

    def of_udp(attribute: str) -> Callable[[], int]:
        return lambda: sum(getattr(listener, attribute) for listener in transports.udp)

    def of_tcp(attribute: str) -> Callable[[], int]:
        return lambda: int(getattr(transports.tcp, attribute, 0))

    add("udp_received", "Datagrams received", of_udp("received"))
    add("stun_answered", "STUN requests answered", of_udp("stun"))
    add("udp_receive_drops", "Datagrams that the kernel dropped for want of room here", of_udp("receive_drops"))
    add(
        "listeners_absent",
        "Addresses of listeners that the machine has lost",
        lambda: len(transports.bound.since),
        "gauge",
    )
    add("udp_sent", "Datagrams sent", of_udp("sent"))
    add("udp_dropped", "Datagrams dropped for want of room in the send queue", of_udp("dropped"))
    add("udp_send_errors", "Datagrams that could not be sent", of_udp("send_errors"))
    add("tcp_received", "Messages received over connections", of_tcp("received"))
    add("tcp_sent", "Messages sent over connections", of_tcp("sent"))
    add("tcp_malformed", "Streams that could not go on", of_tcp("malformed"))
    add("tcp_timed_out", "Connections closed by a time-out", of_tcp("timed_out"))
    add("tcp_cut_off", "Connections cut off because the peer did not read", of_tcp("cut_off"))
    add("tcp_refused_connections", "Connections refused at a bound", of_tcp("refused_connections"))
    add("tcp_connections", "Connections", of_tcp("connections"), "gauge")
    websockets = transports.websockets
    add("websocket_opened", "WebSocket handshakes completed", lambda: websockets.opened)
    add("websocket_refused", "WebSocket handshakes refused", lambda: websockets.refused)
    add(
        "websocket_crowded_out",
        "Connections dropped since too many were in a handshake",
        lambda: websockets.crowded_out,
    )
    add("websocket_dead", "Connections dropped since no pong came", lambda: websockets.dead)
    add("websocket_half_open", "Connections in a handshake", lambda: len(websockets.half_open), "gauge")


def _names(it: Measured) -> None:
    add, resolver, dead = it.metrics.register, it.resolver, it.dead_targets
    add("dns_questions", "Questions to name servers", lambda: resolver.lookups)
    add("dns_failed", "Questions that no name server answered", lambda: resolver.failed)
    add("dns_refused", "Questions not asked, being too many", lambda: resolver.refused)
    add("targets_marked_dead", "Servers of other domains found dead", lambda: dead.marked)
    add("targets_dead", "Servers of other domains that are tried last", lambda: len(dead), "gauge")


def _tls(it: Measured) -> None:
    add = it.metrics.register
    transports, certificates = it.context.transports, it.certificates

    def of_handshakes(attribute: str) -> Callable[[], int]:
        return lambda: int(getattr(transports.tcp.handshakes, attribute)) if transports.tcp is not None else 0

    add("tls_handshakes", "TLS handshakes that led to a connection", of_handshakes("done"))
    add("tls_handshakes_failed", "TLS handshakes that came to nothing", of_handshakes("failed"))
    add("tls_handshakes_refused", "Connections with too many handshakes from their address", of_handshakes("refused"))
    add("tls_handshakes_open", "TLS handshakes of clients in progress", of_handshakes("open"), "gauge")
    add("certificates_loaded", "Times that the files of certificates were taken", lambda: certificates.loaded)
    add("certificates_rejected", "Times that they could not be used", lambda: certificates.rejected)
    add("certificate_seconds_left", "Until a certificate ends", certificates.seconds_left, "gauge", "certificate")
