"""The report: tables in, one self-contained page and a fixed set of figures out."""

from aifbench.report.figures import FIGURES, figures
from aifbench.report.page import ReportResult, build

__all__ = ["FIGURES", "ReportResult", "build", "figures"]
