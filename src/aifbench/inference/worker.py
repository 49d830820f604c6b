"""The worker of the inference benchmark: calibrates the client, warms up, measures, and hands over raw events."""

from __future__ import annotations

from typing import Any

import orjson

from aifbench.benchmark import CaseFailed, Measurement, Worker
from aifbench.campaign.ids import canonical
from aifbench.campaign.params import Params
from aifbench.engines.adapters import adapter
from aifbench.engines.base import Adapter
from aifbench.inference.params import InferenceParams
from aifbench.inference.requests import columns, payloads, start_offsets
from aifbench.load.calibrate import calibrate
from aifbench.load.client import StreamingClient
from aifbench.records.store import atomic_write


class InferenceWorker(Worker):
    """Runs closed loops of streaming requests against the batch's servers."""

    def prepare(self, params: Params) -> dict[str, Any]:
        """Return what the engine was told (the server describes itself before and after the rounds)."""
        return {"fixes_length": self._adapters(params)[0].fixes_length()}

    def measure(self, params: Params) -> Measurement:
        """Calibrate once per batch and number of clients, warm up, then measure one repetition."""
        assert isinstance(params, InferenceParams)
        engines = self._adapters(params)
        engine = engines[0]
        seed = self.context.seed
        calibration = self._calibration(params.clients)
        offsets = start_offsets(params.clients, seed)
        targets = [each.target for each in engines]
        with StreamingClient(targets, params.clients, reuse=engine.keeps_connections) as client:
            self.context.phase("warmup")
            warmup = client.run(payloads(engines, params, seed, "warmup"), offsets, params.timeout_s)
            measured = payloads(engines, params, seed, "measure")
            before = [each.state() for each in engines]
            self.context.phase("measure")
            load = client.run(measured, offsets, params.timeout_s)
            after = [each.state() for each in engines]
        raw, messages = columns(engine, load.exchanges)
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

    def _adapters(self, params: Params) -> list[Adapter]:
        assert isinstance(params, InferenceParams)
        return [adapter(params.engine, endpoint) for endpoint in self.context.endpoints]

    def _calibration(self, clients: int) -> dict[str, Any]:
        """Return the instrument's error at this number of clients, measured on first use in this batch."""
        path = self.context.work_dir / f"calibration-{clients}.json"
        if not path.exists():
            self.context.phase("calibrate")
            try:
                figures = calibrate(clients, self.context.seed)
            except RuntimeError as error:
                raise CaseFailed("calibration", str(error)) from error
            atomic_write(path, canonical(figures))
        facts: dict[str, Any] = orjson.loads(path.read_bytes())
        return facts


WORKER = InferenceWorker
