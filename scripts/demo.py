"""What scripts/demo shows: two real endpoints, one video call, the log and the record."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from support import baresip
from support.baresip import Baresip
from support.server import ServerProcess, sipserver

SECONDS_OF_TALK = 3


def say(text: str) -> None:
    """A headline."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def main() -> int:
    """The exit code."""
    reason = baresip.why_not()
    if reason:
        print(f"The demonstration needs a real endpoint, and {reason}.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="sipserver-demo-") as temporary:
        folder = Path(temporary)
        with ServerProcess(folder / "server", ["alice", "bob"]) as server:
            say(f"A server on 127.0.0.1:{server.port}, and two endpoints that register")
            with (
                Baresip(folder, "alice", server.port) as alice,
                Baresip(folder, "bob", server.port, transport="tcp") as bob,
            ):
                print(sipserver("bindings", "list", "--data-dir", server.data_dir), end="")
                say(f"alice (UDP) calls bob (TCP) with video, and hangs up after {SECONDS_OF_TALK} seconds")
                alice.dial(bob.address)
                alice.wait("CALL_ESTABLISHED")
                time.sleep(SECONDS_OF_TALK)
                alice.hang_up()
                (row,) = server.ended_calls()
            say("The log of the server")
        for event in server.events:
            print(json.dumps(event))
        say("The record of the call: sipserver calls list")
        print(sipserver("calls", "list", "--data-dir", server.data_dir), end="")
        say("The same call whole: sipserver calls show")
        print(sipserver("calls", "show", row["id"], "--data-dir", server.data_dir), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
