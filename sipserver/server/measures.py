"""What is measured, by name: each is a plain integer that somebody counts anyway, read when Prometheus asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipserver.server.service import Service


def publish(service: Service) -> None:
    """Register every metric of this server."""
    _messages(service)
    _calls_and_registrations(service)
    _stores(service)
    _sockets(service)


def _messages(service: Service) -> None:
    add = service.metrics.register
    driver, transactions = service.driver, service.transactions
    add("requests", "Requests that could be read", lambda: driver.requests)
    add("responses", "Responses that could be read", lambda: driver.responses)
    add("malformed", "Messages that could not be read", lambda: driver.malformed)
    add("stray", "Responses and ACKs that belong to nothing", lambda: driver.stray)
    add("overloaded", "Requests answered 503 at a bound", lambda: driver.overloaded)
    add("server_transactions", "Requests being answered", lambda: transactions.servers, "gauge")
    add("client_transactions", "Requests sent and not done with", lambda: transactions.clients, "gauge")
    add("timers", "Timers that are set", lambda: len(service.timers), "gauge")
    add("log_suppressed", "Log lines about refused messages not written", lambda: service.context.log_suppressed)
    add("log_dropped", "Log lines lost because nobody read them", lambda: service.log.dropped)


def _calls_and_registrations(service: Service) -> None:
    add = service.metrics.register
    recorder, registrations = service.recorder, service.registrations
    add("calls_placed", "Calls placed", lambda: recorder.placed)
    add("calls_closed", "Calls whose end is recorded", lambda: recorder.closed)
    add("calls_lost", "Calls that could not be recorded", lambda: recorder.lost)
    add("calls_open", "Calls going on", lambda: recorder.open, "gauge")
    add("answers_late", "Answers that did not wait for their row any longer", lambda: service.gate.released_late)
    add("registrations_accepted", "REGISTERs answered 200", lambda: registrations.accepted)
    add("registrations_refused", "REGISTERs refused after they could be read", lambda: registrations.refused)
    add("bindings", "Contacts of all addresses", lambda: service.location.count, "gauge")
    add("proxied", "Requests that went on to a target", lambda: service.proxying.forwarded)


def _stores(service: Service) -> None:
    writers = {
        "calls": service.calls_writer, "accounts": service.parties_writer, "location": service.location.writer,
    }  # fmt: skip
    for name, help_text, attribute in (
        ("rows_written", "Rows committed", "rows_written"),
        ("commits", "Transactions committed", "commits"),
        ("commits_failed", "Transactions that the store refused", "failed_commits"),
        ("rows_refused", "Rows not taken because the queue was full", "refused"),
        ("rows_set_aside", "Rows that cannot be written at all", "poisoned"),
    ):
        service.metrics.register(
            f"store_{name}",
            help_text,
            lambda key=attribute: {store: getattr(writer, key) for store, writer in writers.items()},
            label="store",
        )
    service.metrics.register(
        "store_rows_waiting", "Rows not yet committed",
        lambda: {store: writer.pending for store, writer in writers.items()}, "gauge", "store",
    )  # fmt: skip
    service.metrics.register(
        "store_failing", "1 while the store refuses rows",
        lambda: {store: int(writer.failing) for store, writer in writers.items()}, "gauge", "store",
    )  # fmt: skip


def _sockets(service: Service) -> None:
    add = service.metrics.register
    transports = service.transports
    for name in ("received", "sent", "dropped", "send_errors"):
        add(
            f"udp_{name}", f"Datagrams {name.replace('_', ' ')}",
            lambda key=name: sum(getattr(each, key) for each in transports.udp),
        )  # fmt: skip
    for name in ("received", "sent", "malformed", "refused_connections"):
        add(f"tcp_{name}", f"TCP {name.replace('_', ' ')}", lambda key=name: getattr(transports.tcp, key, 0))
    add("tcp_connections", "TCP connections", lambda: getattr(transports.tcp, "connections", 0), "gauge")
