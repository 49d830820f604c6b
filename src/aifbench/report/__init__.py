"""The report: tables in, one self-contained page and a fixed set of figures out."""

from aifbench.report.figures import figure_files
from aifbench.report.page import ReportResult, build

__all__ = ["ReportResult", "build", "figure_files"]
