"""The load for measuring delay: callers and the called in one process, which costs much less than what it measures.

SIPp takes as much of the machine as a server does, and what it says of time is mostly its own. Here messages are
bytes with a few places filled in, both ends share a loop, and the kernel says when something arrived (SO_TIMESTAMPNS):
neither sending nor receiving waits for this process to get its turn. Endpoints do as RFC 3261 §17 says: what is not
answered is sent again after T1, twice that, and so on, for 64 * T1.
"""

from __future__ import annotations

import re
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import md5
from secrets import token_hex
from typing import Final

from benchmark.systems import DOMAIN, PEOPLE, person

HOST: Final = "127.0.0.1"
T1: Final = 0.5
T2: Final = 4.0
TRIES: Final = 7
"""Times that a request is sent until it is given up: those of an INVITE in 64 * T1."""
BATCH: Final = 64
"""Datagrams read, and calls begun, before the other things get their turn."""
BUFFER: Final = 8 * 1024 * 1024

_STAMP: Final = getattr(socket, "SO_TIMESTAMPNS", 35)
_TIMESPEC: Final = struct.Struct("@ll")
_NONCE: Final = re.compile(rb'nonce="([^"]+)"')
_CONTACT: Final = re.compile(rb"\r\nContact: <([^>]+)>")
_TO: Final = re.compile(rb"\r\n(To: [^\r]*)")
_RETRY: Final = re.compile(rb"\r\nRetry-After: (\d+)")
_COPIED: Final = (b"Via:", b"From:", b"Call-ID:", b"CSeq:", b"Record-Route:")

SDP: Final = (
    b"v=0\r\no=desk 10 10 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 7004 RTP/AVP 0\r\n"
    b"a=rtpmap:0 PCMU/8000\r\nm=video 7006 RTP/AVP 96\r\nb=TIAS:2000000\r\na=rtpmap:96 H264/90000\r\n"
    b"a=fmtp:96 profile-level-id=42e01f\r\n"
)
_BODY: Final = b"Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n" % len(SDP) + SDP
_NO_BODY: Final = b"Content-Length: 0\r\n\r\n"

CHALLENGED, ASKED, RINGING, TALKING, ENDING, OVER = range(6)
"""What a call or registration waits for: its challenge, its answer, after a provisional one; or for nothing yet; the
answer to its BYE; nothing any more."""


@dataclass(slots=True)
class Second:
    """What happened in one second."""

    offered: int = 0
    """Calls or registrations begun; whoever comes back after a 503 counts again."""
    served: int = 0
    """Answered 200."""
    refused: int = 0
    """Answered 503."""
    failed: int = 0
    """Answered otherwise, or not at all."""
    byes: int = 0
    byes_answered: int = 0
    resent: int = 0
    """Requests and answers sent again."""
    retry_after: list[int] = field(default_factory=list)
    """What those who were refused were told."""
    delays: list[float] = field(default_factory=list)
    """Seconds from a request with credentials to its 200 (registration), or to its arrival (call)."""
    ending: list[float] = field(default_factory=list)
    """Seconds from a BYE to its 200."""


class Dialogue:
    """A call or a registration."""

    __slots__ = (
        "began", "callee", "caller", "data", "keep", "number", "resends", "route", "sent_at", "state", "target", "to",
    )  # fmt: skip

    def __init__(self, number: int, caller: int, callee: int, began: float, keep: bool) -> None:
        self.number = number
        self.caller = caller
        self.callee = callee
        self.began = began
        self.keep = keep
        """Whether it goes on until it is told to end."""
        self.state = CHALLENGED
        self.data = b""
        """The request that waits for an answer."""
        self.sent_at = 0.0
        """When that was sent first (UNIX time)."""
        self.resends = 0
        self.to = b""
        self.target = b""
        self.route = b""


