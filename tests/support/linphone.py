"""A linphone process (linphone-daemon) as an endpoint without hardware, commanded over its standard input."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Self

from support.baresip import Event
from support.ports import free_port

TUNE = Path("/usr/share/sounds/linphone/hello8000.wav")

CONFIG = """\
[sip]
bind_address={address}
use_ipv6={ipv6}
sip_port={udp}
sip_tcp_port={tcp}
sip_tls_port={tls}
# It takes a machine that has nothing but loopback for one without a network.
auto_net_state_mon=0
register_only_when_network_is_up=0
default_proxy=0
verify_server_certs=1
verify_server_cn=1
root_ca={authority}

[net]
mtu=1500

[rtp]
bind_address={address}
audio_rtp_port={audio_first}-{audio_last}
video_rtp_port={video_first}-{video_last}

[video]
device=StaticImage: Static picture
size=qcif
automatically_initiate=1
automatically_accept=1

[proxy_0]
reg_proxy=<sip:{server}:{port};transport={transport}>
reg_route=<sip:{server}:{port};transport={transport}>
reg_identity=sip:{user}@{domain}
reg_expires=600
reg_sendregister=1

[auth_info_0]
username={user}
passwd={password}
realm={domain}
domain={domain}
"""

_ANSWER = re.compile(r"Status: (Ok|Error)")
_STATE = re.compile(r"State: (Linphone\w+)")
_AGENT = re.compile(r"^User-Agent: (.*?)\s*$", re.MULTILINE)
_AUDIO = re.compile(r"AUDIO SESSION'S RTP STATISTICS.*?-received +(\d+) packets", re.DOTALL)

KINDS = {"CALL_ESTABLISHED": "LinphoneCallStreamsRunning", "CALL_CLOSED": "LinphoneCallReleased"}
"""What it tells, by baresip's names, so that tests can treat both alike."""


def why_not() -> str:
    """Why there can be no linphone here; empty where there can."""
    if shutil.which("linphone-daemon") is None:
        return "linphone-daemon is not installed (Debian: apt install linphone-cli)"
    return "" if TUNE.exists() else f"there is no {TUNE}, which linphone plays (Debian: apt install linphone-common)"


class Linphone:
    """One endpoint that answers by itself, registered when the ``with`` block begins."""

    def __init__(
        self,
        folder: Path,
        user: str,
        server_port: int,
        *,
        transport: str = "udp",
        domain: str = "example.test",
        host: str = "127.0.0.1",
        server: str = "127.0.0.1",
        authority: Path | None = None,
    ) -> None:
        """``host`` and ``server`` as in URIs; ``authority`` signs the certificates that it believes, for TLS."""
        self.user = user
        self.address = f"sip:{user}@{domain}"
        self._folder = folder / f"linphone-{user}"
        # It keeps a database there, and goes without if there is no such folder.
        (self._folder / ".local/share/linphone").mkdir(parents=True)
        self._lines: list[tuple[str, float]] = []
        self._arrived = threading.Condition()
        rtp = free_port(20)
        config = CONFIG.format(
            address=host.strip("[]"), ipv6=int(":" in host), server=server, port=server_port, transport=transport,
            user=user, domain=domain, password=f"pw{user}", authority=authority or "",
            audio_first=rtp, audio_last=rtp + 9, video_first=rtp + 10, video_last=rtp + 19,
            **{each: free_port() if each == transport else 0 for each in ("udp", "tcp", "tls")},
        )  # fmt: skip
        (self._folder / "linphonerc").write_text(config)

    def __enter__(self) -> Self:
        folder = str(self._folder)
        nowhere = {"ALSA_CONFIG_PATH": os.devnull, "PULSE_SERVER": f"unix:{folder}/pulse", "HOME": folder}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        command = [
            "linphone-daemon", "--config", f"{folder}/linphonerc", "--log", f"{folder}/log", "--auto-answer",
            # Video is sent (a still picture, once a second), and what comes is not shown; no events of RTCP.
            "-C", "--disable-stats-events",
        ]  # fmt: skip
        with (self._folder / "stderr").open("wb") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=errors, env=kept | nowhere, text=True, errors="replace",
            )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            deadline = time.monotonic() + 20
            while "LinphoneRegistrationOk" not in self.command("register-status ALL", _STATE):
                assert time.monotonic() < deadline, f"{self.user} is not registered: {self.log()}"
                time.sleep(0.05)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.stdin.write("quit\n")
            self._process.stdin.flush()
            self._process.wait(5)
        self._end()

    def dial(self, address: str) -> float:
        """Call somebody; the time at which that was asked for."""
        at = time.time()
        self.command(f"call {address}")
        return at

    def hang_up(self) -> float:
        """End the call; the time at which that was asked for."""
        at = time.time()
        self.command("terminate")
        return at

    def play(self) -> None:
        """Let the other side of the call hear something; without it nothing is sent."""
        self.command(f"incall-player-start {TUNE}")

    def command(self, text: str, answer: re.Pattern[str] = _ANSWER) -> str:
        """Run one of the daemon's commands; the line with its answer."""
        assert self._process.stdin is not None
        with self._arrived:
            known = len(self._lines)
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()
        line, _ = self._wait(answer, known, 1, 10.0)
        assert "Status: Error" not in line, f"{self.user}: {text}: {line}"
        return line

    def wait(self, kind: str, timeout: float = 15.0, count: int = 1) -> Event:
        """The event of this kind (of KINDS), waited for; the ``count``-th of them."""
        _, at = self._wait(re.compile(rf"Event: {KINDS[kind]}$"), 0, count, timeout)
        return Event(kind, at, {})

    def agent(self) -> str:
        """The User-Agent that it sends."""
        found = _AGENT.search(self._logged())
        assert found is not None, self.log()
        return found[1]

    def heard(self) -> list[int]:
        """The packets of audio that it received, call by call; to be asked when the process has ended."""
        return [int(number) for number in _AUDIO.findall(self._logged())]

    def log(self) -> str:
        """The end of what it said and of its log."""
        return "\n".join([*(line for line, _ in self._lines[-40:]), self._logged()[-3000:]])

    def _logged(self) -> str:
        log = self._folder / "log"
        return log.read_text("utf-8", "replace") if log.exists() else ""

    def _wait(self, pattern: re.Pattern[str], first: int, count: int, timeout: float) -> tuple[str, float]:
        def found() -> list[tuple[str, float]]:
            return [each for each in self._lines[first:] if pattern.search(each[0])]

        with self._arrived:
            arrived = self._arrived.wait_for(lambda: len(found()) >= count, timeout)
            assert arrived, f"{self.user}: no {pattern.pattern}\n{self.log()}"
            return found()[count - 1]

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(5)
        assert self._process.stdin is not None
        # What was not written goes nowhere any more.
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with self._arrived:
                    self._lines.append((line.strip(), time.time()))
                    self._arrived.notify_all()
