"""What every table, view and column of ``calls.db`` means, with its unit: for whoever explores the store.

A test holds this against the present schema. Figures are defined in ``views.FIGURES``, and views of analysis in
``calls.analysis_schema`` and ``delay_schema``: both are taken from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sipserver.analysis.quality_dictionary import QUALITY_REPORTS, V_QUALITY
from sipserver.analysis.views import FIGURES
from sipserver.calls import analysis_schema, delay_schema
from sipserver.calls.outcomes import CALL_OUTCOMES

Columns = Mapping[str, str]


@dataclass(slots=True, frozen=True)
class Described:
    """A table or a view."""

    what: str
    """What a row of it is."""
    columns: Columns
    """Each column in the table's order, and what it means, with its unit."""


_WHERE: Final = {
    "country": "Country of {who} (ISO 3166)",
    "region": "Region of {who}",
    "city": "City of {who}",
    "site": "Site of {who}, by the configuration",
    "location_source": "What knew the place: site, link, access_network, geolocation or database",
    "location_until": "Until when {who} lets its place be kept (RFC 4119); NULL without such a limit",
}
_AGENT: Final = "What {who} calls itself (User-Agent): an endpoint's own word, anything can be in it"
_TRANSPORT: Final = "How {who} is connected: UDP, TCP, TLS, WS or WSS"
_NETWORK: Final = "The network that {who} is in, as a prefix (as coarse as configured)"
_PARTY: Final = "{who}: a random id that names nobody"
_NODE: Final = "The server that wrote the row"


def _of_side(side: str) -> dict[str, str]:
    who = f"the {side}"
    return {f"{side}_{name}": text.replace("{who}", who) for name, text in _WHERE.items()}


def _some(source: Columns, *names: str) -> dict[str, str]:
    return {name: source[name] for name in names}


def _figures(*names: str) -> dict[str, str]:
    """Figures as their register has them."""
    return {name: f"{FIGURES[name].meaning} ({FIGURES[name].source})" for name in names}


_SIDES: Final = {**_of_side("caller"), **_of_side("callee")}

CALLS: Final = {
    "id": "Identifier of the call (UUIDv7, so in order of time)",
    "call_id": "Keyed hash of the SIP Call-ID",
    "caller": _PARTY.format(who="Who calls"),
    "callee": _PARTY.format(who="Who is called"),
    "started_at": "The INVITE was accepted from the caller (UTC)",
    "ringing_at": "The first sign of a device: 180, 183 or another provisional response (UTC)",
    "answered_at": "The first 200 (UTC); NULL where nobody answered",
    "confirmed_at": "The first ACK (UTC)",
    "ended_at": "The end (UTC); NULL while the call goes on",
    "setup_ms": "INVITE to the first sign of a device, or to the refusal, in milliseconds",
    "ring_ms": "Ringing to the answer, or to the end, in milliseconds",
    "talk_ms": "Answer to the end, in milliseconds; ringing never counts; the least where the end is uncertain",
    "disconnect_ms": "BYE to its answer, or until that was given up, in milliseconds (RFC 6076 §4.4)",
    "outcome": f"What became of it: {', '.join(CALL_OUTCOMES)}; NULL while it goes on",
    "sip_status": "The final response to the INVITE (SIP status)",
    "reason": "Reason header of the end (RFC 3326), where one was given",
    "ended_by": "Who ended it: caller, callee or server",
    "end_cause": "How it ended: bye, cancel, refused, timeout, unreachable, session_expired, connection_lost, "
        "registration_lost, probe_failed, no_evidence, server_restart",
    "end_uncertainty_ms": "By how much later it may have ended, in milliseconds; NULL: the end was observed",
    "watched_until": "Of a call that was cut short: until then its end would have been seen (UTC)",
    "video": "1: it had video at any time after the answer; NULL: not known",
    "content": "1: it had a second, presenting stream at any time (RFC 4796)",
    "encrypted": "1: all its media were encrypted, 0: not all, NULL: not known",
    "video_ms": "Time with video, in milliseconds",
    "offered_video": "1: the INVITE offered video, also in calls that nobody answered",
    "caller_agent": _AGENT.format(who="the caller's endpoint"),
    "callee_agent": _AGENT.format(who="the endpoint that answered"),
    "caller_transport": _TRANSPORT.format(who="the caller"),
    "callee_transport": _TRANSPORT.format(who="the endpoint that answered"),
    "caller_network": _NETWORK.format(who="the caller"),
    "callee_network": _NETWORK.format(who="the endpoint that answered"),
    "devices": "How many devices were tried",
    "node": _NODE,
    **_SIDES,
}  # fmt: skip

