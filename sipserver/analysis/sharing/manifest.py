"""What goes with shared tables: a manifest for programs and a text for people, about what was done and how to read it.

Neither has anything that the tables hide: no count of what is in a single hidden cell, no key, no seed. They say
nothing of when they were made, so the same release is the same files.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from textwrap import fill
from typing import Any, Final

from sipserver import __version__
from sipserver.analysis.sharing.privacy import DAYS
from sipserver.analysis.sharing.release import Asked, Released
from sipserver.analysis.sharing.suppression import PROTECTED_PERCENT
from sipserver.analysis.sharing.tables import TABLES

COLUMNS: Final = {
    "period": "First day of the week or month that the row is of",
    "weekday": "Day of the week on which the calls began",
    "day": "Day on which it was, in the zone of the release",
    "hour": "Hour of the day in which the calls began, as clocks in the zone showed it",
    "from": "Where the caller was",
    "to": "Where the side that answered was; (not answered) where nobody did",
    "outcome": "What became of the call",
    "duration": "From the answer to the end",
    "feature": "video or content (a second, presenting stream), at any time of the call",
    "present": "Whether the call had it",
    "codec": "What was agreed first after the answer",
    "side": "calling: the device of the caller; called: the device that answered",
    "product": "What the device calls itself, without its version",
    "calls": "Calls that began in the period and were over",
    "errors": "What was refused, failed or could not be read, each as often as it happened",
    "parties": "Different parties that signed in, called or answered",
}
"""What the columns of the tables mean."""
KINDS: Final = {
    "codecs": "Of which stream: audio or video",
    "errors": "What went wrong, by the closed list of the server (sipserver errors kinds)",
}
"""What ``kind`` means in each table that has it."""


WIDTH: Final = 100


def file_name(table: str) -> str:
    """The file that a table is in."""
    return f"{table}.csv"


def digest(data: bytes) -> str:
    """As ``sha256sum`` prints it."""
    return sha256(data).hexdigest()


def manifest(asked: Asked, released: Released, files: Mapping[str, bytes]) -> dict[str, Any]:
    """What was done; ``files`` are the tables by name."""
    settings, spent = released.settings, released.spent
    rules = asked.rules
    document: dict[str, Any] = {
        "made_by": f"sipserver {__version__}",
        "mode": "suppression" if settings is None else "noise",
        "from": released.periods[0]["from"], "to": released.periods[-1]["to"],
        "zone": asked.zone, "by": asked.by, "place": asked.place,
        "periods": released.periods,
    }  # fmt: skip
    if settings is None or spent is None:
        document["rules"] = {
            "k": rules.parties, "k_counts": "parties: both sides of a call, each once",
            "dominance_percent": rules.dominance, "range_percent": PROTECTED_PERCENT, "rounded_to": rules.base,
        }  # fmt: skip
        document["cells"] = {
            "shown": sum(row[-1] is not None for rows in released.rows.values() for row in rows),
            "hidden_as_unsafe": released.primary, "hidden_to_protect_others": released.complementary,
        }  # fmt: skip
    else:
        document["privacy"] = {
            "unit": "one party, with all that it did in the whole period: calls that it placed, errors of what it "
            "asked for, days on which it was there",
            "contributions": {"calls": settings.contributions, "errors": settings.contributions, "days": DAYS},
            "mechanism": "discrete Laplace noise (OpenDP); devices, codecs and places above a threshold",
            "epsilon": settings.epsilon, "delta": settings.delta,
            "noise_95_percent": released.noise,
            "spent_by_all_releases": {
                "epsilon": round(spent.epsilon, 9), "delta": spent.delta, "releases": spent.releases,
            },
            "budget_epsilon": released.budget,
        }  # fmt: skip
    document["tables"] = {
        name: {
            "file": file_name(name), "title": TABLES[name].title, "rows": len(released.rows[name]),
            "columns": {column: meaning(name, column) for column in columns(name)}, "sha256": digest(data),
        }
        for name, data in files.items()
    }  # fmt: skip
    return document


def columns(table: str) -> tuple[str, ...]:
    """The columns of a table's file."""
    return ("period", *TABLES[table].dimensions, TABLES[table].measure)


