"""Messages to send, made of messages received: replies, ACK, CANCEL, and the Via work of a server.

Text goes in as it comes out of ``sip.message``, Latin-1 decoded; bytes come out. Lines copied from a
received message stay byte for byte. A line break in text that is put into a header is our own fault
and fails an assertion, since it would let a peer write header lines of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sipserver.sip import names
from sipserver.sip.errors import SipError
from sipserver.sip.message import Message, Request, Response
from sipserver.sip.values import Via, first_comma, split_commas, split_params

REASON_PHRASES: Final = {
    100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 182: "Queued", 183: "Session Progress",
    199: "Early Dialog Terminated",
    200: "OK", 202: "Accepted", 204: "No Notification",
    300: "Multiple Choices", 301: "Moved Permanently", 302: "Moved Temporarily", 305: "Use Proxy",
    380: "Alternative Service",
    400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required",
    408: "Request Timeout", 410: "Gone", 412: "Conditional Request Failed", 413: "Request Entity Too Large",
    414: "Request-URI Too Long", 415: "Unsupported Media Type", 416: "Unsupported URI Scheme",
    417: "Unknown Resource-Priority", 420: "Bad Extension", 421: "Extension Required",
    422: "Session Interval Too Small", 423: "Interval Too Brief", 424: "Bad Location Information",
    425: "Bad Alert Message", 428: "Use Identity Header", 429: "Provide Referrer Identity", 430: "Flow Failed",
    433: "Anonymity Disallowed", 436: "Bad Identity-Info", 437: "Unsupported Certificate",
    438: "Invalid Identity Header", 439: "First Hop Lacks Outbound Support", 440: "Max-Breadth Exceeded",
    469: "Bad Info Package", 470: "Consent Needed", 480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist", 482: "Loop Detected", 483: "Too Many Hops",
    484: "Address Incomplete", 485: "Ambiguous", 486: "Busy Here", 487: "Request Terminated",
    488: "Not Acceptable Here", 489: "Bad Event", 491: "Request Pending", 493: "Undecipherable",
    494: "Security Agreement Required",
    500: "Server Internal Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Server Time-out", 505: "Version Not Supported", 513: "Message Too Large",
    555: "Push Notification Service Not Supported", 580: "Precondition Failure",
    600: "Busy Everywhere", 603: "Decline", 604: "Does Not Exist Anywhere", 606: "Not Acceptable",
    607: "Unwanted", 608: "Rejected",
}  # fmt: skip
"""The phrases of the IANA registry of SIP response codes."""

DEFAULT_PORT: Final = 5060
"""Where a peer listens that names no port (RFC 3261 §19.1.2)."""
DEFAULT_TLS_PORT: Final = 5061
"""The same for TLS."""


def reason_phrase(status: int) -> str:
    """The phrase of this status; of its class where it is not registered (RFC 3261 §8.1.3.2)."""
    return REASON_PHRASES.get(status) or REASON_PHRASES.get(status // 100 * 100, "Unknown")


def safe(text: str) -> str:
    """The text itself, asserted to hold no line break: for what is put into a header."""
    if "\r" in text or "\n" in text:
        raise AssertionError("a line break in header text: escape or refuse it where it is read")
    return text


def can_reply(request: Request) -> bool:
    """Whether a response may be sent: never to ACK (RFC 3261 §17.1.1.3), never where there is no Via to copy.

    A Via that cannot be read will do (RFC 4475 §3.1.2.1 asks for a 400): ``stamp_via`` puts the source in its place.
    """
    return request.method != "ACK" and request.has(names.VIA)


def reply(
    request: Request,
    status: int,
    reason: str | None = None,
    to_tag: str | None = None,
    headers: Iterable[str] = (),
    body: bytes = b"",
    content_type: str | None = None,
) -> bytes:
    """The response to this request (RFC 3261 §8.2.6); ask ``can_reply`` first where the request may be broken.

    ``headers`` are whole lines. ``to_tag`` is added where To has no tag, and never to a 100. Of a
    broken request, the headers that are there are copied.
    """
    theirs, found = request.lines, request.places
    headers = tuple(headers)
    # All that is ours, looked at in one go.
    safe("".join((reason or "", to_tag or "", content_type or "", *headers)))
    lines = [f"SIP/2.0 {status} {reason or reason_phrase(status)}"]
    if request.count(names.VIA) == 1:
        lines.append(theirs[found[names.VIA]])
    else:
        lines += [theirs[i] for i, name in enumerate(request.names) if name == names.VIA]
    if names.FROM in found:
        lines.append(theirs[found[names.FROM]])
    if names.TO in found:
        line = theirs[found[names.TO]]
        if to_tag is not None and status != 100 and _lacks_tag(request):
            line = f"{line};tag={to_tag}"
        lines.append(line)
    if names.CALL_ID in found:
        lines.append(theirs[found[names.CALL_ID]])
    if names.CSEQ in found:
        lines.append(theirs[found[names.CSEQ]])
    # RFC 3261 §8.2.6.1: a Timestamp goes back in the 100.
    if status == 100 and names.TIMESTAMP in found:
        lines.append(theirs[found[names.TIMESTAMP]])
    lines += headers
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    if not body:
        lines.append("Content-Length: 0\r\n\r\n")
        return "\r\n".join(lines).encode("latin-1")
    lines.append(f"Content-Length: {len(body)}\r\n\r\n")
    return "\r\n".join(lines).encode("latin-1") + body


def _lacks_tag(request: Request) -> bool:
    """Whether To may be given a tag; a broken To is left as it is."""
    try:
        return not request.to.params.get("tag")
    except SipError:
        return False


def stamp_via(request: Request, host: str, port: int) -> None:
    """Write into the top Via where the request came from (RFC 3261 §18.2.1, RFC 3581 §4), in place.

    ``host`` is the source address, IPv6 without brackets. Where the Vias cannot be read, their lines stay as
    they are and the source alone stands for the top one, so that a refusal finds its way.
    """
    try:
        via = request.top_via
    except SipError:
        request.use_vias([Via("UDP", host, port, {"received": host, "rport": str(port)}, "")])
        return
    params = via.params
    asked = "rport" in params
    # What a client wrote into received or rport itself is replaced: only the socket knows.
    if not asked and via.host == host and "received" not in params:
        return
    position = request.places[names.VIA]
    line = request.lines[position]
    # What nearly every endpoint sends: the question without a value, and one Via in its line.
    if asked and params["rport"] is None and "received" not in params and "," not in line:
        written = str(port)
        answer = f"={written};received={host}"
        if line.endswith(";rport"):
            params["rport"], params["received"] = written, host
            via.raw += answer
            request.lines[position] = line + answer
            return
        if ";rport;" in line and '"' not in line:
            params["rport"], params["received"] = written, host
            via.raw = via.raw.replace(";rport;", f";rport{answer};", 1)
            request.lines[position] = line.replace(";rport;", f";rport{answer};", 1)
            return
    kept = [part for part in split_params(via.raw) if not _is_source_param(part)]
    # RFC 3581 §4: who asks for its port gets its address too, even where that is what it wrote.
    if asked:
        kept.append(f"received={host};rport={port}")
        params["rport"] = str(port)
    else:
        kept.append(f"received={host}")
    params["received"] = host
    via.raw = ";".join(kept)
    if "," not in line:
        request.lines[position] = f"Via: {via.raw}"
        return
    values = split_commas(request.value_at(position))
    values[0] = via.raw
    request.lines[position] = "Via: " + ", ".join(values)


def _is_source_param(part: str) -> bool:
    return part.partition("=")[0].strip(" \t").lower() in ("received", "rport")


def response_port(via: Via) -> int:
    """The port that a response goes to, at the address its request came from (RFC 3261 §18.2.2, RFC 3581 §4).

    For a ``via`` that ``stamp_via`` has seen. maddr is ignored: a response never goes to a third party.
    """
    rport = via.rport
    if rport is not None:
        return rport
    if via.port is not None:
        return via.port
    return DEFAULT_TLS_PORT if via.transport in ("TLS", "WSS") else DEFAULT_PORT


class OutgoingRequest:
    """A request that this server sends, its bytes made once. Treat it as read-only."""

    __slots__ = ("_data", "body", "branch", "lines", "method", "uri_text")

    def __init__(self, method: str, uri_text: str, lines: list[str], body: bytes, branch: str) -> None:
        self.method = method
        self.uri_text = uri_text
        """The Request-URI."""
        self.lines = lines
        """The header lines; the first is our own Via, alone in its line."""
        self.body = body
        self.branch = branch
        """The branch of our Via."""
        self._data: bytes | None = None

    @property
    def data(self) -> bytes:
        """The request as it goes on the wire."""
        if self._data is None:
            head = "\r\n".join((f"{self.method} {self.uri_text} SIP/2.0", *self.lines, "", ""))
            self._data = head.encode("latin-1") + self.body
        return self._data


def ack(invite: OutgoingRequest, response: Response) -> OutgoingRequest:
    """The ACK that the INVITE's own transaction sends for a final response of 300 or more (RFC 3261 §17.1.1.3)."""
    # The To of the response, with the tag that the answering side put there.
    to = response.lines[response.places[names.TO]]
    return _companion(invite, "ACK", to, ())


