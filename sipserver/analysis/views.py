"""The register of figures: what each is called, what it means, in which unit, and where its definition comes from.

The views themselves are in the store, made by steps ``m010`` and ``m011`` of its schema (``calls.analysis_schema``,
``calls.delay_schema``), so every SQLite tool has them. A report says with ``--explain`` which queries made it and what
its columns mean; both come from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sipserver.calls import analysis_schema, delay_schema

Values = dict[str, Any]
"""A row by the names of its columns."""

VIEW_NAMES: Final = tuple(view.name for view in (*analysis_schema.VIEWS, *delay_schema.VIEWS[1:]))
"""The views of analysis in the store."""


@dataclass(slots=True, frozen=True)
class Figure:
    """A column of a report."""

    meaning: str
    source: str = "the record"


_RFC: Final = "RFC 6076 §"

FIGURES: Final = {
    "recorded_percent": Figure("How much of the time a server ran and wrote; where it is 0 everything is absent"),
    "calls": Figure("Calls that began in the period and are over"),
    "answered": Figure("Of these, the ones that were answered"),
    "ser_percent": Figure("Session establishment ratio: answered calls among all without those redirected (3xx)",
        _RFC + "4.6"),
    "seer_percent": Figure("Session establishment effectiveness: answered, or 480, 486, 600, 603, among the same",
        _RFC + "4.7"),
    "isa_percent": Figure("Ineffective session attempts: 408, 500, 503, 504 among all calls", _RFC + "4.8"),
    "scr_percent": Figure("Session completion ratio: answered calls ended by a BYE that was answered, among all",
        _RFC + "4.9"),
    "asr_percent": Figure("Answer seizure ratio: answered calls among those that a device was asked for",
        "ITU-T E.411"),
    "ner_percent": Figure("Network effectiveness: answered, busy, declined, not taken, or given up while it rang",
        "ITU-T E.425"),
    "abr_percent": Figure("Answer bid ratio: answered calls among all", "ITU-T E.411"),
    "acd_s": Figure("Average call duration: mean talk time of answered calls, in seconds", "ITU-T E.411"),
    "sdt_s": Figure("Session duration of completed calls: 200 to BYE, mean seconds", _RFC + "4.5.1"),
    "sdt_failed_s": Figure("Session duration where nobody answered the BYE: 200 until that was given up, mean seconds",
        _RFC + "4.5.2"),
    "srd_s": Figure("Session request delay of answered calls: INVITE to the first sign of a device, mean seconds, "
        "measured at this server", _RFC + "4.3.1"),
    "srd_failed_s": Figure("Session request delay of failed calls (4xx but 401, 402, 407, 487; 5xx, 6xx), mean seconds",
        _RFC + "4.3.2"),
    "sdd_p50_ms": Figure("Session disconnect delay: BYE to its answer, of calls whose BYE was answered; half of them "
        "took at most so long (nearest rank)", _RFC + "4.4"),
    "sdd_p95_ms": Figure("The same for 95 in a hundred", _RFC + "4.4"),
    "rrd_p50_ms": Figure("Registration request delay: arrival of a REGISTER, after any challenge, until its 200 was "
        "sent, what it changed being on disk; half took at most so long, by bounds that are at most a half apart. "
        "Absent for single sites and agents", _RFC + "4.1"),
    "rrd_p95_ms": Figure("The same for 95 in a hundred", _RFC + "4.1"),
    "reachable_percent": Figure("Calls that found the called side online, among those to known addresses that were "
        "allowed"),
    "pdd_p50_ms": Figure("Post-dial delay: INVITE to the first ringing or answer, of calls that rang or were answered; "
        "half of them took at most so long (nearest rank)", "ITU-T E.721"),
    "pdd_p90_ms": Figure("The same for nine in ten"),
    "pdd_p95_ms": Figure("The same for 95 in a hundred"),
    "pdd_p99_ms": Figure("The same for 99 in a hundred"),
    "erlang": Figure("Carried traffic: talk time within the period over its length as far as it was recorded; calls "
        "count in every period that they were up in, with the ends that are known for sure", "ITU-T E.600"),
    "erlang_most": Figure("The same with every uncertain end as late as it can have been", "ITU-T E.600"),
    "peak_calls": Figure("The most answered calls that were up at once", "ITU-T E.600"),
    "peak_calls_most": Figure("The same with every uncertain end as late as it can have been"),
    "peak_calls_per_s": Figure("The most calls that began within one second of the clock"),
    "busy_hour": Figure("Time-consistent: the hour of the day, from a quarter hour on, with the highest mean traffic "
        "over all days. Fixed: the full hour of a day with the most traffic", "ITU-T E.600, E.500"),
    **dict.fromkeys(
        ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
        Figure("Mean carried traffic, in Erlang, at this hour of all such days of the period, as clocks in the zone "
            "show it; absent where no such hour was recorded", "ITU-T E.600"),
    ),
    "channels": Figure("The fewest channels at which no more than the wanted share of calls is lost, if they came at "
        "random (Erlang B)", "ITU-T E.521"),
    "video_percent": Figure("Answered calls that had video at any time"),
    "content_percent": Figure("Answered calls that had a second, presenting stream at any time", "RFC 4796"),
    "upgraded": Figure("Calls whose first video stream came after the answer"),
    "minutes": Figure("Talk time of the calls that began in the period, in minutes"),
    "video_minutes": Figure("Time with video of the same calls, in minutes"),
    "again_percent": Figure("Calls that came to nothing and were followed by another of the same caller to the same "
        "callee within 15 minutes", "ITU-T E.600"),
    "ira_percent": Figure("Ineffective registration attempts: refused ones among bound, refused and refreshed ones. "
        "Refreshes are counted by day of UTC: absent for other periods", _RFC + "4.2"),
    "refused_percent": Figure("Refused among bound and refused ones, without refreshes"),
    "signed_in": Figure("Parties that signed in, or refreshed for the first or last time of a day, in the period"),
    "active": Figure("Parties that signed in, placed a call or answered one in the period"),
    "change_percent": Figure("Against the period of the same length before; absent where nothing was recorded then"),
    "errors": Figure("What was refused, failed or could not be read, each as often as it happened"),
    "errors_per_100": Figure("Errors for a hundred sign-ins and calls"),
    "parties": Figure("Parties that placed so many calls"),
}  # fmt: skip
"""Every figure by the name of its column."""


@dataclass(slots=True, frozen=True)
class Query:
    """SQL that made figures, and what it found."""

    part: str
    sql: str

    def text(self) -> str:
        """The SQL as it can be run, without the indentation it has in here."""
        lines = [line.rstrip() for line in self.sql.strip().splitlines()]
        return "\n".join(line.removeprefix("        ") for line in lines)
