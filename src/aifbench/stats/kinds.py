"""Why a statistic is not given."""

from __future__ import annotations

from aifbench.core.notes import Kind

TOO_FEW_FOR_QUANTILE = Kind(
    "too_few_for_quantile",
    "n = {n} does not support p{percent:g}, which needs {needed}",
    "A quantile is given only where ten observations lie beyond it.",
)
