"""Make tables/*.parquet and cases.csv from the records of all batches, as far as there are any.

By hand: python workflow/scripts/collect.py results/laptop
"""

from argparse import ArgumentParser
from pathlib import Path

from aifbench.campaign.script import options
from aifbench.tables.collect import make_tables

parser = ArgumentParser(description=__doc__)
parser.add_argument("results", type=Path, help="results folder of a campaign")

with options(parser, globals().get("snakemake")) as given:
    print(*make_tables(given.results).told(), sep="\n")
