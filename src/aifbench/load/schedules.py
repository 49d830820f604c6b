"""When the requests of a load are to be sent: what a user says about it, and the times that follow.

A closed schedule has no times: a client waits for its last answer. All others are open: they send whether or not the
server keeps up. Their times depend on the settings and the seed alone. Nothing is scaled to hit the asked rate in a
finite run, because that would change the distribution of the gaps; the rate that came about is a result.
"""

from __future__ import annotations

import csv
import io
import math
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema

from aifbench.core.paths import PathText
from aifbench.core.strict import Strict
from aifbench.files.beneath import Unreadable
from aifbench.files.bounded import read_regular

Times = NDArray[np.float64]

LOWEST_RATE, HIGHEST_RATE = 1e-6, 1e6
MOST_TRACE_BYTES = 256 << 20
LONGEST_S = 86_400.0
"""Bounds of a rate in requests per second and of a time in a schedule: beyond them a slip of the pen is likelier."""

_STREAM = tuple(b"arrivals")
"""Spawn key of the random stream, so that other draws from the same seed are independent of the times."""

_COLUMNS = {"timestamp": 1, "timestamp_ms": 1000}
"""Columns of a CSV that hold times, with their units per second."""

_RATE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*/\s*(s|min)\s*$", re.ASCII)


