"""Numbers as a reader sees them: a scale for the unit, and no more digits than the interval supports."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

THIN = "\u202f"
"""Separates groups of three digits, as ISO 80000-1 asks."""

_BYTES = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))
_SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "bytes": _BYTES,
    "B": _BYTES,
    "bytes/s": ((2.0**30, "GiB/s"), (2.0**20, "MiB/s"), (2.0**10, "KiB/s"), (1.0, "B/s")),
}
NOTHING = 1e-12
"""A half-width below this part of its value is rounding of equal repetitions, and reads 0."""
_BARE = {"1", "", "ratio", "fraction"}
"""Units of numbers that need no unit behind them."""


@dataclass(frozen=True)
class Scale:
    """A display unit: shown value = value / `factor`."""

    factor: float
    unit: str


def scale_for(values: Iterable[float | None], unit: str) -> Scale:
    """Return the display unit in which the median size of `values` lies at or above 1."""
    sizes = sorted(abs(value) for value in values if value)
    if unit not in _SCALES or not sizes:
        return Scale(1.0, "" if unit in _BARE else "B" if unit == "bytes" else unit)
    typical = sizes[(len(sizes) - 1) // 2]
    for factor, name in _SCALES[unit]:
        if typical >= factor:
            return Scale(factor, name)
    return Scale(*_SCALES[unit][-1])


def decimals_for(value: float, half: float | None) -> int:
    """Return the decimals (may be negative) for two digits of the half-width, or four of a value without one.

    Never fewer than two significant digits of the value, nor decimals beyond its sixth.
    """
    size = math.floor(math.log10(abs(value))) if value else 0
    if half is None:
        return 3 - size
    if half <= 0:
        return 3 - size if value else 0
    wanted = 1 - math.floor(math.log10(half))
    return min(max(wanted, 1 - size) if value else wanted, max(5 - size, 0))


def count(number: int, word: str, words: str | None = None) -> str:
    """Return `1 job`, `12 jobs`; `words` is the plural where it is not the word with an s."""
    return f"{fixed(number, 0)} {word if number == 1 else words or f'{word}s'}"


def fixed(value: float, decimals: int) -> str:
    """Return `value` rounded to `decimals` with grouped digits; negative decimals round left of the point."""
    rounded = round(value, decimals)
    text = f"{abs(rounded):,.{max(0, decimals)}f}".replace(",", THIN)
    return ("−" if rounded < 0 else "") + text


def plain(value: float, half: float | None, scale: Scale) -> str:
    """Return `14 200 ± 340 1/s`: value and half-width in the display unit, with equal decimals."""
    shown = value / scale.factor
    spread = None if half is None else 0.0 if half < NOTHING * abs(value) else half / scale.factor
    decimals = decimals_for(shown, spread)
    text = fixed(shown, decimals)
    if spread is not None:
        text += f" ± {_spread(spread, decimals)}"
    return f"{text} {scale.unit}" if scale.unit else text


def _spread(half: float, decimals: int) -> str:
    if half == 0:
        return "0"
    return fixed(half, decimals) if round(half, decimals) else f"<{10.0**-decimals:g}"


def number(value: float, half: float | None, unit: str) -> str:
    """Return `plain` in the display unit that fits this one value."""
    return plain(value, half, scale_for([value], unit))


def factor(ratio: float, low: float, high: float) -> str:
    """Return `12.1× (11.4–12.8)`, or `at least 11×` when nothing bounds the ratio from above."""
    if math.isinf(high):
        return f"at least {low:.2g}×"
    decimals = decimals_for(ratio, max((high - low) / 2, 1e-12))
    decimals = max(min(decimals, 2 if ratio < 10 else 1 if ratio < 100 else 0), 0)
    return f"{fixed(ratio, decimals)}× ({fixed(low, decimals)}–{fixed(high, decimals)})"
