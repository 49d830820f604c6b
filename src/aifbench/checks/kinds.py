"""What can be said against a number, or beside it, whatever the benchmark: the load, caches, servers, lost records."""

from __future__ import annotations

from aifbench.core.notes import Kind

_MORE_IN_FLIGHT = "Fewer operations were in flight than asked: see worker and server in the drawer; use fewer clients."
_CACHE = "The cache was not in the asked state: keep other work off the node, or choose another mode."
_TRUTH = "The ground truth does not fit the data: remove it from the cache folder and run again."
_DAMAGE = "A file was damaged: `aifbench retry`, then run the campaign again. What can be read stays."
_SERVER = "See server.log of the batch; use fewer clients or more slots."

# -- the load ----------------------------------------------------------------------------------------------------------

LITTLES_LAW = Kind(
    "littles_law",
    "Little's law does not hold: {throughput_per_s:.4g} operations/s x {residence_s:.4g} s = {in_flight:.3g} in "
    "flight, but {clients} clients (tolerance {tolerance:.0%})",
    "The clients of a closed loop were not kept busy: they waited for something that is not in the latencies.",
    _MORE_IN_FLIGHT,
)

# -- the prompt cache of a server --------------------------------------------------------------------------------------

CACHE_NOT_CONFIRMED = Kind(
    "cache_not_confirmed",
    "cache mode {mode} not confirmed: the server does not say how many prompt tokens were cached",
    "Whether the prompt cache was in the state asked for is not known.",
)
CACHE_NOT_COLD = Kind(
    "cache_not_cold",
    "cache mode cold contradicted: {wrong} of {known} requests took prompt tokens from the cache "
    "(first: {cached_tokens:.0f} of {prompt_tokens:.0f} tokens cached)",
    "By the server's own counts, prompts that were to be new were in its cache.",
    _CACHE,
)
CACHE_NOT_SHARED = Kind(
    "cache_not_shared",
    "cache mode shared-prefix contradicted: {wrong} of {known} requests did not take about {shared_tokens} prompt "
    "tokens from the cache (first: {cached_tokens:.0f} of {prompt_tokens:.0f} tokens cached)",
    "By the server's own counts, requests took more or less from its cache than their common prefix.",
    _CACHE,
)
CACHE_NOT_WARM = Kind(
    "cache_not_warm",
    "cache mode warm-same contradicted: {wrong} of {known} requests did not find the prompt in the cache "
    "(first: {cached_tokens:.0f} of {prompt_tokens:.0f} tokens cached)",
    "By the server's own counts, prompts that were to be in its cache were not.",
    _CACHE,
)

# -- the page cache ----------------------------------------------------------------------------------------------------

NOT_COLD = Kind(
    "not_cold",
    "not cold: {residency:.2%} of the data was in the page cache before the read (limit {limit:.1%})",
    "A cold read found data in memory.",
    _CACHE,
)
NOT_COLD_FETCHED = Kind(
    "not_cold_fetched",
    "not cold: the kernel fetched {fetched:.2%} of the bytes from storage (needs {needed:.0%})",
    "A cold read came from somewhere else than from storage.",
    _CACHE,
)
NOT_COLD_UNKNOWN = Kind(
    "not_cold_unknown",
    "not cold: residency before the read is unknown",
    "The kernel does not tell what of the data was in memory before a cold read.",
    _CACHE,
)
NOT_WARM = Kind(
    "not_warm",
    "not warm: {residency:.2%} of the data was in the page cache before the read (needs {needed:.1%})",
    "A warm read did not find all data in memory.",
    _CACHE,
)
NOT_WARM_UNKNOWN = Kind(
    "not_warm_unknown",
    "not warm: residency before the read is unknown",
    "The kernel does not tell what of the data was in memory before a warm read.",
    _CACHE,
)
NOT_DIRECT_FETCHED = Kind(
    "not_direct_fetched",
    "not direct: the kernel fetched {fetched:.2%} of the bytes from storage (needs {needed:.0%})",
    "A direct read came from somewhere else than from storage.",
    _CACHE,
)
NO_PROCESS_IO = Kind(
    "no_process_io",
    "the kernel keeps no /proc/self/io: residency is the only witness",
    "How many bytes the kernel fetched from storage is not known.",
)
FETCH_NOT_COUNTED = Kind(
    "fetch_not_counted",
    "{file_system} does not account read_bytes: residency is the only witness",
    "This file system does not tell how many bytes the kernel fetched.",
)

