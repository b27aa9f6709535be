"""Who is asking: RFC 3261 §16.3 step 6 and §22.3.

Nobody is believed who has not proved something: by credentials, or by where the request comes from.
"""

from __future__ import annotations

from collections.abc import Generator
from ipaddress import ip_address
from typing import Any

from sipserver.proxy.plan import Settings
from sipserver.sip import names
from sipserver.sip.digest import AuthenticationRequired, Authenticator, parse_parameters
from sipserver.sip.effects import Effect
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request


def authenticate(
    request: Request, settings: Settings, authenticator: Authenticator, now: float
) -> Generator[Effect, Any, str | None]:
    """The address whose credentials came with a request that claims one of ours; None for a stranger's."""
    domain = claimed_domain(request, settings)
    if domain is None:
        return None
    identity: str = yield from authenticator.authenticate(request, domain, now, proxy=True)
    return identity


def claimed_domain(request: Request, settings: Settings) -> str | None:
    """The domain of ours that From names."""
    claimed = request.from_.uri
    domain = claimed.host.removesuffix(".")
    return domain if claimed.is_sip and domain in settings.domains else None


def challenge(
    request: Request, settings: Settings, authenticator: Authenticator, now: float
) -> AuthenticationRequired | None:
    """What ``admit_new`` would raise for a request that claims one of our addresses and brings no credentials."""
    domain = claimed_domain(request, settings)
    return authenticator.first_challenge(request, domain, now, proxy=True) if domain is not None else None


def check_identity(request: Request, identity: str | None) -> None:
    """One may call as the address that one's credentials belong to, and as no other."""
    if identity is not None and request.from_.uri.aor() != identity:
        raise SipError(403, "From Does Not Match Credentials")


def may_come_in(request: Request, flow: Flow, settings: Settings) -> bool:
    """Whether a stranger's request may reach a subscriber."""
    claimed = request.from_.uri
    # From names this very server by its address: no such stranger exists.
    if claimed.is_sip and settings.is_us(claimed.host, claimed.effective_port):
        return False
    if settings.inbound == "anyone":
        return True
    if settings.inbound != "peers":
        return False
    source = ip_address(flow.host)
    return any(source in network for network in settings.peers)


def credentials_for(request: Request, domains: frozenset[str], identity: str | None) -> tuple[int, ...]:
    """§22.3: lines of Proxy-Authorization whose realm is ours are consumed; others are for proxies further on.

    One that cannot be read is of use to nobody, and is kept from the callee as well.
    """
    if names.PROXY_AUTHORIZATION not in request.names:
        return ()
    if identity is not None and request.names.count(names.PROXY_AUTHORIZATION) == 1:
        # These have just proved who is asking, so they were for us.
        return (request.names.index(names.PROXY_AUTHORIZATION),)
    consumed = []
    for i, name in enumerate(request.names):
        if name == names.PROXY_AUTHORIZATION:
            params = parse_parameters(request.value_at(i).partition(" ")[2])
            if params is None or params.get("realm", "").lower() in domains:
                consumed.append(i)
    return tuple(consumed)