_BRANCHES: Final = {
    "call": "The call, calls.id",
    "branch": "Number of the device within the call, from 0",
    "tried_at": "It was tried (UTC)",
    "ringing_at": "It rang (UTC)",
    "answered_at": "It answered (UTC)",
    "ended_at": "Its part was over (UTC)",
    "status": "Its final response (SIP status)",
    "outcome": "What became of it: as of a call, or elsewhere, also_answered, redirected, unreachable, cut_short",
    "agent": _AGENT.format(who="the device"),
    "transport": _TRANSPORT.format(who="the device"),
    "network": _NETWORK.format(who="the device"),
}

_MEDIA: Final = {
    "call": "The call, calls.id",
    "number": "Number of the row within the call: another one whenever something of the stream changes",
    "stream": "Place of the stream in the session description, from 0",
    "kind": "audio, video, content, or what else the description says",
    "accepted": "0: offered and refused",
    "codec": "Codec that was agreed",
    "direction": "As the caller sees it: sendrecv, sendonly, recvonly, inactive",
    "bandwidth": "What the answering side takes, in bits a second",
    "resolution": "Width x height in pixels, where the description has it",
    "level": "Level of the codec",
    "max_pixels": "The most pixels of a picture",
    "encrypted": "1: encrypted",
    "ice": "1: with ICE (RFC 8445)",
    "from_at": "From then on the stream was so (UTC)",
    "to_at": "Until then (UTC); NULL while it goes on",
    "branch": "The device it was agreed with, call_branches.branch",
    "early": "1: agreed before the answer; these are no media of the answered call",
    "held_by": "Who holds it: caller, callee or both; NULL: nobody",
    "profile": "Profile of the codec",
    "encryption": "How the keys were agreed: sdes, dtls or tls",
}

_EVENTS: Final = {
    "call": "The call, calls.id",
    "number": "Number of the line within the call, from 0",
    "at": "When (UTC)",
    "kind": "What happened",
    "side": "Whose doing it was: caller, callee or server",
    "status": "SIP status, where it was a response",
    "detail": "More about it",
}

_SIGN_INS: Final = {
    "id": "Identifier of the row (UUIDv7)",
    "at": "When, or when the first of several came (UTC)",
    "party": _PARTY.format(who="Who registered, or was claimed to"),
    "outcome": "bound, unbound, expired, removed, lost or refused",
    "status": "What was answered (SIP status)",
    "agent": _AGENT.format(who="the endpoint"),
    "transport": _TRANSPORT.format(who="the endpoint"),
    "network": _NETWORK.format(who="the endpoint"),
    **{name: text.format(who="the endpoint") for name, text in _WHERE.items()},
    "detail": "More about it, such as why it was refused",
    "count": "How many there were: refusals of one kind from one network within a minute share a row",
    "last_at": "When the last of them came (UTC)",
    "node": _NODE,
}

_ERRORS: Final = {
    "id": "Identifier of the row (UUIDv7)",
    "at": "When, or when the first of several happened (UTC)",
    "kind": "What went wrong, of a closed list: sipserver errors kinds says what each means",
    "method": "SIP method of the request",
    "status": "Status that was answered (SIP; HTTP of a handshake)",
    "answered_by": "Who answered: server, peer or network (nobody)",
    "agent": _AGENT.format(who="the endpoint that failed"),
    "party": _PARTY.format(who="Who asked, and proved who it is"),
    "target": _PARTY.format(who="Who was asked"),
    "network": _NETWORK.format(who="the sender"),
    "detail": "More about it",
    "count": "How many there were: many of one kind from one source within a minute share a row",
    "last_at": "When the last of them happened (UTC)",
    "call": "The call it belongs to, calls.id",
    "node": _NODE,
}