class Generator:
    """Endpoints of everybody. ``operation`` is ``register`` or ``call``; everybody who is called has registered."""

    def __init__(
        self, operation: str, port: int, *, hold: float = 0.2, called: Generator | None = None, people: int = PEOPLE
    ) -> None:
        """``called`` has registered those who are called, at its address."""
        self.operation = operation
        self.seconds: list[Second] = []
        self.kept: deque[Dialogue] = deque()
        """Calls that go on until ``end_one``."""
        self.comes_back = False
        """Whether whoever is refused begins anew after Retry-After."""
        self._coming = 0
        self._server = (HOST, port)
        self._hold = hold
        self._people = people
        self._caller = _socket()
        self._callee: socket.socket = called._callee if called is not None else _socket()
        self._run = token_hex(4).encode()
        self._from = b"%s:%d" % (HOST.encode(), self._caller.getsockname()[1])
        self._at = b"%s:%d" % (HOST.encode(), self._callee.getsockname()[1])
        self._open: dict[int, Dialogue] = {}
        self._answers: dict[int, bytes] = {}
        """200s of the called that are not acknowledged yet."""
        self._timers: dict[float, deque[tuple[float, int, bytes, Callable[[int, bytes], None]]]] = {}
        self._number = 0
        self._turn = 0
        """Whose turn it is."""
        self._now = time.monotonic()
        self._second = Second()
        self._started = self._now

    def close(self) -> None:
        """Close the sockets."""
        self._caller.close()
        self._callee.close()

    @property
    def open(self) -> int:
        """Calls and registrations that are going on."""
        return len(self._open)

    def run(
        self, seconds: float, rate: float, each_second: Callable[[Second], None] | None = None, *, keep: bool = False
    ) -> list[Second]:
        """Begin so many a second for so long; what happened in each second. ``keep``: calls that go on."""
        first = len(self.seconds)
        begin = self._now = time.monotonic()
        until, next_second = begin + seconds, begin + 1.0
        interval = 1.0 / rate if rate else seconds + 1.0
        due = begin if rate else until + 1.0
        while True:
            now = self._now = time.monotonic()
            if now >= next_second or now >= until:
                self.seconds.append(self._second)
                if each_second is not None:
                    each_second(self._second)
                self._second = Second()
                next_second += 1.0
                if now >= until:
                    return self.seconds[first:]
            for _ in range(BATCH):
                if due > now:
                    break
                due += interval
                self.begin(keep)
            self._serve_timers(now)
            wait = max(min(due, next_second, until, now + 0.005) - time.monotonic(), 0.0)
            ready = select.select((self._caller, self._callee), (), (), wait)[0]
            for sock in ready:
                self._read(sock)

    def talk(self, calls: int, rate: float) -> None:
        """Begin so many calls that go on until ``end_one``, and wait until they do."""
        for _ in range(calls):
            self.begin(keep=True)
            self.run(1 / rate, 0)
        deadline = time.monotonic() + 2 * T1 + T2
        while len(self.kept) < calls and time.monotonic() < deadline:
            self.run(0.05, 0)

    def finish(self, patience: float = 5.0) -> None:
        """Let what was begun come to its end."""
        deadline = time.monotonic() + patience
        while len(self._open) + self._coming > 0 and time.monotonic() < deadline:
            self.run(0.2, 0)

    def begin(self, keep: bool = False, number_of: int | None = None) -> None:
        """One more call or registration; everybody in turn calls somebody else."""
        self._number += 1
        if number_of is None:
            self._turn += 1
            number_of = self._turn % self._people
        caller = number_of
        dialogue = Dialogue(self._number, caller, (caller * 7_919 + 1) % self._people, self._now, keep)
        self._open[dialogue.number] = dialogue
        self._second.offered += 1
        self._ask(dialogue, self._first(dialogue, b"", 1))

    def end_one(self) -> bool:
        """End a call that was kept; False where there is none."""
        while self.kept:
            dialogue = self.kept.popleft()
            if dialogue.state == TALKING:
                self._bye(dialogue)
                return True
        return False

    # ---- what is sent

    def _ask(self, dialogue: Dialogue, data: bytes) -> None:
        dialogue.data = data
        dialogue.resends = 0
        dialogue.sent_at = time.time()
        self._put(self._caller, data)
        self._later(T1, dialogue.number, data, self._again)

    def _again(self, number: int, data: bytes) -> None:
        """A request that was not answered."""
        dialogue = self._open.get(number)
        if dialogue is None or dialogue.data is not data:
            return
        dialogue.resends += 1
        if dialogue.resends >= TRIES:
            self._over(dialogue)
            self._second.failed += 1
            return
        self._second.resent += 1
        self._put(self._caller, data)
        wait = T1 * 2**dialogue.resends
        is_invite = self.operation == "call" and dialogue.state != ENDING
        self._later(wait if is_invite else min(wait, T2), number, data, self._again)

    def _again_answer(self, number: int, data: bytes) -> None:
        """A 200 of the called that was not acknowledged (RFC 3261 §13.3.1.4)."""
        if self._answers.get(number) is not data:
            return
        if number not in self._open:
            # Whoever called has given up.
            del self._answers[number]
            return
        self._second.resent += 1
        self._put(self._callee, data)
        self._later(T2, number, data, self._again_answer)

    def _first(self, dialogue: Dialogue, credentials: bytes, cseq: int) -> bytes:
        """The request that begins it, with or without credentials."""
        number = dialogue.number
        me = person(dialogue.caller).encode()
        domain = DOMAIN.encode()
        if self.operation == "register":
            return (
                b"REGISTER sip:%s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%sr%d.%d;rport\r\nMax-Forwards: 70\r\n"
                b"From: <sip:%s@%s>;tag=r%d\r\nTo: <sip:%s@%s>\r\nCall-ID: %d@%s\r\nCSeq: %d REGISTER\r\n"
                b"Contact: <sip:%s@%s>\r\nExpires: 3600\r\nUser-Agent: Bench/1.0 (desk phone)\r\n%s%s"
                % (domain, self._from, self._run, number, cseq, me, domain, number, me, domain, number, self._run, cseq,
                   me, self._at, credentials, _NO_BODY)
            )  # fmt: skip
        you = person(dialogue.callee).encode()
        return (
            b"INVITE sip:%s@%s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%si%d.%d;rport\r\nMax-Forwards: 70\r\n"
            b"From: <sip:%s@%s>;tag=c%d\r\nTo: <sip:%s@%s>\r\nCall-ID: %d@%s\r\nCSeq: %d INVITE\r\n"
            b"Contact: <sip:%s@%s>\r\nUser-Agent: Bench/1.0 (desk phone)\r\n%s%s"
            % (you, domain, self._from, self._run, number, cseq, me, domain, number, you, domain, number, self._run,
               cseq, me, self._from, credentials, _BODY)
        )  # fmt: skip

    def _inside(self, dialogue: Dialogue, method: bytes, branch: bytes, cseq: int) -> bytes:
        """ACK of a 2xx, or BYE."""
        number = dialogue.number
        return (
            b"%s %s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%s%s%d;rport\r\n%sMax-Forwards: 70\r\n"
            b"From: <sip:%s@%s>;tag=c%d\r\n%s\r\nCall-ID: %d@%s\r\nCSeq: %d %s\r\n%s"
            % (method, dialogue.target, self._from, self._run, branch, number, dialogue.route,
               person(dialogue.caller).encode(), DOMAIN.encode(), number, dialogue.to, number, self._run, cseq, method,
               _NO_BODY)
        )  # fmt: skip

    def _acknowledge(self, dialogue: Dialogue, response: bytes, cseq: int) -> None:
        """The ACK of a refusal, which belongs to the INVITE."""
        found = _TO.search(response)
        number = dialogue.number
        self._put(
            self._caller,
            b"ACK sip:%s@%s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%si%d.%d;rport\r\nMax-Forwards: 70\r\n"
            b"From: <sip:%s@%s>;tag=c%d\r\n%s\r\nCall-ID: %d@%s\r\nCSeq: %d ACK\r\n%s"
            % (person(dialogue.callee).encode(), DOMAIN.encode(), self._from, self._run, number, cseq,
               person(dialogue.caller).encode(), DOMAIN.encode(), number, found[1] if found else b"To: <sip:x>", number,
               self._run, cseq, _NO_BODY),
        )  # fmt: skip

    def _bye(self, dialogue: Dialogue) -> None:
        dialogue.state = ENDING
        self._second.byes += 1
        self._ask(dialogue, self._inside(dialogue, b"BYE", b"b", 3))

    def _hang_up(self, number: int, _data: bytes) -> None:
        dialogue = self._open.get(number)
        if dialogue is not None and dialogue.state == TALKING:
            self._bye(dialogue)

    # ---- what is received

    def _read(self, sock: socket.socket) -> None:
        handle = self._on_caller if sock is self._caller else self._on_callee
        for _ in range(BATCH):
            try:
                data, ancillary, _flags, _address = sock.recvmsg(8192, 64)
            except BlockingIOError:
                return
            seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
            handle(data, seconds + nanoseconds * 1e-9)

    def _on_caller(self, data: bytes, at: float) -> None:
        """An answer to what somebody began."""
        place = data.find(b"\r\nCall-ID: ") + 11
        end = data.find(b"@", place)
        dialogue = self._open.get(int(data[place:end]))
        if dialogue is None or not data.startswith(self._run, end + 1) or not data.startswith(b"SIP/2.0 "):
            return
        status = int(data[8:11])
        if dialogue.state == ENDING:
            if status >= 200 and b" BYE\r\n" in data:
                self._second.byes_answered += status == 200
                self._second.ending.append(at - dialogue.sent_at)
                self._over(dialogue)
        elif status < 200:
            # An INVITE that is known to have arrived is not sent again.
            if dialogue.state == ASKED:
                dialogue.state, dialogue.data = RINGING, b""
        elif status in (401, 407) and dialogue.state == CHALLENGED:
            self._challenged(dialogue, data)
        elif status == 200 and dialogue.state in (ASKED, RINGING):
            self._accepted(dialogue, data, at)
        elif status == 200 and dialogue.state == TALKING:
            self._put(self._caller, self._inside(dialogue, b"ACK", b"a", 2))
        elif status >= 300 and dialogue.state in (CHALLENGED, ASKED, RINGING):
            self._refused(dialogue, data, status)

    def _challenged(self, dialogue: Dialogue, data: bytes) -> None:
        found = _NONCE.search(data)
        if found is None:
            return
        if self.operation == "call":
            self._acknowledge(dialogue, data, 1)
            method, uri = "INVITE", f"sip:{person(dialogue.callee)}@{DOMAIN}"
        else:
            method, uri = "REGISTER", f"sip:{DOMAIN}"
        dialogue.state = ASKED
        self._ask(dialogue, self._first(dialogue, credentials(method, uri, dialogue.caller, found[1].decode()), 2))

    def _accepted(self, dialogue: Dialogue, data: bytes, at: float) -> None:
        self._second.served += 1
        if self.operation == "register":
            self._second.delays.append(at - dialogue.sent_at)
            self._over(dialogue)
            return
        dialogue.state, dialogue.data = TALKING, b""
        contact, to = _CONTACT.search(data), _TO.search(data)
        dialogue.target, dialogue.to = contact[1] if contact else b"sip:x", to[1] if to else b""
        routes = [line[14:] for line in data.split(b"\r\n") if line.startswith(b"Record-Route: ")]
        dialogue.route = b"".join(b"Route: %s\r\n" % route for route in reversed(routes))
        self._put(self._caller, self._inside(dialogue, b"ACK", b"a", 2))
        if dialogue.keep:
            self.kept.append(dialogue)
        else:
            self._later(self._hold, dialogue.number, b"", self._hang_up)

    def _refused(self, dialogue: Dialogue, data: bytes, status: int) -> None:
        if self.operation == "call":
            self._acknowledge(dialogue, data, 1 if dialogue.state == CHALLENGED else 2)
        if status == 503:
            self._second.refused += 1
            found = _RETRY.search(data)
            if found is not None:
                after = int(found[1])
                self._second.retry_after.append(after)
                if self.comes_back:
                    self._coming += 1
                    self._later(float(after), dialogue.caller, b"", self._begin_anew)
        else:
            self._second.failed += 1
        self._over(dialogue)

    def _begin_anew(self, caller: int, _data: bytes) -> None:
        self._coming -= 1
        self.begin(number_of=caller)

    def _on_callee(self, data: bytes, at: float) -> None:
        """A call, its ACK or its BYE."""
        place = data.find(b"\r\nCall-ID: ") + 11
        end = data.find(b"@", place)
        number = int(data[place:end])
        if not data.startswith(self._run, end + 1):
            return
        if data.startswith(b"INVITE "):
            dialogue = self._open.get(number)
            if number in self._answers:
                return
            if dialogue is not None and dialogue.state in (ASKED, RINGING):
                self._second.delays.append(at - dialogue.sent_at)
            self._put(self._callee, _answer(data, b"180 Ringing", number, self._at, b""))
            answer = self._answers[number] = _answer(data, b"200 OK", number, self._at, SDP)
            self._put(self._callee, answer)
            self._later(T1, number, answer, self._again_answer)
        elif data.startswith(b"ACK "):
            self._answers.pop(number, None)
        elif data.startswith(b"BYE "):
            self._answers.pop(number, None)
            self._put(self._callee, _answer(data, b"200 OK", number, b"", b""))

    # ---- machinery

    def _put(self, sock: socket.socket, data: bytes) -> None:
        try:
            sock.sendto(data, self._server)
        except BlockingIOError:
            # Lost, as any datagram may be.
            return

    def _over(self, dialogue: Dialogue) -> None:
        dialogue.state, dialogue.data = OVER, b""
        self._open.pop(dialogue.number, None)

    def _later(self, after: float, number: int, data: bytes, call: Callable[[int, bytes], None]) -> None:
        queue = self._timers.get(after)
        if queue is None:
            queue = self._timers[after] = deque()
        queue.append((time.monotonic() + after, number, data, call))

    def _serve_timers(self, now: float) -> None:
        for queue in list(self._timers.values()):
            while queue and queue[0][0] <= now:
                _, number, data, call = queue.popleft()
                call(number, data)


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, _STAMP, 1)
    sock.bind((HOST, 0))
    return sock