def parse_rate(value: Any) -> Any:
    """Return a rate written as text, such as `2/s` or `120/min`, in requests per second; a number as it is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    match = _RATE.match(value) if isinstance(value, str) else None
    if not match:
        raise ValueError("not a rate; allowed: requests per second, or a number with /s or /min such as 120/min")
    return float(match[1]) / (60 if match[2] == "min" else 1)


_RATE_FORMS: dict[str, Any] = {
    "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": _RATE.pattern}]
}
Rate = Annotated[
    float, BeforeValidator(parse_rate), Field(ge=LOWEST_RATE, le=HIGHEST_RATE), WithJsonSchema(_RATE_FORMS)
]
"""A pydantic type: accepts `2/s`, `120/min` or requests per second; the value is requests per second."""
RateOrZero = Annotated[float, BeforeValidator(parse_rate), Field(ge=0, le=HIGHEST_RATE), WithJsonSchema(_RATE_FORMS)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=LONGEST_S)]


class _Schedule(Strict):
    @property
    @abstractmethod
    def shown(self) -> str:
        """The schedule for a reader, such as `poisson 2/s`."""


class _Random(_Schedule):
    """An open schedule whose times are computed."""

    @abstractmethod
    def times(self, requests: int, generator: np.random.Generator) -> Times:
        """Return the first send times in seconds from the start."""


class Closed(_Schedule):
    """A client sends its next request `think_s` after its last one ended."""

    kind: Literal["closed"] = Field(description="a client sends its next request after its last one ended")
    think_s: float = Field(
        0.0, strict=True, ge=0, le=LONGEST_S, description="seconds from the end of a request to the client's next one"
    )

    @property
    def shown(self) -> str:
        """Such as `closed think 0.5 s`."""
        return f"closed think {self.think_s:g} s" if self.think_s else "closed"


class Constant(_Random):
    """Equal gaps of 1/rate; the first request is sent at the start."""

    kind: Literal["constant"] = Field(description="equal gaps")
    rate: Rate = Field(description="requests per second, or such as 120/min")

    @property
    def shown(self) -> str:
        """Such as `constant 2/s`."""
        return f"constant {self.rate:g}/s"

    def times(self, requests: int, generator: np.random.Generator) -> Times:
        """Return k/rate."""
        return np.arange(requests) / self.rate


class Poisson(_Random):
    """A Poisson process: independent exponential gaps with mean 1/rate, the first from the start."""

    kind: Literal["poisson"] = Field(description="independent exponential gaps")
    rate: Rate = Field(description="requests per second, or such as 120/min")

    @property
    def shown(self) -> str:
        """Such as `poisson 2/s`."""
        return f"poisson {self.rate:g}/s"

    def times(self, requests: int, generator: np.random.Generator) -> Times:
        """Return the sums of the gaps."""
        return _unit_poisson(requests, generator) / self.rate


class Gamma(_Random):
    """A renewal process: independent gamma gaps of shape `burstiness` and mean 1/rate, the first from the start.

    The squared coefficient of variation of the gaps is 1/burstiness: the definition of `--burstiness` in vLLM's
    benchmark, which (as of 2025) also scales the sum of its gaps to the asked rate; that is not done here.
    """

    kind: Literal["gamma"] = Field(description="independent gamma gaps, burstier or smoother than Poisson")
    rate: Rate = Field(description="requests per second, or such as 120/min")
    burstiness: float = Field(
        strict=True, ge=0.01, le=10_000, description="1 is Poisson, below 1 burstier, above 1 more even"
    )

    @property
    def shown(self) -> str:
        """Such as `gamma 2/s burstiness 0.5`."""
        return f"gamma {self.rate:g}/s burstiness {self.burstiness:g}"

    def times(self, requests: int, generator: np.random.Generator) -> Times:
        """Return the sums of the gaps."""
        return np.cumsum(generator.standard_gamma(self.burstiness, requests)) / (self.burstiness * self.rate)


class OnOff(_Random):
    """A Poisson process of `rate` for `on_s`, then nothing for `off_s`, and so on; it starts on."""

    kind: Literal["on-off"] = Field(description="Poisson while on, nothing while off")
    rate: Rate = Field(description="requests per second while on, or such as 120/min")
    on_s: Seconds = Field(description="seconds of an on-phase")
    off_s: Seconds = Field(description="seconds of an off-phase")

    @property
    def mean_rate(self) -> float:
        """Requests per second over whole periods."""
        return self.rate * self.on_s / (self.on_s + self.off_s)

    @property
    def shown(self) -> str:
        """Such as `on-off 4/s on 10 s off 20 s`."""
        return f"on-off {self.rate:g}/s on {self.on_s:g} s off {self.off_s:g} s"

    def times(self, requests: int, generator: np.random.Generator) -> Times:
        """Return the times of a process that knows on-phases only, with the off-phases put between."""
        phase, within = np.divmod(_unit_poisson(requests, generator) / self.rate, self.on_s)
        return phase * (self.on_s + self.off_s) + within


class Ramp(_Random):
    """A Poisson process whose rate goes linearly from `from_rate` to `to_rate` over `seconds` and stays there."""

    kind: Literal["ramp"] = Field(description="Poisson with a rate that changes linearly, then stays")
    from_rate: RateOrZero = Field(description="requests per second at the start, or such as 120/min; 0 is allowed")
    to_rate: Rate = Field(description="requests per second at the end of the ramp and after it")
    seconds: Seconds = Field(description="length of the ramp")

    @property
    def shown(self) -> str:
        """Such as `ramp 1 to 8/s in 60 s`."""
        return f"ramp {self.from_rate:g} to {self.to_rate:g}/s in {self.seconds:g} s"

    def times(self, requests: int, generator: np.random.Generator) -> Times:
        """Return a Poisson process of rate 1 through the inverse of the expected number of requests.

        On the ramp that number is a t + (b - a) t^2 / (2 T). Its inverse is written so that nothing cancels.
        """
        expected = _unit_poisson(requests, generator)
        first, last = self.from_rate, self.to_rate
        total = (first + last) / 2 * self.seconds
        rate_squared = first**2 + 2 * (last - first) / self.seconds * expected
        rate = np.sqrt(np.maximum(rate_squared, min(first, last) ** 2))
        return np.where(expected < total, 2 * expected / (first + rate), self.seconds + (expected - total) / last)


def _last_is_a_rate(rates: tuple[float, ...]) -> tuple[float, ...]:
    if rates[-1] < LOWEST_RATE:
        raise ValueError(f"the last rate stays, so it must be at least {LOWEST_RATE:g}/s")
    return rates


class Step(_Random):
    """A Poisson process with each of `rates` for `seconds`; the last one stays."""

    kind: Literal["step"] = Field(description="Poisson with one rate after the other")
    rates: Annotated[tuple[RateOrZero, ...], AfterValidator(_last_is_a_rate)] = Field(
        min_length=1, description="requests per second of each step, or such as 120/min; 0 is a pause"
    )
    seconds: Seconds = Field(description="length of each step")

    @property
    def shown(self) -> str:
        """Such as `step 1, 2, 4/s each 30 s`."""
        return f"step {', '.join(f'{rate:g}' for rate in self.rates)}/s each {self.seconds:g} s"

    def times(self, requests: int, generator: np.random.Generator) -> Times:
        """Return a Poisson process of rate 1 through the inverse of the expected number of requests."""
        expected = _unit_poisson(requests, generator)
        rates = np.array(self.rates)
        before = np.concatenate(([0.0], np.cumsum(rates[:-1] * self.seconds)))
        step = np.searchsorted(before, expected, side="right") - 1
        times: Times = step * self.seconds + (expected - before[step]) / rates[step]
        return times


class Trace(_Schedule):
    """Times from a file, in a form that `read_trace` knows."""

    kind: Literal["trace"] = Field(description="times from a file")
    file: PathText = Field(
        min_length=1,
        description="CSV with a column `timestamp` (seconds) or `timestamp_ms`, or JSON lines with `timestamp` in ms",
    )

    @property
    def shown(self) -> str:
        """Such as `trace conversation.jsonl`."""
        return f"trace {Path(self.file).name}"


def parse_schedule(value: Any) -> Any:
    """Return the schedule that the word `closed` stands for; any other value as it is."""
    return Closed(kind="closed") if isinstance(value, str) and value == "closed" else value


def _tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return f"[{kind}]"


_ByKind = Annotated[
    Annotated[Closed, Tag("[closed]")]
    | Annotated[Constant, Tag("[constant]")]
    | Annotated[Poisson, Tag("[poisson]")]
    | Annotated[Gamma, Tag("[gamma]")]
    | Annotated[OnOff, Tag("[on-off]")]
    | Annotated[Ramp, Tag("[ramp]")]
    | Annotated[Step, Tag("[step]")]
    | Annotated[Trace, Tag("[trace]")],
    Discriminator(
        _tag,
        custom_error_type="schedule_kind",
        custom_error_message="needs the word closed, or a mapping with a `kind`: "
        "closed, constant, poisson, gamma, on-off, ramp, step or trace",
    ),
]
Schedule = Annotated[_ByKind, BeforeValidator(parse_schedule, json_schema_input_type=Literal["closed"] | _ByKind)]
"""One schedule, told apart by `kind`, or the word `closed`. Tags in brackets stay out of an error's key."""


