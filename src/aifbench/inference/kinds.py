"""What can be said against an inference's numbers, or beside them."""

from __future__ import annotations

from aifbench.core.notes import Kind

_SERVER = "See server.log of the batch; use fewer clients or more slots."
_LATE = "The measuring process itself was the limit: use fewer clients, or give it more cores."

# -- against the numbers -----------------------------------------------------------------------------------------------

REQUESTS_FAILED = Kind(
    "requests_failed",
    "{failed} of {requests} requests failed: {errors:counts}",
    "`errors` counts the failed requests by their class.",
    _SERVER,
)
NEVER_TOGETHER = Kind(
    "never_together",
    "there was no time in which all clients were at work: more requests per client are needed",
    "Clients had ended before others began.",
    "Fewer operations were in flight than asked: see worker and server in the drawer; use fewer clients.",
)
SENT_LATE = Kind(
    "sent_late",
    "requests were sent up to {late_ms:.3g} ms late (p99; limit {limit_ms:.3g} ms): a wait for a core that the server "
    "has counts",
    "The load was not the one that was asked for.",
    _LATE,
)
SENT_LATE_OPEN = Kind(
    "sent_late_open",
    "requests were sent up to {late_ms:.3g} ms late (p99; limit {limit_ms:.3g} ms): a wait for one of {connections} "
    "connections counts (give more `clients`), and a wait for a core that the server has counts",
    "The load was not the one of its schedule.",
    "Requests waited in the client: give more `clients`, or give the client more cores.",
)
BEYOND_CALIBRATION = Kind(
    "beyond_calibration",
    "{events_per_s:.0f} token events/s arrived, but the client is calibrated up to {calibrated_per_s:.0f}/s only",
    "How far off the client's own times are is not known at this rate.",
    _LATE,
)
CLOCKS_DISAGREE = Kind(
    "clocks_disagree",
    "first to last token took {client_s:.4g} s at the client, {server_s:.4g} s by the server's own clock "
    "(tolerance {tolerance:.0%})",
    "Client and server do not tell the same time for the same tokens: one of them is not to be believed.",
    "The server's own count differs, or answers ended early: see the raw file.",
)
OTHER_LENGTH = Kind(
    "other_length",
    "{other} of {answers} answers do not have the {asked} tokens asked for (shortest {shortest}, longest {longest})",
    "Answers of another length take another time. A caution where the engine cannot fix the length.",
    "The server's own count differs, or answers ended early: see the raw file.",
    worst="other",
)

# -- cautions ----------------------------------------------------------------------------------------------------------

PILES_UP = Kind(
    "piles_up",
    "{half} requests were under way in the middle of the schedule, {whole} at its end: the server does not keep up "
    "with this rate, and times depend on how long was measured",
    "An open load that grows without end.",
    worst="whole",
)
SERVER_TELLS_MORE = Kind(
    "server_tells_more",
    "the server's own times for it add up to {rest_ms:.3g} ms, {share:.0%} of the time to first token, more than the "
    "client waited",
    "Client and server do not account for the same time to first token.",
    worst="share",
)
UNEXPLAINED = Kind(
    "unexplained",
    "{rest_ms:.3g} ms, {share:.0%} of the time to first token, stand in none of the server's own times: HTTP, "
    "template, sampling, or a wait that it does not tell",
    "A part of the time to first token is nobody's.",
    worst="share",
)
QUEUE = Kind(
    "queue",
    "{clients} clients, {served} served at once: times to first token contain a queue",
    "More clients than the server serves at a time.",
    worst="clients",
)
IDLE_SERVERS = Kind("idle_servers", "{idle} of {servers} servers had no client", "Fewer clients than servers.")
WARMUP_FAILED = Kind(
    "warmup_failed",
    "{failed} of {requests} warm-up requests failed",
    "The server may not have been warm.",
    worst="failed",
)
CLOCK_STEPPED = Kind(
    "clock_stepped",
    "the wall clock stepped by {step_s:+.3f} s: no figure depends on it",
    "Times of day in the records differ from before.",
    worst="step_s",
)
COALESCED = Kind(
    "coalesced",
    "{reads} reads brought several of {events} token events: their gaps are bounds",
    "Several tokens arrived at once: the times between them are not known.",
    worst="reads",
)
SENT_AGAIN = Kind(
    "sent_again",
    "{again} of {requests} requests were sent again: the server had closed their kept connections without an answer; "
    "their times run from the first sending",
    "A kept connection may be closed by the server at any time.",
    worst="again",
)
RETRANSMITS = Kind(
    "retransmits",
    "the client's host sent {segments} TCP segments again: the path to the server loses some",
    "Lost segments cost times that are not the server's.",
    worst="segments",
)
NO_TOKEN_COUNT = Kind(
    "no_token_count",
    "the server gives no token count: token events are counted instead",
    "An event may bring more than one token.",
)
ERROR_MESSAGE = Kind("error_message", "{error}: {message}", "What the first failed request of a class said.")

# -- in the place of a number ------------------------------------------------------------------------------------------

NO_WINDOW = Kind(
    "no_window",
    "no time in which all clients were at work",
    "Rates are taken where all clients are at work.",
)
NO_REQUEST = Kind("no_request", "no request", "Nothing was asked.")
NONE_SENT = Kind("none_sent", "no request was sent", "No request got as far as being sent.")
NONE_SUCCEEDED = Kind("none_succeeded", "no request succeeded", "Numbers are over successful requests.")
NO_VALUE = Kind("no_value", "no request gave a value", "No successful request has what this number is made of.")
NO_GAP = Kind("no_gap", "no gap between tokens", "Every answer has at most one token event.")
NO_SLO = Kind("no_slo", "the suite gives no slo", "Goodput needs bounds that requests are to keep.")
NOT_SEARCHED = Kind("not_searched", "the suite does not search for it", "`find` names the load that is searched.")
NONE_KEEPS_IT = Kind("none_keeps_it", "not even {lowest:g} keeps it", "The lowest load tried does not keep the SLO.")
NO_LIMIT = Kind("no_limit", "no limit up to {highest:g}", "The highest load tried keeps the SLO.")
SERVER_SILENT = Kind("server_silent", "the server does not tell it", "Not every engine tells its own times.")
KERNEL_SILENT = Kind("kernel_silent", "the kernel does not tell it", "It needs Linux's TCP_INFO.")
