"""SIP, SIPS and tel URIs (RFC 3261 §19.1, RFC 3966), and the address of record that is made of one.

A URI keeps the text it came in. Other schemes parse to their scheme alone, so that a proxy can
answer 416 instead of 400.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from sipserver.sip.errors import SipError
from sipserver.sip.grammar import (
    ESCAPE,
    bracketed,
    check_escapes,
    normal_escapes,
    parse_host,
    split_host_port,
)

# Everything that may stand somewhere in a SIP URI. '#' is no part of it but of many dial plans, so it passes in a user.
_SIP_CHARACTERS: Final = re.compile(r"[A-Za-z0-9_.!~*'()&=+$,;?/:@%\[\]#-]+\Z")
_OTHER_CHARACTERS: Final = re.compile(r"[\x21-\x7e]+\Z")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*\Z")
_TEL_NUMBER: Final = re.compile(r"\+[0-9]+\Z|[0-9A-Fa-f*#]+\Z")
_GLOBAL_NUMBER: Final = re.compile(r"\+[0-9]+\Z")
_NO_SEPARATORS: Final = str.maketrans("", "", "-.()")
_NOT_IN_USER: Final = re.compile(rb"[^A-Za-z0-9_.!~*'()&=+$,;?/-]")
_READABLE: Final = {
    f"{byte:02X}": f"%{byte:02X}" if byte <= 0x20 or byte in b"%@:\x7f" else chr(byte) for byte in range(256)
}
_REMEMBERED_LENGTH: Final = 200
"""Longer texts are not remembered: the memory of the others stays below a few megabytes."""
_MATCH_IF_IN_EITHER: Final = ("transport", "user", "ttl", "method", "maddr")


class Uri:
    """One URI, taken apart. Treat it as read-only."""

    __slots__ = ("_aor", "headers", "host", "params", "password", "port", "raw", "scheme", "user")

    def __init__(self, scheme: str, raw: str) -> None:
        self.scheme = scheme
        """Lower case: ``sip``, ``sips``, ``tel`` or whatever else was written."""
        self.user: str | None = None
        """The user as written, still escaped; for tel the number without visual separators."""
        self.password: str | None = None
        """The password as written, still escaped."""
        self.host = ""
        """Lower case; IPv6 in its shortest form and without brackets; empty where the scheme is not SIP's."""
        self.port: int | None = None
        """The port, None where none is written."""
        self.params: dict[str, str | None] = {}
        """Lower-cased names and values, with needless escapes removed (``grammar.normal_escapes``)."""
        self.headers = ""
        """What follows the ``?``, as written."""
        self.raw = raw
        """The whole URI as written."""
        self._aor: str | None = None

    @classmethod
    def parse(cls, text: str) -> Uri:
        """The URI that is written here; raises SipError(400, 'Bad URI').

        The same text may give the same object: an endpoint's URIs come back in each of its messages.
        """
        return _parse(text) if len(text) <= _REMEMBERED_LENGTH else _parse.__wrapped__(text)

    def _parse_text(self, colon: str, rest: str) -> None:
        try:
            if self.scheme in ("sip", "sips"):
                self._parse_sip(rest)
            elif self.scheme == "tel":
                self._parse_tel(rest)
            elif not colon or not _SCHEME.match(self.scheme) or not _OTHER_CHARACTERS.match(rest):
                raise SipError(400, "Bad URI")
        except SipError:
            raise SipError(400, "Bad URI") from None

    @classmethod
    def make(
        cls,
        scheme: str,
        user: str | None,
        host: str,
        port: int | None = None,
        params: Mapping[str, str | None] | None = None,
    ) -> Uri:
        """A SIP URI from its parts, each written as the fields hold it (``escape_user`` escapes a user)."""
        written = [scheme, ":"]
        if user is not None:
            written += (user, "@")
        written.append(bracketed(host))
        if port is not None:
            written.append(f":{port}")
        for name, value in (params or {}).items():
            written.append(f";{name}" if value is None else f";{name}={value}")
        return cls.parse("".join(written))

    def _parse_sip(self, rest: str) -> None:
        if not _SIP_CHARACTERS.match(rest):
            raise SipError(400, "Bad URI")
        if "%" in rest:
            check_escapes(rest)
        # A user may hold ';' and '?', so it is cut off first; '@' stands nowhere else.
        userinfo, at, rest_of = rest.partition("@")
        if at:
            user, colon, password = userinfo.partition(":")
            if not user or "@" in rest_of or "[" in userinfo or "]" in userinfo or ":" in password:
                raise SipError(400, "Bad URI")
            self.user = user
            if colon:
                self.password = password
            rest = rest_of
        if "#" in rest:
            raise SipError(400, "Bad URI")
        if "?" in rest:
            rest, _, self.headers = rest.partition("?")
        if ";" in rest:
            rest, _, params = rest.partition(";")
            self._parse_params(params)
        self.host, self.port = split_host_port(rest)

    def _parse_params(self, text: str) -> None:
        params = self.params
        for part in text.split(";"):
            name, equals, value = part.partition("=")
            if "%" in part:
                name, value = normal_escapes(name), normal_escapes(value)
            name = name.lower()
            # RFC 3261 §19.1.1: a parameter appears once.
            if not name or name in params:
                raise SipError(400, "Bad URI")
            params[name] = value if equals else None

    def _parse_tel(self, rest: str) -> None:
        number, semicolon, params = rest.partition(";")
        number = number.translate(_NO_SEPARATORS)
        if not _TEL_NUMBER.match(number) or not _OTHER_CHARACTERS.match(rest):
            raise SipError(400, "Bad URI")
        check_escapes(params)
        self.user = number
        if semicolon:
            self._parse_params(params)
        context = self.params.get("phone-context")
        if context is None:
            # RFC 3966 §5.1.5: a local number says in which context it is one.
            if not number.startswith("+"):
                raise SipError(400, "Bad URI")
        elif not _GLOBAL_NUMBER.match(context.translate(_NO_SEPARATORS)):
            parse_host(context)

    def __str__(self) -> str:
        return self.raw

    def __repr__(self) -> str:
        return f"Uri({self.raw!r})"

    @property
    def is_sip(self) -> bool:
        """Whether this is a sip: or sips: URI."""
        return self.scheme in ("sip", "sips")

    @property
    def transport(self) -> str | None:
        """The transport parameter in lower case, None where there is none."""
        transport = self.params.get("transport")
        return transport.lower() if transport is not None else None

    @property
    def effective_port(self) -> int:
        """The port, or the one that is meant where none is written (RFC 3261 §19.1.2, RFC 7118 §5.5)."""
        if self.port is not None:
            return self.port
        transport = self.transport
        if transport in ("ws", "wss"):
            return 443 if self.scheme == "sips" or transport == "wss" else 80
        return 5061 if self.scheme == "sips" or transport == "tls" else 5060

    @property
    def hostport(self) -> str:
        """``host`` or ``host:port``, IPv6 in brackets."""
        host = bracketed(self.host)
        return host if self.port is None else f"{host}:{self.port}"

    def aor(self) -> str:
        """The address of record: ``user@host`` as readable text, for comparing and storing (RFC 3261 §10.3 step 5).

        Escapes are decoded, the host is lower case without a trailing dot (IPv6 in brackets); port,
        password, parameters and headers are gone. Where a decoded user would be read as something
        else, the escape stays: ``%``, ``@``, ``:``, white space, what does not print, and what is not
        UTF-8; so two users never share one address. Without a user it is the host alone. A tel URI
        gives ``+15550100``, or ``number@context`` where its number is local. Raises SipError(416) for other schemes.
        """
        if self._aor is None:
            self._aor = self._make_aor()
        return self._aor

    def _make_aor(self) -> str:
        if self.scheme == "tel":
            return self._tel_aor()
        if not self.is_sip:
            raise SipError(416, "Unsupported URI Scheme")
        host = bracketed(self.host.removesuffix("."))
        if self.user is None:
            return host
        user = self.user
        if "%" in user or not user.isascii():
            user = _readable_user(user)
        return f"{user}@{host}"

    def _tel_aor(self) -> str:
        number = (self.user or "").lower()
        context = self.params.get("phone-context")
        if number.startswith("+") or context is None:
            return number
        if _GLOBAL_NUMBER.match(context.translate(_NO_SEPARATORS)):
            return f"{number}@{context.translate(_NO_SEPARATORS)}"
        return f"{number}@{parse_host(context).removesuffix('.')}"

    def equivalent(self, other: Uri) -> bool:
        """Whether both address the same resource in the same way (RFC 3261 §19.1.4, RFC 3966 §4)."""
        if self.scheme != other.scheme:
            return False
        if self.scheme == "tel":
            return self._tel_aor() == other._tel_aor() and _same_params(self.params, other.params, every=True)
        if not self.is_sip:
            return self.raw == other.raw
        return (
            self.host == other.host
            # A port that is left out differs from the default port written out.
            and self.port == other.port
            and _normal(self.user) == _normal(other.user)
            and _normal(self.password) == _normal(other.password)
            and _same_params(self.params, other.params, every=False)
            and (self.headers == other.headers or _header_set(self.headers) == _header_set(other.headers))
        )


