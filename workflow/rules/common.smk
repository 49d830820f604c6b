# What the rules share: the campaign, paths and input functions. No rules here.
from pathlib import Path
from shlex import quote

from aifbench.campaign.resources import job_resources, service_resources
from aifbench.campaign.workflow import (
    as_setting,
    end_timers,
    load_campaign,
    offer_interpreter,
)
from aifbench.engines.ollama_models import record_file
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

SYSTEM = PLAN.config.system
RESULTS = PLAN.config.results.as_posix()
PLAN_JSON = f"{RESULTS}/plan.json"
SPEC = f"{RESULTS}/specs/{{batch}}.json"
DONE = f"{RESULTS}/batches/{{batch}}/done.json"
LOG = f"{RESULTS}/logs/{{batch}}.log"
CASES = f"{RESULTS}/cases.csv"
REPORT = f"{RESULTS}/report/index.html"
GATE = f"{RESULTS}/gate.txt"
IMAGE = f"{SYSTEM.paths.images.as_posix()}/{{image}}.sif"
MODEL = f"{SYSTEM.paths.models.as_posix()}/{{model}}.json"
# Measurements do not share a machine: a batch takes all cores that the workflow, or its node, has.
CORES = SYSTEM.node.cores if SYSTEM.slurm else workflow.cores or 1


def get_config_arguments():
    """The options that make `aifbench plan` read the same campaign."""
    files = [f"--config {quote(str(file))}" for file in CONFIG_FILES]
    settings = [f"--set {quote(as_setting(*item))}" for item in OVERRIDES.items()]
    return " ".join([*files, *settings])


def get_job(name):
    """One field of what the job of a batch asks for; None leaves it out."""

    def get(wildcards, attempt):
        return getattr(
            job_resources(PLAN.batches[wildcards.batch], SYSTEM, attempt), name
        )

    return get


def get_service(name):
    """The same for a job that makes an image or fetches a model."""
    return lambda wildcards: getattr(service_resources(SYSTEM), name)


def get_model_arguments(wildcards):
    """Name of a model, and the file that it is imported from where it is not pulled."""
    models = (model for batch in PLAN.batches for model in PLAN.needs(batch).models)
    engine = next(
        engine
        for engine in models
        if record_file(SYSTEM.paths.models, engine.model).stem == wildcards.model
    )
    source = f" --gguf {quote(engine.gguf)}" if engine.gguf else ""
    return f"{quote(engine.model)}{source}"


def get_needs(wildcards):
    """Images and models that a batch needs before it starts."""
    needs = PLAN.needs(wildcards.batch)
    models = [
        str(record_file(SYSTEM.paths.models, engine.model)) for engine in needs.models
    ]
    return [*(IMAGE.format(image=image) for image in needs.images), *models]


def get_done_batches(wildcards):
    return [DONE.format(batch=batch) for batch in PLAN.batches]