# -- recall ------------------------------------------------------------------------------------------------------------

TRUTH_SHORT = Kind(
    "truth_short",
    "truth covers {truth_rows} of {queries} queries",
    "There is no ground truth for some of the queries.",
    _TRUTH,
)
RECALL_UNKNOWN = Kind(
    "recall_unknown",
    "recall could not be computed",
    "Answers could not be compared with the ground truth.",
    _TRUTH,
)
RECALL_LOW = Kind(
    "recall_low",
    "recall {recall:.4g} is below the floor {floor:g}",
    "The answers are too wrong for their speed to mean anything.",
    "Raise the search setting (nprobe, efSearch), or lower recall_floor if so low a recall is meant.",
)

# -- servers -----------------------------------------------------------------------------------------------------------

MODEL_LOADED = Kind(
    "model_loaded",
    "the model{server:? of server #} was loaded while it was measured",
    "The server had no model loaded at the beginning of the repetition.",
    _SERVER,
)
MODEL_UNLOADED = Kind(
    "model_unloaded",
    "the model{server:? of server #} was unloaded while it was measured",
    "The server had no model loaded at the end of the repetition.",
    _SERVER,
)
MODEL_CHANGED = Kind(
    "model_changed",
    "the loaded model{server:? of server #} changed while it was measured: {changed:changes}",
    "Context or memory of the model are not the same at both ends of the repetition.",
    _SERVER,
)
MODEL_PARTLY_ON_GPU = Kind(
    "model_partly_on_gpu",
    "only {share:.0%} of the model{server:? of server #} is on a GPU: the rest is computed on the cores",
    "The model does not fit into the memory of the GPUs that the server was given.",
    "Give the server more GPUs, or take a smaller model or context.",
)
MODEL_ON_GPU = Kind(
    "model_on_gpu",
    "{share:.0%} of the model{server:? of server #} is on a GPU, but the server was given none",
    "The server uses a GPU that the case does not speak of.",
    "Ask for GPUs in engine.gpus, or hide them from the server.",
)
MODEL_RELOADED = Kind(
    "model_reloaded",
    "{reloads} of {requests} requests had to load the model (over {limit_ms:g} ms)",
    "The server lost its model in between, and requests waited until it was there again.",
    _SERVER,
)

# -- other work --------------------------------------------------------------------------------------------------------

NOISY = Kind(
    "noisy",
    "noisy: in {noisy} of {repetitions} repetitions other processes used over {limit_cores:g} cores "
    "(at most {cores:.1f})",
    "Other work ran on the node beside the measurement.",
    worst="cores",
)

# -- what is recorded --------------------------------------------------------------------------------------------------

PLAN_LOST = Kind(
    "plan_lost",
    "plan.json is damaged or missing: nothing tells how often this case was to be measured",
    "Without the plan nobody knows what is missing.",
    "Delete plan.json and run the campaign again: it is written anew, and nothing is measured again.",
)
RAW_LOST = Kind(
    "raw_lost",
    "raw events are damaged or missing",
    "Nobody can compute these numbers again.",
    _DAMAGE,
)
LINES_LOST = Kind(
    "lines_lost",
    "cases.jsonl is damaged, and nothing tells which repetitions it lacks",
    "Repetitions of this case may be lost.",
    _DAMAGE,
)
RECORDED_TWICE = Kind(
    "recorded_twice",
    "a repetition is recorded twice, and not alike",
    "Nobody can tell which of the two records is right.",
    _DAMAGE,
)
REPETITIONS_LOST = Kind(
    "repetitions_lost",
    "of its recorded repetitions {lost} {lost:is|are} lost",
    "batch.json counts more repetitions than can be read.",
    _DAMAGE,
)
REPETITIONS_MISSING = Kind(
    "repetitions_missing",
    "{done} of {planned} repetitions are recorded",
    "The case is not measured often enough yet.",
)
LEFT_OUT = Kind(
    "left_out",
    "{left_out} of {repetitions} repetitions invalid and left out of the numbers: {why:note}",
    "A blip: a few invalid repetitions were measured again. `why` is the first reason against them.",
    worst="left_out",
)
DIFFERENT_CONTAINERS = Kind(
    "different_containers",
    "its repetitions ran in different containers: {containers}",
    "The libraries of the repetitions may differ.",
)
DAMAGE = (PLAN_LOST, RAW_LOST, LINES_LOST, RECORDED_TWICE, REPETITIONS_LOST)
"""What is said of damaged records: what else is known of a case is not worth much then."""
