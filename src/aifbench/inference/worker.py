"""The worker of the inference benchmark: warms up, measures, calibrates at the load seen, hands over raw events."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import orjson

from aifbench.core.benchmark import CaseFailed, Measurement, Worker
from aifbench.core.ids import canonical
from aifbench.engines.adapters import adapter
from aifbench.engines.base import Adapter
from aifbench.files.written import atomic_write
from aifbench.inference.metrics.goodput import probes_of
from aifbench.inference.params import InferenceParams
from aifbench.inference.requests import columns, event_rate, payloads, scheduled_payloads, start_offsets
from aifbench.inference.slo_search import next_load
from aifbench.load.calibrate import calibrate
from aifbench.load.client import Load, StreamingClient
from aifbench.load.client_processes import ClientProcesses, ClientProcessFailed, load_client
from aifbench.load.schedules import Closed, arrivals

SUMMED = (
    "exchanges_with_read_stamps",
    "client_cpu_s",
    "wall_s",
    "connections_opened",
    "warmup_requests",
    "warmup_failed",
)
"""Facts of a search that are sums over its loads."""


class InferenceWorker(Worker[InferenceParams]):
    """Runs loads of streaming requests against the batch's servers."""

    def prepare(self, params: InferenceParams) -> dict[str, Any]:
        """Return what the engine was told (the server describes itself before and after the rounds)."""
        return {"fixes_length": self._adapters(params)[0].fixes_length()}

    def measure(self, params: InferenceParams) -> Measurement:
        """Warm up, measure one repetition or search, and calibrate the client at that load where it was not yet."""
        engines = self._adapters(params)
        try:
            raw, facts = self._search(engines, params) if params.find else self._load(engines, params)
        except ClientProcessFailed as error:
            raise CaseFailed("load", str(error)) from error
        facts["calibration"] = self._calibration(params, facts.pop("events_per_s"))
        return Measurement(raw, facts)

    def _load(self, engines: list[Adapter], params: InferenceParams) -> tuple[dict[str, Any], dict[str, Any]]:
        """Warm up, run one load; return its raw columns and its facts."""
        seed, engine = self.context.seed, engines[0]
        targets, reuse = [each.target for each in engines], engine.keeps_connections
        with load_client(targets, params.clients, params.client_processes, reuse=reuse) as client:
            self.context.phase("warmup")
            together = [0.0] * params.clients  # so that every slot of the server gets warm
            warmup = client.run(payloads(engines, params, seed, "warmup"), together, params.timeout_s)
            measure = self._measured(client, engines, params)
            before = [each.state() for each in engines]
            self.context.phase("measure")
            load = measure()
            after = [each.state() for each in engines]
        raw, messages = columns(engine, load.exchanges)
        self.context.progress(len(load.exchanges))
        warm_failed = sum(exchange.error is not None or exchange.status != 200 for exchange in warmup.exchanges)
        return raw, {
            "events_per_s": event_rate(raw["token_ns"]),
            "stamp_source": load.stamp_source,
            "exchanges_with_read_stamps": load.exchanges_with_read_stamps,
            "client_cpu_s": load.cpu_s,
            "wall_s": (load.end_ns - load.start_ns) / 1e9,
            "clock_offset_start_ns": load.clock_offset_start_ns,
            "clock_offset_end_ns": load.clock_offset_end_ns,
            "connections_opened": load.connections_opened,
            "server_addresses": load.addresses,
            "server_states_before": before,
            "server_states_after": after,
            "warmup_requests": len(warmup.exchanges),
            "warmup_failed": warm_failed,
            "fixes_length": engine.fixes_length(),
            "error_messages": messages,
        }

    def _search(self, engines: list[Adapter], params: InferenceParams) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run the loads of a search, one after the other; return their raw columns together and the facts of all."""
        raw: dict[str, list[Any]] = {}
        parts: list[dict[str, Any]] = []
        whole = params.find == "clients"
        while True:
            probes = probes_of(params, raw) if raw else []
            load = next_load(probes, params.most, params.find_share, whole=whole)
            if load is None:
                break
            columns_of, facts = self._load(engines, params.at_load(load))
            parts.append(facts)
            for name, values in {**columns_of, "probe": [load] * len(columns_of["client"])}.items():
                raw.setdefault(name, []).extend(values)
        last = parts[-1]
        together = {name: sum(part[name] for part in parts) for name in SUMMED}
        return raw, {
            **last,
            **together,
            "events_per_s": max(part["events_per_s"] for part in parts),
            "probes": [[probe.load, probe.share] for probe in probes],
            "server_states_before": parts[0]["server_states_before"],
            "clock_offset_start_ns": parts[0]["clock_offset_start_ns"],
            "error_messages": {key: text for part in parts for key, text in part["error_messages"].items()},
        }

    def _measured(
        self, client: StreamingClient | ClientProcesses, engines: list[Adapter], params: InferenceParams
    ) -> Callable[[], Load]:
        """Return what runs the measured load, its requests made beforehand."""
        seed, schedule, timeout_s = self.context.seed, params.schedule, params.timeout_s
        if isinstance(schedule, Closed):
            requests = payloads(engines, params, seed, "measure")
            return partial(client.run, requests, start_offsets(params.clients, seed), timeout_s, schedule.think_s)
        at_s = arrivals(schedule, params.requests, seed, np.array(params.schedule_s))
        return partial(client.run_schedule, scheduled_payloads(engines, params, seed), at_s.tolist(), timeout_s)

    def _adapters(self, params: InferenceParams) -> list[Adapter]:
        return [adapter(params.engine, endpoint) for endpoint in self.context.endpoints]

    def _calibration(self, params: InferenceParams, tokens_per_s: float) -> dict[str, Any]:
        """Return the instrument's error at this load, measured in this batch where it was not known up to it."""
        path = self.context.work_dir / f"calibration-{params.clients}-{params.client_processes}.json"
        if path.exists():
            known: dict[str, Any] = orjson.loads(path.read_bytes())
            if max(known["tokens_per_s"], known["asked_tokens_per_s"]) >= tokens_per_s:
                return known
        self.context.phase("calibrate")
        try:
            figures = calibrate(params.clients, self.context.seed, tokens_per_s, params.client_processes)
        except RuntimeError as error:
            raise CaseFailed("calibration", str(error)) from error
        atomic_write(path, canonical(figures))
        return figures


WORKER = InferenceWorker