_RUNS: Final = {
    "id": "Identifier of the run (UUIDv7)",
    "node": _NODE,
    "started_at": "The server started (UTC)",
    "last_alive_at": "Its last heartbeat (UTC); one comes every five seconds",
    "stopped_at": "It stopped in order (UTC); NULL: it runs, or was killed",
    "state": "stopped, killed, or running or killed",
    "calls_before": "rowid of the last call before this run",
    "placed": "Calls placed, as of the last heartbeat",
    "closed": "Calls whose end was recorded, as of the last heartbeat",
    "lost": "Calls that could not be recorded",
    "set_aside": "Rows of calls that could not be written at all",
    "recovered_at": "The next start closed what this run had left open (UTC)",
    "recovered": "How many calls that were",
}

_DEVICES: Final = {
    "party": _PARTY.format(who="Whose device it is"),
    "device": "Keyed hash of its +sip.instance, or of its agent where it has none",
    "named": "1: told apart by its instance; 0: those of one agent count as one",
    "agent": _AGENT.format(who="the device"),
    "allow": "The methods that it allows (Allow)",
    "supported": "The extensions that it supports (Supported)",
    "transport": _TRANSPORT.format(who="the device"),
    "network": _NETWORK.format(who="the device"),
    "first_seen": "It registered for the first time (UTC)",
    "last_seen": "It registered last (UTC), up to an hour early",
}

_DAYS: Final = {
    "day": "Day (UTC)",
    "party": _PARTY.format(who="Who refreshed"),
    "refreshes": "Registrations that only lasted longer",
    "first_at": "The first of the day (UTC)",
    "last_at": "The last of the day (UTC)",
}

_ACTIVITY: Final = {
    "party": _PARTY.format(who="Whose activity it is"),
    "sign_ins": "Endpoints that were bound",
    "sign_ins_refused": "Registrations that were refused, by the address that was claimed",
    "refreshes": "Registrations that only lasted longer",
    "calls_begun": "Calls placed",
    "calls_received": "Calls that came in",
    "calls_answered": "Of both, those that were answered",
    "calls_ended": "Of both, those that are over",
    "calls_hung_up": "Answered calls that this party ended",
    "minutes": "Talk time, in minutes",
    "errors": "Refused, failed or malformed requests",
    "quality_reports": "Rows of quality_reports",
    "devices": "Rows of devices",
    "first_seen": "The earliest of all these rows (UTC)",
    "last_seen": "The latest of all these rows (UTC)",
    "bytes": "What the rows about this party hold, in bytes, without indices",
}

_ACTIVITY_ROWS: Final = {
    "party": _PARTY.format(who="Whom the row is about"),
    "first": "Its first time (UTC)",
    "last": "Its last time (UTC)",
    **_some(_ACTIVITY, "sign_ins"),
    "refused": _ACTIVITY["sign_ins_refused"],
    **_some(_ACTIVITY, "refreshes"),
    "begun": "1: a call that it placed",
    "received": "1: a call that came in",
    "answered": "1: it was answered",
    "ended": "1: it is over",
    "hung_up": "1: this party ended it",
    "talk_ms": "Talk time, in milliseconds",
    **_some(_ACTIVITY, "errors"),
    "reports": "1: a quality report",
    **_some(_ACTIVITY, "devices"),
    "bytes": "What the row holds, in bytes",
}

_CALLS_VIEW: Final = {
    "started": CALLS["started_at"],
    **_some(CALLS, "caller", "callee"),
    "outcome": f"{CALLS['outcome'].partition(';')[0]}; trying or ringing while it goes on",
    "open": "1: the call goes on",
    "setup_s": "INVITE to the first sign of a device, or to the refusal, in seconds",
    "ring_s": "Ringing to the answer, or to the end, in seconds",
    "talk_s": "Answer to the end, in seconds",
    "talk": "The same as hours:minutes:seconds",
    "end_uncertain_s": "By how much later it may have ended, in seconds; NULL: the end was observed",
    "video_s": "Time with video, in seconds",
    **_some(
        CALLS, "video", "content", "encrypted", "sip_status", "reason", "ended_by", "end_cause", "devices",
        "caller_agent", "callee_agent", "caller_transport", "callee_transport",
        *(name for name in _SIDES if not name.endswith("_until")), "id",
    ),
}  # fmt: skip

