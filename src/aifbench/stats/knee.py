"""The knee of a throughput over load: where more load stops to bring what it brought before. "None" is an answer.

A line that bends once is fitted to the logarithms of throughput and load, and compared with a line that does not. In
logarithms a slope is what a doubling of the load brings (1: twice the throughput, 0: nothing), whatever the units; a
server that is full from load k on bends from slope 1 to 0 at k; and a throughput that grows more slowly than the load,
but evenly (a power law), is one line and has no knee. A soft bend is put where the best bent line has it. Kneedle, the
usual other way, finds the point farthest from the chord: each curve has one, so it cannot say "none".

The knee's interval comes from a parametric bootstrap over repetitions: each load's mean logarithm is drawn again from
Student's t around it, as wide as its repetitions say. Plain resampling of three to five repetitions is too narrow.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_LOADS, LEAST_REPETITIONS = 4, 3
DRAWS = 2000
STEPS = 24
"""Places at which a bend is tried between two neighbouring loads."""
CONFIDENCE = 0.95
LESS = 0.5
"""Beyond a knee a doubling of the load brings less than this part of what it brought before."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Knee:
    """A knee with its interval, or None and the reason.

    `load`, `low`, `high` are in the unit of the loads; `before` and `after` are the slopes of the two lines.
    """

    load: float | None
    low: float | None = None
    high: float | None = None
    before: float | None = None
    after: float | None = None
    reason: str | None = None


def knee(curve: Mapping[float, Sequence[float]], seed: int = 0) -> Knee:
    """Return the knee of `curve`: throughputs of the repetitions by load, both above 0."""
    loads = sorted(curve)
    few = _too_few(curve)
    if few is not None:
        return Knee(None, reason=few)
    u = np.log(np.array(loads))
    logs = [np.log(np.array(curve[load], dtype=np.float64)) for load in loads]
    means = np.array([values.mean() for values in logs])[:, None]
    fits = _Fits(u, np.array([values.size for values in logs], dtype=np.float64))
    generator = np.random.default_rng(seed)
    line, _ = fits.line(means)
    noise = _noise(logs, generator)
    tail = (1 - CONFIDENCE) / 2
    by_chance = np.mean(fits.gained(line + _noise(logs, generator)) >= fits.gained(means))
    places, before, after = fits.bent(means + noise)
    less = np.mean((before > 0) & (after < LESS * before))
    if by_chance > 1 - CONFIDENCE or less < 1 - tail:
        if np.quantile(fits.line(means + noise)[1], tail) <= 0:
            return Knee(None, reason="throughput is not shown to rise with the load")
        if by_chance > 1 - CONFIDENCE:
            return Knee(None, reason="one even line describes throughput as well as one that bends")
        why = "throughput bends, but more load is not shown to bring less than half as much beyond the bend"
        return Knee(None, reason=why)
    (at,), (first,), (second,) = fits.bent(means)
    low, high = (float(bound) for bound in np.quantile(places, [tail, 1 - tail]))
    low, high = fits.widened(min(low, at), max(high, at))
    if low <= u[0] and high >= u[-1]:
        return Knee(None, reason="throughput bends, but the loads do not tell where")
    return Knee(float(np.exp(at)), float(np.exp(low)), float(np.exp(high)), float(first), float(second))


def _too_few(curve: Mapping[float, Sequence[float]]) -> str | None:
    if len(curve) < LEAST_LOADS:
        return f"{len(curve)} load{'' if len(curve) == 1 else 's'} cannot tell, {LEAST_LOADS} are needed"
    least = min(len(values) for values in curve.values())
    if least < LEAST_REPETITIONS:
        return f"{least} repetition{'' if least == 1 else 's'} cannot tell, {LEAST_REPETITIONS} at each load are needed"
    if min(curve) <= 0 or min(min(values) for values in curve.values()) <= 0:
        return "loads and throughputs must be above 0"
    return None


def _noise(logs: Sequence[_Floats], generator: np.random.Generator) -> _Floats:
    """Return `DRAWS` deviations (columns) of the mean of each load: Student's t, scaled by its standard error."""
    return np.stack(
        [values.std(ddof=1) / np.sqrt(values.size) * generator.standard_t(values.size - 1, DRAWS) for values in logs]
    )


class _Fits:
    """Weighted least-squares fits of lines to values at places `u`; many columns of values at once."""

    def __init__(self, u: _Floats, weights: _Floats) -> None:
        self.u = u
        self._root = np.sqrt(weights)[:, None]
        inner = u[1:-1]
        steps = [np.linspace(a, b, STEPS, endpoint=False) for a, b in itertools.pairwise(inner)]
        self.places: _Floats = np.concatenate([*steps, inner[-1:]])
        one = np.ones_like(u)
        self._line, self._line_rest = self._solver(np.stack([one, u], axis=1))
        bent = [self._solver(np.stack([one, u, np.maximum(u - place, 0)], axis=1)) for place in self.places]
        self._bent, self._bent_rest = (np.stack(matrices) for matrices in zip(*bent, strict=True))

    def line(self, values: _Floats) -> tuple[_Floats, _Floats]:
        """Return (values of the line at each place, its slope)."""
        level, slope = self._line @ (self._root * values)
        return np.asarray(level + slope * self.u[:, None]), np.asarray(slope)

    def bent(self, values: _Floats) -> tuple[_Floats, _Floats, _Floats]:
        """Return (place of the bend, slope before it, slope after it) of the best bent line of each column."""
        best = np.argmin(self._squares(values), axis=0)
        solved = np.einsum("kij,jk->ki", self._bent[best], self._root * values)
        return self.places[best], solved[:, 1], solved[:, 1] + solved[:, 2]

    def gained(self, values: _Floats) -> _Floats:
        """Return by how much the best bent line lowers the sum of squares of one line."""
        line = ((self._line_rest @ (self._root * values)) ** 2).sum(axis=0)
        return np.asarray(line - self._squares(values).min(axis=0))

    def widened(self, low: float, high: float) -> tuple[float, float]:
        """Return bounds wider by a step of the places; at the first and last place they reach to the outer loads.

        For a bend before the second load, or after the last but one, fits as well as one at that load.
        """
        below, above = np.searchsorted(self.places, low, "left"), np.searchsorted(self.places, high, "right") - 1
        return (
            float(self.places[below - 1] if below else self.u[0]),
            float(self.places[above + 1] if above + 1 < self.places.size else self.u[-1]),
        )

    def _solver(self, design: _Floats) -> tuple[_Floats, _Floats]:
        """Return the matrices that make the coefficients, and what is left, of weighted values."""
        weighted = self._root * design
        inverse = np.linalg.pinv(weighted)
        return np.asarray(inverse), np.asarray(np.eye(self.u.size) - weighted @ inverse)

    def _squares(self, values: _Floats) -> _Floats:
        """Return the sums of squares that a bend at each place (rows) leaves of each column."""
        return np.asarray(((self._bent_rest @ (self._root * values)) ** 2).sum(axis=1))
