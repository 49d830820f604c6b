"""What people are told and asked about inference."""

from aifbench.core.menu import Hardware, Menu

MENU = Menu(
    text="How soon a language model answers and how many tokens it makes, as clients are added.",
    axis="clients",
    question="Clients (a number, or several: 1,2,4)",
    unit="requests",
    shown=("prompt",),
    hardware={
        "server.device": Hardware("engine.gpus", "What a server computes on.", {"cpu": 0, "gpu": 1}),
        "server.gpus": Hardware("engine.gpus", ""),
        "server.cores": Hardware("engine.threads", "Compute threads of one server."),
        "clients.place": Hardware(
            "topology",
            "Beside the server, or on a node of their own (Slurm).",
            {"same-node": "same-node", "own-node": "two-node"},
        ),
        "clients.processes": Hardware("client_processes", "Where one core cannot follow all streams."),
    },
    without_gpus={
        "llamacpp": "engine {kind: ollama} computes on GPUs; this one is embedded and uses the cores",
    },
    files={"prompt": "prompts/*.txt"},
)
