"""What people are told and asked about retrieval."""

from aifbench.core.menu import Hardware, Menu
from aifbench.retrieval.params import KNOWN, SYNTHETIC

MENU = Menu(
    text="How fast a vector index finds neighbours, and how many of them are right.",
    axis="top_k",
    question="k, neighbours asked for (a number, or several: 1,10,100)",
    unit="queries",
    shown=("dataset", "index"),
    hardware={"clients.cores": Hardware("threads", "Threads of one search call.")},
    words={
        "dataset": (*KNOWN, SYNTHETIC),
        "index": ("Flat", "IVF256,Flat", "IVF1024,Flat", "HNSW16", "HNSW32"),
    },
)
