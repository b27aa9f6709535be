"""``sipserver explore``: what it serves and to whom; the browser's part is in ``tests/endtoend/test_explore.py``."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import Result

pytest.importorskip("datasette", reason="datasette is not installed (pip install 'sipserver[analysis]')")

import httpx
from datasette.database import QueryInterrupted

from sipserver.analysis.questions import QUESTIONS
from sipserver.calls.schema import MIGRATIONS
from sipserver.cli.explore import LOOPBACK
from sipserver.cli.site import guarded, site
from support.stores import new_store

Sipserver = Callable[..., Result]
ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT "
CALL = "0199c2f1-6a40-7abc-8000-000000000001"
HOSTILE = '=HYPERLINK("http://x")<img src=x onerror=alert(1)>\n,x'


@pytest.fixture
def store(data_dir: Path) -> Path:
    path = data_dir / "calls.db"
    with closing(new_store(path, MIGRATIONS)) as connection:
        connection.execute(
            "INSERT INTO calls (id, call_id, caller, callee, started_at, ended_at, outcome, caller_agent, setup_ms)"
            " VALUES (?, 'h', 'p_1', 'p_2', '2026-11-23T21:00:00.000Z', '2026-11-23T21:00:42.000Z', 'busy', ?, -5)",
            (CALL, HOSTILE),
        )
        connection.execute("INSERT INTO stored_events (call, number, at, kind) VALUES (?, 0, 'now', 'placed')", (CALL,))
    return path


@asynccontextmanager
async def pages(store: Path, **options: Any) -> Any:
    made, database = site(store, QUESTIONS, **{"time_limit": 2.0, "rows": 50, **options})
    try:
        app: Any = guarded(made.app(), LOOPBACK)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1:8001"
        ) as client:  # fmt: skip
            yield client
    finally:
        database.close()


async def sql(client: httpx.AsyncClient, query: str) -> httpx.Response:
    return await client.get(f"/calls.json?_shape=objects&sql={quote(query)}")


async def test_pages_name_what_there_is(store: Path) -> None:
    async with pages(store) as client:
        front = (await client.get("/")).text
        for question in QUESTIONS:
            assert question.title in front
            page = await client.get(f"/calls/{question.name}")
            assert page.status_code == 200, question.name
            assert "<h1" in page.text
            assert all(f"<dt>{name}</dt>" in page.text for name in question.parameters)
        table = (await client.get("/calls/calls")).text
        assert (
            "<dt>setup_ms</dt><dd>INVITE to the first sign of a device, or to the refusal, in milliseconds</dd>"
            in table
        )
        view = (await client.get("/calls/v_session_figures_by_day")).text
        assert "Session establishment ratio" in view
        assert "RFC 6076" in view


async def test_what_endpoints_wrote_is_text(store: Path) -> None:
    async with pages(store) as client:
        for path in (
            "/calls/calls",
            "/calls/v_calls",
            "/calls/long_calls",
            "/calls/calls_by_agent",
            f"/calls/calls/{CALL}",
        ):
            assert "<img src=x" not in (await client.get(path)).text
        answer = await client.get("/calls/calls.csv")
        (row,) = csv.DictReader(io.StringIO(answer.text, newline=""))
        assert row["caller_agent"].startswith("'=HYPERLINK")
        assert row["caller_agent"][1:] == HOSTILE
        assert row["setup_ms"] == "-5"
        streamed = await client.get("/calls/calls.csv?_stream=on&_dl=on")
        assert streamed.text == answer.text


async def test_a_call_leads_to_its_story(store: Path) -> None:
    async with pages(store) as client:
        assert f'<a href="/calls/story?call={CALL}">' in (await client.get("/calls/v_calls")).text
        assert "placed" in (await client.get(f"/calls/story?call={CALL[:13]}")).text


async def test_only_those_who_ask_for_this_host_are_answered(store: Path) -> None:
    async with pages(store) as client:
        for host, status in (
            ("localhost:1234", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("LOCALHOST", 200),
            ("evil.example", 421), ("127.0.0.1.evil.example:8001", 421), ("", 421), ("[::1", 421),
        ):  # fmt: skip
            answer = await client.get("/", headers={"host": host})
            assert answer.status_code == status, host
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"


async def test_pages_about_the_machine_are_not_there(store: Path) -> None:
    async with pages(store) as client:
        for name in ("databases", "databases.json", "versions", "threads", "settings", "metadata", "permissions"):
            assert (await client.get(f"/-/{name}")).status_code == 404
        assert (await client.get("/-/dashboards")).status_code == 200


async def test_nothing_can_be_changed_or_taken_away_whole(store: Path) -> None:
    async with pages(store) as client:
        for query in (
            "DELETE FROM calls", "ATTACH '/etc/passwd' AS x", "PRAGMA writable_schema = 1", "VACUUM INTO '/tmp/x'",
            "WITH x AS (SELECT 1) DELETE FROM calls", "SELECT load_extension('x')",
        ):  # fmt: skip
            assert (await sql(client, query)).status_code == 400, query
        assert (await client.get("/calls.db")).status_code == 403
        assert (await sql(client, "SELECT count(*) AS n FROM calls")).json()["rows"] == [{"n": 1}]


async def test_what_takes_too_long_or_too_much_is_told(store: Path) -> None:
    async with pages(store, time_limit=0.3) as client:
        answer = await sql(client, f"{ENDLESS} count(*) FROM n")
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("This took longer than 0.3 seconds: choose a shorter period")
        assert "This took longer" in (await client.get(f"/calls?sql={quote(ENDLESS + 'count(*) FROM n')}")).text
        many = (await sql(client, f"{ENDLESS} i FROM n LIMIT 200")).json()
        assert (len(many["rows"]), many["truncated"]) == (50, True)
        assert (await sql(client, "SELECT length(randomblob(1500000000))")).status_code == 400


async def test_what_is_asked_while_the_command_ends_is_not_waited_for(store: Path) -> None:
    made, database = site(store, QUESTIONS, time_limit=30.0, rows=50)
    try:
        database.end()
        before = monotonic()
        for _ in range(3):
            with pytest.raises(QueryInterrupted):
                await database.execute(ENDLESS + "count(*) FROM n")
        assert monotonic() - before < 10
    finally:
        made.executor.shutdown()
        database.close()


async def test_a_server_may_write_meanwhile(store: Path) -> None:
    async with pages(store) as client:
        with closing(new_store(store, MIGRATIONS)) as server:
            for number in range(2, 5):
                server.execute(
                    "INSERT INTO calls (id, call_id, started_at) VALUES (?, 'h', '2026-11-24T00:00:00.000Z')",
                    (f"c{number}",),
                )
                assert (await sql(client, "SELECT count(*) AS n FROM calls")).json()["rows"] == [{"n": number}]
            assert "4 rows" in (await client.get("/calls/calls")).text
            # Nobody who has looked at something stands in the way of the log.
            assert (await sql(client, f"{ENDLESS} i FROM n, calls LIMIT 200")).json()["truncated"]
            assert server.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


async def test_mistakes_are_one_line(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with pages(store) as client:
        assert (await client.get("/calls/nothing")).status_code == 404
        assert (await sql(client, "SELECT nothing")).status_code == 400
    out, err = capfd.readouterr()
    assert out + err == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "sip.example.test"])
def test_other_machines_are_let_in_only_when_told_so(sipserver: Sipserver, store: Path, host: str) -> None:
    result = sipserver("explore", "--host", host)
    assert result.exit_code == 2
    assert "nobody is asked for a password" in result.stderr
    assert "--expose" in result.stderr


def test_what_is_missing_is_told(sipserver: Sipserver, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = sipserver("explore")
    assert (result.exit_code, result.stderr) == (1, f"sipserver: {data_dir}/calls.db does not exist yet\n")
    monkeypatch.setattr("sipserver.cli.explore.find_spec", lambda name: None)
    result = sipserver("explore")
    assert result.exit_code == 1
    assert result.stderr == (
        "sipserver: explore needs datasette, datasette-dashboards: pip install 'sipserver[analysis]'\n"
    )


def test_a_port_that_is_taken_is_told(sipserver: Sipserver, store: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = sipserver("explore", "--port", str(port))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"sipserver: cannot serve at 127.0.0.1 port {port}: ")
