"""The pages of ``sipserver explore``: datasette over ``calls.db``, read-only while a server writes to it.

Imported by that command alone, since datasette is an extra. What is different from datasette as it comes:

* the store is opened as every command of ours opens it, for reading, and never as immutable;
* only the names that it is meant to be asked by are answered, so no web site can look at it through the visitor's
  browser (DNS rebinding), and browsers are told to fetch nothing from anywhere else;
* cells of CSV are no formulas, whatever endpoints call themselves.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

import click
from datasette import hookimpl
from datasette.app import Datasette
from datasette.database import Database
from datasette.plugins import pm
from datasette.utils.asgi import Request, Response
from markupsafe import Markup

from sipserver.analysis.dashboards import DATABASE, dashboards
from sipserver.analysis.dictionary import DICTIONARY
from sipserver.analysis.questions import Question
from sipserver.cli.output import disarmed, plain
from sipserver.storage.database import connect, sqlite

FILES: Final = Path(__file__).parent / "pages"
"""Templates, and what they want of styles."""
HEAP_BYTES: Final = 1 << 30
"""What all queries together may hold; a query that wants more fails."""
CACHE_KIB: Final = 32_768
"""What each of the connections may keep of the file."""
THREADS: Final = 4
COUNT_MS: Final = 1_000
"""How long counting the rows of a table or of a filter may take."""
END_SECONDS: Final = 0.02
"""Between two interruptions of what is asked while the command ends."""
NEWEST_FIRST: Final = {
    "calls": "started_at", "v_calls": "started", "call_links": "at", "sign_ins": "at", "v_sign_ins": "first_at",
    "errors": "at", "v_errors": "first_at", "server_runs": "started_at", "v_runs": "started_at",
    "quality_reports": "id",
}  # fmt: skip
"""By which column tables are shown; an index serves each of the large ones."""
SERVED: Final = ("/-/static/", "/-/static-plugins/", "/-/dashboards")
"""Of datasette's own pages: the others tell of this machine, or of permissions that nobody has."""
_POLICY: Final = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data:; frame-ancestors 'none'; form-action 'self'"
)
"""Nothing from anywhere else. Vega makes functions of the expressions in its charts."""
HEADERS: Final = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)  # fmt: skip

_CALL: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_LINKED: Final = {(None, "call"), (None, "other"), ("v_calls", "id"), ("v_call_facts", "id"), ("v_errors", "call"),
    ("v_quality", "call")}  # fmt: skip
"""Columns of views and queries that name a call; in tables datasette links them itself."""

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


_limit_ms: Final[ContextVar[int]] = ContextVar("limit_ms", default=COUNT_MS)
"""How long what the present page asks for may take."""


