"""The load generators: how each is told the same load, and what each says of it in its own output.

All send the same chat request to the reference server, keep `streams` requests in flight, spread the starts over one
answer, and leave `streams` requests of warm-up out of their figures.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from aifbench.load.calibrate import stamps_and_truth
from aifbench.load.client import StreamingClient
from aifbench.load.http import Target

TTFT_MS, GAP_MS, TOKENS = 100.0, 20.0, 32
ANSWER_S = (TTFT_MS + (TOKENS - 1) * GAP_MS) / 1e3
PLAN = {"ttft_ms": TTFT_MS, "gap_ms": GAP_MS, "tokens": TOKENS}
ROOT = Path(__file__).parents[2]
GUIDELLM_PROCESSES = 2
"""Worker processes of guidellm, one a core here; its default of ten does worse on two cores."""


@dataclass(frozen=True)
class Task:
    """One run of one tool: `folder` is empty and the tool's own, `environment` where it is installed."""

    url: str
    streams: int
    requests: int
    folder: Path
    environment: Path | None = None

    @property
    def total(self) -> int:
        """Return how many requests are measured."""
        return self.streams * self.requests


@dataclass(frozen=True)
class Record:
    """What a tool says of one request. `key` finds the truth of it in the server's log; times in ms."""

    key: str
    ttft_ms: float
    mean_gap_ms: float
    gaps_ms: list[float] | None
    """None: the tool does not keep each gap."""


@dataclass(frozen=True)
class Answer:
    """What a tool prints: its own p50 and p99 of the time to first token and tokens/s, and its records."""

    ttft_p50_ms: float
    ttft_p99_ms: float
    tokens_per_s: float
    records: list[Record]


@dataclass(frozen=True)
class Tool:
    """A load generator: its command, what to read afterwards, and the key of a line of the server's log."""

    name: str
    command: Callable[[Task], tuple[list[str], dict[str, str]]]
    answer: Callable[[Task], Answer]
    key: Callable[[dict[str, Any]], str | None]
    installed: bool = True
    """Whether it needs an environment of its own."""


def _prompt(number: int) -> str:
    return f"{number} Say something short."


def _guidellm_command(task: Task) -> tuple[list[str], dict[str, str]]:
    assert task.environment is not None
    count = task.total + task.streams
    prompts = task.folder / "prompts.jsonl"
    prompts.write_bytes(b"".join(orjson.dumps({"prompt": _prompt(number)}) + b"\n" for number in range(count)))
    backend = {"kind": "openai_http", "target": task.url, "model": "planted", "extras": {"body": {"planted": PLAN}}}
    profile = {
        "kind": "concurrent",
        "streams": task.streams,
        "rampup_duration": ANSWER_S,
        "warmup": {"mode": "requests", "value": task.streams},
    }
    command = [str(task.environment / "bin" / "guidellm"), "run"]
    command += ["--backend", json.dumps(backend), "--profile", json.dumps(profile)]
    command += ["--data", f"kind=json_file,path={prompts}", "--constraint", f"kind=max_requests,count={count}"]
    command += ["--output", f"kind=json,path={task.folder / 'report.json'}", "--disable-console-interactive"]
    return command, {"HF_HUB_OFFLINE": "1", "GUIDELLM__MAX_WORKER_PROCESSES": str(GUIDELLM_PROCESSES)}


def _guidellm_answer(task: Task) -> Answer:
    (benchmark,) = orjson.loads((task.folder / "report.json").read_bytes())["benchmarks"]
    records = [
        Record(
            key=orjson.loads(request["request_args"])["body"]["messages"][-1]["content"][-1]["text"],
            ttft_ms=request["time_to_first_token_ms"],
            mean_gap_ms=request["inter_token_latency_ms"],
            gaps_ms=None,
        )
        for request in benchmark["requests"]["successful"]
    ]
    ttft = benchmark["metrics"]["time_to_first_token_ms"]["successful"]["percentiles"]
    rate = benchmark["metrics"]["output_tokens_per_second"]["successful"]["mean"]
    return Answer(ttft["p50"], ttft["p99"], rate, records)


def _guidellm_key(line: dict[str, Any]) -> str | None:
    messages = line["messages"]
    return str(messages[-1]["content"][-1]["text"]) if messages else None


def _aiperf_command(task: Task) -> tuple[list[str], dict[str, str]]:
    assert task.environment is not None
    tokenizer = task.folder / "tokenizer"
    _write_tokenizer(tokenizer)
    prompts = task.folder / "prompts.jsonl"
    prompts.write_bytes(b"".join(orjson.dumps({"text": _prompt(number)}) + b"\n" for number in range(task.total)))
    command = [str(task.environment / "bin" / "aiperf"), "profile", "--model", "planted", "--url", task.url]
    command += ["--streaming", "--extra-inputs", json.dumps({"planted": PLAN})]
    command += ["--concurrency", str(task.streams), "--request-count", str(task.total)]
    command += ["--concurrency-ramp-duration", str(ANSWER_S), "--warmup-request-count", str(task.streams)]
    command += ["--tokenizer", str(tokenizer), "--use-server-token-count"]
    command += ["--input-file", str(prompts), "--custom-dataset-type", "single_turn"]
    command += ["--ui", "none", "--export-level", "records", "--output-artifact-dir", str(task.folder / "artifacts")]
    command += ["--no-server-metrics", "--no-gpu-telemetry"]
    return command, {}


