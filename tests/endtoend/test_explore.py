"""``sipserver explore`` in chromium: pages, charts and questions, with nothing fetched from anywhere else."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sipserver.calls.schema import MIGRATIONS
from sipserver.storage.migrations import open_store
from support.browser import why_no_browser
from support.server import environment, sipserver

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser()),
    pytest.mark.skipif(find_spec("datasette_dashboards") is None, reason="pip install 'sipserver[analysis]'"),
]

HOSTILE = "<img src=x onerror=document.title='taken'>"


@contextmanager
def exploring(data_dir: Path) -> Iterator[str]:
    """The command, from its start to its end by Ctrl-C; the address that it prints."""
    command = [sys.executable, "-m", "sipserver", "explore", "--data-dir", str(data_dir)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(f"Exploring {data_dir}/calls.db at http://127.0.0.1:"), process.communicate()
            yield line.split()[3]
        finally:
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=8)
        assert (process.returncode, rest, errors) == (0, "", "")


@pytest.fixture
def page() -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        try:
            yield browser.new_page()
        finally:
            browser.close()


def test_a_browser_sees_dashboards_and_asks_questions(tmp_path: Path, page: Page) -> None:
    sipserver("sample", *["--calls", "600", "--subscribers", "80", "--days", "12", "--seed", "5", "--out"], tmp_path)
    with closing(open_store(tmp_path / "calls.db", MIGRATIONS)) as store:
        store.execute("UPDATE calls SET caller_agent = ? WHERE rowid % 3 = 0", (HOSTILE,))
        store.execute("UPDATE errors SET agent = ?", (HOSTILE,))
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    with exploring(tmp_path) as address:
        for board in ("Calls", "Quality and errors", "People and devices"):
            page.goto(address)
            page.locator(".cards strong", has_text=re.compile(f"^{board}$")).click()
            page.wait_for_url("**/-/dashboards/*")
            charts = page.locator("figure > div")
            charts.first.wait_for()
            assert charts.count() >= 3
            for number in range(charts.count()):
                # Axes, and a mark for what there is.
                chart = charts.nth(number)
                chart.locator("svg .mark-group.role-axis").first.wait_for()
                assert chart.locator("svg path[aria-roledescription], svg .role-mark path").count() > 0
            assert page.title() == board

        page.goto(address)
        page.get_by_role("link", name="Which devices do people call with?").click()
        page.fill("form.sql input[name=k]", "100000")
        page.get_by_role("button", name="Run SQL").click()
        page.locator(".zero-results").wait_for()
        page.fill("form.sql input[name=k]", "2")
        page.fill("form.sql input[name=agent]", "onerror")
        page.get_by_role("button", name="Run SQL").click()
        page.locator("td", has_text="onerror").first.wait_for()
        assert HOSTILE in page.locator("table.rows-and-columns td").all_inner_texts()
        page.locator("#chart-query svg").wait_for()
        page.select_option("form.chooser [name=x]", "agent")
        page.select_option("form.chooser [name=y]", "minutes")
        page.get_by_role("button", name="Draw").click()
        page.locator("#chart-query svg >> text=minutes").wait_for()
        assert page.title() == "Which devices do people call with?"

        page.goto(f"{address}calls/v_calls")
        page.locator("td a[href*='/calls/story?call=']").first.click()
        assert "placed" in page.locator("table.rows-and-columns").inner_text()
        assert not wrong
        assert asked
        assert all(url.startswith((address, "data:")) for url in asked)
        # Left with a query that has no end: the command ends all the same.
        endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        page.evaluate("(sql) => { fetch(`/calls.json?sql=${encodeURIComponent(sql)}`).catch(() => 0) }", endless)
