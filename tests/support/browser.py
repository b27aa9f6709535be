"""Tabs of Debian's chromium as video endpoints, with JsSIP or SIP.js in them and fake devices.

The libraries come from npm and are kept beside the tools of the tests; nothing of them is in this repository.
"""

from __future__ import annotations

import fcntl
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LIBRARIES = ("jssip@3", "sip.js@0.21", "esbuild@0.28")
PAGE = '<!doctype html><meta charset="utf-8"><title>phone</title><script src="phone.js"></script>'
FLAGS = [
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    # Candidates are addresses, not names that only multicast DNS knows.
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    # The server's certificate is the test's.
    "--ignore-certificate-errors",
]

PATIENCE = 15.0
"""Seconds after which a test gives up waiting."""


@cache
def why_no_browser() -> str:
    """Why there can be no browser here; empty where there can."""
    if shutil.which("chromium") is None:
        return "chromium is not installed (Debian: apt install chromium)"
    if find_spec("playwright") is None:
        return "playwright is not installed (pip install playwright)"
    return ""


@cache
def why_not() -> str:
    """Why there can be no phones in a browser here; empty where there can."""
    if why_no_browser():
        return why_no_browser()
    if _page_folder() is None:
        return "JsSIP and SIP.js could not be had from npm (Debian: apt install npm)"
    return ""


@cache
def _page_folder() -> Path | None:
    """The folder with the page and its script, made once for each state of the script; None where it cannot be made."""
    source = Path(__file__).parents[1] / "data" / "browser" / "phone.js"
    folder = Path(sys.prefix) / "browser-libraries"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        # Several processes run tests at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "source.js").exists() and (folder / "source.js").read_bytes() == source.read_bytes():
            return folder / "page"
        if shutil.which("npm") is None:
            return None
        try:
            if not (folder / "node_modules").exists():
                _run(folder, "npm", "install", "--no-save", "--no-audit", "--no-fund", *LIBRARIES)
            (folder / "entry.js").write_bytes(source.read_bytes())
            bundle = ["--bundle", "--format=iife", "--outfile=page/phone.js", "--log-level=error"]
            _run(folder, "node_modules/.bin/esbuild", "entry.js", *bundle)
        except (OSError, subprocess.SubprocessError):
            return None
        (folder / "page" / "index.html").write_text(PAGE)
        (folder / "entry.js").rename(folder / "source.js")
    return folder / "page"


def _run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=90)


def _flags() -> list[str]:
    """Loopback is a candidate where there is nothing else. Beside others it leads baresip to another pair than us."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            return [*FLAGS, "--allow-loopback-in-peer-connection"]
    return FLAGS


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nobody reads it."""


@contextmanager
def chromium() -> Iterator[Tabs]:
    """A browser, and the web site that its phones come from: http://localhost."""
    from playwright.sync_api import sync_playwright

    folder = _page_folder()
    assert folder is not None, why_not()
    site = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
    threading.Thread(target=site.serve_forever, daemon=True).start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_flags())
            try:
                yield Tabs(browser, f"http://localhost:{site.server_port}/")
            finally:
                browser.close()
    finally:
        site.shutdown()
        site.server_close()


class Tabs:
    """A browser whose tabs are phones."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser = browser
        self.url = url

    @contextmanager
    def phone(
        self, library: str, user: str, server: str, *, answer: bool = True, domain: str = "example.test"
    ) -> Iterator[Tab]:
        """A tab in which this user has registered; ``library`` is ``jssip`` or ``sip.js``."""
        # As in another person's browser.
        context = self.browser.new_context()
        try:
            settings = {"url": server, "user": user, "domain": domain, "password": f"pw{user}", "answer": answer}
            tab = Tab(context.new_page(), self.url, library, settings)
            tab.load()
            yield tab
        finally:
            with suppress(Exception):
                context.close()


class Tab:
    """One phone."""

    def __init__(self, page: Page, url: str, library: str, settings: dict[str, Any]) -> None:
        self.page = page
        self.user = settings["user"]
        self._url = url
        self._library = library
        self._settings = settings

    def load(self) -> None:
        """Load the page, anew where it was there, and register."""
        self.page.goto(self._url)
        self.page.evaluate("([library, settings]) => start(library, settings)", [self._library, self._settings])
        self.wait("registered")

    def call(self, user: str) -> None:
        """Call somebody."""
        self.page.evaluate("(user) => phone.call(user)", user)

    def hang_up(self) -> float:
        """End the call; the time at which that was asked for."""
        at = time.time()
        self.page.evaluate("() => phone.hangUp()")
        return at

    def count(self, kind: str) -> int:
        """How often this has happened since the page was loaded."""
        found = self.page.evaluate("(kind) => events.filter((each) => each.kind === kind).length", kind)
        return int(found)

    def wait(self, kind: str, count: int = 1) -> float:
        """Wait until this has happened so often; when it did, UNIX time in seconds."""
        deadline = time.monotonic() + PATIENCE
        while True:
            events = self.page.evaluate("() => events")
            found = [each["at"] for each in events if each["kind"] == kind]
            if len(found) >= count:
                return float(found[count - 1])
            assert time.monotonic() < deadline, f"{self.user}: no {kind} in {events}"
            time.sleep(0.02)

    def wait_for_video(self) -> None:
        """Wait until pictures of the other side have arrived."""
        deadline = time.monotonic() + PATIENCE
        while not self.page.evaluate("() => framesDecoded()"):
            assert time.monotonic() < deadline, f"{self.user}: no picture; {self.page.evaluate('() => events')}"
            time.sleep(0.02)