@lru_cache(maxsize=8192)
def _parse(text: str) -> Uri:
    written, colon, rest = text.partition(":")
    uri = Uri(written.lower(), text)
    uri._parse_text(colon, rest)
    return uri


def canonical_aor(text: str) -> str:
    """The address of record that a person or a message means by this; raises SipError(400, 'Bad address').

    Takes ``alice@Example.COM`` in readable text as well as ``sip:``, ``sips:`` and ``tel:`` URIs. What it
    returned, it returns again unchanged.
    """
    text = text.strip()
    try:
        if text[:5].lower().startswith(("sip:", "sips:", "tel:")):
            return Uri.parse(text).aor()
        user, at, host = text.rpartition("@")
        if not at:
            # A tel number's own address has no '@'; everything else without one is a host.
            if _GLOBAL_NUMBER.match(text.translate(_NO_SEPARATORS)):
                return text.translate(_NO_SEPARATORS)
            return bracketed(parse_host(text).removesuffix("."))
        if not user or "@" in user or ":" in user or not user.isprintable() or " " in user:
            raise SipError(400, "Bad address")
        if _GLOBAL_NUMBER.match(host):
            return f"{user}@{host}"
        check_escapes(user)
        name = _readable_user(user.encode("utf-8").decode("latin-1"))
        return f"{name}@{bracketed(parse_host(host).removesuffix('.'))}"
    except (SipError, UnicodeError):
        raise SipError(400, "Bad address") from None


