"""The server's own times beside ours.

`server_queue_s`, `server_load_s`, `server_prefill_s`: the parts of its time to first token that the server tells.
Ollama tells no queue, but its total holds one: what is left of it without load, prefill and decode. Some ms of work
between and after the tokens are in that too.
`server_time_to_first_token_s`: their sum.
`network_round_trip_s`: shortest round trip that the client's kernel has seen on the connection; the request and its
first token take at least one.
`time_to_first_token_residual_s`: our time to first token minus both: HTTP, template, sampling, and a queue where the
server does not tell it.
`server_tokens_per_second`: (tokens - 1) / decode time, as engines start that time at the first token.
`prefill_tokens_per_second`: prompt tokens that were not cached by prefill time.
"""

from __future__ import annotations

import numpy as np

from aifbench.core.records import Metric
from aifbench.inference.kinds import KERNEL_SILENT, SERVER_SILENT
from aifbench.inference.metrics.observed import Requests, known_mean

OF_OLLAMA = {"queue": " (of Ollama: the rest of its total time, so its work between and after the tokens too)"}


def server_metrics(requests: Requests) -> dict[str, Metric]:
    """Return what the server says of one repetition, over its successful requests."""
    counts = requests.counts
    decode, prefill = requests.good("server_decode_ms") / 1e3, requests.good("server_prefill_ms") / 1e3
    parts = {name: requests.good(f"server_{name}_ms") / 1e3 for name in ("queue", "load", "prefill")}
    told = {name: values for name, values in parts.items() if values.size and not np.isnan(values).all()}
    own = sum(told.values(), np.zeros(len(counts))) if told else np.full(len(counts), np.nan)
    ttft = requests.good("first_token") - requests.good("send")
    network = requests.good("round_trip_ns") / 1e9
    fresh = requests.good("prompt_tokens") - requests.good("cached_tokens")
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.where((decode > 0) & (counts > 1), (counts - 1) / decode, np.nan)
        reading = np.where((prefill > 0) & (fresh > 0), fresh / prefill, np.nan)
    sum_of = " + ".join(told) or "nothing"
    silent = SERVER_SILENT.absent()
    return {
        **{
            f"server_{name}_s": known_mean(values, "s", f"server's {name} time, mean{OF_OLLAMA.get(name, '')}", silent)
            for name, values in parts.items()
        },
        "server_tokens_per_second": known_mean(rate, "tokens/s", "(tokens - 1) / server's decode time, mean", silent),
        "server_time_to_first_token_s": known_mean(own, "s", f"server's {sum_of}, mean", silent),
        "network_round_trip_s": known_mean(
            network, "s", "shortest round trip of the connection, mean", KERNEL_SILENT.absent()
        ),
        "time_to_first_token_residual_s": known_mean(
            ttft - own - np.nan_to_num(network), "s", f"time to first token - server's {sum_of} - network, mean", silent
        ),
        "prefill_tokens_per_second": known_mean(
            reading, "tokens/s", "uncached prompt tokens by server's prefill time, mean", silent
        ),
    }