class Store(Database):
    """``calls.db`` for reading, also while a server writes."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._is_closed = threading.Event()

    def connect(self, write: bool = False) -> sqlite.Connection:
        """A connection for one of the threads; the pages have nothing to write."""
        assert not write
        connection = connect(self.path, readonly=True, pragmas={
            "query_only": 1, "hard_heap_limit": HEAP_BYTES, "cache_size": -CACHE_KIB,
        })  # fmt: skip
        self._all_file_connections.append(connection)
        return connection

    async def execute(self, sql: str, params: Any = None, **options: Any) -> Any:
        """The rows of a query; whoever asked is told what is wrong with it, and not the terminal.

        Counting the rows of a page ends early: a page without a count is better than one that is waited for.
        """
        limit = options.pop("custom_time_limit", None) or self.ds.setting("sql_time_limit_ms")
        if sql.startswith("select count(*) "):
            limit = min(limit, COUNT_MS)
        _limit_ms.set(limit)
        return await super().execute(sql, params, **{**options, "custom_time_limit": limit, "log_sql_errors": False})

    async def execute_fn(self, fn: Callable[[sqlite.Connection], Any]) -> Any:
        """What a function finds in one of the threads, within the time that there is for it.

        SQLite counts a whole table in one step, so looking at the clock between its steps, as datasette does, is not
        enough.
        """
        seconds = _limit_ms.get() / 1000

        def bounded(connection: sqlite.Connection) -> Any:
            clock = threading.Timer(seconds, connection.interrupt)
            clock.daemon = True
            clock.start()
            try:
                return fn(connection)
            finally:
                clock.cancel()

        return await super().execute_fn(bounded)

    async def table_counts(self, limit: int = 0) -> dict[str, int | None]:
        """Nothing: no page shows how many rows all tables have, and it takes long to know."""
        return dict.fromkeys(await self.table_names())

    def end(self) -> None:
        """Let queries fail from now on, also those that start later, so that nobody waits for them."""

        def interrupt() -> None:
            # What was about to start when it was told did not run yet, so once is not enough.
            while not self._is_closed.wait(END_SECONDS):
                for connection in list(self._all_file_connections):
                    # Datasette closes some meanwhile.
                    with contextlib.suppress(sqlite.ProgrammingError):
                        connection.interrupt()

        threading.Thread(target=interrupt, name="ending", daemon=True).start()

    def close(self) -> None:
        """Close its connections."""
        self._is_closed.set()
        super().close()


class Pages:
    """What the plugin hooks of datasette ask of us."""

    __name__ = "sipserver"

    def __init__(self, questions: Collection[Question]) -> None:
        boards = dashboards(questions)
        groups: dict[str, list[Question]] = {}
        for question in questions:
            groups.setdefault(question.group, []).append(question)
        charts = {name: chart["display"] for board in boards.values() for name, chart in board["charts"].items()}
        self._shown = {"groups": groups, "boards": boards, "dictionary": DICTIONARY, "charts": charts}

    @hookimpl
    def render_cell(self, value: object, column: str, table: str | None, datasette: Datasette) -> Markup | None:
        """The identifier of a call leads to its story."""
        if (table, column) not in _LINKED or not isinstance(value, str) or not _CALL.match(value):
            return None
        path = datasette.urls.path(f"/{DATABASE}/story?call={value}")
        return Markup('<a href="{}">{}</a>').format(path, value)

    @hookimpl
    def handle_exception(
        self, datasette: Datasette, request: Request, exception: Exception
    ) -> Callable[[], Awaitable[Response]]:
        """What is told of what cannot be answered; mistakes of the program in a line on standard error."""
        status = getattr(exception, "status", 500)
        text = str(getattr(exception, "message", "") or exception)
        if getattr(exception, "title", None) == "SQL Interrupted":
            seconds = datasette.setting("sql_time_limit_ms") / 1000
            text = f"This took longer than {seconds:g} seconds: choose a shorter period, or start with --time-limit."
        elif status == 500:
            click.echo(f"sipserver: {request.path}: {type(exception).__name__}: {plain(text)}", err=True)

        async def answer() -> Response:
            told: dict[str, Any] = {"ok": False, "error": text, "status": status, "title": None, "rows": []}
            if request.path.endswith(".json"):
                return Response.json(told, status=status)
            return Response.html(await datasette.render_template("error.html", told, request=request), status=status)

        return answer

    @hookimpl
    def extra_template_vars(self, view_name: str) -> Mapping[str, Any]:
        """What there is to look at, for the pages that show it."""
        return {**self._shown, "database": DATABASE} if view_name == "index" else self._shown


def site(path: Path, questions: Collection[Question], *, time_limit: float, rows: int) -> tuple[Datasette, Store]:
    """Datasette over this store; no query of a page takes longer than ``time_limit`` seconds or shows more rows."""
    made = Datasette(
        metadata=_metadata(questions),
        template_dir=str(FILES / "templates"),
        static_mounts=[("sipserver", str(FILES / "static"))],
        settings={
            "sql_time_limit_ms": round(time_limit * 1000), "max_returned_rows": rows, "num_sql_threads": THREADS,
            "default_page_size": min(100, rows // 2), "suggest_facets": False, "facet_time_limit_ms": 1000,
            "default_facet_size": 20, "allow_download": False, "max_csv_mb": 50, "truncate_cells_html": 300,
            "default_cache_ttl": 0,
        },
    )  # fmt: skip
    made.remove_database("_memory")
    store = Store(made, str(path), is_mutable=True)
    made.add_database(store, name=DATABASE)
    # datasette's own prints what stood in every variable when a page was wrong. Plugins belong to the process.
    for name in ("datasette.handle_exception", Pages.__name__):
        if pm.has_plugin(name):
            pm.unregister(name=name)
    pm.register(Pages(questions), Pages.__name__)
    return made, store


def _metadata(questions: Collection[Question]) -> dict[str, Any]:
    return {
        "title": "Record of calls",
        "extra_css_urls": ["/sipserver/explore.css"],
        "plugins": {"datasette-dashboards": dashboards(questions)},
        "databases": {
            DATABASE: {
                "title": "Record of calls",
                "description": "Everything on record of calls. Times are UTC, unknown is empty, nobody is named: "
                    "parties are random ids.",
                "queries": {question.name: _query(question) for question in questions},
                "tables": {name: _table(name) for name in DICTIONARY} | {"_sqlite_migrations": {"hidden": True}},
            }
        },
    }  # fmt: skip


def _query(question: Question) -> dict[str, Any]:
    meanings = Markup("").join(
        Markup("<dt>{}</dt><dd>{}</dd>").format(name, question.means(name)) for name in question.parameters
    )
    return {
        "title": question.title,
        "description_html": Markup('<p>{}</p><dl class="column-descriptions">{}</dl>').format(
            question.answer, meanings
        ),
        "sql": question.sql,
        "params": list(question.parameters),
        "hide_sql": True,
    }


def _table(name: str) -> dict[str, Any]:
    described = DICTIONARY[name]
    found: dict[str, Any] = {"description": described.what, "columns": dict(described.columns)}
    if name in NEWEST_FIRST:
        found["sort_desc"] = NEWEST_FIRST[name]
    return found


def guarded(app: App, hosts: Collection[str] | None) -> App:
    """The application, for those who ask for one of these hosts (without the port); for anybody where it is None."""

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        if hosts is not None and _host(scope) not in hosts:
            await _refuse(send, 421, "This host is not served here: sipserver explore --name HOST\n")
            return
        if scope["path"].startswith("/-/") and not scope["path"].startswith(SERVED):
            await _refuse(send, 404, "There is no such page.\n")
            return
        await app(scope, receive, _Answer(send, is_csv=scope["path"].endswith(".csv")))

    return answer


def _host(scope: Message) -> str:
    """The host that is asked for, without its port."""
    value = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1").lower()
    host, colon, port = value.rpartition(":")
    return str(host) if colon and port.isdigit() else str(value)


async def _refuse(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


class _Answer:
    """Passes an answer on, with our headers; of CSV, with cells that are no formulas."""

    def __init__(self, send: Send, *, is_csv: bool) -> None:
        self._send = send
        self._is_csv = is_csv

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_csv = self._is_csv and message["status"] == 200
            own = {name for name, _ in HEADERS}
            kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in own]
            message = {**message, "headers": [*kept, *HEADERS]}
        elif self._is_csv and message.get("body"):
            # Each message is one line of the table, however many lines of text that is.
            message = {**message, "body": _without_formulas(message["body"].decode()).encode()}
        await self._send(message)


def _without_formulas(text: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerows([_disarmed(cell) for cell in row] for row in csv.reader(io.StringIO(text, newline="")))
    return out.getvalue()


_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?\Z")


def _disarmed(cell: str) -> str:
    return cell if _NUMBER.match(cell) else disarmed(cell)