def escape_user(user: str) -> str:
    """Readable text as the user of a URI: what may not stand there is escaped as UTF-8; ``%`` starts an escape."""
    return "%".join(_escape_bytes(part) for part in user.split("%"))


def aor_uri(aor: str, scheme: str = "sip") -> str:
    """The URI whose ``aor()`` this is: SIP, or tel where it is a number."""
    user, at, host = aor.rpartition("@")
    if host.startswith("+"):
        return f"tel:{user};phone-context={host}" if at else f"tel:{host}"
    return f"{scheme}:{escape_user(user)}@{host}" if at else f"{scheme}:{host}"


def _escape_bytes(text: str) -> str:
    data = text.encode("utf-8", "replace")
    return _NOT_IN_USER.sub(lambda match: b"%%%02X" % match[0][0], data).decode("ascii")


def _readable_user(user: str) -> str:
    """The user with its escapes decoded, but for those that would change its meaning (see ``Uri.aor``)."""
    decoded = ESCAPE.sub(lambda match: _READABLE[match[1].upper()], user)
    readable = decoded.encode("latin-1").decode("utf-8", "surrogateescape")
    if readable.isprintable():
        return readable
    return "".join(char if char.isprintable() else _escape_all(char) for char in readable)


def _escape_all(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))


def _normal(part: str | None) -> str | None:
    return part if part is None else normal_escapes(part)


def _same_params(one: dict[str, str | None], two: dict[str, str | None], *, every: bool) -> bool:
    """Parameters in both are equal; those of RFC 3261 §19.1.4 (or every one) may not stand in one URI alone."""
    for name, value in one.items():
        if name in two:
            theirs = two[name]
            if value != theirs and (value is None or theirs is None or value.lower() != theirs.lower()):
                return False
    only = one.keys() ^ two.keys()
    return not only if every else only.isdisjoint(_MATCH_IF_IN_EITHER)


def _header_set(headers: str) -> list[tuple[str, str]]:
    """The header part of a URI in an order of its own: names in lower case, escapes normal."""
    pairs = (each.partition("=") for each in headers.split("&"))
    return sorted((normal_escapes(name).lower(), normal_escapes(value)) for name, _, value in pairs)
