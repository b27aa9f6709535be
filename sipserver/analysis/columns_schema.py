"""What the columnar copy holds: for each table its columns, what SQLite makes of a row of the store for each, and how.

Times become whole milliseconds, parties 64 bits of a hash (so that the copy has not even the pseudonyms), and the marks
of calls come out of the same text that the view ``v_call_facts`` is made of. Text travels from SQLite to DuckDB as
lines of fields, since that costs a third of what objects of Python do. The bytes between them are no part of any text:
what endpoints say of themselves is kept without control characters, and where one is found the copy is given up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from sipserver.calls.analysis_schema import MARKS

FORMAT: Final = 2
"""Another number makes every copy there is be made anew."""

FIELD: Final = "\x1f"
LINE: Final = "\n"
NOTHING: Final = "\x1e"
"""What stands for NULL."""
SET_FIELD: Final = "\x1c"
SET_LINE: Final = "\x1d"
"""Within ``calls.media``: the kind, codec and resolution of a stream, and the streams of a call."""

NUMBER: Final = "number"
"""The column that has the rowid of the store."""

SETTLED_MS: Final = 7_200_000
"""What ended so long ago does not change any more in the ordinary course of things. Until then it is read from the
store for each report."""

Kind = Literal["number", "real", "time", "party", "text"]

_TYPES: Final[dict[Kind, str]] = {
    "number": "BIGINT", "real": "DOUBLE", "time": "TIMESTAMP", "party": "VARCHAR", "text": "VARCHAR",
}  # fmt: skip
_KEPT: Final[dict[Kind, str]] = {**_TYPES, "time": "BIGINT", "party": "UBIGINT"}


@dataclass(slots=True, frozen=True)
class Column:
    """A column of the copy."""

    name: str
    kind: Kind
    expression: str
    """In the store."""

    @property
    def written(self) -> str:
        """The field as SQLite writes it."""
        value = self.expression
        if self.kind == "real":
            # As many digits as tell any two numbers apart.
            value = f"CASE WHEN {value} IS NOT NULL THEN printf('%!.17g', {value}) END"
        return value if self.name == NUMBER else f"ifnull({value}, char({ord(NOTHING)}))"

    @property
    def read(self) -> str:
        """The value as DuckDB makes it of the field."""
        name = quoted(self.name)
        match self.kind:
            case "time":
                return f"epoch_ms({name}) AS {name}"
            case "party":
                return f"CASE WHEN {name} IS NOT NULL THEN hash({name}) END AS {name}"
        return name

    @property
    def declared(self) -> str:
        """As the table of the copy has it."""
        return f"{quoted(self.name)} {_KEPT[self.kind]}"

    @property
    def field(self) -> str:
        """As ``read_csv`` is told of it."""
        return f"'{self.name}': '{_TYPES[self.kind]}'"


def quoted(name: str) -> str:
    """A name that is no word of SQL."""
    return f'"{name}"'


@dataclass(slots=True, frozen=True)
class Table:
    """A table of the copy."""

    name: str
    columns: tuple[Column, ...]
    time: str
    """The column whose day of UTC is noted when rows of it change out of turn (``calls.copy_schema``)."""
    settled: str
    """The condition that a row does not change any more; ``?1`` is the time before which it has to be over."""
    by_day: bool = False
    """Whether it goes on by days instead of by rowid."""

    @property
    def line(self) -> str:
        """A row as text, in SQLite's SQL."""
        fields = FIELD.join(["%s"] * len(self.columns))
        return f"printf('{fields}', {', '.join(column.written for column in self.columns)})"

    @property
    def create(self) -> str:
        """The statement that makes it."""
        return f"CREATE TABLE {self.name} ({', '.join(column.declared for column in self.columns)})"

    def lines(self, file: str) -> str:
        """The rows of a file of lines, in DuckDB's SQL."""
        fields = ", ".join(column.field for column in self.columns)
        return (
            f"SELECT {', '.join(column.read for column in self.columns)} FROM read_csv('{file}', header = false, "  # noqa: S608
            f"delim = '{FIELD}', new_line = '\\n', quote = '', escape = '', nullstr = '{NOTHING}', "
            f"auto_detect = false, strict_mode = true, columns = {{{fields}}})"
        )


def _columns(kind: Kind, names: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind, quoted(name)) for name in names.split())