def _write_tokenizer(folder: Path) -> None:
    """Write a small tokenizer of words: aiperf loads one even where the server counts the tokens."""
    folder.mkdir()
    words = {"<unk>": 0, **{f"t{index}": index + 1 for index in range(TOKENS)}}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"}
    parts = {"truncation": None, "padding": None, "normalizer": None, "post_processor": None, "decoder": None}
    content: dict[str, Any] = {
        "version": "1.0",
        **parts,
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": model,
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _aiperf_answer(task: Task) -> Answer:
    records = []
    for text in (task.folder / "artifacts" / "profile_export.jsonl").read_text().splitlines():
        line = orjson.loads(text)
        if line["metadata"]["benchmark_phase"] != "profiling" or line.get("error"):
            continue
        metrics = {name: metric["value"] for name, metric in line["metrics"].items()}
        records.append(
            Record(
                key=line["metadata"]["x_request_id"],
                ttft_ms=metrics["time_to_first_token"],
                mean_gap_ms=metrics["inter_token_latency"],
                gaps_ms=metrics["inter_chunk_latency"],
            )
        )
    report = orjson.loads((task.folder / "artifacts" / "profile_export_aiperf.json").read_bytes())
    ttft = report["time_to_first_token"]
    return Answer(ttft["p50"], ttft["p99"], report["output_token_throughput"]["avg"], records)


def _aiperf_key(line: dict[str, Any]) -> str | None:
    return line["request_id"] if line["messages"] else None


def _our_command(task: Task) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-m", "benchmarks.peers.tools", task.url, str(task.streams), str(task.requests)]
    return [*command, str(task.folder / "records.json")], {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])
    }


def _our_answer(task: Task) -> Answer:
    found = orjson.loads((task.folder / "records.json").read_bytes())
    records = [Record(**record) for record in found["records"]]
    ttft = [record.ttft_ms for record in records]
    return Answer(float(np.quantile(ttft, 0.5)), float(np.quantile(ttft, 0.99)), found["tokens_per_s"], records)


def _our_key(line: dict[str, Any]) -> str | None:
    return str(line["received_ns"])


def _our_child(url: str, streams: int, requests: int, out: Path) -> None:
    """Put the load on with our own client, in a process of its own as the others are."""
    target = Target.of(url)
    message = {"role": "user", "content": _prompt(0)}
    body = orjson.dumps({"model": "planted", "stream": True, "messages": [message], "planted": PLAN})
    payload = target.request("/v1/chat/completions", body)
    offsets = [random.Random(stream).uniform(0, ANSWER_S) for stream in range(streams)]
    with StreamingClient([target], streams) as client:
        client.run([[payload]] * streams, offsets, 30)
        load = client.run([[payload] * requests] * streams, offsets, 30)
    records = []
    for exchange in load.exchanges:
        assert exchange.send_ns is not None
        stamps, truth = stamps_and_truth(exchange)
        if exchange.error or truth is None:
            continue
        gaps = np.diff(stamps) / 1e6
        records.append(
            {
                "key": str(truth["received_ns"]),
                "ttft_ms": (stamps[0] - exchange.send_ns) / 1e6,
                "mean_gap_ms": float(gaps.mean()),
                "gaps_ms": gaps.tolist(),
            }
        )
    rate = len(records) * TOKENS / ((load.end_ns - load.start_ns) / 1e9)
    out.write_bytes(orjson.dumps({"tokens_per_s": rate, "records": records}))


OURS = Tool("aifbench", _our_command, _our_answer, _our_key, installed=False)
PEERS = (
    Tool("guidellm", _guidellm_command, _guidellm_answer, _guidellm_key),
    Tool("aiperf", _aiperf_command, _aiperf_answer, _aiperf_key),
)


def environment(tool: Tool) -> tuple[Path | None, str]:
    """Return (where the tool is installed, ''), made now if need be; or (None, why it is not there)."""
    command = [str(Path(__file__).with_name("install")), tool.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return None, lines[-1] if lines else f"its installation ended with exit code {done.returncode}"
    return Path(done.stdout.strip()), ""


def version(tool: Tool) -> str:
    """Return the version of the tool that its list pins."""
    lines = Path(__file__).with_name(f"{tool.name}.txt").read_text().splitlines()
    return next(line.split("==")[1] for line in lines if line.startswith(f"{tool.name}=="))


if __name__ == "__main__":
    _our_child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
