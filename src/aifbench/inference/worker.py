"""The worker of the inference benchmark: warms up, measures, calibrates at the load seen, hands over raw events."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import orjson

from aifbench.benchmark import CaseFailed, Measurement, Worker
from aifbench.campaign.ids import canonical
from aifbench.campaign.params import Params
from aifbench.engines.adapters import adapter
from aifbench.engines.base import Adapter
from aifbench.inference.params import InferenceParams
from aifbench.inference.requests import columns, event_rate, payloads, scheduled_payloads, start_offsets
from aifbench.load.calibrate import calibrate
from aifbench.load.client import Load, StreamingClient
from aifbench.load.crew import Crew, CrewFailed, load_client
from aifbench.load.schedules import Closed, arrivals
from aifbench.records.store import atomic_write


class InferenceWorker(Worker):
    """Runs loads of streaming requests against the batch's servers."""

    def prepare(self, params: Params) -> dict[str, Any]:
        """Return what the engine was told (the server describes itself before and after the rounds)."""
        return {"fixes_length": self._adapters(params)[0].fixes_length()}

    def measure(self, params: Params) -> Measurement:
        """Warm up, measure one repetition, and calibrate the client at that load where it was not yet."""
        assert isinstance(params, InferenceParams)
        engines = self._adapters(params)
        engine = engines[0]
        seed = self.context.seed
        offsets = start_offsets(params.clients, seed)
        targets = [each.target for each in engines]
        try:
            with load_client(
                targets, params.clients, params.client_processes, reuse=engine.keeps_connections
            ) as client:
                self.context.phase("warmup")
                warmup = client.run(payloads(engines, params, seed, "warmup"), offsets, params.timeout_s)
                measure = self._measured(client, engines, params)
                before = [each.state() for each in engines]
                self.context.phase("measure")
                load = measure()
                after = [each.state() for each in engines]
        except CrewFailed as error:
            raise CaseFailed("load", str(error)) from error
        raw, messages = columns(engine, load.exchanges)
        calibration = self._calibration(params, event_rate(raw["token_ns"]))
        self.context.progress(len(load.exchanges))
        warm_failed = sum(exchange.error is not None or exchange.status != 200 for exchange in warmup.exchanges)
        facts = {
            "calibration": calibration,
            "stamp_source": load.stamp_source,
            "exchanges_with_read_stamps": load.exchanges_with_read_stamps,
            "client_cpu_s": load.cpu_s,
            "wall_s": (load.end_ns - load.start_ns) / 1e9,
            "clock_offset_start_ns": load.clock_offset_start_ns,
            "clock_offset_end_ns": load.clock_offset_end_ns,
            "connections_opened": load.connections_opened,
            "server_states_before": before,
            "server_states_after": after,
            "warmup_requests": len(warmup.exchanges),
            "warmup_failed": warm_failed,
            "fixes_length": engine.fixes_length(),
            "error_messages": messages,
        }
        return Measurement(raw, facts)

    def _measured(
        self, client: StreamingClient | Crew, engines: list[Adapter], params: InferenceParams
    ) -> Callable[[], Load]:
        """Return what runs the measured load, its requests made beforehand."""
        seed, schedule, timeout_s = self.context.seed, params.schedule, params.timeout_s
        if isinstance(schedule, Closed):
            requests = payloads(engines, params, seed, "measure")
            return partial(client.run, requests, start_offsets(params.clients, seed), timeout_s, schedule.think_s)
        at_s = arrivals(schedule, params.requests, seed, np.array(params.schedule_s))
        return partial(client.run_schedule, scheduled_payloads(engines, params, seed), at_s.tolist(), timeout_s)

    def _adapters(self, params: Params) -> list[Adapter]:
        assert isinstance(params, InferenceParams)
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
