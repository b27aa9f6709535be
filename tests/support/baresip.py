"""A baresip process as a video endpoint without hardware, commanded over its JSON control (ctrl_tcp)."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from support.ports import free_port

MODULES = ("g711.so", "ausine.so", "aubridge.so", "fakevideo.so", "vp8.so")
BROWSERS = ("srtp.so", "dtls_srtp.so", "ice.so")
APPLICATIONS = ("account.so", "menu.so", "ctrl_tcp.so")

CONFIG = """\
poll_method             epoll
sip_listen              {host}:{sip_port}
net_interface           {address}
call_local_timeout      120
call_max_calls          4
audio_player            aubridge,nowhere
audio_source            ausine,440
audio_alert             aubridge,nowhere
ausrc_srate             48000
ausrc_channels          2
video_source            fakevideo,nothing
video_display           fakevideo,nothing
video_size              176x144
video_fps               10
video_bitrate           64000
rtp_ports               {rtp_port}-{rtp_last}
ctrl_tcp_listen         127.0.0.1:{control_port}
module_path             {modules}
"""

ACCOUNT = (
    "<sip:{user}@{domain};transport={transport}>;auth_user={user};auth_pass={password};"
    'outbound="sip:{server}:{port};transport={transport}";regint=60;answermode={answermode};audio_codecs=PCMU'
)


def why_not() -> str:
    """Why there can be no baresip here; empty where there can."""
    if shutil.which("baresip") is None:
        return "baresip is not installed (Debian: apt install baresip-core)"
    return "" if _modules() is not None else "baresip's modules are not where they are looked for"


def _modules() -> Path | None:
    for pattern in ("usr/lib/baresip/modules", "usr/lib/*/baresip/modules", "usr/local/lib/baresip/modules"):
        for folder in Path("/").glob(pattern):
            if all((folder / name).exists() for name in (*MODULES, *APPLICATIONS)):
                return folder
    return None


@dataclass(slots=True)
class Event:
    """Something that the endpoint told, and when it arrived here."""

    kind: str
    """``REGISTER_OK``, ``CALL_INCOMING``, ``CALL_ESTABLISHED``, ``CALL_CLOSED`` …"""
    at: float
    """UNIX time in seconds."""
    values: dict[str, Any]


class Baresip:
    """One endpoint, registered when the ``with`` block begins."""

    def __init__(
        self,
        folder: Path,
        user: str,
        server_port: int,
        *,
        transport: str = "udp",
        domain: str = "example.test",
        password: str = "",
        answermode: str = "auto",
        video: bool = True,
        statistics: bool = False,
        host: str = "127.0.0.1",
        server: str = "127.0.0.1",
        authority: Path | None = None,
        browsers: bool = False,
    ) -> None:
        """``authority`` signs the certificates that it believes, for TLS; ``browsers``: with the ICE and DTLS-SRTP that
        they insist on."""
        self.user = user
        self.address = f"sip:{user}@{domain}"
        self.events: list[Event] = []
        self._folder = folder / f"baresip-{user}"
        self._folder.mkdir(parents=True)
        self._arrived = threading.Condition()
        self._answers: dict[str, dict[str, Any]] = {}
        self._commands = 0
        self._control_port = free_port()
        modules = _modules()
        assert modules is not None, why_not()
        rtp_port = free_port(20)
        config = CONFIG.format(
            # It listens for TLS one port above.
            sip_port=free_port(2), rtp_port=rtp_port, rtp_last=rtp_port + 19, control_port=self._control_port,
            modules=modules, host=host, address=host.strip("[]"),
        )  # fmt: skip
        if authority is not None:
            config += f"sip_cafile {authority}\n"
        names = [name for name in MODULES if video or name not in ("fakevideo.so", "vp8.so")]
        if browsers:
            names += BROWSERS
            config += "rtcp_mux yes\n"
        if statistics:
            config += "rtp_stats yes\n"
        config += "".join(f"module {name}\n" for name in names)
        config += "".join(f"module_app {name}\n" for name in APPLICATIONS)
        account = ACCOUNT.format(
            user=user, domain=domain, password=password or f"pw{user}", port=server_port, transport=transport,
            answermode=answermode, server=server,
        )  # fmt: skip
        if browsers:
            account += ";mediaenc=dtls_srtp;medianat=ice"
        (self._folder / "config").write_text(config)
        (self._folder / "accounts").write_text(account + "\n")
        (self._folder / "contacts").write_text("")

    def __enter__(self) -> Self:
        self._log = (self._folder / "log").open("wb")
        self._process = subprocess.Popen(
            ["baresip", "-f", str(self._folder)], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        try:
            self._control = self._connected()
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
            # It may have registered before anybody listened.
            if "OK" not in self.command("reginfo"):
                self.wait("REGISTER_OK")
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._control.close()
        self._reader.join(5)
        self._log.close()

    def kill(self) -> None:
        """End it without a word to anybody."""
        self._process.kill()
        self._process.wait()

    def dial(self, address: str) -> float:
        """Call somebody; the time at which that was asked for."""
        at = time.time()
        self.command("dial", address)
        return at

    def hang_up(self) -> float:
        """End the call, give up the attempt, or decline what rings; the time at which that was asked for."""
        at = time.time()
        self.command("hangup")
        return at

    def accept(self) -> float:
        """Answer what rings; the time at which that was asked for."""
        at = time.time()
        self.command("accept")
        return at

    def command(self, name: str, parameters: str = "") -> str:
        """Run one of baresip's commands; what it printed."""
        self._commands += 1
        token = f"t{self._commands}"
        data = json.dumps({"command": name, "params": parameters, "token": token}).encode()
        self._control.sendall(b"%d:%s," % (len(data), data))
        with self._arrived:
            assert self._arrived.wait_for(lambda: token in self._answers, 10), f"no answer to {name}: {self.log()}"
            answer = self._answers.pop(token)
        assert answer.get("ok"), f"{name} {parameters}: {answer}"
        return str(answer.get("data") or "")

    def wait(self, kind: str, timeout: float = 15.0, count: int = 1) -> Event:
        """The event of this kind, waited for; the ``count``-th of them."""

        def found() -> list[Event]:
            return [event for event in self.events if event.kind == kind]

        with self._arrived:
            arrived = self._arrived.wait_for(lambda: len(found()) >= count, timeout)
            assert arrived, f"{self.user}: no {kind} in {[event.kind for event in self.events]}\n{self.log()}"
            return found()[count - 1]

    def count(self, kind: str) -> int:
        """How many events of this kind there were."""
        with self._arrived:
            return len([event for event in self.events if event.kind == kind])

    def log(self) -> str:
        """The end of what it printed."""
        return (self._folder / "log").read_text("utf-8", "replace")[-3000:]

    def _connected(self) -> socket.socket:
        deadline = time.monotonic() + 10
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self._control_port), 5)
            except OSError:
                assert self._process.poll() is None, f"baresip ended: {self.log()}"
                assert time.monotonic() < deadline, f"baresip does not listen: {self.log()}"
                time.sleep(0.02)

    def _read(self) -> None:
        """Take netstrings off the control connection until it ends."""
        self._control.settimeout(None)
        buffer = b""
        while True:
            try:
                part = self._control.recv(65_536)
            except OSError:
                return
            if not part:
                return
            buffer += part
            while b":" in buffer:
                size, _, rest = buffer.partition(b":")
                if len(rest) <= int(size):
                    break
                self._take(json.loads(rest[: int(size)]))
                buffer = rest[int(size) + 1 :]

    def _take(self, message: dict[str, Any]) -> None:
        at = time.time()
        with self._arrived:
            if message.get("event"):
                self.events.append(Event(str(message.get("type")), at, message))
            else:
                self._answers[str(message.get("token"))] = message
            self._arrived.notify_all()