_FACTS: Final = {
    **_some(
        CALLS, "started_at", "answered_at", "ended_at", "outcome", "sip_status", "end_cause", "end_uncertainty_ms",
        "setup_ms", "ring_ms", "talk_ms", "video_ms", "disconnect_ms",
    ),
    "answered": "1: it was answered",
    "redirected": "1: it ended with a 3xx (RFC 6076 §4.6 leaves it out)",
    "effective": "1: answered, or 480, 486, 600, 603: the called user's own doing (RFC 6076 §4.7)",
    "ineffective": "1: 408, 500, 503 or 504 (RFC 6076 §4.8)",
    "completed": "1: answered, and ended by a BYE that was answered (RFC 6076 §4.9)",
    "failed": "1: 4xx but 401, 402, 407, 487; 5xx; 6xx (RFC 6076 §4.3.2)",
    "seized": "1: a device was asked (ITU-T E.411)",
    "delivered": "1: answered, busy, declined, not taken, or given up while it rang (ITU-T E.425)",
    "video": "1: it had video at any time",
    "content": "1: it had a presenting stream at any time",
    **_some(
        CALLS, "caller", "callee", "caller_site", "callee_site", "caller_country", "callee_country", "caller_agent",
        "callee_agent", "id",
    ),
}  # fmt: skip

_RATES: Final = {
    "product": "The agent's product, the first word of its User-Agent; NULL: it does not say what it is",
    "version": "The agent's version",
    "sign_ins": "Sign-ins of its endpoints, refused ones as well",
    "calls": "Calls that its endpoints placed or answered",
    **_figures("errors", "errors_per_100"),
}
_DAY: Final = {"day": "Day (UTC)"}
_TALK: Final = {"minutes": "Talk time, in minutes"}
_REACHED: Final = {"calls": "Calls", "answered": "Of these, the ones that were answered"}

_REGISTRATION_DELAYS: Final = {
    "at": "The first of them came (UTC); the others within about a minute",
    "outcome": "accepted, or refused after the address was known",
    "up_to_ms": "They took at most so long, and longer than the next lower bound, in milliseconds",
    "count": "How many",
}
_RANKS: Final = {
    "p50_ms": "Half took at most so long, in milliseconds",
    "p95_ms": "95 in a hundred took at most so long, in milliseconds",
}

_OF_ANALYSIS: Final[dict[str, dict[str, str]]] = {
    "v_call_facts": _FACTS,
    "v_session_figures_by_day": {
        **_DAY,
        **_figures(
            "calls", "answered", "ser_percent", "seer_percent", "isa_percent", "scr_percent", "asr_percent",
            "ner_percent", "abr_percent", "acd_s", "sdt_s", "sdt_failed_s", "srd_s", "srd_failed_s",
        ),
    },
    "v_features_by_day": {
        **_DAY,
        **_figures("answered"),
        "with_video": "Answered calls with video",
        **_figures("video_percent"),
        "with_content": "Answered calls with a presenting stream",
        **_figures("content_percent", "minutes", "video_minutes"),
    },
    "v_registration_attempts": _some(_SIGN_INS, "at", "outcome", "count", "agent", "site"),
    "v_registration_figures_by_day": {
        **_DAY,
        "attempts": "Attempts to register: bound, refused and refreshed",
        "ineffective": "Of these, the refused ones",
        **_figures("ira_percent"),
    },
    "v_registration_delays_by_day": {
        **_DAY, **_some(_REGISTRATION_DELAYS, "outcome"), "registrations": "How many there were", **_RANKS,
    },
    "v_disconnect_delays_by_day": {
        **_DAY, "answered": "1: the BYE was answered", "calls": "Calls that a BYE ended", **_RANKS,
    },
    "v_media_mix": {
        **_some(_MEDIA, "kind", "codec", "resolution"),
        "calls": "Answered calls that had such a stream at any time",
    },
    "v_location_matrix": {
        **_some(CALLS, "caller_country", "caller_site", "callee_country", "callee_site"), **_REACHED, **_TALK,
    },
    "v_calls_per_party": {
        "placed": "Calls that a party has placed",
        "parties": "How many parties placed so many",
    },
    "v_retries": {
        **_some(CALLS, "started_at", "outcome"),
        "again_after_s": "From its end until the caller called the same callee again, in seconds; NULL: never",
    },
    "v_active_parties_by_day": {
        **_DAY,
        "active": "Parties that did anything",
        "signed_in": "Parties that signed in or refreshed",
        "calling": "Parties that placed a call or answered one",
    },
    "v_traffic_by_hour": {
        "hour": "Beginning of the hour (UTC)",
        "erlang": "Carried traffic: talk time within the hour over its length (ITU-T E.600)",
    },
}  # fmt: skip

