"""Who is asking: RFC 3261 §16.3 step 6 and §22.3.

Nobody is believed who has not proved something: by credentials, or by where the request comes from.
"""

from __future__ import annotations

from collections.abc import Generator
from ipaddress import ip_address
from typing import Any

from sipserver.proxy.peers import Peer
from sipserver.proxy.plan import Examined, Settings
from sipserver.proxy.privacy import ANONYMOUS, identity_uris
from sipserver.proxy.targets import names_us
from sipserver.sip import names
from sipserver.sip.digest import Authenticator, parse_parameters
from sipserver.sip.effects import Effect
from sipserver.sip.errors import SipError
from sipserver.sip.flow import Flow
from sipserver.sip.message import Request


def is_question(request: Request, examined: Examined, settings: Settings) -> bool:
    """Whether a request asks what this server can do, which is no secret (RFC 3261 §11.2, §16.3 step 3)."""
    if request.method != "OPTIONS":
        return False
    return examined.last_hop or (examined.uri.user is None and names_us(examined.uri, settings))


def find_sender(request: Request, examined: Examined, flow: Flow, settings: Settings) -> None:
    """Find whose credentials this request has to bring, and the named peer that sent it. Fills ``examined``."""
    if is_question(request, examined, settings):
        return
    claimed = request.from_.uri
    domain = claimed.host.removesuffix(".")
    if settings.named:
        peer = examined.peer = settings.named.of(flow)
        # RFC 3325 §5: whom a trusted peer vouches for has proved to that peer who he is.
        if peer is not None and peer.trusted and peer.inbound and request.has(names.P_ASSERTED_IDENTITY):
            return
    if not claimed.is_sip:
        return
    if domain in settings.domains:
        examined.domain = domain
    elif domain.endswith(ANONYMOUS):
        examined.domain = _domain_of_anonymous(request, examined, flow, settings)


def _domain_of_anonymous(request: Request, examined: Examined, flow: Flow, settings: Settings) -> str | None:
    """The domain of ours that somebody without a name in From may belong to (RFC 3323 §4.1.1.3).

    Whoever claims by credentials or a preferred identity to be one of us has to prove it, and so has everybody where
    strangers are not let in.
    """
    for value in request.headers(names.PROXY_AUTHORIZATION):
        realm = (parse_parameters(value.partition(" ")[2]) or {}).get("realm", "").lower()
        if realm in settings.domains:
            return realm
    for uri in identity_uris(request, names.P_PREFERRED_IDENTITY):
        if uri.host in settings.domains:
            return uri.host
    if may_come_in(request, examined.peer, flow, settings):
        return None
    asked = examined.uri.host.removesuffix(".")
    if asked in settings.domains:
        return asked
    return next(iter(settings.domains)) if len(settings.domains) == 1 else None


def authenticate(
    request: Request, examined: Examined, authenticator: Authenticator, now: float
) -> Generator[Effect, Any, str | None]:
    """The address whose credentials came with a request that claims one of ours; None for a stranger's."""
    domain = examined.domain
    if domain is None:
        return None
    identity: str = yield from authenticator.authenticate(request, domain, now, proxy=True)
    return identity


def challenge(request: Request, examined: Examined, authenticator: Authenticator, now: float) -> list[str] | None:
    """The challenge that ``admit_new`` would raise for a request that claims one of our addresses and brings no
    credentials, as header lines for the 407."""
    domain = examined.domain
    return authenticator.first_challenge(request, domain, now, proxy=True) if domain is not None else None


def check_identity(request: Request, identity: str | None) -> None:
    """One may call as the address that one's credentials belong to, or without a name (RFC 3323), and as no other."""
    if identity is None:
        return
    claimed = request.from_.uri
    if claimed.aor() != identity and not claimed.host.removesuffix(".").endswith(ANONYMOUS):
        raise SipError(403, "From Does Not Match Credentials")


def may_come_in(request: Request, peer: Peer | None, flow: Flow, settings: Settings) -> bool:
    """Whether a stranger's request may reach a subscriber."""
    claimed = request.from_.uri
    # From names this very server by its address: no such stranger exists.
    if claimed.is_sip and settings.is_us(claimed.host, claimed.effective_port):
        return False
    if peer is not None:
        return peer.inbound
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
    if not request.has(names.PROXY_AUTHORIZATION):
        return ()
    if identity is not None and request.count(names.PROXY_AUTHORIZATION) == 1:
        # These have just proved who is asking, so they were for us.
        return (request.places[names.PROXY_AUTHORIZATION],)
    consumed = []
    for i, name in enumerate(request.names):
        if name == names.PROXY_AUTHORIZATION:
            params = parse_parameters(request.value_at(i).partition(" ")[2])
            if params is None or params.get("realm", "").lower() in domains:
                consumed.append(i)
    return tuple(consumed)
