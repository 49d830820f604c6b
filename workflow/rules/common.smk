# What the rules share: the campaign, paths and input functions. No rules here.
from pathlib import Path

from aifbench.core.paths import operand
from aifbench.campaign.resources import job_resources, service_resources
from aifbench.campaign.workflow import (
    Specs,
    as_setting,
    end_timers,
    offer_interpreter,
    read_campaign,
    report_what_is_there,
    tell_verdict,
)
from aifbench.provision.models import record_file
from aifbench.tables.collect import SCHEMAS as TABLES
from aifbench.report import figure_files

# Rules call `python -m aifbench`.
offer_interpreter()

CONFIG_FILES = [Path(file) for file in workflow.configfiles] or [
    Path("config/config.yaml")
]
OVERRIDES = dict(workflow.config_settings.config)
# Jobs on other nodes read this file again: only the main process checks the machine.
PLAN = read_campaign(CONFIG_FILES, OVERRIDES, main=workflow.is_main_process)
SPECS = Specs(PLAN, workflow)

SYSTEM = PLAN.config.system
# Names hold whatever a file system allows: patterns are joined, never formatted, and commands quote (`:q`).
RESULTS = operand(PLAN.config.results)
IMAGES = operand(SYSTEM.paths.images)
MODELS = operand(SYSTEM.paths.models)
PLAN_JSON = f"{RESULTS}/plan.json"
DONE = f"{RESULTS}/batches/{{batch}}/done.json"
LOG = f"{RESULTS}/logs/{{batch}}.log"
CASES = f"{RESULTS}/cases.csv"
REPORT = f"{RESULTS}/report/index.html"
GATE = f"{RESULTS}/gate.txt"
IMAGE = f"{IMAGES}/{{image}}.sif"
MODEL = f"{MODELS}/{{model}}.json"


def get_config_arguments(wildcards):
    """The options that make `aifbench plan` read the same campaign."""
    files = [f"--config={file}" for file in CONFIG_FILES]
    settings = [f"--set={as_setting(*item)}" for item in OVERRIDES.items()]
    return [*files, *settings]


def get_config_files(wildcards):
    return [str(file) for file in PLAN.config.files]


def get_spec(wildcards):
    return SPECS.file(wildcards.batch)


def get_image(name):
    return f"{IMAGES}/{name}.sif"


def get_job(name):
    """One field of what the job of a batch asks for; None leaves it out."""

    def get(wildcards, attempt):
        return getattr(
            job_resources(PLAN.batches[wildcards.batch], SYSTEM, attempt), name
        )

    return get


# Measurements do not share a machine: a batch takes all cores that its job, or the workflow, has.
def get_cores(wildcards, attempt):
    return get_job("cores")(wildcards, attempt) or workflow.cores or 1


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
    source = [f"--gguf={engine.gguf}"] if engine.gguf else []
    return [engine.model, *source]


def get_needs(wildcards):
    """Images and models that a batch needs before it starts."""
    needs = PLAN.needs(wildcards.batch)
    models = [
        f"{MODELS}/{record_file(SYSTEM.paths.models, engine.model).name}"
        for engine in needs.models
    ]
    return [*map(get_image, needs.images), *models]


def get_done_batches(wildcards):
    return [f"{RESULTS}/batches/{batch}/done.json" for batch in PLAN.batches]
