"""Say how many cases are valid; fail unless all planned cases are and no file is damaged.

By hand: python workflow/scripts/gate.py results/laptop
"""

import sys
from argparse import ArgumentParser
from pathlib import Path

from aifbench.campaign.script import options
from aifbench.files.written import atomic_write
from aifbench.tables.collect import collect
from aifbench.tables.gate import passed, summary_line

parser = ArgumentParser(description=__doc__)
parser.add_argument("results", type=Path, help="results folder of a campaign")
parser.add_argument("--out", type=Path, help="file to write when all is valid")

with options(parser, globals().get("snakemake")) as given:
    tables = collect(given.results)
    line = summary_line(tables, given.results)
    print(line)
    if not passed(tables):
        sys.exit(1)
    if given.out:
        atomic_write(Path(given.out), f"{line}\n".encode())