def arrivals(schedule: Schedule, requests: int, seed: int, trace: Times | None = None) -> Times:
    """Return the first `requests` send times in seconds from the start; they do not decrease.

    The same settings and seed give the same times, and fewer requests give the first of them; other seeds give
    independent times. `trace` holds the times that `read_trace` gives for a trace. Raises ValueError for a closed
    schedule, which has no times of its own, for a trace without its times or with fewer than are asked for, and for
    a negative number.
    """
    if requests < 0:
        raise ValueError(f"{requests} requests: must be at least 0")
    if isinstance(schedule, Closed):
        raise ValueError("a closed schedule has no arrivals: a client's next request follows the end of its last one")
    if isinstance(schedule, Trace):
        if trace is None:
            raise ValueError(f"{schedule.shown}: its times have not been read")
        if requests > trace.size:
            raise ValueError(f"{schedule.shown}: has {trace.size} requests, {requests} are asked for")
        return trace[:requests].copy()
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=_STREAM))
    # Rounding may swap two times that differ in their last bit only.
    times: Times = np.maximum.accumulate(schedule.times(requests, generator))
    return times


def shards(times: Times, count: int) -> list[NDArray[np.int64]]:
    """Return the indices of the requests of each of `count` load processes, round robin: each once, in order.

    Raises ValueError for less than one process.
    """
    if count < 1:
        raise ValueError(f"{count} load processes: must be at least 1")
    return [np.arange(first, len(times), count, dtype=np.int64) for first in range(count)]


