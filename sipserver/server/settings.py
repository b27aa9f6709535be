"""From the configuration to what each part wants to know of it."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network

from sipserver.calls.network import NetworkPrefix
from sipserver.calls.places import Place, Site, SiteTable, country_code
from sipserver.proxy.media_relay import Settings as MediaSettings
from sipserver.proxy.overload import Settings as OverloadSettings
from sipserver.proxy.plan import Settings as ProxySettings
from sipserver.proxy.session import OFF, TIMER, SessionTimers
from sipserver.registrar.process import Settings as RegistrarSettings
from sipserver.server import policy
from sipserver.server.config import Config
from sipserver.server.keeping import Settings as KeepingSettings
from sipserver.server.liveness import Settings as LivenessSettings
from sipserver.server.locating import Settings as LocationSettings
from sipserver.sip.digest import Authenticator
from sipserver.sip.message import Limits
from sipserver.sip.timers import Timers
from sipserver.transport.base import Settings as TransportSettings
from sipserver.transport.contract import WebSocketSettings
from sipserver.transport.nameservers import NameServers
from sipserver.transport.resolver import ResolverSettings


def limits(config: Config) -> Limits:
    """Bounds on messages."""
    given = config.limits
    return Limits(given.message, given.body, given.headers, given.line, given.uri)


def overload(config: Config) -> OverloadSettings:
    """When new requests are refused since work waits."""
    given = config.overload
    return OverloadSettings(given.enabled, given.delay_ms / 1000, float(given.retry_after))


def timers(config: Config) -> Timers:
    """The base values of RFC 3261 table 4."""
    given = config.timers
    return Timers(given.t1, given.t2, given.t4, given.c, given.d)


def transports(config: Config) -> TransportSettings:
    """Bounds and time-outs of sockets."""
    tcp, tls, web = config.tcp, config.tls, config.websocket
    return TransportSettings(
        limits=limits(config),
        udp_receive_buffer=config.udp.receive_buffer,
        tcp_connections=tcp.connections,
        tcp_connections_per_source=tcp.connections_per_source,
        tcp_idle=tcp.idle,
        tcp_silent=tcp.silent,
        tcp_partial=tcp.partial,
        tcp_write_bound=tcp.write_buffer,
        connect_timeout=tcp.connect,
        handshakes=tls.handshakes,
        handshakes_per_source=tls.handshakes_per_source,
        handshake_timeout=tls.handshake,
        websocket=WebSocketSettings(
            origins=web.origins, domains=config.server.domains, path=web.path, handshake=web.handshake,
            handshake_size=web.handshake_size, half_open=web.half_open, ping=web.ping, pong=web.pong,
        ),
    )  # fmt: skip


def proxy(config: Config, is_us: Callable[[str, int | None], bool]) -> ProxySettings:
    """What the operator decided about the proxy."""
    given = config.proxy
    named = policy.peers(config)
    return ProxySettings(
        domains=frozenset(config.server.domains),
        is_us=is_us,
        max_forwards_default=given.max_forwards,
        max_breadth=given.max_breadth,
        inbound=given.inbound,
        peers=config.peers,
        # Where single subscribers have permissions of their own, each is asked for his.
        outbound=given.outbound and not given.outbound_of,
        timer_c=config.timers.c,
        max_targets=given.max_targets,
        size_limit=given.datagram,
        failover_after=given.failover_after,
        redirects=given.redirects,
        linger=64 * config.timers.t1,
        # RFC 4028 §7.1: a caller may ask that every proxy knows timers.
        supported=("path",) if config.sessions.mode == OFF else ("path", TIMER),
        sessions=SessionTimers(config.sessions.mode, config.sessions.expires, config.sessions.min),
        named=named,
        static=policy.static_routes(config, named),
        permissions=policy.permissions(config),
        dial_plan=policy.dial_plan(config),
        calls=policy.meter(config.limits.subscriber_calls),
        requests=policy.meter(config.limits.subscriber_requests),
        asserted=policy.asserted(config, named),
    )


def liveness(config: Config) -> LivenessSettings:
    """What counts as evidence that a call is over."""
    given = config.sessions
    return LivenessSettings(int(given.grace * 1000), int(given.probe * 1000), int(given.max_hours * 3_600_000))


def nameservers(config: Config) -> NameServers:
    """Who is asked for records of the DNS."""
    return NameServers(config.name_servers, config.dns.timeout)


def resolver(config: Config) -> ResolverSettings:
    """How long records are remembered."""
    given = config.dns
    return ResolverSettings(ttl_min=given.ttl_min, ttl_max=given.ttl_max, negative_max=given.negative_max)


def media(config: Config) -> MediaSettings:
    """Which calls are relayed, and how."""
    given = config.media
    return MediaSettings(given.policy, given.bridge, given.failing == "refuse", given.sessions, given.interfaces)


def registrar(config: Config) -> RegistrarSettings:
    """What the operator decided about registrations."""
    given = config.registrar
    return RegistrarSettings(
        domains=frozenset(config.server.domains),
        min_expires=given.min_expires,
        max_expires=given.max_expires,
        default_expires=given.default_expires,
        max_contacts=given.max_contacts,
        flow_timer=config.nat.flow_timer,
        flow_timer_udp=config.nat.flow_timer_udp,
    )


def keeping(config: Config) -> KeepingSettings:
    """How bindings behind NATs are kept reachable."""
    given = config.nat
    return KeepingSettings(given.ping, given.interval, given.misses)


def authenticators(config: Config, secret: bytes, not_before: float) -> list[Authenticator]:
    """One for each listener; those that are configured alike share theirs, and so its memory of used nonces."""
    made: dict[tuple[tuple[str, ...], bool], Authenticator] = {}
    found = []
    given = config.authentication
    for listener in config.listeners:
        kind = tuple(listener.algorithms or ()), bool(listener.qop)
        if kind not in made:
            made[kind] = Authenticator(
                secret, algorithms=kind[0], offer_qop=kind[1], nonce_lifetime=given.nonce_lifetime,
                max_nonces=given.replay_entries, not_before=not_before,
            )  # fmt: skip
        found.append(made[kind])
    return found


def location(config: Config) -> LocationSettings:
    """What the operator decided about places."""
    sites = []
    for each in config.location.sites:
        network = ip_network(each.network, strict=False) if each.network else None
        place = Place(country_code(each.country), each.region or None, each.city or None, each.site or None)
        sites.append(Site(network, each.interface, each.access, place))
    return LocationSettings(config.location.precision, SiteTable(sites), policy.trusted_networks(config))


def network_prefix(config: Config) -> NetworkPrefix:
    """How client addresses are kept in records."""
    given = config.calls
    if given.network == "exact":
        return NetworkPrefix(32, 128)
    if given.network == "none":
        return NetworkPrefix(0, 0)
    return NetworkPrefix(given.prefix4, given.prefix6)
