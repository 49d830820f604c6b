# What the rules share: the campaign, paths and input functions. No rules here.
from pathlib import Path
from shlex import quote

from aifbench.campaign.workflow import load_campaign, offer_interpreter
from aifbench.records.collect import SCHEMAS as TABLES
from aifbench.report import FIGURES

# Rules call `python -m aifbench`.
offer_interpreter()

CONFIG_FILES = [Path(file) for file in workflow.configfiles] or [
    Path("config/config.yaml")
]
OVERRIDES = dict(workflow.config_settings.config)
# Jobs on other nodes read this file again: only the main process checks the machine and writes specs that changed.
PLAN = load_campaign(CONFIG_FILES, OVERRIDES, main=workflow.is_main_process)

RESULTS = PLAN.config.results.as_posix()
PLAN_JSON = f"{RESULTS}/plan.json"
SPEC = f"{RESULTS}/specs/{{batch}}.json"
DONE = f"{RESULTS}/batches/{{batch}}/done.json"
LOG = f"{RESULTS}/logs/{{batch}}.log"
CASES = f"{RESULTS}/cases.csv"
REPORT = f"{RESULTS}/report/index.html"
GATE = f"{RESULTS}/gate.txt"


def get_config_arguments():
    """The options that make `aifbench plan` read the same campaign."""
    files = [f"--config {quote(str(file))}" for file in CONFIG_FILES]
    settings = [f"--set {quote(f'{key}={value}')}" for key, value in OVERRIDES.items()]
    return " ".join([*files, *settings])


def get_minutes(wildcards, attempt):
    """Expected run time with a wide margin."""
    return max(10, round(3 * attempt * PLAN.batches[wildcards.batch].expected_s / 60))


def get_done_batches(wildcards):
    return [DONE.format(batch=batch) for batch in PLAN.batches]