def read_trace(path: Path) -> Times:
    """Return the times of a trace in seconds, shifted so that the first is 0.

    CSV has a header with one column `timestamp` (seconds) or `timestamp_ms` (milliseconds). JSON lines are told by
    the brace they begin with and hold a `timestamp` in milliseconds, as in the traces of Mooncake (Qin et al.,
    FAST 2025). Other columns and keys, and empty lines, are passed over. Raises ValueError with the line and what is
    wrong with it.
    """
    try:
        text = _read_text(path)
        per_second, stamps = _of_json_lines(text) if text.lstrip().startswith("{") else _of_csv(text)
        times: list[float] = []
        for line, stamp in stamps:
            if times and stamp < times[-1]:
                raise ValueError(
                    f"line {line}: time {stamp:.17g} comes after {times[-1]:.17g}, times must not decrease"
                )
            times.append(stamp)
        if not times:
            raise ValueError("has no requests")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    times_s: Times = (np.array(times) - times[0]) / per_second
    return times_s


def _unit_poisson(requests: int, generator: np.random.Generator) -> Times:
    """Return the times of a Poisson process of rate 1."""
    return np.cumsum(generator.standard_exponential(requests))


def _read_text(path: Path) -> str:
    try:
        data = read_regular(path, MOST_TRACE_BYTES)
    except Unreadable as error:
        raise ValueError(error.problem) from None
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: not UTF-8") from None


def _of_csv(text: str) -> tuple[int, Iterator[tuple[int, float]]]:
    """Return the units of a CSV's times per second, and (line, time) of each row."""
    rows = _rows(text)
    first, header = next(rows, (1, []))
    columns = [(column, name.strip()) for column, name in enumerate(header) if name.strip() in _COLUMNS]
    if len(columns) != 1:
        raise ValueError(f"line {first}: needs one column named timestamp (seconds) or timestamp_ms (milliseconds)")
    column, name = columns[0]

    def stamps() -> Iterator[tuple[int, float]]:
        for line, row in rows:
            if len(row) <= column:
                raise ValueError(f"line {line}: has no {name}")
            yield line, _finite(row[column], line, name)

    return _COLUMNS[name], stamps()


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, cells) of the rows of a CSV that are not empty."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in rows:
            if row:
                yield rows.line_num, row
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: not CSV: {error}") from None


def _of_json_lines(text: str) -> tuple[int, Iterator[tuple[int, float]]]:
    """Return the units of the times per second, and (line, time) of each object."""

    def stamps() -> Iterator[tuple[int, float]]:
        for line, content in enumerate(text.split("\n"), start=1):
            if not content.strip():
                continue
            try:
                entry = orjson.loads(content)
            except orjson.JSONDecodeError as error:
                raise ValueError(f"line {line}: not JSON: {error.msg}") from None
            if not isinstance(entry, dict) or "timestamp" not in entry:
                raise ValueError(f"line {line}: has no timestamp")
            if isinstance(entry["timestamp"], bool) or not isinstance(entry["timestamp"], int | float):
                raise ValueError(f"line {line}: timestamp {entry['timestamp']!r} is not a number")
            yield line, _finite(entry["timestamp"], line, "timestamp")

    return 1000, stamps()


def _finite(value: str | float, line: int, name: str) -> float:
    try:
        stamp = float(value)
    except ValueError:
        stamp = math.nan
    if not math.isfinite(stamp):
        raise ValueError(f"line {line}: {name} {value!r} is not a number")
    return stamp
