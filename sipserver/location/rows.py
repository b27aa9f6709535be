"""Bindings as rows of ``location.db``."""

from __future__ import annotations

from sys import intern
from typing import Any, Final

from sipserver.registrar.binding import Binding

PATH_SEPARATOR: Final = "\n"
"""Between the Path values of a binding; none of them holds a line break."""


def to_row(binding: Binding) -> tuple[Any, ...]:
    """The binding as a row for ``schema.UPSERT``."""
    return (
        binding.aor, binding.key, binding.contact, binding.q, binding.expires_at, binding.call_id, binding.cseq,
        binding.instance, binding.reg_id, PATH_SEPARATOR.join(binding.path), binding.user_agent, binding.params,
        binding.transport, binding.host, binding.port, binding.registered_at, binding.local, int(binding.flow_only),
        int(binding.natted), binding.gruu_since,
    )  # fmt: skip


def from_row(row: tuple[Any, ...]) -> Binding:
    """The binding in a row of ``schema.SELECT``; its connection did not outlive the process that wrote it."""
    (aor, contact, q, expires_at, call_id, cseq, instance, reg_id, path, user_agent, params, transport, host, port,
        registered_at, local, flow_only, natted, gruu_since) = row  # fmt: skip
    route = tuple(path.split(PATH_SEPARATOR)) if path else ()
    # There are few transports and few addresses of our own: one copy of each is enough.
    return Binding(
        aor, contact, q, expires_at, call_id, cseq, instance, reg_id, route, user_agent, params, intern(transport),
        host, port, 0, registered_at, intern(local), bool(flow_only), bool(natted), gruu_since,
    )  # fmt: skip