def cancel(invite: OutgoingRequest, reason: str | None = None) -> OutgoingRequest:
    """The CANCEL of this INVITE (RFC 3261 §9.1), with a whole ``Reason: …`` line where there is one (RFC 3326)."""
    return _companion(invite, "CANCEL", None, () if reason is None else (safe(reason),))


def _companion(invite: OutgoingRequest, method: str, to: str | None, extra: Iterable[str]) -> OutgoingRequest:
    """A request with the INVITE's URI, branch, Call-ID, From, sequence number and route, and no more than that."""
    lines = [invite.lines[0], "Max-Forwards: 70"]
    for line in invite.lines:
        name = names.canonical_name(line.partition(":")[0])
        if name in (names.FROM, names.CALL_ID, names.ROUTE):
            lines.append(line)
        elif name == names.TO:
            lines.append(line if to is None else to)
        elif name == names.CSEQ:
            number = line.partition(":")[2].split(None, 1)[0]
            lines.append(f"CSeq: {number} {method}")
    lines += extra
    lines.append("Content-Length: 0")
    return OutgoingRequest(method, invite.uri_text, lines, b"", invite.branch)


def without_top_via(response: Message, stream: bool = False) -> bytes:
    """The response to pass on upstream (RFC 3261 §16.7 step 3): no top Via value, every other byte as it came.

    On a ``stream`` it gets the Content-Length that a datagram or a WebSocket message may do without (§20.14), since
    nothing else tells where it ends. Only the access network of whoever answers is kept back (RFC 7315 §4.4.2.2, §6.4).
    """
    position = response.places[names.VIA]
    lines = response.lines.copy()
    line = lines[position]
    comma = first_comma(line) if "," in line else -1
    if comma < 0:
        del lines[position]
    else:
        lines[position] = line[: line.index(":") + 1] + line[comma + 1 :]
    if response.has(names.P_ACCESS_NETWORK_INFO):
        private = [each for each, name in zip(response.lines, response.names, strict=True)
                   if name == names.P_ACCESS_NETWORK_INFO]  # fmt: skip
        lines = [each for each in lines if each not in private]
    if stream and not response.has(names.CONTENT_LENGTH):
        lines.append(f"Content-Length: {len(response.body)}")
    head = "\r\n".join((response.start_line, *lines, "", ""))
    return head.encode("latin-1") + response.body
