"""What can be said against a retrieval's numbers, or beside them."""

from __future__ import annotations

from aifbench.core.notes import Kind

NOT_EACH_ONCE = Kind(
    "not_each_once",
    "{answered} answers to {queries} queries, or not each answered once",
    "The calls do not cover the queries, so times of all queries mean nothing.",
)
OWN_THREADS = Kind(
    "own_threads",
    "the clients kept {cores:.2f} cores busy, but clients times threads is {asked}",
    "Threads ran that the case does not speak of.",
)
DISTURBED = Kind(
    "disturbed",
    "disturbed: {clients} clients that never wait got only {cores:.2f} cores in the mean: other work ran on theirs",
    "A search computes all the time; here the clients were kept from it.",
    "Keep other work off the node, then measure it again.",
)
HARDLY_TOGETHER = Kind(
    "hardly_together",
    "all clients were at work together for only {together:.0%} of the execution time",
    "Start and end of the clients are too large a part of the run: ask more queries.",
    "Fewer operations were in flight than asked: see worker and server in the drawer; use fewer clients.",
)
EXHAUSTIVE_NOT_EXACT = Kind(
    "exhaustive_not_exact",
    "an exhaustive index found only {recall} of the true neighbours",
    "An index that looks at every vector finds all true neighbours; here index and ground truth disagree.",
    "The ground truth does not fit the data: remove it from the cache folder and run again.",
)
HIGH_DIMENSION = Kind(
    "high_dimension",
    "recall on this data is not representative: local intrinsic dimension {dimension:.0f} > {limit:g}",
    "Neighbours hardly differ in distance, as in random data: recall says little about real data.",
    worst="dimension",
)
MORE_THREADS_THAN_CORES = Kind(
    "more_threads_than_cores",
    "{clients} clients of {threads} threads on {cores} cores: latencies contain waiting",
    "The clients waited for each other's cores.",
    worst="clients",
)
THREADS_WAIT = Kind(
    "threads_wait",
    "threads of one call wait for each other: figures depend on an undisturbed node",
    "A call of several threads is as slow as its slowest one.",
)
STEAL = Kind(
    "steal",
    "other guests took {share:.1%} of the machine's time",
    "The host gave the virtual machine's cores to others.",
    worst="share",
)
CONTEXT_SWITCHES = Kind(
    "context_switches",
    "{switches_per_query:.2g} involuntary context switches per query: other work ran on these cores",
    "The kernel took the clients off their cores.",
    worst="switches_per_query",
)
WARMUP_NOT_SETTLED = Kind(
    "warmup_not_settled",
    "the warm-up did not reach a steady median",
    "The first measured calls may be slower than later ones.",
)
TIES = Kind(
    "ties",
    "{share:.0%} of the queries have a tie at neighbour {k}: recall by id is partly chance",
    "Several vectors are equally near; `recall_tie_at_k` counts each of them as found.",
    worst="share",
)
NOT_ANSWERED = Kind(
    "not_answered",
    "not every query was answered once",
    "Times of all queries mean nothing where queries are left out or asked twice.",
)
NOT_TOGETHER = Kind(
    "not_together",
    "clients were hardly at work together",
    "There is no stretch that is long enough to tell how many calls were in flight.",
)
NO_CALL = Kind("no_call", "no call was made", "There is no latency without a call.")
NO_TRAINING = Kind("no_training", "this index needs no training", "It is built by adding vectors alone.")
TOO_SMALL_TO_SHOW = Kind(
    "too_small_to_show",
    "the index is too small to show in resident memory",
    "Memory grows in steps that are larger than this index.",
)