_ANALYSIS: Final = {
    view.name: Described(f"{view.title}. {view.definition} ({view.source}).", _OF_ANALYSIS[view.name])
    for view in (*analysis_schema.VIEWS, *delay_schema.VIEWS)
}

DICTIONARY: Final[Mapping[str, Described]] = {
    "calls": Described("A row for each call, from the INVITE on. Times are UTC, unknown is NULL.", CALLS),
    "call_branches": Described("A row for each device that a call was tried at.", _BRANCHES),
    "call_media": Described("A row for each stream of a call as long as it stays as it is.", _MEDIA),
    "call_events": Described("The timeline of each call, a row for each thing that happened.", _EVENTS),
    "stored_events": Described("The rows of call_events that are not in columns of calls.", _EVENTS),
    "call_links": Described(
        "Which call came of which, by transfer or replacement.",
        {
            "call": "The call that the other came of, calls.id",
            "other": "The call that came of it, calls.id",
            "kind": "transfer, attended_transfer or replaced",
            "at": "The other call was placed (UTC)",
        },
    ),
    "sign_ins": Described(
        "A row for each registration that changed a binding, and for each refusal; refreshes are in sign_in_days.",
        _SIGN_INS,
    ),
    "sign_in_days": Described("Refreshes of registrations, a row for each party and day.", _DAYS),
    "registration_delays": Described(
        "How long registrations took (RFC 6076 §4.1): how many within each minute, by outcome and bound.",
        _REGISTRATION_DELAYS,
    ),
    "devices": Described("A row for each device that a party registered, the last 50.", _DEVICES),
    "errors": Described("A row for each thing that was refused, failed or could not be read.", _ERRORS),
    "quality_reports": Described(
        "What endpoints and relays measured of a stream, a row for each direction of a report.", QUALITY_REPORTS
    ),
    "server_runs": Described(
        "A row for each run of a server; where none ran nothing was recorded.",
        {name: text for name, text in _RUNS.items() if name != "state"},
    ),
    "store_identity": Described("Which store this is, for copies of it.", {"id": "Drawn when it was made"}),
    "changed_days": Described(
        "Where rows were deleted or changed long after they were written, for copies of the store to follow.",
        {
            "name": "The table",
            "day": "The day of those rows (UTC)",
            "times": "How many rows that was, ever",
        },
    ),
    "v_calls": Described("Calls for people: durations in seconds, and what goes on is called trying or ringing.",
        _CALLS_VIEW),
    "v_errors": Described(
        "Errors for people.",
        {
            "first_at": _ERRORS["at"],
            **_some(
                _ERRORS, "last_at", "count", "kind", "method", "status", "answered_by", "detail", "agent", "party",
                "target", "call", "network", "id",
            ),
        },
    ),
    "v_sign_ins": Described(
        "Sign-ins for people.",
        {
            "first_at": _SIGN_INS["at"],
            **_some(
                _SIGN_INS, "last_at", "count", "party", "outcome", "status", "agent", "transport", "network",
                "country", "region", "city", "site", "location_source", "detail", "id",
            ),
        },
    ),
    "v_quality": Described("Quality reports for people, with who was in the call.", V_QUALITY),
    "v_runs": Described(
        "Runs of servers, and how each ended.",
        _some(
            _RUNS, "started_at", "last_alive_at", "stopped_at", "state", "recovered_at", "recovered", "placed",
            "closed", "lost", "set_aside", "node", "id",
        ),
    ),
    "v_error_rates": Described("Errors against sign-ins and calls, by product and version of the agent.", _RATES),
    "v_error_rates_by_day": Described("The same by day (UTC).", {**_DAY, **_RATES}),
    "v_activity": Described("What each party did. Reads the whole store.", _ACTIVITY),
    "activity_rows": Described(
        "Everything that names a party, a row for each: what v_activity is a sum of. "
        "Ask for one party: activity_rows WHERE party = …",
        _ACTIVITY_ROWS,
    ),
    **_ANALYSIS,
}  # fmt: skip
"""Every table and view for people, by its name."""