def meaning(table: str, column: str) -> str:
    """What a column means."""
    return KINDS[table] if column == "kind" else COLUMNS[column]


def text(document: Mapping[str, Any]) -> str:
    """The manifest for people."""
    privacy = document.get("privacy")
    period = f"the {document['by']}" if privacy is None else "the period"
    tables = "\n".join(f"{table['file']:28} {table['title']}" for table in document["tables"].values())
    parts = (
        _paragraph(
            f"How a video calling service was used from {document['from'][:10]} to {document['to'][:10]} (its end not",
            f"included), in days of {document['zone']}. There are counts only, and what single parties",
            "did is not in them.",
            "A party is an address that somebody calls from or can be called at.",
        ),
        tables,
        _paragraph(
            f"The first column, period, is the first day of {period} that a row counts. manifest.json has",
            "what each column",
            "means, how much of each period was recorded (recorded_percent; where it is below 100 the",
            "counts are what was",
            "seen), and a checksum of each file. Do not add up parties over days: they are mostly the same ones.",
        ),
        *(_suppression(document["rules"]) if privacy is None else _noise(privacy)),
    )
    return "\n\n".join(parts) + "\n"


def _suppression(rules: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        "How to read it",
        _item("(all)", "The total over this column. Every table is below a total that is shown."),
        _item("(other)", "All values that are not listed, together; by themselves they are too few to be shown. Where",
            "there is no (other), values that are not listed are 0."),
        _item("(blank)", f"Not shown: fewer than {rules['k']} parties have to do with it, or two of them",
            "with more than",
            f"{rules['dominance_percent']} % of it, or it is left out so that such a cell does not follow from the",
            "totals. Nothing tells these apart. A blank is not 0."),
        _item("(no rows)", "manifest.json names the tables that are withheld for a period: not even their",
            "total could be",
            "shown."),
        _item("(unknown)", "The record does not have it. Days that are not there at all were not recorded."),
        _paragraph(
            f"Counts are rounded to multiples of {rules['rounded_to']}, up or down at random but always",
            "in the same way,",
            "so they need not add up. What was shared before is shared again as it was.",
        ),
    )  # fmt: skip


def _noise(privacy: Mapping[str, Any]) -> tuple[str, ...]:
    most, spent = privacy["contributions"], privacy["spent_by_all_releases"]
    return (
        "How to read it",
        _paragraph(
            "Every count has noise of its own, so that nobody can tell whether somebody is in here: whatever one party",
            "did in the whole period, the tables would have come out about as likely without it (differential privacy",
            f"with epsilon {privacy['epsilon']:g} and delta {privacy['delta']:g}). Of each party at most",
            f"{most['calls']}",
            f"calls, {most['errors']} errors and {most['days']} days are counted. A call counts for the",
            "party that placed",
            "it; what others did with a party, such as calling it, counts for them, and is not hidden as that party's.",
            f"All releases of this service until now add up to epsilon {spent['epsilon']:g} of at most",
            f"{privacy['budget_epsilon']:g}.",
        ),
        "In nineteen of twenty cases the noise is no more than",
        "\n".join(f"{file_name(name):28} {value:>10,.0f}" for name, value in privacy["noise_95_percent"].items()),
        _paragraph(
            "What is smaller than that is nothing to rely on. Tables of days, hours, outcomes, durations, features and",
            "kinds of errors have every value, those of devices, codecs and places the frequent ones",
            "only. What would be",
            "below 0 is 0.",
        ),
    )


def _paragraph(*lines: str) -> str:
    return fill(" ".join(lines), WIDTH)


def _item(name: str, *lines: str) -> str:
    return fill(" ".join(lines), WIDTH, initial_indent=f"{name:11}", subsequent_indent=" " * 11)