def credentials(method: str, uri: str, caller: int, nonce: str) -> bytes:
    """RFC 2617 §3.2.2, with qop."""
    user = person(caller)
    secret = _md5(f"{user}:{DOMAIN}:pw{user}")
    response = _md5(f"{secret}:{nonce}:00000001:bench:auth:{_md5(f'{method}:{uri}')}")
    name = "Authorization" if method == "REGISTER" else "Proxy-Authorization"
    return (
        f'{name}: Digest username="{user}", realm="{DOMAIN}", nonce="{nonce}", uri="{uri}", response="{response}", '
        'algorithm=MD5, qop=auth, cnonce="bench", nc=00000001\r\n'
    ).encode()


def _md5(text: str) -> str:
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def _answer(request: bytes, status: bytes, number: int, at: bytes, body: bytes) -> bytes:
    """A response of the called; with ``at`` that to an INVITE."""
    lines = request[: request.find(b"\r\n\r\n")].split(b"\r\n")
    kept = [line for line in lines if line.startswith(_COPIED)]
    to = next(line for line in lines if line.startswith(b"To:"))
    if at:
        kept += (b"%s;tag=d%d" % (to, number), b"Contact: <sip:desk@%s>" % at)
    else:
        kept.append(to)
    tail = _BODY if body else _NO_BODY
    return b"SIP/2.0 %s\r\n%s\r\n%s" % (status, b"\r\n".join(kept), tail)
