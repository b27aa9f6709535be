"""Which web pages may open a WebSocket to this server (RFC 6454, RFC 6455 §10.2).

A browser says in ``Origin`` which page asks, and the page cannot change that. So no page of somebody else's can use a
visitor's browser, and the network that it is in, to talk to this server. Whatever is no browser may write what it
likes there, or nothing: whoever uses the server proves who they are by digest all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from sipserver.transport.contract import canonical_ip

ANY: Final = "*"
"""An entry that lets every page in."""

_LOOPBACK: Final = ("127.0.0.1", "::1")


def may_connect(origin: str | None, allowed: Sequence[str], domains: Sequence[str], local_host: str) -> bool:
    """Whether a page of this origin may connect to this address of ours.

    ``allowed`` are origins as browsers write them (``https://phone.example.com``, a port where it is not the
    scheme's own; ``https://*.example.com`` is every name below). Where there are none, pages may come from
    the served domains, the names below them, and the address that was connected to.
    """
    if origin is None or ANY in allowed:
        return True
    origin = origin.lower()
    if allowed:
        return any(_fits(origin, each.lower()) for each in allowed)
    host = _host(origin)
    if not host:
        return False
    if host == local_host or (host == "localhost" and local_host in _LOOPBACK):
        return True
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


def _fits(origin: str, entry: str) -> bool:
    before, star, after = entry.partition("*.")
    if not star:
        return origin == entry
    # What stands for the star is a name, or several.
    name = origin.removeprefix(before).removesuffix("." + after)
    return origin == f"{before}{name}.{after}" and bool(name) and all(each.isalnum() or each in "-." for each in name)


def _host(origin: str) -> str:
    """The host of ``https://host:port``; empty for ``null`` and for what is no web page."""
    try:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
            return ""
        return canonical_ip(parts.hostname or "")
    except ValueError:
        return ""
