"""What was observed in one repetition: raw columns as arrays, the instrument's error, and the forms of a metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aifbench.core.benchmark import Raw
from aifbench.core.notes import Note
from aifbench.core.records import Metric
from aifbench.inference.kinds import NO_VALUE
from aifbench.stats.quantiles import quantile_metric

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Instrument:
    """Error of the client in seconds, from its calibration at this number of clients; None: not calibrated."""

    ttft_s: float | None
    gap_s: float | None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Instrument:
        """Take the bounds from the facts of a repetition."""
        calibration = facts.get("calibration")
        if not calibration:
            return cls(None, None)
        return cls(calibration["ttft_error_s"]["bound"], calibration["gap_error_s"]["bound"])


@dataclass(frozen=True)
class Requests:
    """Raw columns as arrays: numbers as float64 with NaN for absent, stamps in seconds since the first one sent."""

    columns: dict[str, Floats]
    clients: NDArray[np.int64]
    errors: list[str | None]
    answers: list[str | None]
    tokens_s: list[Floats]
    """Per request, the time of each token event."""
    ok: NDArray[np.bool_]
    retried: int
    """Requests that were sent a second time; old results tell of none."""

    @classmethod
    def of(cls, raw: Raw) -> Requests:
        """Take the raw columns of one repetition."""
        origin = min((stamp for stamp in _plain(raw["send_ns"]) if stamp is not None), default=0)
        stamps = {
            name: np.array([np.nan if s is None else (s - origin) / 1e9 for s in _plain(raw[f"{name}_ns"])])
            for name in ("scheduled", "send", "first_byte", "first_event", "first_token", "first_visible", "end")
        }
        numbers = {
            name: np.array([np.nan if value is None else float(value) for value in _plain(raw[name])])
            for name in (
                "tokens", "prompt_tokens", "cached_tokens", "reads_with_several_events", "round_trip_ns", "retransmits",
                "server_queue_ms", "server_load_ms", "server_prefill_ms", "server_decode_ms",
            )
        }  # fmt: skip
        tokens_s = [(np.array(_plain(row), dtype=np.int64) - int(origin)) / 1e9 for row in raw["token_ns"]]
        errors = _plain(raw["error"])
        ok = np.array([error is None and len(row) > 0 for error, row in zip(errors, tokens_s, strict=True)], dtype=bool)
        clients = np.array(_plain(raw["client"]), dtype=np.int64)
        retried = int(sum(_plain(raw["retried"]))) if "retried" in raw else 0
        return cls({**stamps, **numbers}, clients, errors, _plain(raw["answer_sha256"]), tokens_s, ok, retried)

    def good(self, name: str) -> Floats:
        """Return a column of the successful requests."""
        return self.columns[name][self.ok]

    @property
    def good_tokens_s(self) -> list[Floats]:
        """Return the times of the token events of the successful requests."""
        return [row for row, ok in zip(self.tokens_s, self.ok, strict=True) if ok]

    @property
    def counts(self) -> Floats:
        """Return the tokens of each successful request: as the server counts, else its token events."""
        events = np.array([len(row) for row in self.good_tokens_s], dtype=np.float64)
        said = self.good("tokens")
        return np.where(np.isnan(said), events, said)

    @property
    def count_method(self) -> str:
        """Say who counted the tokens."""
        return "token events (the server gives no count)" if np.isnan(self.good("tokens")).any() else "server's count"


def mean(values: Floats, unit: str, method: str, instrument: float | None = None) -> Metric:
    """Return the mean of the requests that have a value; absent when none has."""
    values = values[~np.isnan(values)]
    if not values.size:
        return Metric.absent(unit, NO_VALUE.absent())
    return Metric(value=float(values.mean()), unit=unit, n=int(values.size), method=method, instrument=instrument)


def quantile(values: Floats, q: float, of: str, instrument: float | None) -> Metric:
    """Return a quantile of times in s, absent where their number does not support it; `of` says what they are."""
    return quantile_metric(values, q, "s", instrument, of=of)


def known_mean(values: Floats, unit: str, method: str, reason: Note) -> Metric:
    """Return the mean of what a server tells; `reason` is why there is none."""
    known = values[~np.isnan(values)]
    return mean(known, unit, method) if known.size else Metric.absent(unit, reason, n=int(values.size))


def _plain(column: Any) -> list[Any]:
    """Return a column as a list with None for absent, whether it comes from a worker or from a file."""
    values = column.tolist() if isinstance(column, np.ndarray) else list(column)
    return [None if isinstance(value, float) and value != value else value for value in values]  # noqa: PLR0124
