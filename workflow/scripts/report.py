"""Make report/index.html and report/figures from the tables.

By hand: python workflow/scripts/report.py results/laptop
"""

from argparse import ArgumentParser
from pathlib import Path

from aifbench.campaign.script import options
from aifbench.report import build

parser = ArgumentParser(description=__doc__)
parser.add_argument("results", type=Path, help="results folder of a campaign")

with options(parser, globals().get("snakemake")) as given:
    print(build(given.results, given.results).path)
