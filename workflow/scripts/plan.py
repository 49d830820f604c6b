"""Make plan.json and plan.md from a campaign; starts nothing.

By hand: python workflow/scripts/plan.py config/config.yaml
"""

from argparse import ArgumentParser
from datetime import datetime
from pathlib import Path

from aifbench.campaign.config import read_config
from aifbench.campaign.plan import check, make_plan, markdown, write_plan
from aifbench.campaign.script import options

parser = ArgumentParser(description=__doc__)
parser.add_argument("config", nargs="+", type=Path, help="campaign file; later ones are laid over earlier ones")
parser.set_defaults(overrides={})

with options(parser, globals().get("snakemake")) as given:
    plan = make_plan(read_config(given.config, given.overrides))
    check(plan, machine=False)
    write_plan(plan, plan.config.results, specs=False)
    print(markdown(plan, datetime.now().astimezone()), end="")