_MEDIA: Final = f"""(SELECT group_concat(kind || char({ord(SET_FIELD)}) || ifnull(codec, char({ord(NOTHING)}))
        || char({ord(SET_FIELD)}) || ifnull(resolution, char({ord(NOTHING)})), char({ord(SET_LINE)}))
    FROM call_media WHERE call = calls.id AND accepted = 1 AND early = 0)"""  # noqa: S608 - made of constants
_UPGRADED: Final = """CASE WHEN video = 1 THEN ifnull(answered_at < (
    SELECT min(from_at) FROM call_media WHERE call = calls.id AND kind = 'video' AND accepted = 1 AND early = 0), 0)
    ELSE 0 END"""

CALLS: Final = Table(
    "calls",
    (
        Column(NUMBER, "number", "calls.rowid"),
        *_columns("time", "started_at answered_at ended_at"),
        *_columns("number", "end_uncertainty_ms setup_ms ring_ms talk_ms video_ms disconnect_ms sip_status"),
        *_columns("text", "outcome end_cause"),
        *(Column(name, "number", expression) for name, expression in MARKS.items()),
        Column("upgraded", "number", _UPGRADED),
        *_columns("party", "caller callee"),
        *_columns("text", "caller_country caller_region caller_site callee_country callee_region callee_site"),
        *_columns("text", "caller_agent callee_agent caller_transport callee_transport"),
        Column("media", "text", _MEDIA),
        *_columns("time", "caller_location_until callee_location_until"),
    ),
    time="started_at",
    settled="ifnull(ended_at < ?1, 0)",
)
SIGN_INS: Final = Table(
    "sign_ins",
    (
        Column(NUMBER, "number", "rowid"), *_columns("time", "at"), *_columns("party", "party"),
        *_columns("text", "outcome agent site"), *_columns("number", "count"), *_columns("time", "location_until"),
    ),
    time="at",
    settled="max(at, last_at) < ?1",
)  # fmt: skip
SIGN_IN_DAYS: Final = Table(
    "sign_in_days",
    (*_columns("time", "day first_at last_at"), *_columns("party", "party"), *_columns("number", "refreshes")),
    time="day",
    settled="day < substr(?1, 1, 10)",
    by_day=True,
)
REGISTRATION_DELAYS: Final = Table(
    "registration_delays",
    (*_columns("time", "at"), *_columns("text", "outcome"), *_columns("number", "up_to_ms count")),
    time="at",
    settled="at < substr(?1, 1, 10)",
    by_day=True,
)
ERRORS: Final = Table(
    "errors",
    (
        Column(NUMBER, "number", "rowid"), *_columns("time", "at"), *_columns("text", "kind answered_by agent"),
        *_columns("number", "count"),
    ),
    time="at",
    settled="max(at, last_at) < ?1",
)  # fmt: skip
QUALITY: Final = Table(
    "quality_reports",
    (
        Column(NUMBER, "number", "rowid"), *_columns("time", "at"), *_columns("text", "kind agent"),
        *_columns("real", "mos_lq loss_percent jitter_ms round_trip_ms"),
    ),
    time="at",
    settled="at < ?1",
)  # fmt: skip

TABLES: Final = {table.name: table for table in (CALLS, SIGN_INS, SIGN_IN_DAYS, REGISTRATION_DELAYS, ERRORS, QUALITY)}
"""Every table that is copied."""

VIEWS: Final = {
    "calls": ("v_call_facts AS FROM calls WHERE ended_at IS NOT NULL",),
    "sign_ins": ("v_registration_attempts AS FROM sign_ins WHERE outcome IN ('bound', 'refused')",),
}
"""By table: the views of it that queries name as they do those of the store."""

OWN: Final = (
    # What the copy is of, and of which version.
    "CREATE TABLE about (format INTEGER, engine VARCHAR, store VARCHAR)",
    # Up to which row or day of a table it goes, and the identifier of that row.
    "CREATE TABLE copied (name VARCHAR, number BIGINT, row_id VARCHAR)",
    # Rows before that which were not settled.
    "CREATE TABLE waiting (name VARCHAR, number BIGINT)",
    # Changes out of turn that were followed, as the store counts them.
    "CREATE TABLE followed (name VARCHAR, day VARCHAR, times BIGINT)",
    # Of every quarter of an hour: talk time, the most calls at once, the most that began within a second.
    """CREATE TABLE quarters (quarter BIGINT, talk_ms BIGINT, talk_most_ms BIGINT, peak BIGINT, peak_most BIGINT,
        rate BIGINT)""",
    # The quarters of an hour that those are not true of: rows were copied that change them.
    "CREATE TABLE stale (since BIGINT, until BIGINT)",
)
"""What the copy knows of itself."""
