"""Serve one GGUF model with llama.cpp's own HTTP server, until SIGTERM or the end of the parent.

Run: `python -m aifbench.engines.llamacpp_server --model FILE --host A --port N --slots N --context TOKENS --threads N`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from aifbench.processes.die_with_parent import die_with_parent


def main() -> int:
    """Load the model, serve, and wait for a signal."""
    parser = argparse.ArgumentParser(prog="aifbench.engines.llamacpp_server")
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", required=True)
    for name in ("--port", "--slots", "--context", "--threads"):
        parser.add_argument(name, required=True, type=int)
    options = parser.parse_args()
    die_with_parent(os.getppid())
    wanted = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.hostnames = [options.host]
    params.port = options.port
    params.n_parallel = options.slots
    params.n_ctx = options.slots * options.context
    params.kv_unified = False
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.n_gpu_layers = 0
    params.fit_params = False
    params.ui = False
    params.verbosity = 2
    # No second prompt cache in host memory: the cache modes of the benchmark are about the slots' own.
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    server = xllamacpp.Server(params)
    print(f"serving on {server.listening_address}", file=sys.stderr, flush=True)
    signal.sigwait(wanted)
    # llama.cpp's worker threads hold nothing that outlives the process; its destructor may wait for open streams.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
